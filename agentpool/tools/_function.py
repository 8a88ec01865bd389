"""Turns a Python function into a tool.

Rules:

1. Arguments are checked before the function runs; an invalid call runs nothing.
2. Every ``Exception`` that the function raises is reported to the model as a failed call. A
   cancellation or Ctrl-C is not caught.
3. Every call has a checkpoint before the function runs, and none after it, so a cancellation never
   loses the result of a function that has run.
4. A function without ``async`` is called directly: a thread costs ten times as much as the rest of
   the call. A function that can block must ask for a thread, or it stops every agent.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import ClassVar, Generic, Literal, ParamSpec, TypeAlias, TypeVar, cast, final, overload

import attrs
import msgspec
import trio

from agentpool._checks import expect_arguments, expect_function
from agentpool._errors import ToolError, UsageError
from agentpool._manifest.capability import Capability
from agentpool._messages import ToolDefinition
from agentpool._numbers import plain_number
from agentpool._public import advised
from agentpool._scheduling.thread_strand import strand_of_thread
from agentpool.abc import OnUnknown, Tool, ToolContext, ToolResult
from agentpool.tools._arguments import ArgumentsDecoder
from agentpool.tools._failure import failed_result
from agentpool.tools._registry import check_name
from agentpool.tools._schema import build_signature
from agentpool.tools._sound_result import expect_result

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)

OnCancel: TypeAlias = Literal["wait", "abandon"]
"""What happens to the thread of a cancelled call: the call waits for it, or abandons it."""

NOTHING_RETURNED = "ok"
"""The result for the model if the function returned ``None``. It is not empty, since some providers
refuse a result without text, and small models repeat a call that seems to return nothing."""


@final
@attrs.define(eq=False, repr=False, slots=False)  # functools.update_wrapper writes names into it
class FunctionTool(Tool, Generic[P, R_co]):
    """A function that agents and Python code can call. Made by ``tool``."""

    _checks_results: ClassVar[bool] = True

    function: Callable[P, R_co]
    """The function itself."""
    _definition: ToolDefinition
    _decoder: ArgumentsDecoder
    _context_parameter: str | None
    _capability: Capability | None
    _timeout_seconds: float | None
    _in_thread: bool
    _on_cancel: OnCancel
    _needs_approval: bool
    _waits: bool
    _on_unknown: OnUnknown
    _call: Callable[..., object] = attrs.field(init=False)
    """The function, typed for arguments from a model: the decoder has checked that they fit."""
    _call_async: Callable[..., Awaitable[object]] | None = attrs.field(init=False, default=None)
    """The same function if it is async."""
    _threads_left: list[_ThreadCall] = attrs.field(factory=list["_ThreadCall"])

    def __attrs_post_init__(self) -> None:
        """Determine once whether the function is async."""
        self._call = self.function
        if inspect.iscoroutinefunction(self.function):
            self._call_async = cast("Callable[..., Awaitable[object]]", self.function)

    def _repr_words(self) -> str:
        return repr(self._definition.name)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the function directly, without checks or conversion."""
        return self.function(*args, **kwargs)

    @property
    def definition(self) -> ToolDefinition:
        """The tool as the model sees it."""
        return self._definition

    @property
    def capability(self) -> Capability | None:
        """The grant that the agent needs. ``None``: it needs none."""
        return self._capability

    @property
    def timeout_seconds(self) -> float | None:
        """The time limit of one call. ``None``: as the manifest says."""
        return self._timeout_seconds

    @property
    def needs_approval(self) -> bool:
        """Whether each call needs approval."""
        return self._needs_approval

    @property
    def waits(self) -> bool:
        """Whether it waits for other agents, so that a repeated call does not count as a loop."""
        return self._waits

    @property
    def on_unknown(self) -> OnUnknown:
        """What to do with a call that had begun when the program ended."""
        return self._on_unknown

    @property
    def left_behind(self) -> tuple[ToolContext, ...]:
        """The number of cancelled calls that still run, in threads that cannot be stopped."""
        self._let_go()
        return tuple(call.context for call in self._threads_left)

    async def run(self, arguments: str, context: ToolContext) -> ToolResult:
        """Check *arguments*, call the function, and convert its return value to text.

        Args:
            arguments: JSON text as the model wrote it.
            context: Facts about the call, for the parameter annotated with ``ToolContext``.

        Returns:
            The result for the model, even if the call was invalid or failed.

        Cancellation:
            An async function is cancelled where it waits. A function in a thread cannot be
            cancelled: the call waits until it returns, or abandons it with ``on_cancel="abandon"``.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._call_async is None:
            # An async function has checkpoints of its own; these may have none.
            await trio.lowlevel.cancel_shielded_checkpoint()
        try:
            given = self._decoder.decode(arguments)
            if self._context_parameter is not None:
                given[self._context_parameter] = context
            if self._call_async is not None and not self._in_thread:
                return _as_result(await self._call_async(**given))
            if self._in_thread:
                call = _ThreadCall(functools.partial(self._call, **given), context)
                returned = await self._run_in_thread(call)
            else:
                returned = self._call(**given)
            if isinstance(returned, Awaitable):
                returned = await cast("Awaitable[object]", returned)
            return _as_result(returned)
        except Exception as exc:  # noqa: BLE001  # a tool's failure is told to the model
            return failed_result(self._definition.name, exc)

    async def _run_in_thread(self, call: _ThreadCall) -> object:
        name = f"tool {self._definition.name}"
        if self._on_cancel != "abandon":
            return await trio.to_thread.run_sync(call.run, thread_name=name)
        try:
            with strand_of_thread():
                return await trio.to_thread.run_sync(
                    call.run, thread_name=name, abandon_on_cancel=True
                )
        except trio.Cancelled:
            if call.leave():
                self._let_go()
                self._threads_left.append(call)
            raise

    def _let_go(self) -> None:
        # A call that is over must not keep its agent and its arguments alive from here.
        self._threads_left = [call for call in self._threads_left if not call.is_over]


@final
@attrs.define(eq=False, repr=False)
class _ThreadCall:
    """A call in a thread, which may go on after the call has been abandoned."""

    function: Callable[[], object]
    context: ToolContext
    is_begun: bool = False
    is_over: bool = False
    is_left: bool = False

    def run(self) -> object:
        # First say, then look; leave() does it in the same order. So if the two meet, at
        # least one sees the other: no call runs that was left without being counted.
        self.is_begun = True
        try:
            return None if self.is_left else self.function()
        finally:
            self.is_over = True

    def leave(self) -> bool:
        """Abandon the call, from trio's thread. Return whether it is still running."""
        self.is_left = True
        return self.is_begun and not self.is_over


