"""A Python function as a tool, and the arguments that a model sends it."""

import enum
import inspect
import math
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Annotated, Any, TypedDict, cast

import attrs
import msgspec
import pytest
import trio
from msgspec import Meta
from trio.testing import wait_all_tasks_blocked

from agentpool import (
    Capability,
    CapabilityDeniedError,
    CapabilityKind,
    LimitExceededError,
    ToolError,
    UsageError,
)
from agentpool.abc import AgentContext, Tool, ToolContext, ToolResult
from agentpool.tools import FunctionTool, tool
from agentpool.tools._arguments import MAX_ARGUMENTS_CHARS
from agentpool.tools._failure import MAX_FAILURE_CHARS, failed_result

# Stands for the pool's own: a tool made of a function only hands it on.
AGENT = cast("AgentContext", SimpleNamespace(agent_id=3, name="reader"))
CONTEXT = ToolContext(AGENT, "call-1")


@attrs.define
class Point:
    """A point in the plane."""

    x: int
    y: int = 0


@attrs.define
class Positive:
    """A number with a validator of its own."""

    value: int = attrs.field(validator=attrs.validators.gt(0))


@attrs.define
class Node:
    """A tree."""

    label: str
    children: list["Node"] = attrs.field(factory=list["Node"])


class Options(TypedDict, total=False):
    """Options."""

    deep: bool


class Cat(msgspec.Struct, tag="cat"):
    """Told from a dog by its tag."""

    lives: int


class Dog(msgspec.Struct, tag="dog"):
    """Told from a cat by its tag."""

    tricks: int


class Mood(enum.StrEnum):
    """A str that is more than a str."""

    GOOD = "good"


@tool
async def add(x: int, y: int = 1) -> str:
    """Add two numbers."""
    await trio.lowlevel.checkpoint()
    return str(x + y)


@tool
def shout(text: Annotated[str, Meta(min_length=1)]) -> str:
    """Say it louder."""
    return text.upper()


@tool
def now() -> str:
    """Say what time it is."""
    return "late"


@tool
def draw(
    points: list[Point],
    *,
    options: Options | None = None,
    root: Node | None = None,
    pet: Cat | Dog | None = None,
    pairs: tuple[tuple[Point, int], ...] = (),
    names: dict[str, Point] | None = None,
    one_or_many: Point | list[Point] | None = None,
    data: dict[str, Any] | None = None,
    row: list[Any] | None = None,
) -> str:
    """Draw."""
    return repr((points, options, root, pet, pairs, names, one_or_many, data, row))


async def call(tool: Tool, arguments: str) -> ToolResult:
    """Call *tool* as an agent would."""
    return await tool.run(arguments, CONTEXT)


# --- the decorator


async def test_a_decorated_function_is_a_tool() -> None:
    """One line is all it takes."""
    assert isinstance(add, Tool)
    assert add.definition.name == "add"
    assert add.definition.description == "Add two numbers."
    assert add.definition.input_schema["required"] == ["x"]
    assert add.definition is add.definition
    assert add.capability is None
    assert add.timeout_seconds is None
    assert await call(add, '{"x": 2, "y": 3}') == ToolResult("5")


async def test_a_decorated_function_can_still_be_called() -> None:
    """Its tests, and other code, have no JSON in hand."""
    assert await add(2, y=3) == "5"
    assert shout("hey") == "HEY"


def test_a_tool_bears_the_names_of_its_function() -> None:
    """Documentation, debuggers and inspect look through it."""
    assert cast("Any", shout).__name__ == "shout"
    assert shout.__doc__ == "Say it louder."
    assert list(inspect.signature(shout).parameters) == ["text"]


