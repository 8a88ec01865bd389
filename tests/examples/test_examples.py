"""The programs in ``examples/``: what they print, their exit codes, and a service for real."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.util
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import httpx
import pytest
import trio

from agentpool import (
    AgentManifest,
    AgentOutcome,
    AgentPoolError,
    Capability,
    DriverError,
    ModelConfig,
    PoolClosedError,
    PoolPlan,
    PoolStatistics,
    SpawnConfig,
    UserMessage,
    open_pool,
)
from agentpool.abc import Completion, CompletionRequest, Driver, Observer
from agentpool.drivers import FunctionDriver, ScriptedDriver, call
from agentpool.observe import Event, PoolInfo

T = TypeVar("T")

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name: str) -> ModuleType:
    """Return the program *name*, loaded as whoever copies it would load it."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where the types of its classes are looked up
    spec.loader.exec_module(module)
    return module


def asked(request: CompletionRequest, place: int = 0) -> str:
    """Return one of the questions of the conversation."""
    message = request.messages[place]
    assert isinstance(message, UserMessage)
    return message.text


# --- the reviewer


GRAVE = '{"findings": [{"line": 3, "severity": "high", "text": "never closed"}]}'
SMALL = '{"findings": [{"line": 1, "severity": "low", "text": "a slow loop"}]}'


def review(tmp_path: Path, answers: dict[str, str], *words: str) -> int:
    """Review a folder with one file for each answer."""
    for name in answers:
        (tmp_path / name).write_text(f"print({name!r})")

    def answer(request: CompletionRequest) -> str:
        first = asked(request)
        return next(text for name, text in answers.items() if first.startswith(name))

    return int(load("review_repository").main([str(tmp_path), *words], FunctionDriver(answer)))


@pytest.mark.parametrize(
    ("answers", "code", "last"),
    [
        ({"a.py": '{"findings": []}'}, 0, ""),
        ({"a.py": SMALL}, 0, "a.py:1: low: a slow loop"),
        ({"a.py": SMALL, "b.py": GRAVE}, 1, "b.py:3: high: never closed"),
        ({"a.py": GRAVE, "b.py": "It is fine."}, 2, "b.py: not reviewed"),
    ],
)
def test_a_review_fails_the_job_when_it_must(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    answers: dict[str, str],
    code: int,
    last: str,
) -> None:
    """Also when a file could not be reviewed: what was not read is not fine."""
    assert review(tmp_path, answers) == code
    said = capsys.readouterr()
    assert last in (said.out.splitlines() or [""])[-1]
    assert f"{len(answers)} of {len(answers)}: " in said.err


def test_a_review_says_what_is_wrong_with_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line."""
    assert review(tmp_path, {}) == 2
    assert "no file in" in capsys.readouterr().err
    assert review(tmp_path, {"a.py": ""}, "--tokens", "0") == 2
    assert "error: " in capsys.readouterr().err


def test_a_review_leaves_out_what_is_hidden(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An environment in the folder has thousands of files."""
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "x.py").write_text("1")
    assert review(tmp_path, {"a.py": SMALL}) == 0
    assert "the packaged model reads 1 files" in capsys.readouterr().err


# --- the team


def test_the_tests_of_the_team_pass() -> None:
    """In their own folder, as the file says."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("--noconftest", "test_research_team.py"),
        ],
        cwd=EXAMPLES, env={**os.environ, "NO_COLOR": "1", "PYTHONPATH": str(EXAMPLES)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "3 passed" in done.stdout, done.stdout


def test_the_team_says_so_when_it_has_no_answer(capsys: pytest.CaptureFixture[str]) -> None:
    """With the reason, and an exit code."""

    def answer(request: CompletionRequest) -> Completion | str:
        if "You lead" in request.system:
            raise ConnectionError("the line is dead")
        return call("wait_for_message")

    team = load("research_team")
    assert team.main(["How?"], FunctionDriver(answer)) == 1
    assert "no answer: the line is dead" in capsys.readouterr().out
    assert team.main(["How?"], FunctionDriver(lambda _: "So.")) == 0
    assert capsys.readouterr().out == "So.\n"


# --- the rows


def test_every_row_has_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the order of the file, whatever becomes of it."""
    path = tmp_path / "mails.csv"
    path.write_text('id,text\n1,"How, then?"\n2,\n3,It is broken\n')

    def answer(request: CompletionRequest) -> str:
        first = asked(request)
        kind = {"How, then?": "question", "It is broken": "complaint"}.get(first)
        return json.dumps({"kind": kind})

    rows, out = load("classify_csv"), io.StringIO()
    assert rows.main([str(path)], FunctionDriver(answer), out) == 1
    lines = out.getvalue().splitlines()
    assert lines[:2] == ["row,kind,fault", "1,question,"]
    assert lines[2].startswith("2,,")
    assert lines[3] == "3,complaint,"
    assert capsys.readouterr().err == "1 without a class, 1 complaint, 1 question\n"
    assert rows.main([str(path), "--column", "body"], FunctionDriver(answer), out) == 2
    assert "there is no column 'body'" in capsys.readouterr().err


