"""``--approve later``: questions are kept, the rest is done, and answers are given another day."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from agentpool import AgentManifest, Capability, SpawnConfig, open_pool, wait_until_asking
from agentpool.abc import CompletionRequest
from agentpool.drivers import Completion, FunctionDriver, UserMessage, call
from agentpool.testing import simulate
from agentpool.tools import TEAM_TOOLS, ApprovalRequest, Approved, ToolRegistry, tool
from tests.support.cli_runner import Desk, make_desk

WRITER = """
name = "writer"
[model]
system_prompt = "You write."
[[capabilities]]
type = "file_write"
allowed_paths = ["."]
ask_first = true
"""

SCRIPT = """
[[answers]]
when = "write it"
tool = "file_write"
arguments = { path = "a.txt", content = "one" }
[[answers]]
when = "Wrote"
text = "It is written."
[[answers]]
when = "not approved"
text = "So I leave it."
[[answers]]
when = "You edit."
text = "All of it is fine."
[[answers]]
text = "A note."
"""

MAP = (
    "map", "writer.toml", "--each", "1.md", "2.md", "3.md", "--reduce", "editor.toml",
    "--journal", "j.db", "--approve", "later", "--driver", "script:script.toml",
)  # fmt: skip


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    """Return a folder with an agent that writes files, and the command line in it."""
    desk = make_desk(tmp_path, capsys, monkeypatch)
    desk.write(writer_toml=WRITER, script_toml=SCRIPT)
    desk.write(**{"1_md": "write it", "2_md": "two", "3_md": "three"})
    return desk


def test_others_go_on_and_the_answer_comes_later(desk: Desk) -> None:
    """The question costs no other agent; the same command goes on with the answer."""
    done = desk.call(*MAP, "--max-concurrent", "1")
    assert done.code == 4
    assert done.out == (
        "## 1.md (waiting)\n\n## 2.md\n\nA note.\n\n## 3.md\n\nA note.\n\n## editor (waiting)\n\n"
    )
    assert (
        "] calls wait for approval: agentpool approve j.db lists them and takes answers; "
        "then run this command again\nagentpool: 2 completed, 2 waiting"
    ) in done.err
    assert not (desk.folder / "a.txt").exists()
    (question,) = desk.call("approve", "j.db", "--json").lines
    assert question["tool"] == "file_write"
    # Nobody has answered: the question stands, and nothing is asked of a model.
    again = desk.call(*MAP[:-1], "script:none.toml", "--quiet")
    assert again.code == 2
    desk.write(none_toml='[[answers]]\nerror = "asked"')
    again = desk.call(*MAP[:-1], "script:none.toml", "--quiet")
    assert (again.code, again.out, again.err) == (4, done.out, "")
    assert desk.call("approve", "j.db", question["question"], "yes").code == 0
    done = desk.call(*MAP)
    assert done.code == 0
    assert done.out == desk.call("runs", "resume", "j.db").out
    assert done.out.startswith("## 1.md\n\nIt is written.\n\n## 2.md\n\nA note.\n\n")
    assert done.out.endswith("## editor\n\nAll of it is fine.\n\n")
    assert (desk.folder / "a.txt").read_text() == "one"
    assert desk.call("approve", "j.db").out == "no questions\n"


def test_a_no_is_told_to_the_model(desk: Desk) -> None:
    """In one run with lines of JSON, which say who waits."""
    words = (
        "run", "writer.toml", "write it", "--journal", "j.db", "--json",
        "--approve", "later", "--driver", "script:script.toml",
    )  # fmt: skip
    done = desk.call(*words)
    assert done.code == 4
    outcome, summary = done.lines
    assert (outcome["status"], summary["waiting"], summary["cancelled"]) == ("waiting", 1, 0)
    (question,) = desk.call("approve", "j.db", "--json").lines
    assert desk.call("approve", "j.db", question["question"], "no", "--reason", "no").code == 0
    done = desk.call(*words)
    assert (done.code, done.lines[0]["text"]) == (0, "So I leave it.")
    assert not (desk.folder / "a.txt").exists()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("run", "q"), "--approve later keeps questions in a journal; add --journal FILE"),
        (
            ("chat", "--session", "s"),
            "a chat cannot leave calls for later; use --approve later with run or map",
        ),
    ],
)
def test_what_has_no_meaning_is_refused(desk: Desk, words: tuple[str, ...], why: str) -> None:
    """In one line, before anything runs."""
    done = desk.call(*words, "--approve", "later")
    assert done.code == 2
    assert why in done.err
    assert not (desk.folder / "j.db").exists()


# --- in Python

PARENT = AgentManifest(capabilities=(Capability.spawn(3),))


@tool(needs_approval=True)
def pay() -> str:
    """Pay."""
    return "paid"


@tool
async def look() -> str:
    """Take some time."""
    await trio.sleep(5)
    return "seen"


def answer(request: CompletionRequest) -> str | Completion:
    """Call the tool that the query names, then be done."""
    if len(request.messages) > 2:
        return "done"
    query = request.messages[-1]
    assert isinstance(query, UserMessage)
    text = query.text
    return call("spawn_agent", query="pay") if text == "delegate" else call(text)


def test_a_team_asks_when_nobody_can_go_on() -> None:
    """A child asks, its parent waits for it, another works for a while: then, and not before."""

    async def scenario() -> tuple[float, int, list[str]]:
        questions: list[ApprovalRequest] = []
        word = trio.Event()

        async def approve(request: ApprovalRequest) -> Approved:
            questions.append(request)
            await word.wait()
            return Approved()

        tools = ToolRegistry([pay, look, *TEAM_TOOLS])
        async with open_pool(FunctionDriver(answer), tools=tools, approve=approve) as pool:
            for query in ("delegate", "look"):
                await pool.spawn(SpawnConfig(PARENT, query))
            await wait_until_asking(pool)
            asked_at = trio.current_time()
            await wait_until_asking(pool)
            word.set()
            outcomes = await pool.join_all()
        return asked_at, len(questions), [one.text for one in outcomes.values()]

    begin = simulate(current_time)
    asked_at, *rest = simulate(scenario)
    assert (asked_at - begin, *rest) == (5.0, 1, ["done", "done"])


async def current_time() -> float:
    """Return when simulations begin."""
    await trio.lowlevel.checkpoint()
    return trio.current_time()


def test_a_closed_pool_asks_nothing() -> None:
    """Who waits for it goes on."""

    async def scenario() -> None:
        driver = FunctionDriver(lambda _: "done")
        async with trio.open_nursery() as nursery, open_pool(driver) as pool:
            nursery.start_soon(wait_until_asking, pool)  # noqa: ASYNC111  # it ends before the pool closes
            await (await pool.spawn(SpawnConfig(AgentManifest(), "q"))).wait()

    simulate(scenario)