async def test_options_are_told_to_the_agent() -> None:
    """The agent asks the tool what it needs and how long it may take."""
    grant = Capability(CapabilityKind.COMPUTE)

    @tool(name="sum-of", capability=grant, timeout_seconds=2.5)
    def total(xs: list[float]) -> float:
        """Add up."""
        return math.fsum(xs)

    assert total.definition.name == "sum-of"
    assert total.capability is grant
    assert total.timeout_seconds == 2.5
    assert await call(total, '{"xs": [1, 2.5]}') == ToolResult("3.5")


async def test_a_method_of_an_object_is_a_tool() -> None:
    """Tools that share a thing, such as a memory, are methods of it."""

    class Counter:
        def __init__(self) -> None:
            self.count = 0

        def more(self, by: int) -> int:
            """Count on."""
            self.count += by
            return self.count

    counter = Counter()
    more = tool(counter.more)
    assert more.definition.name == "more"
    assert await call(more, '{"by": 2}') == ToolResult("2")
    assert counter.count == 2


async def test_the_context_goes_to_the_parameter_that_asks_for_it() -> None:
    """A tool may want to know who calls, and how much time is left."""

    @tool
    def who(context: ToolContext, greeting: str = "I am") -> str:
        """Say who calls."""
        return f"{greeting} {context.agent_name}"

    assert await call(who, "{}") == ToolResult("I am reader")
    refused = await call(who, '{"context": {"agent_id": 1}}')
    assert refused.is_error
    assert "context" in refused.content


async def async_look(at: str) -> str:
    """Look."""
    await trio.lowlevel.checkpoint()
    return at


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: tool(name="no spaces")(add.function), "got 'no spaces'"),
        (lambda: tool(name="")(add.function), "got ''"),
        (lambda: tool(timeout_seconds=0), "timeout_seconds must be > 0, got 0"),
        (lambda: tool(timeout_seconds=math.nan), "timeout_seconds must be > 0, got nan"),
        (lambda: tool(on_cancel="abandon"), "pass in_thread=True"),
        (
            lambda: tool(on_unknown="retry"),  # type: ignore[call-overload]  # that is what is tested
            "on_unknown must be 'report', 'rerun', 'ask' or 'stop', got 'retry'",
        ),
        (lambda: tool(in_thread=True)(async_look), "async_look is async and runs in trio"),
    ],
)
def test_options_without_a_meaning_are_refused(make: Callable[[], object], text: str) -> None:
    """A slip in code is said where it is made, not at a model's first call."""
    with pytest.raises(UsageError) as caught:
        make()
    assert text in str(caught.value)


# --- what comes back


@attrs.frozen
class Weather:
    """Something that JSON has a form for."""

    city: str
    degrees: float


def returning(value: object) -> FunctionTool[[], object]:
    """Return a tool that returns *value*."""

    def give() -> object:
        """Give it."""
        return value

    return tool(give)


@pytest.mark.parametrize(
    ("value", "content"),
    [
        ("text", "text"),
        ("", ""),
        (None, "ok"),
        (True, "true"),
        (3, "3"),
        ({"a": [1, None]}, '{"a":[1,null]}'),
        (Weather("Oslo", 3.5), '{"city":"Oslo","degrees":3.5}'),
        ("ü🙂", "ü🙂"),
        (["ü🙂"], '["ü🙂"]'),
    ],
)
async def test_what_a_function_returns_becomes_text(value: object, content: str) -> None:
    """A model reads text; None is told as ok, because an empty result looks like a fault."""
    assert await call(returning(value), "") == ToolResult(content)


async def test_a_result_is_passed_on_as_it_is() -> None:
    """A tool can say that it failed without raising."""
    result = ToolResult("no such city", is_error=True)
    assert await call(returning(result), "") is result


async def test_a_str_subclass_becomes_plain_text() -> None:
    """Behind a StrEnum's face, code further on would find a class of the user's."""
    result = await call(returning(Mood.GOOD), "")
    assert result == ToolResult("good")
    assert type(result.content) is str


