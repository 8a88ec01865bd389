"""One run of a scenario, on a clock that jumps, in an order chosen by a seed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar, cast, final

import attrs
import trio

from agentpool._errors import UsageError
from agentpool._scheduling.random import run_seed
from agentpool.testing._clock import JumpingClock, Stage
from agentpool.testing._findings import HangError, LeakError
from agentpool.testing._quiescent import pool_leaks
from agentpool.testing._schedule import seeded
from agentpool.testing._watch import Evicted, Watch, describe, evict

T = TypeVar("T")

LAST_STEPS: Final = 10_000
"""Task steps in which a scenario that hangs may end, before the run is broken off."""

FAREWELL_STEPS: Final = 3
"""Steps that a task gets to end after the scenario did, such as the end of a generator."""


@final
@attrs.define(eq=False)
class ScenarioRun(Stage, Generic[T]):
    """One run."""

    _async_fn: Callable[[], Awaitable[T]]
    _seed: int
    _max_steps: int
    _before_step: Callable[[trio.lowlevel.Task], None] | None = None
    _may_raise: tuple[type[Exception], ...] = ()
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    """Around the scenario."""
    inside: bool = attrs.field(init=False, default=False)
    """Whether the scenario's own steps are taken: not those before and after it."""
    watch: Watch = attrs.field(init=False)
    result: T | None = attrs.field(init=False, default=None)
    """What the scenario returned. ``None`` as well if it was cancelled."""
    _clock: JumpingClock = attrs.field(init=False)
    _hang: HangError | None = attrs.field(init=False, default=None)
    _last_step: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Make what watches."""
        self.watch = Watch(self._note_step)
        self._clock = JumpingClock(self)
        self._last_step = self._max_steps

    def run(self) -> None:
        """Run the scenario to its end.

        Raises:
            HangError: If it has none.
            LeakError: If something is left behind it.
            Exception: Whatever the scenario raised.
        """
        error: BaseException | None = None
        with seeded(self._seed):
            try:
                trio.run(self._main, clock=self._clock, instruments=[self.watch, self._clock])
            except BaseException as raised:  # noqa: ASYNC103, BLE001  # raised again below
                error = raised
        if self._hang is not None:
            raise self._hang from (None if _is_eviction(error) else error)
        if error is not None:
            raise error
        if self.watch.error is not None:
            raise self.watch.error

    async def _main(self) -> None:
        self.watch.begin()
        run_seed.set(self._seed)
        self.inside = True
        # So that the scenario begins with a step of its own. The tasks of trio itself have
        # begun to wait by then.
        await trio.lowlevel.checkpoint()
        self._clock.note_start()
        try:
            with self.scope:
                self.result = await self._async_fn()
        except self._may_raise:
            # What is left behind it is looked for all the same.
            self.result = None
        finally:
            self.inside = False
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
        self._hang = HangError(text, [describe(task) for task in self.watch.tasks])
        self._last_step = self.watch.steps + LAST_STEPS
        self.scope.cancel()

    # --- the stage

    @property
    def is_over(self) -> bool:
        """Whether no task of the scenario is left."""
        return not self.watch.tasks

    def end_hang(self) -> None:
        """Cancel everything; then throw out whoever did not mind."""
        if self._hang is None:
            self._found("nothing can happen any more: no task can run and no deadline is left")
            return
        evict(self.watch.tasks)


def refuse_inside_trio() -> None:
    """Raise if this is called inside of a trio run.

    Raises:
        UsageError: If so.
    """
    try:
        trio.lowlevel.current_root_task()
    except RuntimeError:
        return
    raise UsageError("the testing kit starts trio by itself; call it from a function without async")


def _is_eviction(error: BaseException | None) -> bool:
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return all(_is_eviction(one) for one in group.exceptions)
    return error is None or isinstance(error, Evicted | trio.Cancelled)
