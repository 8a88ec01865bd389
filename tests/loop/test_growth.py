"""What the loop does with what models and tools say takes time in proportion to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from agentpool import AssistantMessage, ToolMessage, UserMessage
from agentpool._loop.conversation import Conversation
from agentpool._loop.joined_pieces import join_pieces
from agentpool._loop.recalled import not_yet_in
from agentpool._loop.seen_calls import SeenCalls
from agentpool._loop.thoughts import StreamedText
from agentpool._messages import ToolCall
from tests.support.growth import assert_linear, lines_run


def stream(pieces: Sequence[str], *, holds_back: bool = False) -> list[tuple[str, bool]]:
    """Return what comes of a streamed text."""
    text = StreamedText()
    text.holds_back = holds_back
    return [*(one for piece in pieces for one in text.feed(piece)), *text.end()]


def turns(n: int) -> Sequence[AssistantMessage | ToolMessage]:
    """Return *n* turns with a call each."""
    call, result = ToolCall("a", "f", "{}"), ToolMessage("a", "f", "x" * 400)
    return [one for _ in range(n) for one in (AssistantMessage("", (call,)), result)]


def hold(messages: Sequence[AssistantMessage | ToolMessage]) -> Conversation:
    """Hold a conversation in a small window, from which results are cleared."""
    held = Conversation.begin((), [UserMessage("q")], room_tokens=3_000)
    for message in messages:
        held.append(message)
        if held.is_full():
            held.cut((), clears_results=True)
        assert held.left_out >= 0
    return held


READERS: dict[str, tuple[Callable[..., object], Callable[[int], object]]] = {
    "blanks in pieces": (stream, lambda n: [" "] * n),
    "thoughts in pieces": (stream, lambda n: ["<think>"] + ["word <"] * n),
    "thoughts without a first mark": (
        lambda pieces: stream(pieces, holds_back=True),
        lambda n: ["word\n"] * n,
    ),
    "a window": (hold, turns),
    "pieces of an answer": (lambda text: join_pieces(text + "x", text), lambda n: "ab" * n),
    "what was recalled": (lambda said: not_yet_in(said, ["x"] * 20), turns),
    "calls that were seen": (
        lambda n: [SeenCalls().find("f", f'{{"a":{at}}}') for at in range(n)],
        lambda n: n,
    ),
}


@pytest.mark.parametrize("reader", READERS)
def test_what_is_said_is_read_in_proportion(reader: str) -> None:
    """Thoughts that came in 50,000 pieces were looked through with each of them."""
    read, make = READERS[reader]
    assert_linear(read, make)


@pytest.mark.parametrize("reader", ["blanks in pieces", "thoughts without a first mark"])
def test_a_piece_is_looked_at_once(reader: str) -> None:
    """However many there were before it."""
    read, make = READERS[reader]
    few, many = (lines_run(lambda n=n: read(make(n)), "_loop/thoughts.py") for n in (200, 400))  # type: ignore[misc]  # of numbers
    assert many <= 2.1 * few


@pytest.mark.parametrize("step", [1, 2, 3, 7, 100])
@pytest.mark.parametrize(
    "text",
    [
        "  \n words", "  <think>a</think> b", "thought\nof\n</think>\nanswer", " \n\n</think>b",
        "long " * 20 + "\n</thinking>  answer \n more", "\n\n  ",
        "no mark\n</thin", "\n[/THINK]a",
    ],
    ids=ascii,
)  # fmt: skip
def test_a_text_without_a_first_mark_is_the_same_in_all_pieces(text: str, step: int) -> None:
    """Wherever it is cut."""
    pieces = [text[at : at + step] for at in range(0, len(text), step)]

    def joined(told: Sequence[tuple[str, bool]]) -> tuple[str, str]:
        thoughts = "".join(one for one, is_thought in told if is_thought)
        return thoughts, "".join(one for one, is_thought in told if not is_thought)

    for holds_back in (False, True):
        whole = joined(stream([text], holds_back=holds_back))
        assert joined(stream(pieces, holds_back=holds_back)) == whole


def test_stubs_of_results_that_have_left_are_forgotten() -> None:
    """Or each cut copies all of them."""
    held = hold(turns(300))
    window = held._window
    assert window is not None
    assert 0 < len(window.stubs) < 60
    assert held.left_out > 500