async def test_a_sync_function_that_returns_an_awaitable_is_awaited() -> None:
    """A decorator between @tool and an async function often hides the ``async``."""

    @tool
    def hidden(at: str) -> Awaitable[str]:
        """Look."""
        return async_look(at)

    assert await call(hidden, '{"at": "sea"}') == ToolResult("sea")


def cyclic() -> list[object]:
    """Return a list that contains itself."""
    ring: list[object] = []
    ring.append(ring)
    return ring


@pytest.mark.parametrize("value", [object(), 1j, {"half": "\ud800"}, cyclic()])
async def test_what_has_no_json_form_is_a_failed_call(value: object) -> None:
    """The repr of an object, with its address, would tell the model nothing."""
    result = await call(returning(value), "")
    assert result.is_error
    assert "cannot be written as JSON" in result.content
    assert type(value).__name__ in result.content


# --- what goes wrong


class UnprintableError(Exception):
    """An error whose text cannot be had."""

    def __str__(self) -> str:
        """Fail as well."""
        raise RuntimeError


def raising(error: BaseException) -> FunctionTool[[], None]:
    """Return a tool called ``fail`` that raises *error*."""

    def fail() -> None:
        """Fail."""
        raise error

    return tool(fail)


@pytest.mark.parametrize(
    ("error", "content"),
    [
        (ValueError("no such day"), "tool 'fail' failed: ValueError: no such day"),
        (KeyError("k"), "tool 'fail' failed: KeyError: 'k'"),
        (ZeroDivisionError(), "tool 'fail' failed: ZeroDivisionError"),
        (StopIteration(1), "tool 'fail' failed: StopIteration: 1"),
        (UnprintableError(), "tool 'fail' failed: UnprintableError"),
        (ToolError("there is no file 'a'; see list_files"), "there is no file 'a'; see list_files"),
        (CapabilityDeniedError("not granted"), "not granted"),
        (
            ExceptionGroup("two", [ValueError("a"), ExceptionGroup("", [ToolError("b")])]),
            "tool 'fail' failed: ValueError: a; b",
        ),
    ],
)
async def test_what_a_tool_raises_is_told_to_the_model(error: Exception, content: str) -> None:
    """In the original a tool that panics takes the agent with it, and in a pool its result."""
    result = await call(raising(error), "{}")
    assert (result.content, result.is_error) == (content, True)
    assert "Traceback" not in result.content
    # On purpose, or by accident: only then somebody wants to know where.
    on_purpose = isinstance(error, ToolError)
    assert (result.traceback == result.error_type == "") is on_purpose
    assert on_purpose or ("in fail" in result.traceback and result.error_type)


async def test_a_group_of_refusals_is_a_refusal() -> None:
    """Every one of them was written for the model: nobody need look for where it broke."""
    error = ExceptionGroup("two", [ToolError("no a"), ExceptionGroup("", [ToolError("no b")])])
    result = await call(raising(error), "{}")
    assert (result.content, result.is_error) == ("tool 'fail' failed: no a; no b", True)
    assert (result.error_type, result.traceback) == ("", "")


async def test_a_long_error_text_is_cut_and_says_so() -> None:
    """Some errors quote all of their input, and the conversation would carry it from then on."""
    result = await call(raising(ValueError("ü" * 10_000)), "{}")
    assert len(result.content) < MAX_FAILURE_CHARS + 50
    assert result.content.endswith("ü… [8032 more characters]")


def test_a_deeply_nested_group_is_told_too() -> None:
    """Groups nest deeper than Python calls can."""
    error: Exception = ValueError("the one")
    for _ in range(5_000):
        error = ExceptionGroup("", [error])
    assert failed_result("t", error).content == "tool 't' failed: ValueError: the one"


