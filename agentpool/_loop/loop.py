"""The course of one run, as rules without I/O.

``run_loop`` reads from top to bottom as perceive, reason, act. It is a plain generator
without I/O: it yields an effect, its driver performs it and writes the result into it, and
the generator goes on from there. The agent performs effects for real; a property test
performs them without an event loop.

Rules:

1. Every run is bounded by its guard's iterations. Nothing in this module waits.
2. An answer that was paid for is kept. An answer that crosses a budget is flagged, not lost.
3. Every tool call that a model asked for gets exactly one result, in the order of the
   calls, even when it is refused or when the run ends first.
4. Every call counts for the guard: unknown, denied and repeated ones too.
5. A stuck loop, a spent budget and a truncated answer are stop reasons. Only an answer
   that the model itself ended is a success.
6. A truncated answer is continued only if the manifest says so. Its pieces are one answer,
   and the requests for the next piece are not part of the conversation.
7. If an answer was truncated in its thoughts, before its first word, it had too little room: the
   limit is raised once to the most that the model can write. If an answer has neither text nor
   calls, the request is made once more; a second such answer is an error.
8. An answer of the wrong form is not an answer; ``output`` says what happens then.
9. What the model reads in the history is not recalled again: neither a fragment that an earlier run
   recalled, nor a remembered question with its answer. If the window has no room for the history,
   the model does not read it, so everything is recalled.
10. Whatever ends a run, its ``Run`` has the conversation, the text and the usage so far.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from collections.abc import Set as AbstractSet

import msgspec

from agentpool._attachments import CountAttachment
from agentpool._chat_markers import as_data
from agentpool._errors import ProtocolError
from agentpool._loop.conversation import Conversation, cut_to_tokens
from agentpool._loop.cut_call import CUT_IN_CALL, refuse_cut
from agentpool._loop.guard import ALLOW, NO_PLACES, Block, Stop, Warn
from agentpool._loop.joined_pieces import join_pieces
from agentpool._loop.recalled import not_yet_in, recalled_block, remembered
from agentpool._loop.run import Complete, Effect, Recall, Receive, Remember, Run, RunTools, refused
from agentpool._loop.seen_calls import told_by
from agentpool._loop.text_answer import take_text_answer, window_is_full
from agentpool._loop.thoughts import without_thoughts
from agentpool._loop.tokens import without_large
from agentpool._loop.window_strategy import make_room
from agentpool._messages import (
    CUT,
    OWNER_ID,
    AgentMessage,
    ChatMessage,
    Completion,
    CompletionRequest,
    FinishReason,
    ToolMessage,
    UserMessage,
)
from agentpool._outcome import StopReason

RECALL_LIMIT = 5
"""Fragments that a run recalls before its first turn."""


def run_loop(run: Run) -> Generator[Effect, None, None]:
    """Yield the effects of *run* until it ends. The fields of ``run`` then say how it ended."""
    # Perceive: what it knows.
    fragments = (yield from _recalled(run)) if run.has_memory else ()
    conversation = run.conversation = _begin(run, fragments)
    receive, has_window = Receive(), run.room_tokens is not None
    while run.stop is None:
        # Perceive: what it was told since, control first.
        yield receive
        warnings = _next_turn(run, conversation, receive)
        if warnings is None:
            return
        yield from warnings
        pending = run.pending if run.partial else ()
        if (
            has_window
            and conversation.is_full(pending)
            and not (yield from make_room(run, conversation, pending, _request(run, ())))
        ):
            return
        # Reason.
        ask = Complete(_request(run, conversation.fit(pending)))
        yield ask
        completion = _answered(run, ask)
        if completion is None:
            return
        spent, warnings = _account(run, completion)
        yield from warnings
        # Act.
        if completion.tool_calls:
            batch, stop = _plan(run, completion, spent)
            refusals = batch.results.copy()
            if None in refusals:
                yield batch
                if has_window:
                    _cut_results(run, conversation, batch)
            _acted(run, batch, refusals, stop)
        elif take_text_answer(run, conversation, completion, spent):
            if run.has_memory:
                yield Remember(remembered(run.query, run.text))
            return


# --- perceive


def _recalled(run: Run) -> Generator[Effect, None, Sequence[str]]:
    recall = Recall(run.query, RECALL_LIMIT)
    yield recall
    return recall.fragments


def _begin(run: Run, fragments: Sequence[str]) -> Conversation:
    query = UserMessage(run.query, run.attachments)
    count = run.attachment_tokens
    plain = Conversation.begin(run.history, (query,), room_tokens=run.room_tokens, count=count)
    if fragments and run.history and not plain.is_full():
        fragments = not_yet_in(run.history, fragments)
    if not fragments:
        return plain
    # As data of the user's side, never in the system prompt: what a tool once wrote into the
    # memory must not speak with the operator's voice.
    pinned = (UserMessage(recalled_block(fragments)), query)
    return Conversation.begin(run.history, pinned, room_tokens=run.room_tokens, count=count)


def _next_turn(run: Run, conversation: Conversation, receive: Receive) -> Sequence[Warn] | None:
    """Append waiting messages. ``None``: the run has ended, because no further turn is allowed."""
    for message in receive.messages:
        conversation.append(_told(message))
    if receive.interrupted:
        stop = Stop(StopReason.INTERRUPTED, "interrupted after its turn", 1, 1)
    elif run.exhausted is not None:
        stop = run.exhausted
    else:
        verdict = run.guard.check_iteration()
        if verdict is ALLOW:
            return ()
        if isinstance(verdict, Warn):
            return (verdict,)
        assert isinstance(verdict, Stop)  # noqa: S101  # nothing else is left
        stop = verdict
    run.end(stop)
    return None


def _told(message: AgentMessage) -> UserMessage:
    sender = "the owner" if message.sender == OWNER_ID else f"agent {message.sender}"
    answers = f", which answers message {message.reply_to}" if message.reply_to else ""
    heading = f"Message {message.message_id} from {sender}{answers}:"
    if message.sender == OWNER_ID:
        return UserMessage(f"{heading}\n{message.content}")
    # Between lines that do not occur in it: nothing in it can pass for another message.
    return UserMessage(as_data(heading, message.content))


# --- reason


def _request(run: Run, messages: Sequence[ChatMessage]) -> CompletionRequest:
    model = run.manifest.model
    return CompletionRequest(
        messages,
        model.system_prompt,
        run.tools,
        model.max_tokens if run.raised_tokens is None else run.output_limit,
        model.temperature,
        model.remote_model,
        run.output and run.output.form,
        model.top_p,
        model.stop,
        model.seed,
        model.reasoning_effort,
        model.verbosity,
    )


def _answered(run: Run, ask: Complete) -> Completion | None:
    """Return the answer. ``None``: a budget refused the request, and the run ends.

    Raises:
        ProtocolError: If the ending of the answer is unknown.
    """
    completion = ask.completion
    if completion is None:
        # Whoever goes on with the loop has put one of the two there.
        assert run.exhausted is not None  # noqa: S101
        run.end(run.exhausted)
        return None
    # A driver is foreign code, and type checkers are optional.
    if not isinstance(completion.finish_reason, FinishReason):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ProtocolError(
            f"the answer ended with {completion.finish_reason!r}, which is not a FinishReason; "
            "a driver must say why the model stopped"
        )
    # A completion carries the whole text from here on; without one there is no piece.
    if run.arriving:
        run.arriving = ()
    text = completion.text
    if text:
        text = without_thoughts(text)
    if text == completion.text:
        if run.has_thought:
            run.has_thought = False
        return completion
    run.has_thought = True
    return msgspec.structs.replace(completion, text=text)


def _account(run: Run, completion: Completion) -> tuple[Stop | None, Sequence[Warn]]:
    """Count the answer's usage. Return a Stop if a limit is reached; the answer still counts."""
    tokens = run.guard.record_usage(completion.usage)
    cost = run.guard.record_cost(completion.cost_usd)
    if tokens is ALLOW and cost is ALLOW:
        return None, ()
    verdicts = (tokens, cost)
    spent = next((verdict for verdict in verdicts if isinstance(verdict, Stop)), None)
    return spent, [verdict for verdict in verdicts if isinstance(verdict, Warn)]


