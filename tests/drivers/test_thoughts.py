"""What a model thinks: told to whoever watches, kept, sent back, and never an answer."""

from __future__ import annotations

import json

import attrs
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from agentpool import (
    AgentManifest,
    AgentStatus,
    ModelConfig,
    PrivacyTier,
    SpawnConfig,
    StopReason,
    open_pool,
)
from agentpool._loop.cut_call import CUT_CALL
from agentpool._loop.joined_pieces import CONTINUE
from agentpool.abc import Completion, CompletionRequest, Driver, Observer, OnDelta
from agentpool.drivers import (
    AssistantMessage,
    FailedAttemptError,
    FallbackDriver,
    FinishReason,
    ProviderPart,
    ScriptedDriver,
    ToolCall,
    ToolMessage,
    UserMessage,
    open_openai,
)
from agentpool.drivers.wire._chat_request import ChatOptions, encode_request
from agentpool.observe import TextDelta, ThoughtDelta
from agentpool.testing import FakeTurn, StrictFake, strict_fake
from agentpool.tools import ToolRegistry, tool
from tests.support.fakes import manifest

ASK = CompletionRequest([UserMessage("Hi")])
URL = "https://api.deepseek.com/v1"


@attrs.define(eq=False)
class Recorder(Observer):
    """Keeps the events that are texts or thoughts."""

    events: list[TextDelta | ThoughtDelta] = attrs.field(factory=list)

    def on_event(self, event: object) -> None:
        """Keep it."""
        if isinstance(event, TextDelta | ThoughtDelta):
            self.events.append(event)


def thinking() -> StrictFake:
    """Return a server whose model thinks before it speaks."""
    return strict_fake("deepseek", [FakeTurn(text="Hello")])


async def test_observers_are_told_of_thoughts() -> None:
    """As events of their own, before the text that they led to; the outcome has the text."""
    recorder = Recorder()
    async with (
        open_openai("m", base_url=URL, transport=thinking()) as driver,
        open_pool(driver, observers=[recorder]) as pool,
    ):
        manifest = AgentManifest.parse('privacy = "Standard"')
        outcome = await (await pool.spawn(SpawnConfig(manifest, "Hi"))).wait()
    assert outcome.text == "Hello"
    assert [(type(one), one.text) for one in recorder.events] == [
        (ThoughtDelta, "hm 1"),
        (TextDelta, "Hel"),
        (TextDelta, "lo"),
    ]
    said = outcome.messages[-1]
    assert isinstance(said, AssistantMessage)
    assert [part.kind for part in said.parts] == ["reasoning_content"]


def told(recorder: Recorder) -> list[tuple[str, str]]:
    """Return the text and the thoughts that were told since the last call."""
    words = {TextDelta: "", ThoughtDelta: ""}
    for event in recorder.events:
        words[type(event)] += event.text
    recorder.events.clear()
    return [(words[TextDelta], words[ThoughtDelta])]


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ("<think>2 + 2</think>\n\n4", ("4", "2 + 2")),
        ("The mark <think> begins", ("The mark <think> begins", "")),
        ("<thin ice>", ("<thin ice>", "")),
        ("<think>2 + 2", ("", "2 + 2")),
        ("<thi", ("<thi", "")),
    ],
)
async def test_thoughts_in_a_text_are_told_as_thoughts(said: str, heard: tuple[str, str]) -> None:
    """What is shown while it streams is what the outcome has."""
    recorder = Recorder()
    async with open_pool(ScriptedDriver([said]), observers=[recorder]) as pool:
        outcome = await (await pool.spawn(SpawnConfig(AgentManifest(), "2+2?"))).wait()
    assert told(recorder) == [heard]
    assert outcome.text == heard[0]


async def test_thoughts_without_a_first_mark_are_expected_again() -> None:
    """They are seen when they end; from then on an answer of that model waits for that."""
    silent, plain = "2 + 2\n</think>\n4", "It is 4."
    recorder = Recorder()
    async with open_pool(
        ScriptedDriver([silent, silent, plain, silent]), observers=[recorder]
    ) as pool:
        heard: list[tuple[str, str]] = []
        for _ in range(4):
            await (await pool.spawn(SpawnConfig(AgentManifest(), "2+2?"))).wait()
            heard += told(recorder)
    assert heard == [(silent, ""), ("4", "2 + 2"), (plain, ""), (silent, "")]


@attrs.define(eq=False)
class Halting(Driver):
    """Writes a piece whenever it is let."""

    pieces: tuple[str, ...]
    gates: list[trio.Event] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        """Have a gate before each piece, and one before the end."""
        self.gates += [trio.Event() for _ in (*self.pieces, "")]

    @property
    def context_window(self) -> int | None:
        """Unknown."""
        return None

    @property
    def privacy(self) -> PrivacyTier:
        """It is here."""
        return PrivacyTier.SOVEREIGN

    async def complete(
        self,
        request: CompletionRequest,  # noqa: ARG002  # it says the same to all
        *,
        on_delta: OnDelta | None = None,
    ) -> Completion:
        """Write piece by piece."""
        assert on_delta is not None
        for gate, piece in zip(self.gates, self.pieces, strict=False):
            await gate.wait()
            on_delta(piece)
        await self.gates[-1].wait()
        return Completion("".join(self.pieces))