def test_a_spent_budget_is_no_fault_of_the_tool() -> None:
    """Also beside what the tool says itself; anything else has its traceback."""
    spent = LimitExceededError("3 of 3", kind="requests", used=3, limit=3, source="night")
    for error in (spent, ExceptionGroup("two", [spent, ToolError("no")])):
        result = failed_result("t", error)
        assert (result.traceback, result.is_error) == ("", True)
        assert "3 of 3" in result.content
    assert failed_result("t", ExceptionGroup("two", [spent, ValueError("x")])).traceback


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
async def test_what_is_no_exception_goes_through(kind: type[BaseException]) -> None:
    """Ctrl-C in a tool is meant for the program, not for the model."""
    with pytest.raises(kind):
        await call(raising(kind()), "{}")


# --- time


async def test_a_cancelled_tool_stops_where_it_waits() -> None:
    """Nothing of a call goes on running, and the cancellation is not told as an error."""
    ended: list[str] = []

    @tool
    async def wait() -> None:
        """Wait for ever."""
        try:
            await trio.sleep_forever()
        finally:
            ended.append("ended")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, wait, "{}")
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert ended == ["ended"]


@pytest.mark.parametrize("arguments", ['{"text": "a"}', "not JSON"])
async def test_a_call_that_is_cancelled_already_runs_nothing(arguments: str) -> None:
    """Every call is a checkpoint, whatever came; and it comes before the effect."""
    seen: list[str] = []

    @tool
    def note(text: str) -> None:
        """Note it."""
        seen.append(text)

    with trio.CancelScope() as scope:
        scope.cancel()
        await call(note, arguments)
    assert scope.cancelled_caught
    assert seen == []


async def test_a_sync_tool_runs_in_the_calling_thread() -> None:
    """A thread costs ten times what the rest of the call does."""

    @tool
    def where() -> int:
        """Say which thread this is."""
        return threading.get_ident()

    assert await call(where, "") == ToolResult(str(threading.get_ident()))


async def test_a_tool_that_blocks_can_have_a_thread() -> None:
    """In the original one tool that blocks freezes every agent, and its timeout with them."""
    released = threading.Event()

    @tool(in_thread=True)
    def block(text: str) -> str:
        """Block."""
        assert released.wait(30)
        return f"{text} {threading.current_thread().name}"

    results: list[ToolResult] = []

    async def run() -> None:
        results.append(await call(block, '{"text": "in"}'))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.lowlevel.checkpoint()  # the loop goes on while the tool blocks
        released.set()
    (result,) = results
    assert result.content.startswith("in ")
    assert "tool block" in result.content
    assert not result.is_error