def _as_result(returned: object) -> ToolResult:
    if isinstance(returned, str):
        # A str subclass, such as a member of a StrEnum, would travel on as what it is.
        return ToolResult(returned if type(returned) is str else str.__str__(returned))
    if returned is None:
        return ToolResult(NOTHING_RETURNED)
    if isinstance(returned, ToolResult):
        expect_result(returned)
        return returned
    try:
        return ToolResult(msgspec.json.encode(returned).decode())
    except (TypeError, ValueError, RecursionError) as exc:
        raise ToolError(
            f"the tool ran, but its result ({type(returned).__name__}) "
            f"cannot be written as JSON: {exc}"
        ) from exc


@overload
def tool(function: Callable[P, R_co], /) -> FunctionTool[P, R_co]: ...
@overload
def tool(
    *,
    name: str | None = None,
    capability: Capability | None = None,
    timeout_seconds: float | None = None,
    in_thread: bool = False,
    on_cancel: OnCancel = "wait",
    needs_approval: bool = False,
    waits: bool = False,
    on_unknown: OnUnknown = "report",
) -> Callable[[Callable[P, R_co]], FunctionTool[P, R_co]]: ...
@advised
def tool(
    function: Callable[P, R_co] | None = None,
    /,
    *,
    name: str | None = None,
    capability: Capability | None = None,
    timeout_seconds: float | None = None,
    in_thread: bool = False,
    on_cancel: OnCancel = "wait",
    needs_approval: bool = False,
    waits: bool = False,
    on_unknown: OnUnknown = "report",
) -> FunctionTool[P, R_co] | Callable[[Callable[P, R_co]], FunctionTool[P, R_co]]:
    """Turn a function into a tool: ``@tool``, or ``@tool(name=...)``.

    The model sees the parameters with their types and the docstring: its first paragraph
    says what the tool does, and its Args section (Google, NumPy or Sphinx style) what each
    parameter means. A parameter annotated ``ToolContext`` is filled in and not shown.

    The function may return text, ``None`` (the model reads ``ok``), a ``ToolResult``, or anything
    that msgspec can write as JSON. It refuses a call by raising ``ToolError``.

    Args:
        function: The function, async or not; or a method of an object: ``tool(desk.look)``.
        name: The name that the model sees. ``None``: the function's own.
        capability: The grant that an agent needs to see and run it. ``None``: it needs none.
        timeout_seconds: The longest that one call may take. ``None``: as the manifest says.
        in_thread: Whether to call the function in a thread. Functions that can block need this.
        on_cancel: What happens to the thread when the call is cancelled or times out. With
            ``wait``, the call ends when the function returns, so that nothing is left running. With
            ``abandon``, the call ends immediately, and the function goes on in its thread.
        needs_approval: Whether each call needs approval. ``open_pool(approve=...)`` sets who gives
            the approval.
        waits: Whether the tool waits for other agents. Repeating a call then never counts as a
            loop, whatever the last call returned.
        on_unknown: What happens, when a journal is resumed, to a call that had begun but has no
            result in the journal: see ``Tool.on_unknown``.

    Raises:
        UsageError: If the function cannot be a tool. The error says why, and what to do.
    """
    expect_arguments(tool, locals(), but=("function",))
    _check_terms(timeout_seconds, on_cancel, in_thread=in_thread)

    def make(function: Callable[P, R_co]) -> FunctionTool[P, R_co]:
        return _build_tool(
            function, name, capability, plain_number(timeout_seconds), in_thread, on_cancel,
            needs_approval, waits, on_unknown,
        )  # fmt: skip

    if function is None:
        return make
    expect_function(function, "@tool must decorate a function", "write @tool(name=...)")
    return make(function)


