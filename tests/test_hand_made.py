"""Messages, answers, results and drivers that users make by hand, of wrong types.

They are checked where they enter the pool; what a driver or a tool returned is in the outcome.
"""

# ruff: noqa: ARG002  # these drivers look at nothing

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import pytest

from agentpool import (
    AgentOutcome,
    AgentStatus,
    AssistantMessage,
    Budget,
    PrivacyTier,
    SpawnConfig,
    ToolCall,
    ToolMessage,
    Usage,
    UsageError,
    UserMessage,
    open_pool,
)
from agentpool.abc import Completion, CompletionRequest, Driver, OnDelta, ToolContext, ToolResult
from agentpool.drivers import (
    Attachment,
    FallbackDriver,
    FunctionDriver,
    GatedDriver,
    RequestGate,
    ScriptedDriver,
    call,
    messages_to_json,
)
from agentpool.tools import Tool, ToolDefinition, ToolRegistry
from tests.support.fakes import FakeTool, calling, job, manifest, tool_call

ANY: Any = None
THREE: Any = 3
TEXTS: Any = ("add",)
END: Any = "end_turn"
TEXT: Any = "free"
PDF: Any = Attachment("application/pdf", b"%PDF-1.4\n1 0 obj<<>>endobj\ntrailer<<>>\n%%EOF")


class OneDriver(Driver):
    """As a user writes it."""

    context_window: Any = 8000
    privacy: Any = PrivacyTier.SOVEREIGN

    def __init__(self, answer: Any = None) -> None:  # noqa: ANN401, D107  # of any type
        self.answer = answer

    async def complete(self, request: CompletionRequest, *, on_delta: OnDelta | None = None) -> Any:  # noqa: ANN401
        """Return what it was made with."""
        return self.answer

    def price(self, usage: Usage, *, model: str | None = None) -> float | None:
        """Cost nothing."""
        return 0.0


class NotAsync(OneDriver):
    """Forgot ``async``."""

    def complete(self, request: CompletionRequest, *, on_delta: OnDelta | None = None) -> Any:  # noqa: ANN401
        """Return an answer at once."""
        return Completion("x")


class NoPieces(OneDriver):
    """Forgot ``on_delta``."""

    async def complete(self, request: CompletionRequest) -> Completion:  # type: ignore[override]
        """Return an answer."""
        return Completion("x")


class OddPrice(OneDriver):
    """Answers with a price in words."""

    def price(self, usage: Usage, *, model: str | None = None) -> Any:  # noqa: ANN401
        """Return a text."""
        return "cheap"


MESSAGES: tuple[tuple[object, str], ...] = (
    (UserMessage(THREE), "text must be a str, got a value of type int; see help(UserMessage)"),
    (UserMessage("look", attachments=TEXTS), "each item in attachments must be"),
    (AssistantMessage("x", tool_calls=TEXTS), "each item in tool_calls must be a ToolC"),
    (AssistantMessage("x", tool_calls=TEXT), "tool_calls must be a tuple, got a value of type str"),
    (AssistantMessage("x", (ToolCall("1", THREE, "{}"),)), "name must be a str, got a value of"),
    (ToolMessage("1", "add", THREE), "content must be a str, got a value of type int"),
    (ToolMessage("1", "add", "4", is_error=TEXT), "is_error must be a bool, got a value of type"),
)


@pytest.mark.parametrize(("message", "says"), MESSAGES)
def test_a_hand_made_message_is_checked_where_it_enters(message: Any, says: str) -> None:  # noqa: ANN401
    """As history of an agent, and where a conversation is stored."""
    fine: list[Any] = [UserMessage("Hi"), AssistantMessage("Yes", (ToolCall("1", "add", "{}"),))]
    with pytest.raises(UsageError) as caught:
        SpawnConfig(manifest(), "go on", history=(*fine, message))
    assert says in str(caught.value)
    with pytest.raises(UsageError) as caught:
        messages_to_json([*fine, message])
    assert says in str(caught.value)


def test_a_history_of_right_messages_is_taken() -> None:
    """With lists in the places of tuples, as JSON of another program has them."""
    calls: Any = [ToolCall("1", "add", "{}")]
    history: Any = [UserMessage("Hi"), AssistantMessage("", calls), ToolMessage("1", "add", "4")]
    config = SpawnConfig(manifest(), "go on", history=history)
    assert config.history == (
        UserMessage("Hi"),
        AssistantMessage("", (ToolCall("1", "add", "{}"),)),
        ToolMessage("1", "add", "4"),
    )


async def outcome_of(driver: Driver, **terms: Any) -> AgentOutcome:  # noqa: ANN401
    """Return how one agent of *driver* ended."""
    async with open_pool(driver, **terms) as pool:
        return await (await pool.spawn(job())).wait()


