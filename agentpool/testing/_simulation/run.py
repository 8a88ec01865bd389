"""One run of a scenario on a virtual clock, in an order chosen by a seed."""

from __future__ import annotations

import ctypes
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, Generic, TypeVar, cast, final

import attrs
import trio

from agentpool._agent import tool_calls
from agentpool._checks import expect
from agentpool._errors import UsageError, leaves
from agentpool._scheduling.random import run_seed
from agentpool.testing._simulation.clock import THREAD_PATIENCE_SECONDS, JumpingClock, Stage, Wait
from agentpool.testing._simulation.findings import HangError, LeakError
from agentpool.testing._simulation.operation import Operation, open_operations
from agentpool.testing._simulation.orders import Order
from agentpool.testing._simulation.outside import Outside, outside_wait
from agentpool.testing._simulation.places import place_of, text_of
from agentpool.testing._simulation.quiescent import pool_leaks
from agentpool.testing._simulation.schedule import ordered
from agentpool.testing._simulation.watch import LAST_STEPS, Evicted, Watch, describe, evict, who

T = TypeVar("T")

WAY_OUT_STEPS: Final = 10_000
"""How many task steps a scenario that hangs gets for its end before the run is aborted."""

FAREWELL_STEPS: Final = 3
"""How many steps a task gets for its own end after the scenario has ended, for example to close a
generator."""


@final
@attrs.frozen
class Cut:
    """A cancellation made by the kit."""

    step: int
    """How many steps had been taken before."""
    tasks: frozenset[int]
    """The numbers of the cancelled tasks."""


