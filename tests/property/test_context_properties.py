"""What holds of every conversation, whatever was said and however small the window is."""

import contextlib
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from agentpool._loop.conversation import (
    Conversation,
    cut_to_tokens,
    message_tokens,
)
from agentpool._messages import estimate_tokens
from agentpool.drivers import (
    AssistantMessage,
    ChatMessage,
    ContextOverflowError,
    ToolCall,
    ToolMessage,
    UserMessage,
)

TEXTS = st.text("aé日", max_size=40)
PINNED = st.lists(st.builds(UserMessage, TEXTS), min_size=1, max_size=2)


def turn_of(calls: list[str], texts: list[str], post: list[str]) -> list[ChatMessage]:
    """Return one turn: an answer with its results, and what came in after it."""
    answer = AssistantMessage(
        texts[0],
        tuple(ToolCall(f"{i}", "look", arguments) for i, arguments in enumerate(calls)),
    )
    results = [ToolMessage(f"{i}", "look", texts[-1]) for i in range(len(calls))]
    return [answer, *results, *map(UserMessage, post)]


TURNS = st.builds(
    turn_of,
    st.lists(st.just("{}"), max_size=3),
    st.lists(TEXTS, min_size=1, max_size=2),
    st.lists(TEXTS, max_size=1),
)
AFTER = st.lists(TURNS, max_size=6)
RUNS = st.builds(
    lambda query, turns, text: [
        UserMessage(query),
        *(message for turn in turns for message in turn),
        AssistantMessage(text),
    ],
    TEXTS,
    st.lists(TURNS, max_size=2),
    TEXTS,
)
HISTORIES = st.lists(RUNS, max_size=3).map(lambda runs: [m for run in runs for m in run])
ROOMS = st.integers(-5, 400)


def cost(messages: list[ChatMessage]) -> int:
    """Return what *messages* cost together."""
    return sum(map(message_tokens, messages))


def is_whole(sent: list[ChatMessage]) -> bool:
    """Return whether every call has its results, and every result its call."""
    waiting: list[str] = []
    for message in sent:
        if isinstance(message, ToolMessage):
            if not waiting or waiting.pop(0) != message.call_id:
                return False
        elif waiting:
            return False
        elif isinstance(message, AssistantMessage):
            waiting = [call.call_id for call in message.tool_calls]
    return not waiting


@given(HISTORIES, PINNED, AFTER, ROOMS | st.none())
def test_what_is_sent_is_whole_contiguous_and_inside_the_room(
    history: list[ChatMessage],
    pinned: list[UserMessage],
    turns: list[list[ChatMessage]],
    room: int | None,
) -> None:
    """Or it is an error, exactly when the query and the newest turn do not fit."""
    conversation = Conversation.begin(history, pinned, room_tokens=room)
    after: list[ChatMessage] = []
    for turn in [[], *turns]:
        for message in turn:
            conversation.append(message)
        after += turn
        everything = [*history, *pinned, *after]
        assert conversation.messages == everything
        try:
            sent = list(conversation.fit())
        except ContextOverflowError:
            assert room is not None
            assert cost([*pinned, *turn]) > room
            return
        assert is_whole(sent)
        if room is None or cost(everything) <= room:
            assert sent == everything
        else:
            assert cost([*pinned, *turn]) <= cost(sent) <= room
        # Ends of history and of what follows are kept, around the pinned messages; turns
        # go only after the whole history is gone.
        assert sent in [
            [*history[start:], *pinned, *after] for start in range(len(history) + 1)
        ] + [[*pinned, *after[start:]] for start in range(len(after) + 1)]
        assert sent[len(sent) - len(turn) :] == turn
        assert isinstance(sent[0], UserMessage)


@given(HISTORIES, PINNED, AFTER, ROOMS)
def test_no_more_is_left_out_than_must_be(
    history: list[ChatMessage],
    pinned: list[UserMessage],
    turns: list[list[ChatMessage]],
    room: int,
) -> None:
    """Nothing while there is room; else the next older turn would fill over three quarters."""
    conversation = Conversation.begin(history, pinned, room_tokens=room)
    for message in (message for turn in turns for message in turn):
        conversation.append(message)
    try:
        sent = list(conversation.fit())
    except ContextOverflowError:
        return
    for kept in range(len(turns) + 1):
        last = [message for turn in turns[len(turns) - kept :] for message in turn]
        if len(sent) < len(pinned) + len(last):
            free = room - cost([*pinned])
            assert cost(last) > free * 3 // 4
    if cost([*history, *pinned, *(message for turn in turns for message in turn)]) <= room:
        assert len(sent) == len(conversation.messages)


@given(HISTORIES, PINNED, AFTER, ROOMS)
def test_a_view_does_not_change_when_the_conversation_grows(
    history: list[ChatMessage],
    pinned: list[UserMessage],
    turns: list[list[ChatMessage]],
    room: int,
) -> None:
    """A driver may still read it, and a test keeps it as the request that was made."""
    conversation = Conversation.begin(history, pinned, room_tokens=room)
    kept = []
    for turn in turns:
        for message in turn:
            conversation.append(message)
        views: list[Sequence[ChatMessage]] = [conversation.messages]
        with contextlib.suppress(ContextOverflowError):
            views.append(conversation.fit())
        kept += [(view, list(view)) for view in views]
    for view, items in kept:
        assert list(view) == items == [view[i] for i in range(len(view))]


@given(PINNED, st.integers(0, 600), st.lists(st.text("aé日", max_size=600), min_size=1, max_size=4))
def test_results_that_are_cut_to_their_room_fit(
    pinned: list[UserMessage], room: int, contents: list[str]
) -> None:
    """So a large result ends no run."""
    calls = tuple(ToolCall(f"{i}", "look", "{}") for i in range(len(contents)))
    conversation = Conversation.begin([], pinned, room_tokens=room)
    conversation.append(AssistantMessage("", calls))
    each = conversation.room_tokens_for_results(len(calls))
    assert each is not None
    for call, content in zip(calls, contents, strict=True):
        text = cut_to_tokens(content, each)
        conversation.append(ToolMessage(call.call_id, call.name, text))
    if each > 0:
        assert len(conversation.fit()) == len(pinned) + 1 + len(calls)


@given(st.text(), st.integers(-3, 60))
def test_a_cut_text_is_a_beginning_and_never_too_long(text: str, tokens: int) -> None:
    """On the original text, at a character, and it says so."""
    cut = cut_to_tokens(text, tokens)
    assert estimate_tokens(cut) <= max(tokens, 0)
    if cut != text:
        assert estimate_tokens(text) > tokens
        kept, _, note = cut.rpartition("\n")
        assert text.startswith(kept)
        assert f"[cut: {len(kept):,} of {len(text):,} characters shown]".startswith(note)
