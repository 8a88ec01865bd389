"""The faults that were found from outside, put back one at a time.

``python -m tests.mutation.faults`` breaks a copy of the package in the way in which each of them
was broken, runs the test that was written for it, and prints which of them is red. It exits with
1 if one is green. ``nox -s mutants`` does it before the sample.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import attrs

from tests.mutation.mutate import ROOT, copy_package, pytest


@attrs.frozen
class Fault:
    """What was wrong, and how to have it again."""

    row: str
    """Its number, as in the names of its tests."""
    what: str
    room: str
    line: str
    """What stands there; once."""
    broken: str
    """What stood there, or does the same."""
    tests: str
    """Where the tests are."""
    chosen: str
    """Which of them, as ``-k`` takes it."""


FAULTS: Final = (
    Fault(
        "D1", "a full inbox wakes too few senders", "_messaging/inbox.py",
        "            self._handed = 0\n",
        "            if self._handed:\n"
        "                self._handed = 0\n"
        "                return taken\n",
        "tests/messaging/test_many_senders.py", "d01",
    ),
    Fault(
        "D2", "and they look like a deadlock", "_messaging/inbox.py",
        "            self._handed = 0\n",
        "            if self._handed:\n"
        "                self._handed = 0\n"
        "                return taken\n",
        "tests/messaging/test_many_senders.py", "d02",
    ),
    Fault(
        "D3", "a map's wait ends by itself", "_pool/map.py",
        'wait = Wait.any_of(group.keys(), "the next outcome of a map", self._may_be_fed)',
        'wait = Wait.other("the next outcome of a map")',
        "tests/pool/test_every_wait.py", "d03 and _by_map",
    ),
    Fault(
        "D4", "nobody sees that the owner waits for a message", "_messaging/inbox.py",
        "parked(Wait.message(), self._readers, pool_owner)",
        "parked(Wait.message(), self._readers)",
        "tests/pool/test_every_wait.py", "d04 and receive_many",
    ),
    Fault(
        "D5", "each wait has all agents looked at", "_pool/deadlock.py",
        "        if first is not None and self._seems_to_close(first):\n",
        "        for _ in self._running:\n            pass\n"
        "        if first is not None and self._seems_to_close(first):\n",
        "tests/pool/test_every_wait.py", "d05 and costs",
    ),
    Fault(
        "D6", "a map that was left starts an agent", "_pool/admission.py",
        "                await trio.lowlevel.checkpoint_if_cancelled()\n"
        "                return accept()",
        "                return accept()",
        "tests/pool/test_late_spawns.py", "d06",
    ),
    Fault(
        "D7", "observers are told within a batch", "_pool/nursery.py",
        "        with self.hub:\n            return [self.accept(config, driver)",
        "        if True:\n            return [self.accept(config, driver)",
        "tests/pool/test_acting_observers.py", "d07",
    ),
    Fault(
        "D8", "an observer closes the pool within a batch", "_pool/nursery.py",
        "        with self.hub:\n            return [self.accept(config, driver)",
        "        if True:\n            return [self.accept(config, driver)",
        "tests/pool/test_acting_observers.py", "d08",
    ),
    Fault(
        "D9", "observers are told before the fan-in", "_pool/nursery.py",
        "        with self.hub:\n            handle.end(outcome)",
        "        if True:\n            handle.end(outcome)",
        "tests/pool/test_acting_observers.py", "d09",
    ),
    Fault(
        "D10", "an event is told within the telling of another", "observe/_hub.py",
        "        # What observers cause in their callback is told when all have heard of this.\n"
        "        self._deciding += 1\n        try:",
        "        self._deciding += 1\n        try:\n            self._deciding -= 1",
        "tests/pool/test_acting_observers.py", "d10",
    ),
    Fault(
        "D11", "a pool that has ended takes a map", "_pool/pool.py",
        "        agents.check_open()\n        parent =",
        "        parent =",
        "tests/pool/test_late_spawns.py", "d11",
    ),
    Fault(
        "D12", "the pool knows its own agents alone", "_pool/fan_in.py",
        "return self.handles.get(agent_id) or self.owned.get(agent_id)",
        "return self.handles.get(agent_id)",
        "tests/pool/test_kept_outcomes.py", "d12",
    ),
    Fault(
        "D13", "one error of two agents is the first one's", "_errors/pool.py",
        "left = iter(self.by_agent.items())",
        "left = tuple(self.by_agent.items())",
        "tests/test_errors.py", "d13",
    ),
    Fault(
        "D14", "a pool that was closed takes children", "_pool/nursery.py",
        "        self.check_open()\n        parent = parent or",
        "        parent = parent or",
        "tests/pool/test_late_spawns.py", "d14",
    ),
    Fault(
        "D15", "what ends the program waits for a slot", "_scheduling/slot.py",
        "slot.task is None or ends_the_program(error):",
        "slot.task is None:",
        "tests/pool/test_late_spawns.py", "d15",
    ),
    Fault(
        "D16", "a child without time is a fault of the code", "_pool/agent_context.py",
        "if seconds_left <= 0:",
        "if seconds_left is None:",
        "tests/pool/test_late_spawns.py", "d16",
    ),
    Fault(
        "D17", "a reply to whoever gave up is lost", "_messaging/post_office.py",
        "question.has_waited = True",
        "question.has_waited = False",
        "tests/messaging/test_inner_cancel.py", "d17",
    ),
    Fault(
        "D18", "one task of several is watched", "_pool/deadlock.py",
        "        for task in workers:\n",
        "        for task in workers[:1]:\n",
        "tests/pool/test_every_wait.py", "d18",
    ),
    Fault(
        "A5", "what failed is not asked again", "_pool/map.py",
        "query.tries < self._retries",
        "query.tries < 0",
        "tests/pool/test_retries.py", "a05",
    ),
    Fault(
        "A8", "no outcome is forgotten", "_pool/fan_in.py",
        "            self._drop(self._given_out.popleft())",
        "            self._given_out.popleft()",
        "tests/pool/test_kept_outcomes.py", "a08",
    ),
    Fault(
        "A11", "children outlive their parent", "_pool/nursery.py",
        'self.cancel_agent(child, f"agent {handle.agent_id}", "its parent has ended")',
        "pass",
        "tests/pool/test_families.py", "a11",
    ),
    Fault(
        "M5", "children multiply the requests", "_agent/agent.py",
        "requests=left_requests,",
        "requests=10**9,",
        "tests/pool/test_families.py", "m05",
    ),
    Fault(
        "B3", "a malformed tool costs its server", "tools/mcp/_incoming.py",
        "if fault := _fault_of(known):",
        'if (fault := _fault_of(known)) == "none":',
        "tests/tools/mcp/test_servers.py", "b03",
    ),
)  # fmt: skip


def is_red(fault: Fault, folder: Path) -> bool:
    """Return whether the fault's tests fail when it is there again."""
    env = copy_package(folder)
    room = folder / "agentpool" / fault.room
    room.write_text(room.read_text().replace(fault.line, fault.broken))
    command = pytest("-m", "pytest", "-x", fault.tests, "-k", fault.chosen)
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, timeout=300, check=False
        )
    except subprocess.TimeoutExpired:
        return True  # it hangs, as it did
    return done.returncode == 1  # 5 would be: there is no such test


def main() -> None:
    """Put each back, and print whether its test is red."""
    green = 0
    with tempfile.TemporaryDirectory() as name:
        for fault in FAULTS:
            red = is_red(fault, Path(name))
            green += not red
            word = "red" if red else "GREEN"
            print(f"{fault.row:4} {word:6} {fault.what} ({fault.tests} -k {fault.chosen!r})", flush=True)  # noqa: E501, T201  # fmt: skip
    sys.exit(green > 0)


if __name__ == "__main__":
    main()
