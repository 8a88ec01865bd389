"""Thoughts that a model wrote into its text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentpool import SpawnConfig, open_pool
from agentpool._loop.thoughts import MARKS, StreamedText, begins_silently, without_thoughts
from agentpool.drivers import AssistantMessage, ScriptedDriver
from tests.support.fakes import calling, cut_off, manifest, new_run, perform, tool_call


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>two and two</think>4", "4"),
        ("\n<think>\ntwo\n</think>\n\n4\n", "4\n"),
        ("<think></think><thinking>x</thinking> <thought>y</thought>4", "4"),
        ("[THINK]two[/THINK]4", "4"),
        ("two and two\n</think>\n\n4", "4"),
        ("two and two\n[/THINK]4", "4"),
        ("\n</think>4", "4"),
        ("two\n</think>\n<think>and two</think>\n4", "4"),
        ("\n</think><think>", ""),
        ("two\n[/THINK]\n4\n</think>5", "4\n</think>5"),
        ("<think>two and two", ""),
        ("<think>a</think><think>b", ""),
        ("The mark <think> begins and </think> ends them", None),
        ("4", None),
        ("  4 ", None),
        ("", None),
    ],
)
def test_the_answer_begins_after_the_thoughts(text: str, answer: str | None) -> None:
    """Marks within an answer are a part of it; ``None``: the text is the answer."""
    assert without_thoughts(text) == (text if answer is None else answer)


@given(st.sampled_from(MARKS), st.text(), st.text().filter(str.strip))
def test_no_thought_is_in_the_answer(marks: tuple[str, str], thought: str, answer: str) -> None:
    """Whatever is thought, up to the first mark that ends it."""
    begin, end = marks
    thought, answer = thought.replace(end, ""), "4" + answer
    assert without_thoughts(f"{begin}{thought}{end}{answer}") == answer
    assert without_thoughts(f"{begin}{thought}") == ""


PIECES = st.lists(
    st.sampled_from([m for both in MARKS for m in both] + [*"\n <>[/]4a", "thi", "nk>", "</"])
)


@given(PIECES, st.data())
def test_a_stream_has_the_same_text(pieces: list[str], data: st.DataObject) -> None:
    """However it is split; and nothing in it is lost but marks and white space around them."""
    text = "".join(pieces)
    stream = StreamedText(begins_silently(text))
    heard: list[tuple[str, bool]] = []
    while text:
        size = data.draw(st.integers(1, len(text)))
        heard += stream.feed(text[:size])
        text = text[size:]
    heard += stream.end()
    whole = "".join(pieces)
    said = "".join(piece for piece, is_thought in heard if not is_thought)
    assert said == without_thoughts(whole)
    assert all(piece for piece, _ in heard)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("two\n</think>4", [("two", True), ("4", False)]),
        ("\n</think>4", [("4", False)]),
    ],
)
def test_a_stream_knows_thoughts_by_their_end_alone(
    text: str, told: list[tuple[str, bool]]
) -> None:
    """Of a model that begins in its thoughts, also when it had none."""
    assert list(StreamedText(holds_back=True).feed(text)) == told


def test_thoughts_are_in_no_answer_and_no_history() -> None:
    """Also beside calls; a model is not shown what it thought in earlier turns."""
    done = perform(
        [
            calling(tool_call("a"), text="<think>call it</think>I call."),
            "<think>done</think>It is 4.",
        ]
    )
    assert done.run.text == "It is 4."
    said = [m.text for m in done.transcript if isinstance(m, AssistantMessage)]
    assert said == ["I call.", "It is 4."]


def test_an_answer_cut_in_its_thoughts_has_no_text() -> None:
    """It is asked for with more room, like every answer that ends before its first word."""
    run = new_run()
    run.max_output_tokens = 50_000
    done = perform([cut_off("<think>so many"), "<think>x</think>4"], run)
    assert done.run.text == "4"
    assert len(done.requests) == 2


def test_an_answer_of_thoughts_that_nothing_ended_is_asked_for_again() -> None:
    """The model forgot the mark: its thoughts are no answer."""
    done = perform(["<think>two and two", "4"])
    assert done.run.text == "4"
    assert len(done.requests) == 2


def test_what_has_arrived_of_thoughts_is_no_answer() -> None:
    """A run that is cancelled while the model thinks has no text."""
    run = new_run()
    run.arrive("<thi")
    run.arrive("nk>two ")
    assert [run.text] == [""]
    run.arrive("and two</think>4")
    assert [run.text] == ["4"]


async def test_thoughts_are_not_remembered() -> None:
    """What an agent recalls later is what was answered."""
    driver = ScriptedDriver(["<think>two and two</think>4"])
    async with open_pool(driver) as pool:
        outcome = await (await pool.spawn(SpawnConfig(manifest(), "2+2?"))).wait()
    assert outcome.text == "4"
    assert "think" not in repr(outcome.messages)
