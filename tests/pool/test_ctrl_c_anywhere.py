"""Ctrl-C at any line of the package: the program ends at once, and each agent has an outcome."""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from pathlib import Path
from random import Random
from types import FrameType
from typing import Final

import pytest
import trio
from trio.testing import MockClock

import agentpool
from agentpool import (
    AgentPool,
    Budget,
    PrivacyTier,
    SpawnConfig,
    Usage,
    UsageError,
    open_pool,
)
from agentpool.abc import Driver, Event, Observer, OnDelta
from agentpool.drivers import (
    Completion,
    CompletionRequest,
    FallbackDriver,
    FunctionDriver,
    call,
    say,
)
from agentpool.testing import EventLog
from agentpool.tools import ApprovalRequest, Approved, ToolRegistry, tool
from tests.support.ctrl_c_scenes import SCENES, Scene, limits
from tests.support.fakes import job, manifest, query_of, results_of

HOME: Final = str(Path(agentpool.__file__).parent)
PRESSES: Final = 20
"""How often each scene is interrupted, at as many places of it. More are swept by hand."""
PAYING: Final = ("_agent/request.py", "_agent/spending.py", "_budget/reservation.py")
"""The modules that pay for requests."""
PROMPT_SECONDS: Final = 10.0
"""What a tool raises comes when its other tasks have ended, and these may wait for a slot first."""


class Press:
    """Presses Ctrl-C at one line of the package, and counts the lines before."""

    def __init__(self, at: int, clock: MockClock) -> None:
        """Press at the line with that number, from 1. 0: never."""
        self.lines, self.at, self.clock, self.pressed_at = 0, at, clock, 0.0

    def enter(self, frame: FrameType, _: str, __: object) -> object:
        """Follow the calls of the package."""
        return self.line if frame.f_code.co_filename.startswith(HOME) else None

    def line(self, _: FrameType, event: str, __: object) -> object:
        """Press at the line."""
        if event == "line":
            self.lines += 1
            if self.lines == self.at:
                sys.settrace(None)
                self.pressed_at = self.clock.current_time()
                signal.raise_signal(signal.SIGINT)
        return self.line


