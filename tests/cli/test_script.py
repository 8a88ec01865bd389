"""``--driver script:FILE``: answers from a file in place of a model."""

from pathlib import Path

import pytest

from agentpool import DriverError, ManifestError, UsageError
from agentpool._cli._script import load_script
from agentpool.abc import CompletionRequest, Driver
from agentpool.drivers import (
    AssistantMessage,
    BadRequestError,
    FinishReason,
    ProtocolError,
    ToolMessage,
    UserMessage,
)


def script(folder: Path, text: str, name: str = "s.toml") -> Driver:
    """Return the driver of a script."""
    path = folder / name
    path.write_text(text)
    return load_script(str(path))


def asked(text: str, system: str = "") -> CompletionRequest:
    """Return a request that ends with *text*."""
    return CompletionRequest([UserMessage("before"), UserMessage(text)], system=system)


async def test_the_first_answer_that_fits_is_given(tmp_path: Path) -> None:
    """By the last message or the system prompt; one without ``when`` fits all."""
    driver = script(
        tmp_path,
        '[[answers]]\nwhen="bee"\ntext="buzz"\n'
        '[[answers]]\nwhen="poet"\ntext="O"\n[[answers]]\ntext="hm"',
    )
    texts = [
        (await driver.complete(request)).text
        for request in (asked("a bee"), asked("?", "You are a poet."), asked("before bees?"))
    ]
    assert texts == ["buzz", "O", "buzz"]
    assert (await driver.complete(asked("?"))).text == "hm"
    assert (await driver.complete(CompletionRequest([]))).text == "hm"


async def test_an_answer_may_be_given_so_many_times(tmp_path: Path) -> None:
    """Then the next that fits; and when none is left, that is said."""
    driver = script(tmp_path, '[[answers]]\ntext="a"\ntimes=2\n[[answers]]\ntext="b"\ntimes=1')
    assert [(await driver.complete(asked("x"))).text for _ in range(3)] == ["a", "a", "b"]
    with pytest.raises(ProtocolError, match=r"no answer in .*s.toml' fits the request 'x'"):
        await driver.complete(asked("x"))


async def test_an_answer_may_be_a_tool_call(tmp_path: Path) -> None:
    """And the result of the tool is what the next answer is chosen by."""
    driver = script(
        tmp_path,
        '[[answers]]\nwhen="stored"\ntext="Kept."\n'
        '[[answers]]\ntool="remember"\narguments={content="x", n=1}',
    )
    first = await driver.complete(asked("keep x"))
    (call,) = first.tool_calls
    assert (call.call_id, call.name, call.arguments) == (
        "call-1", "remember", '{"content": "x", "n": 1}',
    )  # fmt: skip
    assert first.finish_reason is FinishReason.TOOL_USE
    result = ToolMessage("call-1", "remember", "stored it")
    last = CompletionRequest([AssistantMessage("", (call,)), result])
    assert (await driver.complete(last)).text == "Kept."


async def test_an_answer_may_be_an_error(tmp_path: Path) -> None:
    """After the words that came before it."""
    driver = script(tmp_path, '[[answers]]\ntext="Half a"\nerror="gone"')
    pieces: list[str] = []
    with pytest.raises(BadRequestError, match="gone"):
        await driver.complete(asked("x"), on_delta=pieces.append)
    assert pieces == ["Half ", "a"]


async def test_words_come_over_time(tmp_path: Path, autojump_clock: object) -> None:
    """As models write, so a display can be tried out."""
    import trio

    driver = script(tmp_path, '[[answers]]\ntext="a b  c"\nseconds=8')
    pieces: list[str] = []
    completion = await driver.complete(asked("x"), on_delta=pieces.append)
    assert (pieces, completion.text) == (["a ", "b ", " ", "c"], "a b  c")
    assert trio.current_time() == 8
    assert driver.price(completion.usage or pytest.fail("no usage")) == 0.0
    assert driver.context_window is None


async def test_a_script_may_be_json(tmp_path: Path) -> None:
    """Of the same shape."""
    driver = script(tmp_path, '{"answers": [{"text": "yes"}]}', "s.json")
    assert (await driver.complete(asked("x"))).text == "yes"


@pytest.mark.parametrize(
    ("name", "text", "faults"),
    [
        ("s.toml", "a = 1", ["a: unknown key"]),
        ("s.toml", "# nothing", ["answers: is missing; write [[answers]]"]),
        ("s.toml", "answers = 3", ["answers: must be an array of tables, got 3"]),
        ("s.toml", "[[answers]]\ntxt = 'a'", ["answers[0].txt: unknown key; did you mean"]),
        ("s.toml", "[[answers]]\nseconds = -1", ["answers[0].seconds: must be a finite"]),
        ("s.toml", "[[answers]]\nseconds = inf", ["answers[0].seconds: must be a finite"]),
        ("s.toml", "[[answers]]\ntimes = 0", ["answers[0].times: must be >= 1, got 0"]),
        ("s.toml", "[[answers", ["is not valid TOML"]),
        ("s.json", "{", ["is not valid JSON"]),
        ("s.json", "[]", ['must be an object such as {"answers"']),
    ],
)
def test_a_wrong_script_says_where(tmp_path: Path, name: str, text: str, faults: list[str]) -> None:
    """With the path of each fault, as for a manifest."""
    with pytest.raises(ManifestError) as caught:
        script(tmp_path, text, name)
    assert any(str(fault).startswith(faults[0]) for fault in caught.value.faults)
    assert caught.value.source.endswith(name)


def test_a_script_that_is_not_there() -> None:
    """Is a mistake like any other."""
    with pytest.raises(UsageError, match="cannot be read"):
        load_script("/no/such/script.toml")


@pytest.mark.parametrize(
    ("kind", "is_retried"),
    [
        ("RateLimitError", True), ("OverloadedError", True), ("NetworkError", True),
        ("FailedAttemptError", True), ("AuthenticationError", False), ("BadRequestError", False),
        ("ContextOverflowError", False), ("UnknownModelError", False),
    ],
)  # fmt: skip
async def test_an_error_may_be_of_any_kind(tmp_path: Path, kind: str, *, is_retried: bool) -> None:
    """To see what a run does then; each time another one."""
    driver = script(tmp_path, f'[[answers]]\nerror={{type="{kind}", text="no"}}')
    errors: list[DriverError] = []
    for _ in range(2):
        with pytest.raises(DriverError, match="no") as caught:
            await driver.complete(asked("x"))
        errors.append(caught.value)
    assert (type(errors[0]).__name__, errors[0].retryable) == (kind, is_retried)
    assert errors[0] is not errors[1]


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        ('{type="RateLimit"}', "answers[0].error.type: must be one of 'RateLimitError', "),
        ('{text="x"}', "answers[0].error.type: is missing; write one of RateLimitError, "),
        ('{type="NetworkError", txt="x"}', "answers[0].error.txt: unknown key; did you mean"),
        ("3", "answers[0].error: must be a string, got 3"),
    ],
)
def test_an_error_of_no_known_kind_is_a_fault(tmp_path: Path, error: str, fault: str) -> None:
    """With what may stand there."""
    with pytest.raises(ManifestError) as caught:
        script(tmp_path, f"[[answers]]\nerror={error}")
    assert any(str(one).startswith(fault) for one in caught.value.faults)