@final
@attrs.define(eq=False, kw_only=True)
class ScenarioRun(Stage, Generic[T]):
    """One run of a scenario."""

    _async_fn: Callable[[], Awaitable[T]] = attrs.field(alias="async_fn")
    _seed: int = attrs.field(alias="seed")
    _order: Order = attrs.field(alias="order")
    _max_steps: int = attrs.field(alias="max_steps")
    _keep: int = attrs.field(default=LAST_STEPS, alias="keep")
    _before_step: Callable[[trio.lowlevel.Task], None] | None = None
    _may_raise: tuple[type[Exception], ...] = ()
    scope: trio.CancelScope = attrs.field(init=False, factory=trio.CancelScope)
    """The cancel scope around the scenario."""
    inside: bool = attrs.field(init=False, default=False)
    """Whether the current steps belong to the scenario, and do not come before or after it."""
    operations: list[Operation] = attrs.field(init=False, factory=list[Operation])
    """The open operations."""
    watch: Watch = attrs.field(init=False)
    result: T | None = attrs.field(init=False, default=None)
    """What the scenario returned, or ``None`` if it was cancelled."""
    cut: Cut | None = attrs.field(init=False, default=None)
    """What the kit cancelled, if anything."""
    likely_hangs: list[str] = attrs.field(init=False, factory=list[str])
    """Tools that timed out while nothing else happened."""
    _clock: JumpingClock = attrs.field(init=False)
    _hang: HangError | None = attrs.field(init=False, default=None)
    _last_step: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Make the clock and the watch."""
        self.watch = Watch(self._note_step, self._keep)
        self._clock = JumpingClock(self)
        self._last_step = self._max_steps

    def run(self) -> None:
        """Run the scenario to its end.

        Raises:
            HangError: If the scenario does not end.
            LeakError: If the scenario leaves something behind.
            Exception: What the scenario raised.
        """
        try:
            self._run()
        except Exception as error:
            for hang in self.likely_hangs:
                error.add_note(hang)
            raise

    def _run(self) -> None:
        error: BaseException | None = None
        with ordered(self._order, self.watch.tasks):
            try:
                trio.run(self._main, clock=self._clock, instruments=[self.watch, self._clock])
            except BaseException as raised:  # noqa: ASYNC103, BLE001  # raised again below
                error = raised
        if self._clock.gave_up:
            for task in self.watch.tasks:
                _keep_for_ever(task.coro)
        if self._hang is not None:
            raise self._hang from (None if _is_eviction(error) else error)
        if error is not None:
            raise error
        if self.watch.error is not None:
            raise self.watch.error

    async def _main(self) -> None:
        self.watch.begin()
        run_seed.set(self._seed)
        open_operations.set(self.operations)
        self.inside = True
        # So that the scenario begins with a step of its own. The tasks of trio itself have
        # begun to wait by then.
        await trio.lowlevel.checkpoint()
        self._clock.note_start()
        try:
            with self.scope:
                self.result = await _begun(self._async_fn)
        except Exception as error:
            if not all(isinstance(leaf, self._may_raise) for leaf in leaves(error)):
                raise
            # What is left behind it is looked for all the same.
            self.result = None
        finally:
            self.inside = False
            self.watch.over = True
        with trio.CancelScope(shield=True):  # noqa: ASYNC912  # the scenario has its own
            for _ in range(FAREWELL_STEPS):
                await trio.lowlevel.checkpoint()
        self._check_left()

    def _check_left(self) -> None:
        leaks = [f"task {describe(task)} goes on" for task in self.watch.others()]
        for agents, handles in self.watch.pools.items():
            found = pool_leaks(agents, handles.values(), closed=True)
            leaks += [f"pool {agents.name!r}: {leak}" for leak in found]
        if leaks:
            raise LeakError("the scenario ended and left something behind", leaks)

    def _note_step(self, task: trio.lowlevel.Task) -> None:
        if self.watch.steps > self._last_step:
            if self._hang is None:
                self._found(f"the scenario took {self._max_steps:,} task steps and did not end")
            else:
                self._clock.give_up()
        if self._before_step is not None:
            self._before_step(task)

    def _found(self, text: str) -> None:
        waiting = [describe(task) for task in self.watch.tasks]
        self._hang = HangError(text, waiting, self.last_steps())
        self._last_step = self.watch.steps + WAY_OUT_STEPS
        self.watch.over = True
        self.scope.cancel()

    def last_steps(self) -> list[str]:
        """Return the last steps of the run, oldest first, one line each."""
        watch = self.watch
        return [
            f"{watch.names[number]} went on from {text_of(place)}"
            for number, place in list(watch.last)[-LAST_STEPS:]
        ]

    # --- the stage

    @property
    def is_over(self) -> bool:
        """Whether no task of the scenario is left."""
        return not self.watch.tasks

    @property
    def steps(self) -> int:
        """How many steps the scenario's tasks have taken."""
        return self.watch.steps

    def outside_waits(self) -> dict[Wait, Outside]:
        """Return every wait for something that is not part of the run."""
        found: Iterator[tuple[int, Outside | None]] = (
            (number, outside_wait(task)) for task, number in self.watch.tasks.items()
        )
        return {(nr, self.watch.last_step(nr)): kind for nr, kind in found if kind is not None}

    def end_hang(self) -> None:
        """Cancel all tasks, then force those that ignore the cancellation to end."""
        if self._hang is not None:
            evict(self.watch.tasks)
            return
        text = "nothing can happen any more: no task can run and no deadline is left"
        if kinds := set(self.outside_waits().values()):
            what = " and a ".join(sorted(kinds))
            text += (
                f"; a {what} for which a task waits has not ended, while this process did nothing "
                "for "
                f"{THREAD_PATIENCE_SECONDS:g} real seconds"
            )
        self._found(text)

    def late_seconds(self, deadline: float) -> float:
        """Ask the order how late to be, after a check for tools that have timed out."""
        passed = deadline - self._clock.current_time()
        for task in self.watch.tasks if self.watch.pools else ():
            for frame, _ in task.iter_await_frames():
                # The tool is its own: what ends here is the time of exactly this call.
                if frame.f_code is not _TOOL_CALL:
                    continue
                scope: trio.CancelScope | None = frame.f_locals["scope"]
                if scope is not None and scope.deadline == deadline:
                    name = frame.f_locals["call"].name
                    self.likely_hangs.append(
                        f"a likely hang: {who(task)} waited in its tool {name!r}, at "
                        f"{text_of(place_of(task))}, until its time was up; for {passed:g} seconds "
                        "nothing else happened"
                    )
        return self._order.late_seconds()


_TOOL_CALL: Final = tool_calls._run_call.__code__  # pyright: ignore[reportPrivateUsage]  # it has no public name
assert {"scope", "call"} <= set(_TOOL_CALL.co_varnames)  # noqa: S101  # or a run would stand still


def refuse_inside_trio() -> None:
    """Raise if the caller is inside a trio run.

    Raises:
        UsageError: If the caller is inside one.
    """
    try:
        trio.lowlevel.current_root_task()
    except RuntimeError:
        return
    raise UsageError("the testing kit starts trio by itself; call it from a function without async")


def _keep_for_ever(coro: object) -> None:
    """Keep a reference to a coroutine that nothing can end.

    When Python deletes such a coroutine, at the latest when the process ends, it raises an
    exception in the coroutine. A coroutine that catches everything would then look forever for a
    trio run that is gone.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(coro))


def _is_eviction(error: BaseException | None) -> bool:
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return all(_is_eviction(one) for one in group.exceptions)
    return error is None or isinstance(error, Evicted | trio.Cancelled)


def _begun(async_fn: Callable[[], Awaitable[T]]) -> Awaitable[T]:
    """Call *async_fn* and return the awaitable.

    Raises:
        UsageError: If *async_fn* did not return an awaitable, as a function without ``async`` does
            not.
    """
    returned = async_fn()
    expect(
        returned, Awaitable, "the scenario must be an async function, or return an awaitable",
        "write async def",
    )  # fmt: skip
    return returned
