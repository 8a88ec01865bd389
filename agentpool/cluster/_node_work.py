"""Does the work of one node with its drivers and tools."""

from __future__ import annotations

import pickle
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from importlib import import_module
from itertools import count
from typing import Final, cast, final

import attrs
import msgspec
import trio

from agentpool import drivers
from agentpool._errors import PrivacyError, ToolError, UsageError
from agentpool._manifest.manifest import AgentManifest
from agentpool._messages import Completion, Usage
from agentpool._numbers import plain_number
from agentpool._pool.starting import ToolBuilder, tools_of_agent
from agentpool.abc import Driver, ToolContext, ToolResult
from agentpool.abc._driver_facts import expect_completion
from agentpool.cluster._far_context import Caller, FarContext, Questions
from agentpool.cluster._names import find, find_as
from agentpool.cluster._node_checks import Terms, key_names
from agentpool.cluster._node_messages import (
    SHARED,
    AgentFacts,
    Ask,
    DriverFacts,
    OpenKit,
    Piece,
    Prepare,
    RunTool,
    ToolFacts,
    Work,
)
from agentpool.drivers._attachment_counts import portable_count
from agentpool.tools._registry import EMPTY_REGISTRY, ToolRegistry

MILLION: Final = 1_000_000


@final
class _Hearing:
    """Sends the pieces of an answer to the program."""

    __slots__ = ("_caller",)

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def __call__(self, text: str) -> None:
        self._caller.put(Piece(self._caller.call, text, is_thought=False))

    def thought(self, text: str) -> None:
        """Send a piece of the model's thoughts."""
        self._caller.put(Piece(self._caller.call, text, is_thought=True))


@final
@attrs.define(eq=False)
class Bench:
    """The drivers and tools of one node."""

    node: str
    _nursery: trio.Nursery
    _terms: Terms
    questions: Questions = attrs.field(factory=Questions)
    """The questions that tools on this node have asked."""
    _drivers: dict[int, tuple[AgentManifest | None, Driver]] = attrs.field(
        factory=dict[int, tuple[AgentManifest | None, Driver]]
    )
    """The drivers by number. Drivers that tools lend have numbers below 0."""
    key_names: set[str] = attrs.field(factory=set[str])
    """The environment variables with API keys that its manifests and the program name."""
    _kits: dict[int, ToolRegistry] = attrs.field(factory=dict[int, ToolRegistry])
    _lent: count[int] = attrs.field(factory=lambda: count(-1, -1))

    def look_for_names(self) -> list[str]:
        """Return the names that the program uses but that cannot be imported here."""
        wrong: list[str] = []
        for what, path in (("driver", self._terms.driver), ("tools", self._terms.tools)):
            if path is not None:
                try:
                    find_as(what, path)
                except UsageError as error:
                    wrong.append(str(error))
        for module in self._terms.modules:
            try:
                import_module(module)
            except Exception as error:  # noqa: BLE001  # a module may raise anything
                wrong.append(f"module {module!r} is missing: {type(error).__name__}: {error}")
        return wrong

    def shared_tools(self) -> tuple[ToolFacts, ...] | None:
        """Return the tools that all agents here share. ``None``: each agent gets its own tools."""
        named = None if self._terms.tools is None else find(self._terms.tools)
        if isinstance(named, ToolRegistry):
            self._kits[SHARED] = named
        return facts_of_shared(named)

    def close_kit(self, kit: int) -> None:
        """Drop the tools of an agent."""
        self._kits.pop(kit, None)

    async def serve(self, work: Work, caller: Caller) -> object:  # noqa: ASYNC910  # what is open already is not waited for
        """Do *work*, and return its result.

        Raises:
            Exception: What the driver or the tool raised.

        Cancellation:
            The work has ended completely.
        """
        match work:
            case Ask():
                return await self._ask(work, caller)
            case RunTool():
                return await self._run_tool(work, caller)
            case OpenKit():
                return await self._open_kit(work, caller)
            case _:
                return await self._prepare(work)

    # --- drivers

    async def _prepare(self, work: Prepare) -> DriverFacts:  # noqa: ASYNC910  # the same
        if work.number not in self._drivers:
            self.key_names |= key_names(work.manifest)
            opening = self._opening(work.manifest)
            driver = await self._nursery.start(_keep_open, opening)
            self._drivers[work.number] = work.manifest, driver
        return facts_of(self._drivers[work.number][1])  # noqa: ASYNC910  # the same

    def _opening(self, manifest: AgentManifest) -> AbstractAsyncContextManager[Driver]:
        if self._terms.driver is None:
            return drivers.open_driver(manifest.model)
        named = find(self._terms.driver)
        if not isinstance(named, Driver):
            named = cast("Callable[[AgentManifest], object]", named)(manifest)
        if isinstance(named, Driver):
            return _as_it_is(named)
        if isinstance(named, AbstractAsyncContextManager):
            return cast("AbstractAsyncContextManager[Driver]", named)
        raise UsageError(
            f"{self._terms.driver!r} must be a Driver, or return one or an async context manager "
            f"of one, got {named!r}"
        )

    async def _ask(self, work: Ask, caller: Caller) -> Completion:
        manifest, driver = self._drivers[work.number]
        if manifest is not None and not manifest.privacy.allows(driver.privacy):
            raise PrivacyError(
                f"manifest {manifest.name!r} is {manifest.privacy.value}, but its driver on node "
                f"{self.node} is {driver.privacy.value}; use a local model, or a laxer privacy"
            )
        hear = _Hearing(caller) if work.streams else None
        answer = await driver.complete(work.request, on_delta=hear)
        expect_completion(answer, driver)
        if answer.cost_usd is None and isinstance(answer.usage, Usage):
            cost_usd = driver.price(answer.usage, model=answer.model)
            return msgspec.structs.replace(answer, cost_usd=cost_usd)
        return answer

    @contextmanager
    def lend(self, driver: Driver) -> Generator[int, None, None]:
        """Give a tool's driver a number for the length of the block."""
        number = next(self._lent)
        self._drivers[number] = None, driver
        try:
            yield number
        finally:
            del self._drivers[number]

    # --- tools

    async def _open_kit(self, work: OpenKit, caller: Caller) -> tuple[ToolFacts, ...]:
        assert self._terms.tools is not None  # noqa: S101  # or the program asks for none
        named = find(self._terms.tools)
        if isinstance(named, ToolRegistry):
            await trio.lowlevel.checkpoint()
            kit = named
        else:
            context = self._context(work.agent, caller)
            kit = await tools_of_agent(context, cast("ToolBuilder", named))
        self._kits[work.kit] = kit
        return _facts_of_tools(kit)

    async def _run_tool(self, work: RunTool, caller: Caller) -> ToolResult:
        tool = self._kits.get(work.kit, EMPTY_REGISTRY).get(work.name)
        if tool is None:
            raise ToolError(f"node {self.node} has no tool {work.name!r}")
        agent = self._context(work.agent, caller)
        context = ToolContext(agent, work.call_id, work.key, work.fence)
        return await tool.run(work.arguments, context)

    def _context(self, agent: AgentFacts, caller: Caller) -> FarContext:
        return FarContext(agent, caller, self.questions, self.lend)