# --- the service


def host(request: CompletionRequest) -> Completion | str:
    """Answer by what was asked before."""
    first, last = asked(request), asked(request, -1)
    if last == "break":
        raise ConnectionError("the model is out of order")
    return f"{first} and {last}"


@contextlib.asynccontextmanager
async def served(driver: FunctionDriver) -> AsyncGenerator[httpx.AsyncClient]:
    """Serve on a free port of this machine."""
    async with trio.open_nursery() as nursery:
        (url,) = await nursery.start(load("web_service").serve, 0, driver)
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            yield client
        nursery.cancel_scope.cancel()


def events_of(text: str) -> list[tuple[str, Any]]:
    """Return kinds and data of server-sent events."""
    parts = [part.split("\n") for part in text.strip().split("\n\n")]
    return [(kind.removeprefix("event: "), json.loads(data[6:])) for kind, data in parts]


async def test_a_service_streams_and_remembers() -> None:
    """Each session its own conversation."""
    async with served(FunctionDriver(host)) as client:
        for session, query, text in (
            ("ada", "one", "one and one"),
            ("ada", "two", "one and two"),
            ("bob", "two", "two and two"),
        ):
            answer = await client.post("/ask", json={"session": session, "query": query})
            events = events_of(answer.text)
            assert "".join(data["text"] for kind, data in events if kind == "text") == text
            assert events[-1] == ("done", {"text": text})
        failed = await client.post("/ask", json={"query": "break"})
        assert events_of(failed.text)[-1][1]["error"] == "the model is out of order"
        assert (await client.get("/health")).json() == {"running": 0, "queued": 0}


@pytest.mark.parametrize(
    ("body", "says"),
    [(b"{", "Expecting"), (b"[]", "the body must be"), (b'{"query": " "}', "must not be empty"),
     (b"x" * 70_000, "at most 65,536 bytes")],
)  # fmt: skip
async def test_a_service_refuses_what_it_cannot_ask(body: bytes, says: str) -> None:
    """With what is wrong."""
    async with served(FunctionDriver(host)) as client:
        answer = await client.post("/ask", content=body)
        assert answer.status_code == 400
        assert says in answer.json()["error"]
        assert (await client.get("/nowhere")).status_code == 404


async def test_a_client_that_goes_away_ends_its_agent() -> None:
    """Nobody pays for what nobody reads."""
    asked, ended = trio.Event(), trio.Event()

    async def think(_: CompletionRequest) -> str:
        asked.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()
        raise AssertionError  # pragma: no cover

    async with served(FunctionDriver(think)) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: client.post("/ask", json={"query": "one"}))
            await asked.wait()
            nursery.cancel_scope.cancel()
        await ended.wait()


# --- the service on asyncio


def on_asyncio(work: Callable[[ModuleType, Any], Awaitable[T]], driver: FunctionDriver) -> T:
    """Do *work* in a program on asyncio, with its application while that is open."""

    async def main() -> T:
        program = load("asyncio_service")
        app = program.make_app(driver)
        async with app.router.lifespan_context(app):
            return await work(program, app)

    async def soon() -> T:
        return await asyncio.wait_for(main(), timeout=60)

    return asyncio.run(soon())


