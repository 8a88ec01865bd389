"""A window that is full: what leaves, what stands for it, and that nothing goes in silence."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import attrs
import pytest
import trio
import trio.lowlevel
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from agentpool import (
    AgentManifest,
    AgentStatus,
    Budget,
    ContextConfig,
    ManifestError,
    SpawnConfig,
    StopReason,
    Usage,
    UsageError,
    open_pool,
)
from agentpool._loop.conversation import Conversation, message_tokens
from agentpool._loop.run import Run
from agentpool._loop.tokens import Estimator
from agentpool._loop.window import MessageView
from agentpool._loop.window_strategy import ASK_FOR_SUMMARY
from agentpool.abc import Completion, CompletionRequest, OnDelta
from agentpool.drivers import (
    AssistantMessage,
    BadRequestError,
    ChatMessage,
    ContextOverflowError,
    FallbackDriver,
    FunctionDriver,
    ToolMessage,
    UserMessage,
)
from agentpool.observe import WindowCut
from agentpool.tools import ToolRegistry
from tests.support.fakes import (
    LiveDriver,
    Performer,
    Recorder,
    calling,
    cut_off,
    echo_tool,
    manifest,
    new_run,
    of_type,
    perform,
    tool_call,
)

Strategy = Literal["drop", "clear_results", "summary"]
STRATEGIES: tuple[Strategy, ...] = ("drop", "clear_results", "summary")
LONG = "the same old story, told at length; " * 12
"""A result of some 170 tokens."""


def run_of(
    strategy: Strategy, *, room_tokens: int = 2_000, history: Sequence[ChatMessage] = ()
) -> Run:
    """Return a run whose window is full before long."""
    described = attrs.evolve(
        manifest(max_iterations=1_000, max_tool_calls=1_000),
        context=ContextConfig(strategy=strategy),
    )
    return new_run(run_manifest=described, room_tokens=room_tokens, history=history)


def turns(count: int) -> list[Completion | str]:
    """Return so many answers with a call, and one in words."""
    calls = [calling(tool_call("look", f"id-{n}", n=n), text=f"step {n}") for n in range(count)]
    return [*calls, "done"]


def tokens(messages: Sequence[ChatMessage]) -> int:
    """Return what *messages* take."""
    return sum(map(message_tokens, messages))


def shared(before: Sequence[ChatMessage], after: Sequence[ChatMessage]) -> int:
    """Return the tokens with which both begin."""
    same = 0
    for one, other in zip(before, after, strict=False):
        if one != other:
            break
        same += message_tokens(one)
    return same


def whole(messages: Sequence[ChatMessage]) -> bool:
    """Whether each call is followed by its result, and no result is without a call."""
    wanted: list[str] = []
    for message in messages:
        if isinstance(message, ToolMessage):
            if not wanted or wanted.pop(0) != message.call_id:
                return False
        elif wanted:
            return False
        if isinstance(message, AssistantMessage):
            wanted = [call.call_id for call in message.tool_calls]
    return not wanted


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_400_turns_send_the_same_beginning_again(strategy: Strategy) -> None:
    """At least 85 % of what is sent was the beginning of the request before."""
    run = run_of(strategy, room_tokens=20_000)
    done = perform(turns(400), run, tool=lambda c: f"{c.call_id} {LONG}", summaries=["so"] * 99)
    assert (done.error, done.run.text, len(done.requests)) == (None, "done", 401)
    sent = same = 0
    shares: list[float] = []
    for before, after in itertools.pairwise(done.requests):
        sent += tokens(after.messages)
        again = shared(before.messages, after.messages)
        same += again
        shares.append(again / tokens(after.messages))
    assert same / sent >= 0.85
    assert 1 < len(done.cuts) < 30
    # Of each by itself as well, but for the first ones, which are short, and one after each cut.
    assert sum(share < 0.85 for share in shares[8:]) == len(done.cuts)


@pytest.mark.parametrize("strategy", STRATEGIES)
@given(st.integers(0, 30), st.integers(200, 3_000), st.integers(0, 3))
def test_whatever_leaves_calls_and_results_stay_together(
    strategy: Strategy, count: int, room_tokens: int, runs: int
) -> None:
    """Each request fits, has the query and no half of a call; the transcript is whole."""
    history = [
        one
        for n in range(runs)
        for one in (
            UserMessage(f"question {n}"),
            AssistantMessage("", (tool_call("look", f"old-{n}"),)),
            ToolMessage(f"old-{n}", "look", LONG),
            AssistantMessage(f"answer {n}"),
        )
    ]
    run = run_of(strategy, room_tokens=room_tokens, history=history)
    done = perform(turns(count), run, tool=lambda _: LONG, summaries=["in short"] * 99)
    assert done.error is None
    for request in (*done.requests, *done.asked_to_sum_up):
        assert whole(request.messages)
        assert tokens(request.messages) <= room_tokens
        assert UserMessage("hello") in request.messages
    assert done.transcript[: len(history)] == tuple(history)
    assert len(done.transcript) == len(history) + 2 + 2 * count
    gone = sum(cut.cut.messages for cut in done.cuts)
    assert run.conversation is not None
    assert gone <= run.conversation.left_out <= gone + sum(cut.cut.results for cut in done.cuts)


def test_a_window_that_is_full_is_cut_to_three_quarters() -> None:
    """So it is not cut again at each turn; each cut says how much left."""
    done = perform(turns(60), run_of("drop"), tool=lambda _: LONG)
    sizes = [tokens(request.messages) for request in done.requests]
    after_cuts = [after for before, after in itertools.pairwise(sizes) if after < before]
    assert len(after_cuts) == len(done.cuts) > 1
    assert max(after_cuts) <= 1_500
    assert max(sizes) > 1_750
    assert all(cut.cut.messages and cut.cut.tokens > 250 for cut in done.cuts)
    assert {(cut.strategy, cut.cut.results, cut.summary) for cut in done.cuts} == {("drop", 0, "")}


def test_old_results_make_room_before_turns_do() -> None:
    """The call stays and its result is a stub; the newest result is whole."""
    done = perform(turns(12), run_of("clear_results"), tool=lambda _: LONG)
    last = done.requests[-1].messages
    results = [message for message in last if isinstance(message, ToolMessage)]
    assert len(results) == 12
    stub = f"[a result of {len(LONG):,} characters, left out to make room]"
    assert results[0].content == stub
    assert results[-1].content == LONG
    assert all(cut.cut.results and not cut.cut.messages for cut in done.cuts)
    kept = [m.content for m in done.transcript if isinstance(m, ToolMessage)]
    assert kept == [LONG] * 12
    assert done.run.conversation is not None
    assert done.run.conversation.left_out == sum(result.content == stub for result in results)


def test_turns_go_where_their_stubs_are_still_too_many() -> None:
    """Stubs take room as well: in the end whole turns leave."""
    done = perform(turns(80), run_of("clear_results"), tool=lambda _: LONG)
    assert any(cut.cut.messages for cut in done.cuts)
    assert any(cut.cut.results for cut in done.cuts)


def test_a_summary_stands_behind_the_query_for_what_left() -> None:
    """It is asked for with the beginning of the request before, and is in no transcript."""
    texts = [f"summary {n}" for n in range(30)]
    done = perform(turns(30), run_of("summary"), tool=lambda _: LONG, summaries=texts.copy())
    used = len(done.cuts)
    assert used > 2
    first = done.asked_to_sum_up[0].messages
    before = next(r for r in done.requests if len(r.messages) >= len(first)).messages
    assert first[:-1] == before[: len(first) - 1]
    assert first[-1] == ASK_FOR_SUMMARY
    summary = done.requests[-1].messages[1]
    assert isinstance(summary, UserMessage)
    assert "your own summary" in summary.text
    assert texts[used - 1] in summary.text
    # The one before is summed up with what left since.
    asked = done.asked_to_sum_up[1].messages[1]
    assert isinstance(asked, UserMessage)
    assert texts[0] in asked.text
    assert [cut.summary for cut in done.cuts] == texts[:used]
    assert all(m.text == "hello" for m in done.transcript if isinstance(m, UserMessage))


@pytest.mark.parametrize("blank", ["", " \n"])
def test_without_a_summary_the_turns_are_dropped_and_it_is_said(blank: str) -> None:
    """A run does not end because a summary could not be had."""
    done = perform(turns(30), run_of("summary"), tool=lambda _: LONG, summaries=[blank] * 9)
    assert (done.error, done.run.text) == (None, "done")
    assert {(cut.summary, cut.failure) for cut in done.cuts} == {("", "the model wrote nothing")}


def test_a_long_summary_is_cut_to_its_share() -> None:
    """An eighth of the window: a summary must not fill what it made room in."""
    done = perform(
        turns(30), run_of("summary"), tool=lambda _: LONG, summaries=["long " * 9999] * 9
    )
    assert done.error is None
    assert all(message_tokens(UserMessage(cut.summary)) <= 2_000 // 8 for cut in done.cuts)
    assert "[cut: " in done.cuts[0].summary


def test_what_is_too_long_to_be_summed_up_is_dropped_and_it_is_said() -> None:
    """A history that fills more than the window cannot be sent once more."""
    history = [m for n in range(9) for m in (UserMessage(f"{n} {LONG}"), AssistantMessage(LONG))]
    done = perform(["done"], run_of("summary", room_tokens=1_000, history=history))
    (cut,) = done.cuts
    assert cut.failure == "the messages to leave out are too long for a summary"
    assert (done.asked_to_sum_up, done.run.text) == ([], "done")


def test_a_summary_that_used_up_the_budget_is_the_end() -> None:
    """It is paid as any request: after it nothing is left for the turn."""
    run = run_of("summary")
    performer = Performer(run, iter(turns(30)), tool=lambda _: LONG, summaries=["so"] * 9)
    stop = new_run(max_tokens_budget=1).guard.record_usage(Usage(5, 5))
    performer.after_summary = lambda: setattr(run, "exhausted", stop)
    performer.go()
    assert (run.stop, run.stop_reason) == (stop, StopReason.TOKEN_BUDGET)
    assert performer.cuts == []


def test_an_answer_that_goes_on_has_its_room() -> None:
    """Nothing that leaves is enough where the newest turn itself is too long."""
    run = run_of("summary", room_tokens=60)
    run.manifest = attrs.evolve(
        run.manifest, model=attrs.evolve(run.manifest.model, on_cut="continue")
    )
    done = perform([cut_off("word " * 60), "end"], run)
    assert isinstance(done.error, ContextOverflowError)
    assert done.run.text.startswith("word word")


def test_an_estimate_is_made_anew_where_a_stub_stands() -> None:
    """The request has the same first and last message, and less between them."""
    conversation = Conversation.begin((), (UserMessage("q"),), room_tokens=1_000)
    for n in range(5):
        conversation.append(AssistantMessage("", (tool_call("look", f"{n}"),)))
        conversation.append(ToolMessage(f"{n}", "look", LONG))
    estimator = Estimator()

    def estimate() -> int:
        used = estimator.estimate(CompletionRequest(conversation.fit())).total_tokens
        fresh = Estimator().estimate(CompletionRequest(conversation.fit())).total_tokens
        assert used == fresh
        return used

    before = estimate()
    conversation.cut(clears_results=True)
    assert estimate() < before


def test_a_view_with_a_summary_and_stubs_is_a_sequence() -> None:
    """From both ends, in parts, and by place."""
    said = [UserMessage(f"{n}") for n in range(6)]
    between, stub = UserMessage("between"), UserMessage("stub")
    view = MessageView(list(said), range(1, 3), range(4, 6), (between,), {4: stub})
    items = [said[1], said[2], between, stub, said[5]]
    assert list(view) == items
    assert [view[i] for i in range(-5, 5)] == items * 2
    assert view[1:4] == tuple(items[1:4])
    assert (len(view), view.places) == (5, ((1, 3), (4, 6)))


def test_a_strategy_is_one_of_three() -> None:
    """In a file and in code."""
    with pytest.raises(UsageError, match=r"strategy must be 'drop', .* or 'summary', got 'forget'"):
        ContextConfig(strategy="forget")  # type: ignore[arg-type]  # that is what is tested
    with pytest.raises(ManifestError, match=r"strategy: must be one of 'drop', .*, got 'forget'"):
        AgentManifest.parse('[context]\nstrategy = "forget"')


# --- in a pool


def narrow(strategy: Strategy, **resources: int) -> SpawnConfig:
    """Return an agent whose window of 1,500 tokens is full after some turns."""
    described = manifest(max_tokens=200, max_iterations=100, **resources)  # type: ignore[arg-type]  # limits
    model = attrs.evolve(described.model, context_window=1_500)
    context = ContextConfig(strategy=strategy)
    return SpawnConfig(attrs.evolve(described, model=model, context=context), "hello")


def eleven_calls(*, sums_up: bool = True) -> FunctionDriver:
    """Return a model that calls a tool eleven times and sums up when it is asked to."""
    numbers = itertools.count(1)

    def answer(request: CompletionRequest) -> Completion | str:
        if request.messages[-1] == ASK_FOR_SUMMARY:
            if not sums_up:
                raise BadRequestError("no summaries here")
            return Completion("in short", usage=Usage(100, 7))
        n = next(numbers)
        return "done" if n > 11 else calling(tool_call("echo", f"id-{n}", text=LONG, n=n))

    return FunctionDriver(answer)


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_what_leaves_a_window_is_an_event_and_a_line_in_the_outcome(
    strategy: Strategy,
) -> None:
    """Whoever watches is told when, and whoever reads the outcome that it happened."""
    recorder = Recorder()
    driver = eleven_calls()
    tools = ToolRegistry([echo_tool()])
    async with open_pool(driver, tools=tools, observers=[recorder]) as pool:
        outcome = await (await pool.spawn(narrow(strategy))).wait()
    assert (outcome.status, outcome.text) == (AgentStatus.COMPLETED, "done")
    cuts = of_type(recorder.events, WindowCut)
    assert cuts
    assert {cut.strategy for cut in cuts} == {strategy}
    assert 0 < outcome.messages_left_out <= sum(cut.messages + cut.results for cut in cuts)
    assert {cut.summary for cut in cuts} == ({"in short"} if strategy == "summary" else {""})
    if strategy == "summary":
        assert outcome.usage.output_tokens >= 7 * len(cuts)
        # What it wrote as a summary is not part of what it said.
        assert "in short" not in outcome.text


async def test_a_summary_that_fails_is_told_with_its_error() -> None:
    """The run goes on without the turns that left."""
    recorder = Recorder()
    tools = ToolRegistry([echo_tool()])
    async with open_pool(eleven_calls(sums_up=False), tools=tools, observers=[recorder]) as pool:
        outcome = await (await pool.spawn(narrow("summary"))).wait()
    assert outcome.text == "done"
    failures = {cut.failure for cut in of_type(recorder.events, WindowCut)}
    assert failures == {"BadRequestError: no summaries here"}


async def test_a_summary_is_paid_from_the_budget() -> None:
    """A budget that has too little for it says so, and then for the turn as well."""
    budget = Budget(requests=7)
    tools = ToolRegistry([echo_tool()])
    async with open_pool(eleven_calls(), tools=tools, budget=budget) as pool:
        outcome = await (await pool.spawn(narrow("summary"))).wait()
    assert outcome.stop_reason is StopReason.REQUEST_BUDGET
    assert budget.statistics().requests.committed == 7
    assert outcome.iterations < 8


async def test_drivers_that_fail_are_counted_after_a_summary_as_before() -> None:
    """Each answer takes two requests: the first of the drivers refuses all of them."""
    budget, answering = Budget(requests=1_000), eleven_calls()

    def refuse(_: CompletionRequest) -> Completion:
        raise BadRequestError("not here")

    driver = FallbackDriver(FunctionDriver(refuse), answering)
    tools = ToolRegistry([echo_tool()])
    async with open_pool(driver, tools=tools, budget=budget) as pool:
        outcome = await (await pool.spawn(narrow("summary"))).wait()
    assert outcome.messages_left_out > 0
    assert budget.statistics().requests.committed == 2 * len(answering.requests)


async def test_a_summary_has_the_time_of_one_request(autojump_clock: MockClock) -> None:
    """One that hangs is told as a failure; nobody need watch for the run to go on."""
    numbers = itertools.count(1)

    async def answer(request: CompletionRequest, _: OnDelta) -> Completion | str:
        await trio.lowlevel.checkpoint()
        if request.messages[-1] == ASK_FOR_SUMMARY:
            await trio.sleep_forever()
        n = next(numbers)
        return "done" if n > 11 else calling(tool_call("echo", f"id-{n}", text=LONG, n=n))

    recorder = Recorder()
    tools = ToolRegistry([echo_tool()])
    for observers in ([recorder], []):
        numbers = itertools.count(1)
        async with open_pool(LiveDriver(answer), tools=tools, observers=observers) as pool:
            outcome = await (await pool.spawn(narrow("summary", request_seconds=5))).wait()
        assert (outcome.text, outcome.messages_left_out > 0) == ("done", True)
    failures = {cut.failure for cut in of_type(recorder.events, WindowCut)}
    assert failures == {"no summary within 5 seconds"}


def test_large_results_leave_the_beginning_the_same_for_many_turns() -> None:
    """With stubs that fill the window, one more turn left with every request."""
    large = LONG * 4  # a turn takes more than a quarter of the room
    done = perform(turns(80), run_of("clear_results"), tool=lambda _: large)
    sent = [request.messages for request in done.requests]
    # The first message behind the query, which leaves when a whole turn does.
    firsts = [messages[1] for messages in sent[40:] if len(messages) > 1]
    changes = sum(before != after for before, after in itertools.pairwise(firsts))
    assert len(firsts) == 41
    assert 0 < changes <= 14