def facts_of_shared(named: object) -> tuple[ToolFacts, ...] | None:
    """Return the facts about the tools that all agents share.

    The result is ``None`` in two cases. Either *named* makes tools for each agent, so that no tools
    are shared. Or a schema cannot be pickled; each agent then gets the error of that schema.
    """
    if not isinstance(named, ToolRegistry):
        return None
    found = _facts_of_tools(named)
    try:
        pickle.dumps(found)
    except Exception:  # noqa: BLE001  # foreign schemas raise anything; an agent is told of it
        return None
    return found


def _facts_of_tools(kit: ToolRegistry) -> tuple[ToolFacts, ...]:
    return tuple(
        ToolFacts(
            one.definition, one.capability, plain_number(one.timeout_seconds), one.needs_approval,
            one.waits, one.on_unknown,
        )
        for one in kit
    )  # fmt: skip


def facts_of(driver: Driver) -> DriverFacts:
    """Return the facts about *driver*."""
    return DriverFacts(
        plain_number(driver.context_window),
        plain_number(driver.max_output_tokens),
        driver.inputs,
        driver.privacy,
        plain_number(driver.highest_price(Usage(MILLION, 0))),
        plain_number(driver.highest_price(Usage(0, MILLION))),
        plain_number(driver.most_image_bytes),
        plain_number(driver.most_image_pixels),
        plain_number(driver.most_input_tokens),
        portable_count(driver),
    )


@asynccontextmanager
async def _as_it_is(driver: Driver) -> AsyncGenerator[Driver, None]:
    yield driver


async def _keep_open(  # noqa: ASYNC114  # it is for Nursery.start alone
    opening: AbstractAsyncContextManager[Driver],
    task_status: trio.TaskStatus[Driver] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Keep a driver open in a separate task until the node ends."""
    async with opening as driver:
        # Foreign code, and type checkers are optional.
        if not isinstance(driver, Driver):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UsageError(f"the context manager must return a Driver, got {driver!r}")
        task_status.started(driver)
        await trio.sleep_forever()
