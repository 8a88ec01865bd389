"""What of a conversation is sent, and what never is parted, dropped or cut through."""

import pickle
from collections import UserList
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import pytest

from agentpool._loop.conversation import (
    Conversation,
    cut_to_tokens,
    fixed_tokens,
    message_tokens,
)
from agentpool._loop.window import MessageView
from agentpool._messages import Json, estimate_tokens
from agentpool.abc import ToolDefinition
from agentpool.drivers import (
    AssistantMessage,
    ChatMessage,
    ContextOverflowError,
    ProviderPart,
    ToolCall,
    ToolMessage,
    UserMessage,
)

QUERY = UserMessage("query")
# 5 letters are 2 tokens, and each message costs 4 more.
QUERY_TOKENS = 6


def user(text: str) -> ChatMessage:
    """Return something told to the model."""
    return UserMessage(text)


def answer(text: str) -> ChatMessage:
    """Return an answer without calls."""
    return AssistantMessage(text)


def asks(*call_ids: str) -> ChatMessage:
    """Return an answer that calls a tool once for each id."""
    return AssistantMessage("", tuple(ToolCall(i, "look", "{}") for i in call_ids))


def result(call_id: str, content: str = "seen") -> ChatMessage:
    """Return the result of a call."""
    return ToolMessage(call_id, "look", content)


def tokens(messages: Sequence[ChatMessage]) -> int:
    """Return what *messages* cost together."""
    return sum(map(message_tokens, messages))