async def test_who_comes_late_or_leaves_early_is_told_no_thought_as_text() -> None:
    """What came before is looked at all the same."""
    driver = Halting(("<think>2", " + 2", "</think>4", "!"))

    async def let(count: int) -> None:
        for gate in driver.gates[:count]:
            gate.set()
        await trio.testing.wait_all_tasks_blocked()

    with trio.fail_after(30):
        async with open_pool(driver) as pool:
            handle = await pool.spawn(SpawnConfig(AgentManifest(), "2+2?"))
            await let(1)
            with pool.events() as reader:
                await let(3)
            await let(5)
            outcome = await handle.wait()
        heard = [(type(e), e.text) async for e in reader if isinstance(e, TextDelta | ThoughtDelta)]
    assert outcome.text == "4!"
    assert heard == [(ThoughtDelta, " + 2"), (TextDelta, "4")]


@attrs.define(eq=False)
class Ears:
    """Hears both."""

    thoughts: list[str] = attrs.field(factory=list)

    def __call__(self, text: str) -> None:
        """Take no note of text."""

    def thought(self, text: str) -> None:
        """Keep a thought."""
        self.thoughts.append(text)


async def test_a_thought_is_no_word_to_a_fallback(autojump_clock: MockClock) -> None:
    """It ends the patience, and another may still be asked: nothing was handed on."""
    ears = Ears()
    async with open_openai("m", base_url=URL, transport=thinking()) as first:
        driver = FallbackDriver(first, ScriptedDriver(["never"]), patience_seconds=5)
        assert (await driver.complete(ASK, on_delta=ears)).text == "Hello"
        assert ears.thoughts == ["hm 1"]
        # Who hears no thoughts, or does not listen, is told none.
        heard: list[str] = []
        await driver.complete(ASK, on_delta=heard.append)
        assert heard == ["Hel", "lo"]
        plain = FallbackDriver(first, ScriptedDriver(["never"]))
        assert (await plain.complete(ASK)).text == "Hello"


async def test_a_failed_attempt_is_asked_for_once_more(autojump_clock: MockClock) -> None:
    """Mostly it succeeds; a third time would be paid for the same again."""
    failure = FailedAttemptError("the model failed to write a tool call")
    once = ScriptedDriver([failure, "done"])
    async with open_pool(once) as pool:
        assert (await (await pool.spawn(SpawnConfig(AgentManifest(), "Hi"))).wait()).text == "done"
    twice = ScriptedDriver([failure, failure, "never"])
    async with open_pool(twice) as pool:
        outcome = await (await pool.spawn(SpawnConfig(AgentManifest(), "Hi"))).wait()
    assert isinstance(outcome.error, FailedAttemptError)
    assert len(twice.requests) == 2


@tool
async def write(text: str) -> str:
    """Write a text.

    Args:
        text: What.
    """
    await trio.lowlevel.checkpoint()
    return text


async def test_a_call_that_was_cut_is_told_why() -> None:
    """The tool could only say that its arguments are not JSON. The whole one runs."""
    calls = (ToolCall("a", "write", '{"text": "x"}'), ToolCall("b", "write", '{"text": "lon'))
    cut = Completion("", calls, FinishReason.MAX_TOKENS)
    driver = ScriptedDriver([cut, "done"])
    async with open_pool(driver, tools=ToolRegistry([write])) as pool:
        outcome = await (await pool.spawn(SpawnConfig(AgentManifest(), "Hi"))).wait()
    assert outcome.status is AgentStatus.COMPLETED
    first, second = driver.requests[1].messages[-2:]
    assert (getattr(first, "content", ""), getattr(first, "is_error", None)) == ("x", False)
    assert (getattr(second, "content", ""), getattr(second, "is_error", None)) == (CUT_CALL, True)


async def test_a_call_that_was_cut_in_its_name_is_told_why() -> None:
    """It is no tool that the model invented."""
    cut = Completion("", (ToolCall("a", "wri", ""),), FinishReason.MAX_TOKENS)
    driver = ScriptedDriver([cut, "done"])
    async with open_pool(driver, tools=ToolRegistry([write])) as pool:
        outcome = await (await pool.spawn(SpawnConfig(AgentManifest(), "Hi"))).wait()
    assert outcome.status is AgentStatus.COMPLETED
    (told,) = driver.requests[1].messages[-1:]
    assert (getattr(told, "content", ""), getattr(told, "is_error", None)) == (CUT_CALL, True)


async def test_a_call_that_was_refused_and_cut_is_told_why_it_was_refused() -> None:
    """To write it again, and shorter, would be paid for in vain."""
    calls = (ToolCall("a", "write", '{"text": "x"}'), ToolCall("b", "write", '{"text": "lon'))
    cut = Completion("", calls, FinishReason.MAX_TOKENS)
    async with open_pool(ScriptedDriver([cut, "done"]), tools=ToolRegistry([write])) as pool:
        config = SpawnConfig(manifest(max_tool_calls=1), "Hi")
        outcome = await (await pool.spawn(config)).wait()
    last = outcome.messages[-1]
    assert isinstance(last, ToolMessage)
    assert (last.call_id, last.is_error) == ("b", True)
    assert "tool calls" in last.content
    assert CUT_CALL not in last.content