ANSWERS: tuple[tuple[object, str], ...] = (
    (None, "OneDriver.complete() must return a Completion, got None; write return Completion(tex"),
    ("yes", "OneDriver.complete() must return a Completion, got a value of type str"),
    (Completion(THREE), "answer of the driver: text must be a str, got a value of type int"),
    (Completion("x", tool_calls=TEXT), "tool_calls must be a tuple, got a value of type str"),
    (Completion("x", tool_calls=TEXTS), "each item in tool_calls must be a ToolCall"),
    (Completion("x", (ToolCall(THREE, "add", "{}"),)), "call_id must be a str, got a value of typ"),
    (Completion("x", finish_reason=END), "write FinishReason.END_TURN"),
    (Completion("x", usage=THREE), "usage must be a Usage or None, got a value of type int"),
    (Completion("x", model=THREE), "model must be a str or None, got a value of type int"),
)


AROUND: tuple[Callable[[Driver], Driver], ...] = (
    lambda driver: driver,
    FallbackDriver,
    lambda driver: FallbackDriver(driver, ScriptedDriver(["not asked"])),
    lambda driver: GatedDriver(driver, RequestGate("gate", max_in_flight=1)),
)


@pytest.mark.parametrize("around", AROUND, ids=["bare", "fallback", "first of two", "gate"])
@pytest.mark.parametrize("terms", [{}, {"budget": True}], ids=["free", "paid"])
@pytest.mark.parametrize(("answer", "says"), ANSWERS)
async def test_a_wrong_answer_of_a_driver_is_the_error_of_the_outcome(
    answer: object, says: str, terms: Mapping[str, object], around: Callable[[Driver], Driver]
) -> None:
    """Which names the driver and the field, also from inside another one; the pool goes on."""
    budget = Budget(tokens=100_000) if terms else None
    outcome = await outcome_of(around(OneDriver(answer)), budget=budget)
    assert (outcome.status, type(outcome.error)) == (AgentStatus.FAILED, UsageError)
    assert says in str(outcome.error)


@pytest.mark.parametrize("terms", [{}, {"budget": True}], ids=["free", "paid"])
@pytest.mark.parametrize(
    ("driver", "says"),
    [
        (
            NotAsync(),
            "NotAsync.complete() cannot be called: object Completion can't be used in 'aw",
        ),
        (NoPieces(), "on_delta'; write async def complete(self, request, *, on_delta=None)"),
        (OddPrice(Completion("x", usage=Usage(1, 1))), "got 'cheap'"),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_a_driver_with_wrong_methods_is_told_what_to_write(
    driver: Driver, says: str, terms: Mapping[str, object]
) -> None:
    """In the outcome, since they are called for an agent."""
    budget = Budget(tokens=100_000) if terms else None
    outcome = await outcome_of(driver, budget=budget)
    assert (outcome.status, type(outcome.error)) == (AgentStatus.FAILED, UsageError)
    assert says in str(outcome.error)


@pytest.mark.parametrize(("answer", "says"), ANSWERS[2:])
async def test_a_wrong_answer_of_a_function_or_a_script_is_named_as_well(
    answer: Any,  # noqa: ANN401
    says: str,
) -> None:
    """Before its tokens are estimated and its calls are numbered."""
    for driver in (FunctionDriver(lambda _: answer), ScriptedDriver([answer])):
        outcome = await outcome_of(driver)
        assert (outcome.status, type(outcome.error)) == (AgentStatus.FAILED, UsageError)
        assert says.removeprefix("answer of the driver: ") in str(outcome.error)


async def test_a_type_error_from_within_a_driver_stays_as_it_is() -> None:
    """It is not about how the driver was asked."""

    def wrong(_: CompletionRequest) -> str:
        return "x" + THREE  # type: ignore[no-any-return]

    outcome = await outcome_of(FunctionDriver(wrong))
    assert isinstance(outcome.error, TypeError)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("privacy", "Standard", "write PrivacyTier.STANDARD; see help(OneDriver)"),
        ("context_window", "8000", "context_window must be an int or None, got '8000'"),
        ("max_output_tokens", 1.5, "max_output_tokens must be an int or None, got"),
        ("inputs", "image", "inputs must be a Collection or None, got a value of type str"),
        ("most_image_bytes", "1 MB", "most_image_bytes must be an int or None"),
        ("most_input_tokens", "8k", "most_input_tokens must be an int or None, got '8k'; see he"),
        ("most_input_tokens", 1.5, "most_input_tokens must be an int or None, got a value of ty"),
        ("most_input_tokens", math.nan, "most_input_tokens must be an int or None"),
    ],
)
async def test_a_driver_with_a_wrong_property_is_refused(
    name: str, value: object, says: str
) -> None:
    """When the pool opens, or by the spawn whose factory returned it."""
    kind: Callable[[], OneDriver] = type("OneDriver", (OneDriver,), {name: value})
    with pytest.raises(UsageError) as caught:
        async with open_pool(kind()):
            pass
    assert says in str(caught.value)
    async with open_pool(lambda _: kind()) as pool:
        with pytest.raises(UsageError) as caught:
            await pool.spawn(job())
    assert says in str(caught.value)
    with pytest.raises(UsageError) as caught:
        FallbackDriver(OneDriver(), kind())
    assert says in str(caught.value)