# --- act


def _plan(run: Run, completion: Completion, spent: Stop | None) -> tuple[RunTools, Stop | None]:
    """Decide which calls of the answer run, and whether the run ends afterwards."""
    if run.was_empty:
        run.was_empty = False
    partial = run.partial
    text = join_pieces(partial, completion.text) if partial else completion.text
    run.say(text, completion)
    run.acting = batch = RunTools(completion.tool_calls, [])
    verdict = spent or run.guard.check_stuck(completion.tool_calls)
    if verdict is not ALLOW:
        assert isinstance(verdict, Stop)  # noqa: S101  # nothing else is left
        _refuse_rest(batch, verdict)
        return batch, verdict
    stop = _judge(run, batch)
    if completion.finish_reason not in CUT or not refuse_cut(batch, run.tools):
        run.guard.reset_truncation()
        return batch, stop
    if completion.finish_reason is FinishReason.WINDOW_FULL:
        return batch, stop or window_is_full(run)
    cut = run.guard.record_truncation()
    if stop is None and isinstance(cut, Stop):
        stop = msgspec.structs.replace(cut, text=f"{cut.text}, the last one {CUT_IN_CALL}")
    return batch, stop


def _judge(run: Run, batch: RunTools) -> Stop | None:
    """Refuse calls that may not run. After a stop, refuse the rest of the batch."""
    for call in batch.calls:
        # Counted before anything else, so that invented and denied calls use up the limit.
        verdict = run.guard.check_tool_call(call.name, call.arguments)
        # To look whether it is allowed takes a tenth of an instance check.
        if verdict is not ALLOW and isinstance(verdict, Stop):
            _refuse_rest(batch, verdict)
            return verdict
        refusal = run.refuse(call.name)
        if refusal is None and verdict is not ALLOW and isinstance(verdict, Block):
            refusal = verdict.text
        batch.results.append(None if refusal is None else refused(call, refusal))
    return None