@pytest.fixture
def same_order(monkeypatch: pytest.MonkeyPatch) -> Generator[Callable[[], None]]:
    """Let tasks run in the same order each time; return what begins it again."""
    run = trio._core._run  # it offers no other way
    monkeypatch.setattr(run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
    monkeypatch.setattr(run, "_r", Random(0))  # noqa: S311  # an order, no secret
    tracing = sys.gettrace()
    yield lambda: run._r.seed(7)
    sys.settrace(tracing)
    gc.collect()  # what was never awaited is told now, and not in the next test


def run_scene(
    scene: Scene, at: int, *, watched: bool
) -> tuple[Press, list[AgentPool], BaseException | None, float]:
    """Run *scene*, and press at its line *at*; return its pools, its error, and its end."""
    pools: list[AgentPool] = []
    clock = MockClock(autojump_threshold=0)
    press = Press(at, clock)
    observers: list[Observer] = [EventLog()] if watched else []
    error: BaseException | None = None
    sys.settrace(press.enter)  # type: ignore[arg-type]  # it returns what it may
    try:
        trio.run(scene, pools, observers, clock=clock)
    except BaseException as raised:  # noqa: ASYNC103, BLE001  # looked at by the test
        error = raised
    finally:
        sys.settrace(None)
    return press, pools, error, clock.current_time()


def is_ctrl_c(error: BaseException | None) -> bool:
    """Return whether *error* is the one of Ctrl-C, or has it."""
    if isinstance(error, BaseExceptionGroup):
        return any(map(is_ctrl_c, error.exceptions))
    return isinstance(error, KeyboardInterrupt)


def lost(pool: AgentPool) -> list[int]:
    """Return the agents that have no outcome."""
    left: list[int] = []
    for agent_id in range(1, pool.statistics().spawned + 1):
        try:
            is_left = pool[agent_id].outcome is None
        except UsageError as error:
            is_left = "has ended and is no longer kept" not in str(error)
        left += [agent_id] * is_left
    return left


# In code where Ctrl-C may come, it may come after a coroutine was made and before it is awaited, or
# before the end of a block that is left. Python then complains, of what nobody can mend.
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("watched", [False, True], ids=["alone", "watched"])
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_wherever_it_comes_the_program_ends_whole(
    scene: Scene, same_order: Callable[[], None], *, watched: bool
) -> None:
    """It is raised, at once, and no agent is left running, queued or without an outcome."""
    same_order()
    run_scene(scene, 0, watched=watched)  # what is made on first use counts once
    same_order()
    unpressed, _, error, _ = run_scene(scene, 0, watched=watched)
    assert error is None
    step = unpressed.lines // PRESSES
    for at in range(1 + step // 2, unpressed.lines, step):
        same_order()
        press, pools, error, ended_at = run_scene(scene, at, watched=watched)
        assert is_ctrl_c(error), at
        assert ended_at - press.pressed_at <= PROMPT_SECONDS, at
        for pool in pools:
            numbers = pool.statistics()
            assert (numbers.running, numbers.queued, lost(pool)) == (0, 0, []), at


class Lines(Press):
    """Notes each line of the modules that pay for requests, and when it came first."""

    def __init__(self, clock: MockClock) -> None:
        """Note nothing yet."""
        super().__init__(0, clock)
        self.first: dict[tuple[str, int], int] = {}

    def line(self, frame: FrameType, event: str, argument: object) -> object:
        """Note the line."""
        super().line(frame, event, argument)
        place = frame.f_code.co_filename, frame.f_lineno
        if event == "line" and place[0].endswith(PAYING):
            self.first.setdefault(place, self.lines)
        return self.line


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_at_each_line_that_pays_for_a_request_it_is_raised(
    same_order: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also between an answer and its payment, and in what counts a failed one."""
    notes: list[Lines] = []

    def noting(_: int, clock: MockClock) -> Press:
        notes.append(Lines(clock))
        return notes[-1]

    with monkeypatch.context() as patched:
        patched.setattr(sys.modules[__name__], "Press", noting)
        for _ in range(2):  # what is made on first use counts once
            same_order()
            run_scene(limits, 0, watched=False)
    assert len(notes[-1].first) > len(PAYING) * 10
    for place, at in notes[-1].first.items():
        same_order()
        _, (pool,), error, _ = run_scene(limits, at, watched=False)
        assert is_ctrl_c(error), place
        numbers = pool.statistics()
        assert (numbers.running, numbers.queued, lost(pool)) == (0, 0, []), place
        # What stays reserved, another pool with the same budget waits for.
        assert numbers.budget is not None
        assert (numbers.budget.requests.reserved, numbers.budget.tokens.reserved) == (0, 0), place


class Odd(Driver):
    """A user's driver whose method is no coroutine function, and which knows its price."""

    context_window = 8192
    privacy = PrivacyTier.SOVEREIGN

    def __init__(self, press: Callable[[], object], way: str) -> None:
        """Press in one of the two."""
        self.press, self.way = press, way

    def price(self, _: Usage, *, model: str | None = None) -> float | None:  # noqa: ARG002
        """Return a price, perhaps after a while."""
        if self.way == "price":
            self.press()
        return 0.0

    def highest_price(self, _: Usage, *, model: str | None = None) -> float | None:  # noqa: ARG002
        """Return it, perhaps after a while."""
        if self.way == "highest price":
            self.press()
        return 0.0

    def complete(  # type: ignore[override]  # as users write it
        self,
        _: CompletionRequest,
        *,
        on_delta: OnDelta | None = None,  # noqa: ARG002
    ) -> Awaitable[Completion]:
        """Begin at once, and answer later."""
        if self.way == "begin":
            self.press()
        return self.answer()

    async def answer(self) -> Completion:
        """Answer."""
        await trio.lowlevel.checkpoint()
        return say("ok", usage=Usage(1, 1))


@pytest.mark.parametrize(
    ("way", "is_paid"),
    [("price", False), ("price", True), ("begin", False), ("begin", True), ("highest price", True)],
)
@pytest.mark.parametrize("tells", [False, True])
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_a_users_driver_is_interrupted_where_it_is(way: str, *, is_paid: bool, tells: bool) -> None:
    """Also under a budget, and in what it does before it returns anything to wait for."""
    press, pools = Pressing(), list[AgentPool]()

    async def run() -> None:
        odd = Odd(press.now, way)
        driver = FallbackDriver(odd, FunctionDriver(lambda _: "no")) if tells else odd
        budget = Budget(requests=9) if is_paid else None
        async with open_pool(driver, budget=budget) as pool:
            pools.append(pool)
            await (await pool.spawn(job("q"))).wait()

    with pytest.RaisesGroup(KeyboardInterrupt, flatten_subgroups=True, allow_unwrapped=True):
        trio.run(run)
    assert press.raised == 1
    numbers = pools[0].statistics()
    assert (numbers.running, numbers.queued, lost(pools[0])) == (0, 0, [])
    assert numbers.budget is None or numbers.budget.requests.reserved == 0


class Pressing:
    """Foreign code in which Ctrl-C is pressed."""

    def __init__(self) -> None:
        """Nothing has been raised yet."""
        self.raised = 0

    def now(self) -> str:
        """Press once, and see that it is raised here."""
        if self.raised:
            return "q"
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            self.raised += 1
            raise
        return "not raised here"

    def driver(self, way: str) -> FunctionDriver:
        """Return a driver that calls a tool; for ``driver`` it presses."""

        def answer(request: CompletionRequest) -> Completion:
            if way == "driver":
                self.now()
            if query_of(request) == "q" or results_of(request):
                return say("ok")
            return call("act")

        return FunctionDriver(answer, record=False)

    def tools(self, way: str) -> ToolRegistry:
        """Return a tool; for ``tool`` it presses, for ``approver`` it needs approval."""

        @tool(needs_approval=way == "approver")
        def act() -> str:
            """Act."""
            if way == "tool":
                self.now()
            return "done"

        return ToolRegistry([act])

    def observer(self, way: str) -> Observer:
        """Return an observer; for ``observer`` it presses."""
        press = self.now if way == "observer" else str

        class Watch(Observer):
            def on_event(self, _: Event) -> None:
                press()

        return Watch()


async def use(press: Pressing, pools: list[AgentPool], way: str) -> None:
    """Run foreign code of all kinds; that of *way* presses."""

    async def sources() -> AsyncGenerator[str]:  # noqa: ASYNC124, ASYNC900  # a source
        yield "q"
        press.now()

    def approve(_: ApprovalRequest) -> Approved:
        press.now()
        return Approved()

    async with open_pool(
        press.driver(way), tools=press.tools(way), observers=[press.observer(way)], approve=approve
    ) as pool:
        pools.append(pool)
        handle = await pool.spawn(SpawnConfig(manifest(), "act"))
        if way == "configs":
            await pool.fan_out(job(press.now()) for _ in range(2))
        if way == "source":
            async with pool.map(manifest(), (press.now() for _ in range(2))) as outcomes:
                _ = [outcome async for outcome in outcomes]
        if way == "async source":
            async with pool.map(manifest(), sources()) as outcomes:
                _ = [outcome async for outcome in outcomes]
        await handle.wait()
        if way == "block":
            press.now()


@pytest.mark.parametrize(
    "way",
    ["driver", "tool", "approver", "observer", "configs", "source", "async source", "block"],
)
def test_foreign_code_is_interrupted_where_it_is(way: str) -> None:
    """Whoever hangs in a tool or an observer is not kept there, and the pool ends whole."""
    press = Pressing()
    pools: list[AgentPool] = []
    with pytest.RaisesGroup(KeyboardInterrupt, flatten_subgroups=True, allow_unwrapped=True):
        trio.run(use, press, pools, way)
    assert press.raised == 1
    numbers = pools[0].statistics()
    assert (numbers.running, numbers.queued, lost(pools[0])) == (0, 0, [])