class OneTool(Tool):
    """As a user writes it."""

    definition: Any = ToolDefinition("one", "Do it.", {"type": "object"})

    async def run(self, arguments: str, context: ToolContext) -> ToolResult:
        """Do nothing."""
        return ToolResult("done")


@pytest.mark.parametrize("terms", [{}, {"budget": True}], ids=["free", "paid"])
@pytest.mark.parametrize("count", ["many", None, math.nan, 1.5, -1, True], ids=repr)
async def test_an_attachment_of_no_count_is_the_error_of_the_outcome(
    count: object, terms: Mapping[str, object]
) -> None:
    """Which names the driver, also of one that another driver asks."""
    facts = {"attachment_tokens": lambda _, __: count, "__module__": __name__}
    own: Driver = type("OneDriver", (OneDriver,), facts)(Completion("x"))
    drivers = [own, FallbackDriver(OneDriver(), own), GatedDriver(own, RequestGate())]
    for driver in drivers:
        budget = Budget(tokens=100_000) if terms else None
        async with open_pool(driver, budget=budget) as pool:
            config = SpawnConfig(manifest(), "q", attachments=(PDF,))
            outcome = await (await pool.spawn(config)).wait()
        assert (outcome.status, type(outcome.error)) == (AgentStatus.FAILED, UsageError)
        said = "OneDriver.attachment_tokens() must return a whole number >= 0, got "
        assert str(outcome.error).startswith(said)


FACTS: tuple[tuple[str, object, str], ...] = (
    ("capability", "rag", "tool 'one': capability must be a Capability or None, got"),
    ("timeout_seconds", "5", "tool 'one': timeout_seconds must be a float or None, got '5'"),
    ("timeout_seconds", math.nan, "tool 'one': timeout_seconds must be > 0 or None, got nan"),
    ("timeout_seconds", -1, "tool 'one': timeout_seconds must be > 0 or None, got -1"),
    ("timeout_seconds", True, "tool 'one': timeout_seconds must be a float or None, got"),
    ("timeout_seconds", 10**400, "got a number of more than 50 digits; see help(OneTool)"),
    ("needs_approval", "no", "tool 'one': needs_approval must be a bool, got a value of type str"),
    ("waits", None, "tool 'one': waits must be a bool, got None"),
    ("on_unknown", "retry", "tool 'one': on_unknown must be 'report', 'rerun', "),
    ("definition", {"name": "one"}, "definition of a tool must be a ToolDefinition, got"),
    (
        "definition",
        ToolDefinition("one", "Do it.", {"type": object()}),
        "tool 'one': definition.input_schema must be JSON: ",
    ),
)


@pytest.mark.parametrize(("name", "value", "says"), FACTS, ids=lambda one: str(one)[:20])
async def test_a_tool_with_a_wrong_property_is_refused(name: str, value: object, says: str) -> None:  # noqa: ASYNC124  # a tool of that kind
    """Where it enters; the error names the tool and the property."""
    kind: Callable[[], Tool] = type("OneTool", (OneTool,), {name: value})
    with pytest.raises(UsageError) as caught:
        ToolRegistry([kind()])
    assert says in str(caught.value)
    with pytest.raises(UsageError):
        ToolRegistry().with_tools(kind())


async def test_a_right_tool_made_by_hand_is_taken() -> None:
    """With no limit, and a schema that cannot be changed."""
    schema = MappingProxyType({"type": "object", "required": ()})
    facts = {"timeout_seconds": math.inf, "definition": ToolDefinition("one", "", schema)}
    kind: Callable[[], Tool] = type("OneTool", (OneTool,), facts)
    script = ScriptedDriver([calling(tool_call("one")), "end"])
    assert (await outcome_of(script, tools=ToolRegistry().with_tools(kind()))).text == "end"


async def test_a_result_of_a_tool_with_a_wrong_field_is_told_to_the_model() -> None:
    """As any failure of a tool."""

    async def add(_: str, __: ToolContext) -> ToolResult:  # noqa: ASYNC124  # a tool of that kind
        return ToolResult(THREE)

    tools = ToolRegistry([FakeTool("add", add)])
    script = ScriptedDriver([calling(tool_call("add")), "done"])
    outcome = await outcome_of(script, tools=tools)
    told = [one for one in outcome.messages if isinstance(one, ToolMessage)]
    assert outcome.text == "done"
    assert told[0].is_error
    assert "content must be a str, got a value of type int" in told[0].content


@pytest.mark.parametrize(
    "wrong",
    [lambda: call(THREE), lambda: ScriptedDriver([call("add", a=1)], privacy=TEXT)],
)
def test_the_makers_of_answers_check_at_once(wrong: Callable[[], object]) -> None:
    """They are called by hand, and not for each step."""
    with pytest.raises(UsageError):
        wrong()
