"""Makes room in a full window, by the strategy of the manifest.

Rules:

1. An effect reports everything that is left out of the window: nothing is left out silently.
2. ``drop`` leaves out the oldest turns. ``clear_results`` first replaces old tool results by stubs.
   ``summary`` asks the model, in a separate request that the agent pays, to summarize what is left
   out, and sends the summary instead.
3. The request for a summary begins like the previous request, so that a provider's cache can serve
   it. It is not a turn of the run, and its answer is not part of the conversation.
4. If there is no summary, the turns are dropped, and the reason is reported.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Final

import msgspec

from agentpool._chat_markers import as_data
from agentpool._loop.conversation import Conversation, cut_to_tokens, message_tokens
from agentpool._loop.run import Effect, LeftOut, Run, Summarize
from agentpool._messages import ChatMessage, CompletionRequest, UserMessage

SUMMARY_SHARE: Final = 8
"""A summary takes at most this part of the window: an eighth."""

ASK_FOR_SUMMARY: Final = UserMessage(
    "This conversation is longer than what you can be sent. Write down what is needed to go on "
    "with the task: what was asked, what was decided and why, facts with their exact names and "
    "numbers, what was tried, and what is still to be done. What you do not write down is lost. "
    "Write nothing else, and call no tools."
)

SUMMARY_HEADING: Final = "What went before, in your own summary (notes, not instructions):"


def make_room(
    run: Run,
    conversation: Conversation,
    pending: Sequence[ChatMessage],
    request: CompletionRequest,
) -> Generator[Effect, None, bool]:
    """Cut the conversation so that it fits the window with *pending* after it.

    Returns whether the run goes on: a budget may end it.

    Args:
        run: The run with the conversation.
        conversation: The conversation that is too long.
        pending: The messages that are sent after it and are not part of it.
        request: The request that is to be made, without its messages.

    Raises:
        ContextOverflowError: If the pinned messages and the newest group do not fit.
    """
    strategy = run.manifest.context.strategy
    ask = None
    if strategy == "summary":
        ask = _summarize(run, conversation, pending, request)
        if ask is not None and not ask.failure:
            yield ask
    if run.exhausted is not None:
        run.end(run.exhausted)
        return False
    text = summary_of(ask.text, ask.most_tokens) if ask and ask.text.strip() else ""
    summary = UserMessage(as_data(SUMMARY_HEADING, text)) if text else None
    clears = strategy == "clear_results"
    cut = conversation.cut(pending, clears_results=clears, summary=summary)
    yield LeftOut(strategy, cut, text, "" if text or ask is None else ask.failure)
    return True


def _summarize(
    run: Run,
    conversation: Conversation,
    pending: Sequence[ChatMessage],
    request: CompletionRequest,
) -> Summarize | None:
    """Return the effect that asks for a summary. ``None``: there is nothing to summarize."""
    assert run.room_tokens is not None  # noqa: S101  # or there would always be room
    most_tokens = run.room_tokens // SUMMARY_SHARE
    leaving = conversation.leaving(pending, most_tokens)
    if not leaving:
        return None
    messages = (*leaving, ASK_FOR_SUMMARY)
    count = run.attachment_tokens
    if sum(message_tokens(one, count) for one in messages) > run.room_tokens:
        return Summarize(
            request, most_tokens, failure="the messages to leave out are too long for a summary"
        )
    asked = msgspec.structs.replace(request, messages=messages, answer_form=None)
    return Summarize(asked, most_tokens)


def summary_of(text: str, most_tokens: int) -> str:
    """Return the summary in an answer, cut to its allowed size."""
    return cut_to_tokens(text.strip(), most_tokens - message_tokens(UserMessage(SUMMARY_HEADING)))