def test_a_service_on_asyncio_answers_with_one_pool() -> None:
    """Several clients at once, each with its own answer, and what is wrong with a question."""

    async def work(_: ModuleType, app: Any) -> list[tuple[int, str]]:  # noqa: ANN401  # an application
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            bodies = [b'{"query": "one"}', b'{"query": "break"}', b"{", b'{"query": " "}', b"[]"]
            answers = await asyncio.gather(*(client.post("/ask", content=body) for body in bodies))
            return [(one.status_code, one.text) for one in answers]

    one, broken, *refused = on_asyncio(work, FunctionDriver(host))
    assert one == (200, "one and one")
    assert broken == (200, "\n[the model is out of order]\n")
    assert [code for code, _ in refused] == [400, 400, 400]
    assert "must not be empty" in refused[1][1]


def test_a_client_of_the_service_on_asyncio_that_goes_away_ends_its_agent() -> None:
    """Nobody pays for what nobody reads."""
    asked, ended = threading.Event(), threading.Event()

    async def think(_: CompletionRequest) -> str:
        asked.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()
        raise AssertionError  # pragma: no cover

    async def work(program: ModuleType, app: Any) -> None:  # noqa: ANN401  # an application
        pieces = app.state.pool.stream(SpawnConfig(program.HOST, "one"))
        reading = asyncio.ensure_future(anext(pieces))
        assert await asyncio.to_thread(asked.wait, 30)
        reading.cancel()
        assert await asyncio.to_thread(ended.wait, 30)

    on_asyncio(work, FunctionDriver(think))


def test_a_pool_that_closes_ends_what_is_read_on_asyncio(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing waits for a pool that is gone."""
    asked = threading.Event()

    async def think(_: CompletionRequest) -> str:
        asked.set()
        await trio.sleep_forever()
        raise AssertionError  # pragma: no cover

    async def main() -> str:
        program = load("asyncio_service")
        monkeypatch.setattr(program, "GRACE_SECONDS", 0)
        plan = PoolPlan(manifests=(program.HOST,), driver=FunctionDriver(think))
        async with program.open_pool_thread(plan) as pool:
            pieces = pool.stream(SpawnConfig(program.HOST, "one"))
            reading = asyncio.ensure_future(anext(pieces))
            assert await asyncio.to_thread(asked.wait, 30)
        with pytest.raises(AgentPoolError) as caught:
            await reading
        return str(caught.value)

    assert "was cancelled" in asyncio.run(main())


def test_a_pool_that_cannot_be_opened_is_said_on_asyncio(tmp_path: Path) -> None:
    """The service does not start, with the reason."""
    program = load("asyncio_service")
    lost = AgentManifest(name="lost", model=ModelConfig(model_path=str(tmp_path / "no.gguf")))
    plan = PoolPlan(manifests=(lost,))

    async def main() -> None:
        async with program.open_pool_thread(plan):
            raise AssertionError  # pragma: no cover

    with pytest.raises(AgentPoolError, match=r"no\.gguf|needs llama\.cpp"):
        asyncio.run(asyncio.wait_for(main(), timeout=60))


class Gate(Observer):
    """Holds up the opening of a pool, in its thread, until it is let go."""

    def __init__(self) -> None:
        """Hold it up."""
        self.reached, self.let_go = threading.Event(), threading.Event()

    def wait(self) -> None:
        """Wait until another thread says to go on."""
        self.reached.set()
        assert self.let_go.wait(30)

    def on_open(self, pool: PoolInfo) -> None:  # noqa: ARG002  # what it is called with
        """Wait."""
        self.wait()

    def on_event(self, event: Event) -> None:
        """Do nothing."""


async def cancelled_while_it_opens(plan: PoolPlan, gate: Gate) -> None:
    """Open a pool in a thread, cancel that in the middle, and wait for its end."""
    program = load("asyncio_service")

    async def use() -> None:
        async with program.open_pool_thread(plan):
            raise AssertionError  # pragma: no cover

    using = asyncio.ensure_future(use())
    assert await asyncio.to_thread(gate.reached.wait, 30)
    using.cancel()
    await asyncio.sleep(0)  # the cancellation is on its way when the opening goes on
    gate.let_go.set()
    ended, _ = await asyncio.wait({using}, timeout=30)
    assert ended == {using}, "it waits for ever"
    assert using.cancelled()


def on_asyncio_without_a_word(work: Coroutine[object, object, None]) -> None:
    """Run *work*; nothing may be told to the loop's handler of what went wrong unseen."""

    async def main() -> None:
        unseen: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, told: unseen.append(told))
        await work
        gc.collect()
        await asyncio.sleep(0)
        assert unseen == []

    asyncio.run(main())


