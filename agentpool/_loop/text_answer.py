"""Handles a text answer: it ends the run, is continued, or is asked for again.

The rules are in ``loop``.
"""

from __future__ import annotations

from typing import Final

from agentpool._errors import EmptyAnswerError, InvalidOutputError, ProtocolError
from agentpool._loop.conversation import Conversation
from agentpool._loop.guard import ALLOW, Stop
from agentpool._loop.joined_pieces import join_pieces
from agentpool._loop.output import CUT_OFF, MAX_REPAIRS, Misfit, Output
from agentpool._loop.run import Run
from agentpool._messages import CUT, Completion, FinishReason, UserMessage, answer_tokens
from agentpool._outcome import StopReason

_BEGUN_CHARS: Final = 60
"""The characters of an answer that an error shows."""

# A member of an enum takes twenty times as long as a name of the module.
_TOOL_USE: Final = FinishReason.TOOL_USE
_WINDOW_FULL: Final = FinishReason.WINDOW_FULL
_STOP_SEQUENCE: Final = FinishReason.STOP_SEQUENCE
_END_TURN: Final = StopReason.END_TURN


def take_text_answer(
    run: Run, conversation: Conversation, completion: Completion, spent: Stop | None
) -> bool:
    """Process a text answer. Return whether it ends the run well."""
    reason = completion.finish_reason
    if reason is _TOOL_USE:
        run.say(join_pieces(run.partial, completion.text), completion)
        raise ProtocolError("the model stopped for tool calls and named none")
    if reason is _WINDOW_FULL:
        run.keep_piece(completion)
        run.end(spent or window_is_full(run))
        return False
    was_cut = reason in CUT
    is_blank = not completion.text.strip()
    if is_blank and (was_cut or not run.partial):
        if was_cut:
            _find_room(run, completion, spent)
        else:
            _ask_once_more(run, spent)
        return False
    if run.was_empty:
        run.was_empty = False
    fault = "" if run.output is None else _misfit(run, run.output, completion)
    if fault:
        _ask_again(run, conversation, completion, fault, spent)
    elif was_cut:
        _cut_off(run, completion, spent)
    else:
        _finish(run, completion, spent)
        return True
    return False


def _find_room(run: Run, completion: Completion, spent: Stop | None) -> None:
    """Raise the limit of an answer that ended before its first word, or end the run.

    The limit is raised only for thoughts. A model that wrote white space, or half a call, would
    only write more of it, at a cost that the manifest does not allow.
    """
    limit = run.output_limit
    can_raise = run.raised_tokens is None and run.max_output_tokens is not None
    can_raise = can_raise and _may_have_thought(run, completion)
    if spent is not None:
        run.end(spent)
        return
    if can_raise:
        run.raised_tokens = run.max_output_tokens
        raised = run.output_limit
        if raised is not None and raised > answer_tokens(limit, run.room_tokens):
            return
    is_known = run.raised_tokens is not None
    advice = "the model can write no more" if is_known else "increase model.max_tokens"
    run.end(_truncated(run, limit, f" before its first word; {advice}"))


def _may_have_thought(run: Run, completion: Completion) -> bool:
    """Return whether the model may have written thoughts before its answer."""
    usage = completion.usage
    counted = usage is None or usage.reasoning_tokens > 0
    return counted or bool(completion.parts) or run.has_thought


def _truncated(run: Run, limit: int | None, rest: str) -> Stop:
    where = "the model's own limit" if limit is None else f"max_tokens ({limit})"
    tokens = answer_tokens(limit or run.max_output_tokens)
    return Stop(StopReason.TRUNCATION, f"the answer was cut off at {where}{rest}", tokens, tokens)


def window_is_full(run: Run) -> Stop:
    """Return the `Stop` for a run whose window has no room for the rest of the answer.

    A request for the rest would be even longer.
    """
    tokens = answer_tokens(run.output_limit or run.max_output_tokens)
    text = (
        "the answer was cut off because the model's context window is full; set "
        "model.context_window to what it holds, send less, or choose a model with a larger one"
    )
    return Stop(StopReason.TRUNCATION, text, tokens, tokens)


def _ask_once_more(run: Run, spent: Stop | None) -> None:
    """Repeat the request after an empty answer, unless the run is over.

    Raises:
        EmptyAnswerError: If the answer before it said nothing either.
    """
    if spent is not None:
        run.end(spent)
    elif run.was_empty:
        has_two = run.manifest.model.fallback is not None
        advice = "the settings of both" if has_two else "its settings, or ask another model"
        raise EmptyAnswerError(
            "the model gave an empty answer, with no text and no tool call, twice in a row; "
            f"look at {advice}"
        )
    run.was_empty = True


def _cut_off(run: Run, completion: Completion, spent: Stop | None) -> None:
    """Keep a truncated piece, and ask for the rest if the manifest wants that."""
    limit = run.output_limit
    run.keep_piece(completion)
    if spent is None and run.manifest.model.on_cut == "continue":
        verdict = run.guard.record_truncation()
        stop = verdict if isinstance(verdict, Stop) else None
    else:
        advice = 'increase model.max_tokens, or set model.on_cut = "continue"'
        stop = spent or _truncated(run, limit, f"; {advice}")
    if stop is not None:
        run.end(stop)


def _misfit(run: Run, output: Output, completion: Completion) -> str:
    """Parse the answer into the run's value. Return what is wrong; empty if it fits."""
    if completion.finish_reason.is_cut:
        return CUT_OFF
    value = output.read(completion.text)
    if isinstance(value, Misfit):
        return value.text
    run.value = value
    return ""


def _ask_again(
    run: Run, conversation: Conversation, completion: Completion, fault: str, spent: Stop | None
) -> None:
    """Tell the model what is wrong with its answer, unless the run is over."""
    assert run.output is not None  # noqa: S101  # or nothing would be wrong
    run.say(completion.text, completion)
    faults = fault.removeprefix("- ").replace("\n- ", "; ")  # the model is given a list
    begun = completion.text[:_BEGUN_CHARS]
    run.misfits += 1
    run.misfit = f"begins with {begun!r} and is wrong in this: {faults}"
    was_cut = completion.finish_reason.is_cut
    verdict = run.guard.record_truncation() if was_cut else ALLOW
    stop = spent or (verdict if isinstance(verdict, Stop) else None)
    if stop is not None:
        run.end(stop)
    elif run.repairs >= MAX_REPAIRS:
        raise InvalidOutputError(run.misfit_words(), answers=run.misfits)
    else:
        run.repairs += 1
        conversation.append(UserMessage(run.output.repair(fault)))


def _finish(run: Run, completion: Completion, spent: Stop | None) -> None:
    """End the run with its answer, whatever the answer cost."""
    text = join_pieces(run.partial, completion.text) if run.partial else completion.text
    run.say(text, completion)
    if spent is not None or run.passed_shared:
        run.over_budget = True
    run.stop_reason = (
        StopReason.STOP_SEQUENCE if completion.finish_reason is _STOP_SEQUENCE else _END_TURN
    )
