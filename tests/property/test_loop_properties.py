"""The loop's invariants under adversarial models: whatever they answer, these hold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentpool import AgentMessage, AgentPoolError, Capability, PrivacyTier, StopReason, Usage
from agentpool._loop.run import RunTools
from agentpool.abc import Completion
from agentpool.drivers import (
    AssistantMessage,
    ChatMessage,
    ContextOverflowError,
    EmptyAnswerError,
    FinishReason,
    ProtocolError,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from agentpool.tools import ToolRegistry
from tests.support.fakes import Performer, Quota, echo_tool, manifest, new_run, perform

NAMES = ("echo", "search", "rm", "no such tool", "")
"""``rm`` is there and not granted; the last two are not there."""

call_texts = st.one_of(
    st.sampled_from(
        ["{}", '{"a": 1}', '{"a":1}', "", "not json", "{", '{"a": NaN}', "[]", "\ud800"]
    ),
    st.text(max_size=20),
)
tool_calls = st.lists(
    st.builds(ToolCall, st.sampled_from(["", "id-1", "id-2"]), st.sampled_from(NAMES), call_texts),
    max_size=6,
).map(tuple)
usages = st.none() | st.builds(Usage, st.integers(0, 500), st.integers(0, 500))
completions = st.builds(
    Completion,
    st.sampled_from(["", "text", "wörter", "long " * 400]),
    st.just(()) | tool_calls,
    st.sampled_from(list(FinishReason)),
    usages,
)
scripts = st.lists(completions, min_size=1, max_size=12)
quotas = st.fixed_dictionaries(
    {
        "max_iterations": st.integers(1, 10),
        "max_tool_calls": st.integers(1, 12),
        "max_tokens_budget": st.none() | st.integers(1, 2_000),
        "max_cost_usd": st.sampled_from([0.0, 0.001, 1.0]),
        "max_repeated_calls": st.integers(2, 4),
    }
)
posts = st.dictionaries(
    st.integers(0, 8),
    st.lists(
        st.builds(AgentMessage, st.integers(0, 9), st.just(1), st.text(max_size=9), st.integers(1)),
        max_size=3,
    ),
    max_size=4,
)
rooms = st.none() | st.integers(20, 3_000)
results = st.sampled_from(["", "ok", "huge " * 5_000, "größe" * 2_000])


def refuse(name: str) -> str | None:
    """Refuse what is not there, and what is not granted."""
    if name == "rm":
        return "capability denied for tool 'rm'"
    return None if name in {"echo", "search"} else f"unknown tool: {name}"


def endless(script: list[Completion]) -> list[Completion]:
    """Return a script that no run outlives."""
    return script * 40


def assert_calls_are_answered(messages: tuple[ChatMessage, ...]) -> None:
    """Check rule 3: one result per call, right behind it, in the order of the calls."""
    open_calls: list[ToolCall] = []
    for message in messages:
        if isinstance(message, ToolMessage):
            assert open_calls
            call = open_calls.pop(0)
            assert (message.call_id, message.name) == (call.call_id, call.name)
        else:
            assert open_calls == []
            if isinstance(message, AssistantMessage):
                open_calls = list(message.tool_calls)
    assert open_calls == []


adversaries = st.fixed_dictionaries(
    {"script": scripts, "quota": quotas, "post": posts, "room": rooms, "result": results}
)


def run_against(adversary: dict[str, object], **given_: object) -> Performer:
    """Take a run through what an adversary has prepared."""
    quota: Quota = adversary["quota"]  # type: ignore[assignment]
    script: list[Completion] = adversary["script"]  # type: ignore[assignment]
    run = new_run(
        refuse=refuse,
        room_tokens=adversary["room"],  # type: ignore[arg-type]
        **quota,
    )
    return perform(
        endless(script),
        run,
        post=adversary["post"],
        tool=lambda _: adversary["result"],
        price=lambda usage: usage.total_tokens / 1e6,
        **given_,
    )


@given(adversaries)
def test_a_run_ends_after_at_most_its_iterations(adversary: dict[str, object]) -> None:
    """N requests at most, then an end that says what it was."""
    done = run_against(adversary)
    run = done.run
    limit = run.manifest.resources.max_iterations
    assert len(done.requests) <= limit
    assert run.guard.iterations <= limit + 1
    if done.error is not None:
        assert isinstance(done.error, ContextOverflowError | EmptyAnswerError | ProtocolError)
        assert run.stop_reason is None
    else:
        assert run.stop_reason is not None
        succeeded = run.stop_reason in {StopReason.END_TURN, StopReason.STOP_SEQUENCE}
        # Rule 5: only an answer that the model itself ended is a success, and kept as one.
        assert (run.stop is None) is succeeded
        assert len(done.remembered) == succeeded
    if run.stop_reason is StopReason.MAX_ITERATIONS:
        assert len(done.requests) == limit


@given(st.integers(1, 100))
def test_a_model_that_never_ends_is_ended(max_iterations: int) -> None:
    """Exactly n requests, for every n."""
    calls = (Completion("", (ToolCall("", "echo", f"{n}"),)) for n in range(1_000))
    done = perform(calls, new_run(max_iterations=max_iterations, max_tool_calls=1_000))
    assert done.run.stop_reason is StopReason.MAX_ITERATIONS
    assert len(done.requests) == max_iterations


@given(adversaries)
def test_every_call_has_one_result_whatever_ends_the_run(adversary: dict[str, object]) -> None:
    """Rule 3, G10: in the transcript and in every request that was made on the way."""
    done = run_against(adversary)
    assert_calls_are_answered(done.transcript)
    for request in done.requests:
        assert_calls_are_answered(tuple(request.messages))


@given(adversaries, st.integers(0, 40), st.lists(st.booleans(), max_size=6))
def test_a_run_that_is_broken_off_anywhere_keeps_all_it_had(
    adversary: dict[str, object], stop_after: int, arrived: list[bool]
) -> None:
    """Rule 6, G16: at each effect in turn: transcript whole, calls answered, text kept."""
    broken = run_against(adversary, stop_after=stop_after)
    batch = broken.effects[-1]
    if isinstance(batch, RunTools):
        for index, has_come in enumerate(arrived[: len(batch.calls)]):
            if has_come and batch.results[index] is None:
                call = batch.calls[index]
                batch.results[index] = ToolMessage(call.call_id, call.name, "came in time")
    transcript = broken.transcript
    assert_calls_are_answered(transcript)
    assert transcript == broken.transcript
    assert UserMessage("hello") in transcript
    said = [m.text for m in transcript if isinstance(m, AssistantMessage) and m.text]
    assert broken.run.partial == ""
    assert not broken.run.text or broken.run.text in said


@given(adversaries)
def test_text_and_usage_of_every_answer_are_kept(adversary: dict[str, object]) -> None:
    """Rule 2: what was paid for is in the transcript and in the sum."""
    done = run_against(adversary)
    script: list[Completion] = adversary["script"]  # type: ignore[assignment]
    answers = endless(script)[: len(done.requests)]
    said = [m.text for m in done.transcript if isinstance(m, AssistantMessage) and m.text]
    if done.error is None:
        assert said == [answer.text for answer in answers if answer.text]
    known = [answer.usage for answer in answers if answer.usage is not None]
    assert done.run.guard.usage == sum(known, Usage())
    assert done.run.guard.unmeasured_requests == len(answers) - len(known)


@given(adversaries)
def test_the_query_is_in_every_request(adversary: dict[str, object]) -> None:
    """Whatever the window leaves out, it is not the question."""
    done = run_against(adversary)
    for request in done.requests:
        assert UserMessage("hello") in request.messages
        assert not isinstance(request.messages[0], ToolMessage | AssistantMessage)


@given(adversaries)
def test_the_transcript_only_grows(adversary: dict[str, object]) -> None:
    """Frame: no request contradicts the transcript, nor changes the order in it."""
    done = run_against(adversary)
    for request in done.requests:
        rest = iter(done.transcript)
        assert all(any(message == other for other in rest) for message in request.messages)


@given(
    scripts,
    st.sets(st.sampled_from(["shell", "network", "memory"])),
    st.sampled_from(list(PrivacyTier)),
)
def test_what_is_not_granted_does_not_run(
    script: list[Completion], granted: set[str], privacy: PrivacyTier
) -> None:
    """Not executed, an error result that says why, and the next turn still runs."""
    from agentpool import CapabilityKind
    from agentpool._manifest.capability import grants_allow
    from tests.support.fakes import FakeTool

    needs = {
        "echo": None,
        "search": Capability.network("example.org"),
        "rm": Capability.shell("rm"),
    }
    grants = tuple(
        {
            "shell": Capability.shell("rm"),
            "network": Capability.network("*"),
            "memory": Capability(CapabilityKind.MEMORY),
        }[name]
        for name in sorted(granted)
    )
    registry = ToolRegistry(
        FakeTool(name, echo_tool()._function, capability) for name, capability in needs.items()
    )
    run = new_run(
        run_manifest=manifest(
            capabilities=grants, privacy=privacy, max_iterations=5, max_tool_calls=1_000
        ),
        refuse=lambda name: registry.refusal(name, grants, privacy),
    )
    done = perform(endless(script), run)
    for call in done.ran:
        assert call.name in needs
        assert grants_allow(grants, needs[call.name])
        assert not (call.name == "search" and privacy is PrivacyTier.SOVEREIGN)
    refused = [m for m in done.transcript if isinstance(m, ToolMessage) and m.is_error]
    ran = [m for m in done.transcript if isinstance(m, ToolMessage) and not m.is_error]
    assert len(ran) == len(done.ran)
    for message in refused:
        if message.name == "rm" and "shell" not in granted and "not run" not in message.content:
            assert "capability" in message.content
    if not granted:
        assert {call.name for call in done.ran} <= {"echo"}


@given(
    st.lists(
        st.sampled_from(["cut", "cut", "cut", "cut", "cut", "tools", "fine"]),
        min_size=1,
        max_size=30,
    )
)
def test_the_fifth_truncation_in_a_row_and_never_earlier(words: list[str]) -> None:
    """Any tool call in between ends the row; an answer ends the run."""
    script: list[Completion] = []
    for number, word in enumerate(words):
        if word == "cut":
            script.append(Completion("x", (), FinishReason.MAX_TOKENS))
        elif word == "tools":
            script.append(Completion("", (ToolCall("", "echo", f"{number}"),)))
        else:
            script.append(Completion("end"))
    in_row = 0
    expected: tuple[int, StopReason] | None = None
    for number, word in enumerate(words, start=1):
        in_row = in_row + 1 if word == "cut" else 0
        if in_row == 5:
            expected = (number, StopReason.TRUNCATION)
        elif word == "fine":
            expected = (number, StopReason.END_TURN)
        if expected:
            break
    run = new_run(on_cut="continue", max_iterations=100, max_tool_calls=100)
    done = perform([*script, Completion("end")], run)
    assert (len(done.requests), run.stop_reason) == (
        expected or (len(words) + 1, StopReason.END_TURN)
    )


@given(adversaries, st.integers(0, 6))
def test_an_interrupt_ends_the_run_where_it_is_seen(
    adversary: dict[str, object], turn: int
) -> None:
    """Control before data: no request is made after it."""
    done = run_against(adversary, interrupt_at=turn)
    assert len(done.requests) <= turn
    if done.turn > turn:
        assert done.run.stop_reason is StopReason.INTERRUPTED


@given(adversaries)
def test_a_run_raises_nothing_but_our_own_errors(adversary: dict[str, object]) -> None:
    """Whatever a model writes, it is not an exception of Python's."""
    done = run_against(adversary)
    assert done.error is None or isinstance(done.error, AgentPoolError)