def _refuse_rest(batch: RunTools, stop: Stop) -> None:
    """Refuse the calls that were not judged."""
    text = f"not run: {stop.text}"
    batch.results.extend(refused(call, text) for call in batch.calls[len(batch.results) :])


def _acted(
    run: Run, batch: RunTools, refusals: Sequence[ToolMessage | None], stop: Stop | None
) -> None:
    """Add a result for each call to the conversation; after a stop, end the run."""
    if stop is None:
        one = batch.results[0] if len(refusals) == 1 and refusals[0] is None else None
        if one is not None and not one.is_error and not one.attachments:
            run.guard.record_text(one.content)  # as after most answers
        else:
            _record_results(run, batch, refusals)
    run.settle("the run has ended")
    if stop is not None:
        run.end(stop)


def _record_results(run: Run, batch: RunTools, refusals: Sequence[ToolMessage | None]) -> None:
    results: list[str | None] = []
    failed: AbstractSet[int] = NO_PLACES
    for result in batch.results:
        if result is None or refusals[len(results)] is not None:
            results.append(None)
            continue
        if result.is_error:
            failed = {*failed, len(results)}
        results.append(told_by(result) if result.attachments else result.content)
    run.guard.record_results(results, failed)


def _cut_results(run: Run, conversation: Conversation, batch: RunTools) -> None:
    """Cut results that are too long to be sent."""
    room_tokens = conversation.room_tokens_for_results(len(batch.calls))
    assert room_tokens is not None  # noqa: S101  # there is a window
    count = run.attachment_tokens
    batch.results[:] = [one and _fitted(one, room_tokens, count) for one in batch.results]


def _fitted(result: ToolMessage, room_tokens: int, count: CountAttachment) -> ToolMessage:
    """Return *result*, cut to that many tokens."""
    if result.attachments:
        result = without_large(result, room_tokens, count)
        room_tokens -= sum(map(count, result.attachments))
    # A token is at least 2.5 bytes in our estimate, so short texts need no counting.
    if len(result.content) <= room_tokens // 2:
        return result
    return msgspec.structs.replace(result, content=cut_to_tokens(result.content, room_tokens))
