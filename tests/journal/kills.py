"""Kills a process at random moments and goes on, with a real file, as often as is asked for.

``python -m tests.journal.kills 500`` kills 500 times and prints what was repeated. Children are
forked from a process that has everything loaded, so that one kill takes some hundredths of a
second. What agents ask and what tools do is counted outside of them, a line each.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import attrs
import trio

from agentpool import AgentManifest, SpawnConfig, open_pool
from agentpool.abc import CompletionRequest
from agentpool.drivers import FunctionDriver, ToolMessage, UserMessage, call
from agentpool.drivers._scripted import Answer
from agentpool.journal import open_journal
from agentpool.tools import ToolRegistry, tool

AGENTS = 3
CALLS = 4
"""Of each agent, one after the other."""

MANIFEST = AgentManifest(capabilities=())


@attrs.frozen
class Tally:
    """What came of the kills."""

    kills: int
    """Processes that were killed before they were done."""
    runs: int
    """Pools that came to their end."""
    requests: int
    """Requests that a model was asked."""
    answers: int
    """Requests that were needed."""
    unknown: int
    """Calls that were not made a second time, as it was not known whether they had been made."""


def note(file: Path, line: str) -> None:
    """Add *line* to *file*: whole, whoever else writes and whatever comes after."""
    fd = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, f"{line}\n".encode())
    os.close(fd)


def lines(file: Path) -> list[str]:
    """Return the lines that were added to *file*."""
    return file.read_text(encoding="utf-8").split("\n")[:-1] if file.exists() else []


async def work(folder: Path) -> None:
    """Run the agents, or go on with them, and write down what they say."""

    async def answer(request: CompletionRequest) -> Answer:
        first = request.messages[0]
        assert isinstance(first, UserMessage)
        results = sum(isinstance(one, ToolMessage) for one in request.messages)
        note(folder / "requests", f"{first.text} {results}")
        await trio.sleep(0.001)
        return call("act", who=first.text, step=results) if results < CALLS else "done"

    @tool
    async def act(who: str, step: int) -> str:
        """Do something that must not be done twice."""
        note(folder / "deeds", f"{who} {step}")
        await trio.sleep(0.001)
        return f"did {step}"

    async with (
        open_journal(folder / "j.db") as journal,
        open_pool(
            FunctionDriver(answer), tools=ToolRegistry([act]), journal=journal, resume=True
        ) as pool,
    ):
        for number in range(AGENTS):
            await pool.spawn(SpawnConfig(MANIFEST, f"agent {number}", key=str(number)))
        outcomes = await pool.join_all()
    # At once: a process may be killed between two lines.
    said = (f"{x.agent_id} {x.status.value} {x.text} {x.tool_calls}" for x in outcomes.values())
    note(folder / "said", "\n".join(said))


def run_in_child(folder: Path, seconds: float | None) -> bool:
    """Run in another process. Return whether it came to its end before it was killed.

    Args:
        folder: Where everything is.
        seconds: After which it is killed. ``None``: it is not.
    """
    pid = os.fork()
    if not pid:
        code = 1
        try:
            trio.run(work, folder)
            code = 0
        finally:
            os._exit(code)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return not os.WIFSIGNALED(status)


def kill_often(kills: int, seed: int) -> Tally:
    """Kill that often, in as many runs as it takes, and check each of them."""
    dice = random.Random(seed)  # noqa: S311  # no secret
    done = runs = requests = unknown = 0
    with tempfile.TemporaryDirectory() as name:
        began = time.monotonic()
        assert run_in_child(Path(name), None)
        longest = time.monotonic() - began
    while done < kills:
        with tempfile.TemporaryDirectory() as name:
            folder, here = Path(name), 0
            while done < kills and not run_in_child(folder, dice.uniform(0, 1.2 * longest)):
                done += 1
                here += 1
            if not lines(folder / "said"):
                assert run_in_child(folder, None)
            runs += 1
            asked = Counter(lines(folder / "requests"))
            deeds = Counter(lines(folder / "deeds"))
            assert lines(folder / "said")[:AGENTS] == [
                f"{number + 1} completed done {CALLS}" for number in range(AGENTS)
            ]
            assert len(asked) == AGENTS * (CALLS + 1)
            # At most the one of each agent that was under way.
            assert asked.total() <= len(asked) + here * AGENTS
            assert set(deeds.values()) <= {1}
            requests += asked.total()
            unknown += AGENTS * CALLS - len(deeds)
    return Tally(done, runs, requests, runs * AGENTS * (CALLS + 1), unknown)


if __name__ == "__main__":
    sys.stdout.write(f"{kill_often(int(sys.argv[1]), seed=17)}\n")