def _check_terms(timeout_seconds: float | None, on_cancel: OnCancel, *, in_thread: bool) -> None:
    if timeout_seconds is not None and not timeout_seconds > 0:
        raise UsageError(
            f"timeout_seconds must be > 0, got {timeout_seconds!r}; "
            "leave it out for the manifest's limit"
        )
    if on_cancel != "wait" and not in_thread:
        raise UsageError(
            f"on_cancel={on_cancel!r} only applies to a thread; pass in_thread=True, or leave "
            "on_cancel out"
        )


def _build_tool(  # noqa: PLR0917  # in the order of the fields
    function: Callable[P, R_co],
    name: str | None,
    capability: Capability | None,
    timeout_seconds: float | None,
    in_thread: bool,  # noqa: FBT001
    on_cancel: OnCancel,
    needs_approval: bool,  # noqa: FBT001
    waits: bool,  # noqa: FBT001
    on_unknown: OnUnknown,
) -> FunctionTool[P, R_co]:
    signature = build_signature(function)
    shown_name = function.__name__ if name is None else name
    check_name(shown_name)
    if in_thread and inspect.iscoroutinefunction(function):
        raise UsageError(
            f"{shown_name} is async and runs in trio's thread; leave out in_thread, "
            "and use trio.to_thread.run_sync inside it for blocking calls"
        )
    made = FunctionTool(
        function,
        ToolDefinition(shown_name, signature.description, signature.input_schema),
        ArgumentsDecoder.of(signature),
        signature.context_parameter,
        capability,
        timeout_seconds,
        in_thread,
        on_cancel,
        needs_approval,
        waits,
        on_unknown,
    )
    functools.update_wrapper(made, function)
    return made