async def test_an_error_in_a_thread_is_told_to_the_model() -> None:
    """Where a tool runs makes no difference to what it may raise."""

    @tool(in_thread=True)
    def fail() -> None:
        """Fail."""
        msg = "no such day"
        raise ValueError(msg)

    result = await call(fail, "")
    assert (result.content, result.is_error) == (
        "tool 'fail' failed: ValueError: no such day",
        True,
    )


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Give an event that is set in the end, so that no thread outlives its test."""
    event = threading.Event()
    yield event
    event.set()


async def test_a_cancelled_thread_is_waited_for(gate: threading.Event) -> None:
    """Nothing is left behind, unless somebody asks for that."""
    begun, ended = trio.Event(), threading.Event()

    @tool(in_thread=True)
    def block() -> None:
        """Block."""
        trio.from_thread.run_sync(begun.set)
        gate.wait(30)
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, block, "")
        await begun.wait()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await wait_all_tasks_blocked()
        still_there = len(nursery.child_tasks)
        gate.set()
    assert still_there == 1
    assert ended.is_set()
    assert block.left_behind == ()


async def test_an_abandoned_thread_is_named_until_it_ends(gate: threading.Event) -> None:
    """G1: a thread that could not be stopped is named, so somebody can be told."""
    begun, ended = trio.Event(), threading.Event()

    @tool(in_thread=True, on_cancel="abandon")
    def block() -> None:
        """Block."""
        trio.from_thread.run_sync(begun.set)
        gate.wait(30)
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, block, "")
        await begun.wait()
        nursery.cancel_scope.cancel()
    assert block.left_behind == (CONTEXT,)
    assert not ended.is_set()
    gate.set()
    assert ended.wait(30)
    with trio.fail_after(30):
        while block.left_behind:  # noqa: ASYNC110  # a thread ends after its function
            await trio.sleep(0.001)


async def test_a_call_that_is_cancelled_in_the_queue_for_a_thread_never_runs() -> None:
    """A tool that nobody waits for any more has no business to begin."""
    limiter = trio.to_thread.current_default_thread_limiter()
    seen: list[str] = []

    @tool(in_thread=True, on_cancel="abandon")
    def note() -> None:
        """Note it."""
        seen.append("ran")

    tokens = limiter.total_tokens
    limiter.total_tokens = 1
    try:
        async with limiter, trio.open_nursery() as nursery:
            nursery.start_soon(call, note, "")
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    finally:
        limiter.total_tokens = tokens
    assert seen == []
    assert note.left_behind == ()


async def test_a_thread_can_see_that_it_was_cancelled() -> None:
    """A long function that asks now and then ends as soon as an async one would."""
    begun = trio.Event()

    @tool(in_thread=True)
    def work() -> None:
        """Work until told not to."""
        trio.from_thread.run_sync(begun.set)
        while True:
            trio.from_thread.check_cancelled()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, work, "")
        await begun.wait()
        nursery.cancel_scope.cancel()
    assert nursery.cancel_scope.cancelled_caught


# --- arguments


@pytest.mark.parametrize("text", ["", "   \n", "{}", " {} "])
async def test_no_text_stands_for_no_arguments(text: str) -> None:
    """Some models send nothing when there is nothing to send."""
    assert await call(now, text) == ToolResult("late")


async def test_defaults_are_those_of_the_function() -> None:
    """The very objects, as when Python fills them in."""
    marker = object()
    seen: list[object] = []

    @tool
    def take(a: int = 7, b: Any = marker) -> None:  # noqa: ANN401  # a marker of its own
        """Take it."""
        seen.extend((a, b))

    assert await call(take, "{}") == ToolResult("ok")
    assert seen[0] == 7
    assert seen[1] is marker


@pytest.mark.parametrize(
    ("tried", "arguments", "told"),
    [
        (add, "", "'x' is a required property\nexpected: an object with x: integer, y: integer"),
        (add, "{}", "- at $: 'x' is a required property"),
        (add, "[1]", "- at $: [1] is not of type 'object'"),
        (add, "null", "- at $: None is not of type 'object'"),
        (add, '{"x": "1"}', "- at $.x: '1' is not of type 'integer'"),
        (add, '{"x": 3.5}', "- at $.x: 3.5 is not of type 'integer'"),
        (add, '{"x": 1e17}', "got `float` - at `$.x`"),
        (add, '{"x": 3.0, "x": 3.0}', "- key 'x' is written twice"),
        (add, '{"x": 3.0, "y": NaN}', "- at $.y: nan is not of type 'integer'"),
        (add, '{"x": 3.0, "y": "1"}', "- at $.y: '1' is not of type 'integer'"),
        (add, '{"x": 1, "z": 2}', "('z' was unexpected)"),
        (add, '{"x": 1', "- not valid JSON: Input data was truncated"),
        (add, "x=1", "- not valid JSON: JSON is malformed"),
        (add, '{"x": 1} and', "- not valid JSON: JSON is malformed"),
        (add, '{"x": "\ud800"}', "- cannot be read: 'utf-8' codec can't encode"),
        (add, '{"x": 1, "x": 2}', "- key 'x' is written twice; write it once"),
        (add, '{"x": 1, "\\u0078": 2}', "- key 'x' is written twice"),
        (now, '{"x": 1}', "expected: no arguments, {}"),
        (shout, '{"text": ""}', "at $.text: '' should be non-empty"),
        (
            draw,
            '{"points": [{"x": 1, "z": 2}]}',
            "at $.points[0]: there is no key 'z'; it has x, y",
        ),
        (draw, '{"points": [], "options": {"dep": true}}', "at $.options: there is no key 'dep'"),
        (
            draw,
            '{"points": [], "root": {"label": "a", "children": [{"label": "b", "c": 1}]}}',
            "at $.root.children[0]: there is no key 'c'; it has label, children",
        ),
        (
            draw,
            '{"points": [], "pet": {"type": "dog", "tricks": 1, "lives": 9}}',
            "at $.pet: there is no key 'lives'; it has type, tricks",
        ),
        (
            draw,
            '{"points": [], "pairs": [[{"x": 1, "q": 2}, 3]]}',
            "at $.pairs[0][0]: there is no key 'q'",
        ),
        (draw, '{"points": [], "names": {"a": {"x": 1, "q": 2}}}', "at $.names.a: there is no"),
        (draw, '{"points": [], "one_or_many": {"x": 1, "q": 2}}', "at $.one_or_many: there is"),
        (draw, '{"points": [], "one_or_many": [{"x": 1, "q": 2}]}', "at $.one_or_many[0]: there"),
        (
            draw,
            '{"points": [{"x": "1"}], "options": {"deep": 1}, "more": 1}',
            (
                "- at $: Additional properties are not allowed ('more' was unexpected)\n"
                "- at $.options.deep: 1 is not of type 'boolean'\n"
                "- at $.points[0].x: '1' is not of type 'integer'\n"
                "expected: an object with points: array, options: object or null (optional)"
            ),
        ),
    ],
)
async def test_wrong_arguments_are_told_so_that_a_model_can_put_them_right(
    tried: Tool, arguments: str, told: str
) -> None:
    """What is wrong, where, and what is expected; all of it at once."""
    result = await call(tried, arguments)
    assert result.is_error
    assert result.content.startswith("invalid arguments, nothing was run:\n- ")
    assert told in result.content


@pytest.mark.parametrize(
    ("tried", "arguments"),
    [
        (add, '{"x": 1, "y": 2}'),
        (add, '{"x": 20.0, "y": 2e1}'),
        (now, "null"),
        (now, " null\n"),
        (shout, '{"text": "a: b: c \\" : "}'),
        (draw, '{"points": [{"x": 1, "y": 2}, {"x": 3}], "options": {"deep": true}}'),
        (draw, '{"points": [], "root": {"label": "a:b", "children": [{"label": "b"}]}}'),
        (draw, '{"points": [], "pet": {"type": "dog", "tricks": 1}, "options": null}'),
        (draw, '{"points": [], "pet": {"lives": 9, "type": "cat"}}'),
        (draw, '{"points": [], "pairs": [[{"x": 1}, 3]], "names": {"a b": {"x": 1}}}'),
        (draw, '{"points": [], "data": {"any": {"x": 1}}, "row": [{"any": 1}, [], null]}'),
    ],
)
async def test_right_arguments_are_accepted(tried: Tool, arguments: str) -> None:
    """Colons in texts, nested objects, unions and tags are no reason to refuse."""
    result = await call(tried, arguments)
    assert not result.is_error, result.content


async def test_a_validator_of_a_class_is_told_to_the_model() -> None:
    """A validator says what JSON Schema cannot; jsonschema finds nothing there."""

    @tool
    def take(number: Positive) -> None:
        """Take it."""

    result = await call(take, '{"number": {"value": -1}}')
    assert "- 'value' must be > 0: -1 - at `$.number`" in result.content


async def test_kinds_are_named_in_a_word_or_two() -> None:
    """The last line reminds a small model of what it was shown."""

    class Mode(enum.Enum):
        FAST = "fast"
        SLOW = "slow"

    def take(mode: Any, other: int | None = None, tree: Any = None) -> None:  # noqa: ANN401  # set below
        """Take it."""

    take.__annotations__.update(mode=Mode, tree=Node)
    result = await call(tool(take), "{}")
    assert result.content.endswith(
        'expected: an object with mode: "fast" or "slow", '
        "other: integer or null (optional), tree: object (optional)"
    )


async def test_without_jsonschema_the_first_fault_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is an extra; without it a model needs a few turns more."""
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    result = await call(draw, '{"points": [{"x": "1"}], "options": {"deep": 1}}')
    assert "\n- Expected `int`, got `str` - at `$.points[0].x`\nexpected: " in result.content