def test_a_bridge_to_asyncio_that_is_cancelled_while_it_opens_ends() -> None:
    """As by ``asyncio.timeout`` around it, or by Ctrl-C."""
    gate = Gate()
    host = load("asyncio_service").HOST
    plan = PoolPlan(manifests=(host,), driver=ScriptedDriver([]), observers=(gate,))
    on_asyncio_without_a_word(cancelled_while_it_opens(plan, gate))


def test_a_cancelled_bridge_to_asyncio_ends_if_the_opening_fails() -> None:
    """It fails after it was cancelled; nothing is left, not even a complaint."""
    gate = Gate()

    def choose(_: AgentManifest) -> Driver:
        gate.wait()
        raise DriverError("the model is gone")

    spawning = AgentManifest(name="host", capabilities=(Capability.spawn(1),))
    plan = PoolPlan(manifests=(spawning,), driver=choose)
    on_asyncio_without_a_word(cancelled_while_it_opens(plan, gate))


def test_a_stream_on_asyncio_after_the_end_says_that_the_pool_has_closed() -> None:
    """Also while the pool closes, when its nursery takes nothing more."""
    gate = Gate()

    class Slow(Observer):
        """Holds up the closing of a pool."""

        def on_event(self, event: Event) -> None: ...

        def on_close(self, statistics: PoolStatistics) -> None:  # noqa: ARG002  # the same
            gate.wait()

    async def main() -> None:
        program = load("asyncio_service")
        config = SpawnConfig(program.HOST, "one")
        driver = ScriptedDriver(["one"])
        plan = PoolPlan(manifests=(program.HOST,), driver=driver, observers=(Slow(),))

        async def ask_late(pool: Any) -> None:  # noqa: ANN401  # of a program
            assert await asyncio.to_thread(gate.reached.wait, 30)
            reading = asyncio.ensure_future(anext(pool.stream(config)))
            await asyncio.sleep(0)  # it has asked
            gate.let_go.set()
            with pytest.raises(PoolClosedError, match="the pool has closed"):
                await reading

        async with program.open_pool_thread(plan) as pool:
            assert [piece async for piece in pool.stream(config)] == ["one"]
            late = asyncio.ensure_future(ask_late(pool))
        await late
        with pytest.raises(PoolClosedError, match="the pool has closed"):
            await anext(pool.stream(config))

    asyncio.run(asyncio.wait_for(main(), timeout=60))


def test_the_bridge_to_asyncio_takes_what_opens_and_gives_what_ends() -> None:
    """A pool that a function opens, an agent that a function makes, and the outcome."""

    async def main() -> None:
        program = load("asyncio_service")
        outcomes: list[AgentOutcome] = []

        def make(query: str) -> SpawnConfig:
            return SpawnConfig(program.HOST, {"one": "1"}[query])

        async with program.open_pool_thread(lambda: open_pool(ScriptedDriver(["first"]))) as pool:
            pieces = pool.stream(lambda: make("one"), outcomes.append)
            assert [piece async for piece in pieces] == ["first"]
            with pytest.raises(KeyError, match="two"):
                await anext(pool.stream(lambda: make("two"), outcomes.append))
            with pytest.raises(AgentPoolError, match="one more"):
                await anext(pool.stream(lambda: make("one"), outcomes.append))
        assert [one.text for one in outcomes] == ["first", ""]

    asyncio.run(asyncio.wait_for(main(), timeout=60))


def test_the_page_about_asyncio_has_the_bridge_of_the_example() -> None:
    """Both are run; they are one text."""
    program = (EXAMPLES / "asyncio_service.py").read_text()
    bridge = program[program.index("class PoolThread:") : program.index("\n\n# --- the service")]
    page = EXAMPLES.parent / "docs" / "how-to" / "use-it-beside-asyncio.md"
    assert bridge.rstrip() in page.read_text()