async def test_calls_that_are_cut_again_and_again_end_the_run() -> None:
    """Each was paid for. The error says where the answers were cut, the outcome has them."""
    cut = [
        Completion("", (ToolCall("a", "write", f'{{"text": "{n}'),), FinishReason.MAX_TOKENS)
        for n in range(9)
    ]
    driver = ScriptedDriver(cut)
    async with open_pool(driver, tools=ToolRegistry([write])) as pool:
        outcome = await (await pool.spawn(SpawnConfig(AgentManifest(), "Hi"))).wait()
    assert (outcome.stop_reason, len(driver.requests)) == (StopReason.TRUNCATION, 5)
    assert "within a tool call; increase model.max_tokens" in str(outcome.error)
    asked = [one for one in outcome.messages if isinstance(one, AssistantMessage)]
    assert [one.tool_calls[0].arguments for one in asked] == [f'{{"text": "{n}' for n in range(5)]


async def test_parts_of_a_continued_answer_keep_their_place() -> None:
    """They belong to its last piece, which begins where the first one ended."""
    part = ProviderPart("p", "m", "thinking", "{}", text_at=1)
    pieces = [
        Completion("It is blue because of", (), FinishReason.MAX_TOKENS),
        Completion(" the air.", parts=(part,)),
    ]
    driver = ScriptedDriver(pieces)
    manifest = AgentManifest(model=ModelConfig(on_cut="continue"))
    async with open_pool(driver) as pool:
        outcome = await (await pool.spawn(SpawnConfig(manifest, "Hi"))).wait()
    said = outcome.messages[-1]
    assert isinstance(said, AssistantMessage)
    assert said.text == "It is blue because of the air."
    assert [one.text_at for one in said.parts] == [len("It is blue because of") + 1]
    assert driver.requests[1].messages[-1] == UserMessage(CONTINUE)


def part_of(kind: str, data: str, *, text_at: int = 0, call_at: int = 0) -> ProviderPart:
    """Return something that a provider wants back."""
    return ProviderPart("p", "m", kind, data, text_at=text_at, call_at=call_at)


async def test_a_continued_answer_keeps_the_thoughts_of_all_its_pieces() -> None:
    """They go back with what was cut, and stand before what they led to; a cut one does not."""
    first, last, cut = (part_of("thinking", f'"{name}"') for name in ("1", "2", "3"))
    cut = part_of("thinking", '"3"', text_at=len("It is blue "))
    driver = ScriptedDriver(
        [
            Completion("It is blue ", (), FinishReason.MAX_TOKENS, parts=(first, cut)),
            Completion("because of the air.", parts=(last,)),
        ]
    )
    manifest = AgentManifest(model=ModelConfig(on_cut="continue"))
    async with open_pool(driver) as pool:
        outcome = await (await pool.spawn(SpawnConfig(manifest, "Hi"))).wait()
    moved = part_of("thinking", '"2"', text_at=len("It is blue "))
    said = AssistantMessage("It is blue because of the air.", (), (first, moved))
    assert outcome.messages[-1] == said
    sent = AssistantMessage("It is blue ", (), (first,))
    assert driver.requests[1].messages[-2:] == (sent, UserMessage(CONTINUE))


@pytest.mark.parametrize(
    ("pieces", "joined"),
    [
        (('"a"', '"b"'), "ab"),
        (('[{"x": 1}]', '[{"x": 2}]'), [{"x": 1}, {"x": 2}]),
        (('{"x": 1}', '{"x": 2}'), {"x": 2}),
        (('"a"', '["b"]'), ["b"]),
    ],
)
def test_thoughts_of_two_pieces_are_one_field(pieces: tuple[str, str], joined: object) -> None:
    """Chat Completions has one place for all of them."""
    parts = tuple(part_of("reasoning_content", one) for one in pieces)
    said = AssistantMessage("x", (), parts)
    body = encode_request(CompletionRequest([said]), ChatOptions(model="m", provider="p"))
    assert json.loads(body)["messages"][0]["reasoning_content"] == joined


@pytest.mark.parametrize("second", ["deepseek", "other"])
async def test_a_fallback_of_another_kind_sees_no_thoughts(second: str) -> None:
    """A session may go on with another model, or with another provider."""
    model, url = ("n", URL) if second == "deepseek" else ("m", "https://api.other.example/v1")
    fake = strict_fake("vllm", [FakeTurn(text="x")])
    async with (
        open_openai("m", base_url=URL, transport=thinking()) as first,
        open_openai(model, base_url=url, transport=fake) as other,
    ):
        answer = await first.complete(ASK)
        said = AssistantMessage(answer.text, answer.tool_calls, answer.parts)
        await other.complete(CompletionRequest([UserMessage("Hi"), said, UserMessage("and?")]))
    assert answer.parts
    assert "hm" not in str(fake.requests[0])