async def test_many_faults_and_long_values_are_cut() -> None:
    """A model that made more mistakes than that has misunderstood the whole."""
    points = ", ".join(['{"x": "' + "long" * 200 + '"}'] * 30)
    result = await call(draw, f'{{"points": [{points}]}}')
    assert result.content.count("\n- at $.points[") == 10
    assert "\n- and more\n" in result.content
    assert result.content.count("long' is not of type 'integer'\n") == 10
    assert len(result.content) < 4_000


async def test_of_a_long_text_the_first_fault_is_told() -> None:
    """To list them all would hold up every other agent."""
    points = ", ".join(['{"x": "1"}'] * 10_000)
    result = await call(draw, f'{{"points": [{points}]}}')
    assert "\n- Expected `int`, got `str` - at `$.points[0].x`\nexpected: " in result.content


async def test_huge_arguments_are_refused_unread() -> None:
    """Checking them would hold up every other agent."""
    result = await call(shout, '{"text": "' + "a" * MAX_ARGUMENTS_CHARS + '"}')
    assert result.is_error
    assert "no more than 1048576 are taken; send less at once" in result.content


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize(
    "arguments",
    [
        '{"json": ' + "[" * 100_000,
        '{"json": ' + "[" * 50_000 + "]" * 50_000 + "}",
        '{"json": ' + '{"a":' * 50_000 + "1" + "}" * 50_000 + "}",
        '{"json": 1, "b": ' + "1" * 5_000 + "}",
        '{"json": ' + "1" * 5_000 + ', "b": 2}',
        '{"json": 1, "number": ' + "1" * 5_000 + "}",
        '{"json": 1, "raw": ' + "1" * 5_000 + ', "text": "a:b"}',
    ],
)
async def test_json_made_to_break_a_reader_is_an_error_result(arguments: str) -> None:
    """Depth and size that break one reader or the other break no agent."""

    @tool
    def take(
        json: Any,  # noqa: ANN401  # any JSON
        b: Any = None,  # noqa: ANN401
        number: int = 0,
        raw: msgspec.Raw = msgspec.Raw(b"{}"),  # noqa: B008  # a default that is an object
        text: str = "",
    ) -> None:
        """Take it."""

    result = await call(take, arguments)
    assert result.is_error
    assert result.content


def test_the_registry_alone_loads_no_schema_library() -> None:
    """``import agentpool`` comes by the registry, and must stay as light as trio."""
    code = (
        "import sys, agentpool.tools, agentpool.memory\n"
        "from agentpool.tools import ToolRegistry\n"
        "assert 'tool' in dir(agentpool.tools)\n"
        "heavy = {'agentpool.tools._schema', 'docstring_parser', 'jsonschema', 'sqlite3'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "from agentpool.tools import tool\n"
        "assert 'docstring_parser' in sys.modules and 'jsonschema' not in sys.modules\n"
        "assert agentpool.tools.tool is tool\n"
    )
    # Coverage would start in the child, and it loads sqlite3 for itself.
    env = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}
    subprocess.run([sys.executable, "-c", code], check=True, env=env)


def test_an_unknown_name_of_the_room_is_an_ordinary_attribute_error() -> None:
    """A lazy module must not turn a slip into something else."""
    import agentpool.tools as room

    assert {"tool", "ToolRegistry"} <= set(dir(room))
    with pytest.raises(AttributeError, match="no attribute 'toool'"):
        cast("Any", room).toool  # noqa: B018  # the look-up is the point