def fitted(
    history: Sequence[ChatMessage], after: Sequence[ChatMessage], *, room_tokens: int | None
) -> list[ChatMessage]:
    """Return what is sent of a conversation about QUERY that is cut to *room_tokens*."""
    if room_tokens is not None:
        # A window is cut to three quarters of what the query leaves.
        room_tokens = QUERY_TOKENS + -((QUERY_TOKENS - room_tokens) * 4 // 3)
    conversation = Conversation.begin(history, (QUERY,), room_tokens=room_tokens)
    for message in after:
        conversation.append(message)
    if room_tokens is not None:
        conversation.cut()
    return list(conversation.fit())


def kept_at_every_room(
    history: Sequence[ChatMessage], after: Sequence[ChatMessage]
) -> list[list[ChatMessage]]:
    """Return the different requests that come of smaller and smaller rooms."""
    seen: list[list[ChatMessage]] = []
    for room in range(tokens([*history, QUERY, *after]), 0, -1):
        try:
            sent = fitted(history, after, room_tokens=room)
        except ContextOverflowError:
            break
        if sent not in seen:
            seen.append(sent)
    # Exactly what they cost is room enough for each of them.
    assert [fitted(history, after, room_tokens=tokens(sent)) for sent in seen] == seen
    return seen


# --- what a message costs


@pytest.mark.parametrize(
    ("message", "cost"),
    [
        (user("12345"), 4 + 2),
        (answer(""), 4),
        (result("an id costs nothing", "12345"), 4 + 2),
        (AssistantMessage("12345", (ToolCall("id", "12345", "{'a':1234}"),)), 4 + 2 + 2 + 4),
        (AssistantMessage("12345", (), (ProviderPart("p", "m", "k", "12345"),)), 4 + 2 + 2),
    ],
)
def test_a_message_costs_its_texts_and_four_tokens(message: ChatMessage, cost: int) -> None:
    """Name and arguments of a call are text that is sent as well."""
    assert message_tokens(message) == cost


def test_system_prompt_and_tools_cost_in_every_request() -> None:
    """They come off the window before anything is said."""
    tool = ToolDefinition("look", "Look it up.", {"type": "object"})
    of_tool = 4 + 2 + 5 + estimate_tokens('{"type":"object"}')
    assert fixed_tokens("", ()) == 0
    assert fixed_tokens("12345", ()) == 6
    assert fixed_tokens("12345", (tool, tool)) == 6 + 2 * of_tool


def test_a_read_only_schema_costs_what_a_plain_one_does() -> None:
    """Values hold read-only mappings, and perhaps sequences that are not lists."""
    inner: Mapping[str, Json] = {"y": 1}
    plain: Mapping[str, Json] = {"required": ["a", "b"], "x": inner}
    frozen: Mapping[str, Json] = MappingProxyType(
        {"required": UserList(["a", "b"]), "x": MappingProxyType(inner)}
    )
    cost = fixed_tokens("", (ToolDefinition("look", "", plain),))
    assert fixed_tokens("", (ToolDefinition("look", "", frozen),)) == cost


# --- what is sent


def test_everything_is_sent_where_no_window_is_known() -> None:
    """Nobody can say what would be too long."""
    history, after = [user("a"), answer("b")], [asks("1"), result("1", "x" * 10**6)]
    assert fitted(history, after, room_tokens=None) == [*history, QUERY, *after]


def test_everything_is_sent_that_fits() -> None:
    """To the last token."""
    history, after = [user("a"), answer("b")], [asks("1"), result("1")]
    whole = [*history, QUERY, *after]
    assert fitted(history, after, room_tokens=tokens(whole)) == whole


def test_a_query_that_does_not_fit_is_an_error() -> None:
    """The original sent an empty list and called the answer a success."""
    conversation = Conversation.begin((), (QUERY,), room_tokens=QUERY_TOKENS - 1)
    with pytest.raises(ContextOverflowError) as caught:
        conversation.fit()
    assert str(caught.value) == (
        "about 6 tokens are needed for the query, and the model's window has room for 5; shorten "
        "the query, lower model.max_tokens or choose a model with a larger window"
    )
    assert not caught.value.retryable


@pytest.mark.parametrize("room", [0, -5000])
def test_a_window_without_any_room_is_an_error(room: int) -> None:
    """Max_tokens, system prompt and tools may take all of it and more."""
    with pytest.raises(ContextOverflowError, match="has room for 0;"):
        Conversation.begin((), (QUERY,), room_tokens=room).fit()


def test_a_newest_turn_that_does_not_fit_is_an_error() -> None:
    """Without it the model would only ask for the same again."""
    after = [asks("1"), result("1", "x" * 1000)]
    with pytest.raises(
        ContextOverflowError, match="417 tokens are needed for the query and the newest turn"
    ):
        fitted([user("old")], after, room_tokens=200)


def test_an_overflow_stays_one() -> None:
    """What was said cannot be taken back, so asking again gives the same answer."""
    conversation = Conversation.begin([user("old")], (QUERY,), room_tokens=5)
    for _ in range(2):
        with pytest.raises(ContextOverflowError, match="about 6 tokens"):
            conversation.fit()


def test_the_oldest_go_first_and_history_before_turns() -> None:
    """One group after the other, until the query and the newest turn are left."""
    history = [user("h1"), answer("h2"), user("h3"), answer("h4")]
    after = [asks("1"), result("1"), asks("2"), result("2"), asks("3"), result("3")]
    assert kept_at_every_room(history, after) == [
        [*history, QUERY, *after],
        [*history[2:], QUERY, *after],
        [QUERY, *after],
        [QUERY, *after[2:]],
        [QUERY, *after[4:]],
    ]


def test_a_large_newest_result_is_not_skipped_for_older_ones() -> None:
    """The original kept what was old and small, and parted the call from its result."""
    after = [asks("1"), result("1"), asks("2"), result("2", "x" * 250)]
    assert fitted([], after, room_tokens=125) == [QUERY, *after[2:]]


def test_a_large_group_hides_what_is_older() -> None:
    """There is no minimum to keep: what is kept is contiguous, or it is misleading."""
    history = [user("a"), answer("b"), user("x" * 250), answer("d"), user("e"), answer("f")]
    assert fitted(history, [], room_tokens=60) == [*history[4:], QUERY]


def test_results_stay_with_their_calls() -> None:
    """All results of a batch, and what came in after them."""
    after = [asks("1", "2"), result("1"), result("2"), user("post"), asks("3"), result("3")]
    assert kept_at_every_room([], after) == [[QUERY, *after], [QUERY, *after[4:]]]


def test_what_came_in_before_the_first_answer_is_a_group() -> None:
    """It belongs to no turn."""
    after = [user("post 1"), user("post 2"), asks("1"), result("1")]
    assert kept_at_every_room([], after) == [[QUERY, *after], [QUERY, *after[2:]]]


def test_what_came_in_before_the_first_answer_is_newest_until_there_is_one() -> None:
    """It is what the model is asked about right now."""
    conversation = Conversation.begin([], (QUERY,), room_tokens=QUERY_TOKENS + 5)
    conversation.append(user("post"))
    with pytest.raises(ContextOverflowError, match="the newest turn"):
        conversation.fit()


def test_what_is_sent_behind_it_has_its_room() -> None:
    """The piece of an answer that goes on is sent, and is not part of the conversation."""
    turn = [asks("1"), result("1")]
    room = QUERY_TOKENS + sum(map(message_tokens, turn))
    conversation = Conversation.begin([], [QUERY], room_tokens=room)
    for message in [*turn, *turn]:
        conversation.append(message)
    pending = [answer("so far"), user("go on")]
    with pytest.raises(ContextOverflowError):
        conversation.fit(pending)
    wider = Conversation.begin([], [QUERY], room_tokens=room + sum(map(message_tokens, pending)))
    for message in [*turn, *turn]:
        wider.append(message)
    assert wider.spare_tokens() == 0
    assert wider.fit(pending) == (QUERY, *turn, *pending)
    assert wider.messages == [QUERY, *turn, *turn]
    assert wider.spare_tokens() > 0


def test_history_is_cut_only_where_an_answer_was_finished() -> None:
    """Recalled data stays with its query, a result with its call, post with its turn."""
    one = [user("data"), user("q1"), asks("1"), result("1"), user("post"), answer("a1")]
    two = [user("q2"), answer("a2")]
    assert kept_at_every_room([*one, *two], []) == [
        [*one, *two, QUERY],
        [*two, QUERY],
        [QUERY],
    ]


def test_an_answer_whose_calls_were_lost_is_not_a_finished_one() -> None:
    """Somebody hands in a run that was broken off: what was told next stays with it."""
    history = [user("q1"), asks("1"), user("go on"), answer("a1"), user("q2"), answer("a2")]
    assert kept_at_every_room(history, []) == [[*history, QUERY], [*history[4:], QUERY], [QUERY]]


def test_a_history_that_begins_with_an_answer_is_cut_all_the_same() -> None:
    """Somebody may hand in a part of a conversation."""
    history = [answer("tail"), user("q"), answer("a")]
    assert kept_at_every_room(history, [])[1] == [*history[1:], QUERY]


def test_all_pinned_messages_are_always_sent() -> None:
    """Recalled data and the query, in their order."""
    pinned = (UserMessage("data"), QUERY)
    conversation = Conversation.begin([user("old")], pinned, room_tokens=tokens(pinned) + 12)
    for call_id in "123":
        conversation.append(asks(call_id))
        conversation.append(result(call_id, ""))
        assert conversation.fit()[:2] == pinned


def test_what_was_left_out_stays_out() -> None:
    """A provider's cache begins at the first message that changes."""
    conversation = Conversation.begin([user("x" * 50), answer("y")], (QUERY,), room_tokens=40)
    conversation.append(asks("1"))
    assert conversation.fit() == [QUERY, asks("1")]
    conversation.append(result("1"))
    assert conversation.fit() == [QUERY, asks("1"), result("1")]


def test_nothing_that_was_said_is_lost() -> None:
    """What is not sent is still in the transcript."""
    history, after = [user("a"), answer("b")], [asks("1"), result("1"), asks("2"), result("2")]
    conversation = Conversation.begin(history, (QUERY,), room_tokens=30)
    for message in after:
        conversation.append(message)
    assert len(conversation.fit()) < len(conversation.messages)
    assert conversation.messages == [*history, QUERY, *after]


# --- the view


def views() -> list[tuple[MessageView, list[ChatMessage]]]:
    """Return views of every shape, each with what it must look like."""
    history, after = [user("h1"), answer("h2")], [asks("1"), result("1"), asks("2")]
    shapes: list[tuple[MessageView, list[ChatMessage]]] = []
    for room in (1000, 34, 20):
        conversation = Conversation.begin(history, (QUERY,), room_tokens=room)
        for message in after:
            conversation.append(message)
        view = conversation.fit()
        assert isinstance(view, MessageView)
        shapes.append((view, list(view)))
        # What is said later must not show.
        conversation.append(result("2"))
    assert [len(shape) for _, shape in shapes] == [6, 4, 2]
    return shapes


@pytest.mark.parametrize("shape", range(3))
def test_a_view_is_a_sequence_that_does_not_change(shape: int) -> None:
    """A driver may read it from both ends, in parts and twice."""
    view, items = views()[shape]
    assert list(view) == items == list(view)
    assert len(view) == len(items)
    assert [view[i] for i in range(-len(items), len(items))] == items * 2
    assert list(reversed(view)) == items[::-1]
    for part in (slice(None), slice(1, -1), slice(None, None, -1), slice(50, 60)):
        assert view[part] == tuple(items[part])
    for outside in (len(items), -len(items) - 1):
        with pytest.raises(IndexError):
            view[outside]


@pytest.mark.parametrize("shape", range(3))
def test_a_view_equals_what_it_shows(shape: int) -> None:
    """So that a test can compare a recorded request."""
    view, items = views()[shape]
    assert view == items
    assert view == tuple(items)
    assert view == views()[shape][0]
    assert view != items[:-1]
    assert view != [*items[:-1], user("other")]
    assert view != "text"
    assert repr(view) == f"MessageView({items!r})"


def test_a_view_is_pickled_without_the_rest_of_the_conversation() -> None:
    """What was left out must not travel."""
    view, items = views()[2]
    again = pickle.loads(pickle.dumps(view))
    assert type(again) is tuple
    assert again == tuple(items)


def test_a_view_of_a_growing_conversation_can_be_read_to_its_end() -> None:
    """Also when it grows while somebody reads."""
    conversation = Conversation.begin([answer("a")], (QUERY,), room_tokens=None)
    seen: list[ChatMessage] = []
    for message in conversation.messages:
        seen.append(message)
        conversation.append(answer("more"))
    assert seen == [answer("a"), QUERY]


# --- room for results, and cutting to it


def test_results_have_half_of_what_the_pinned_messages_leave() -> None:
    """Divided by the calls, each with what a message costs."""
    conversation = Conversation.begin((), (QUERY,), room_tokens=QUERY_TOKENS + 100)
    conversation.append(asks("1", "2"))
    assert conversation.room_tokens_for_results(1) == 50 - 4
    assert conversation.room_tokens_for_results(2) == 25 - 4


def test_results_have_less_where_the_answer_itself_is_long() -> None:
    """They must fit beside it: it is sent with them."""
    conversation = Conversation.begin((), (QUERY,), room_tokens=QUERY_TOKENS + 100)
    conversation.append(AssistantMessage("x" * 200, (ToolCall("1", "look", "{}"),)))
    room = conversation.room_tokens_for_results(1)
    assert room == 100 - (4 + 80 + 2 + 1) - 4
    conversation.append(result("1", cut_to_tokens("y" * 1000, room)))
    assert len(conversation.fit()) == 3


def test_results_have_no_less_than_nothing() -> None:
    """Where not even the answer fits, the next request is refused anyway."""
    conversation = Conversation.begin((), (QUERY,), room_tokens=QUERY_TOKENS + 5)
    assert conversation.room_tokens_for_results(1) == 0


def test_results_are_not_limited_where_no_window_is_known() -> None:
    """None means no limit."""
    assert Conversation.begin((), (QUERY,), room_tokens=None).room_tokens_for_results(3) is None


def test_a_text_that_fits_is_not_cut() -> None:
    """Nor noted."""
    assert cut_to_tokens("12345", 2) == "12345"


def test_a_cut_text_says_how_much_is_missing() -> None:
    """The model may ask for the rest."""
    text = cut_to_tokens("abcdefghi " * 1000, 1000)
    kept, _, note = text.rpartition("\n")
    assert note == f"[cut: {len(kept):,} of 10,000 characters shown]"
    assert ("abcdefghi " * 1000).startswith(kept)
    assert 990 < estimate_tokens(text) <= 1000


@pytest.mark.parametrize("letter", ["a", "é", "日", "😀"])
@pytest.mark.parametrize("tokens", range(18, 30))
def test_a_character_is_not_cut_through(letter: str, tokens: int) -> None:
    """Whatever it takes in bytes, and wherever the cut falls."""
    text = letter * 1000
    kept, _, note = cut_to_tokens(text, tokens).rpartition("\n")
    assert note.startswith("[cut: ")
    assert kept == letter * len(kept)
    assert estimate_tokens(cut_to_tokens(text, tokens)) <= tokens


@pytest.mark.parametrize("tokens", [-1, 0, 1, 5, 16])
def test_a_cut_never_exceeds_its_room(tokens: int) -> None:
    """Also where the note alone has none."""
    text = cut_to_tokens("é" * 1000, tokens)
    assert estimate_tokens(text) <= max(tokens, 0)
    assert "[cut: 0 of 1,000 characters shown]".startswith(text)
