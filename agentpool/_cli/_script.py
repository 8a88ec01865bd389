"""Answers from a file instead of a model: ``--driver script:FILE``.

This is for trying out manifests, inputs and later steps without a model. The file is TOML
with one ``[[answers]]`` table for each answer, or JSON of the same shape. A request gets
the first answer that fits it, so the result does not depend on which agent asks first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final, cast, final

import attrs
import trio

from agentpool import DriverError, ManifestError, PrivacyTier, Usage
from agentpool._cli._inputs import read_text
from agentpool._errors import Fault
from agentpool._manifest.toml_table import TomlTable
from agentpool.abc import Completion, CompletionRequest, Driver, OnDelta
from agentpool.drivers import (
    AuthenticationError,
    BadRequestError,
    ContextOverflowError,
    FailedAttemptError,
    FinishReason,
    NetworkError,
    OverloadedError,
    ProtocolError,
    RateLimitError,
    ToolCall,
    ToolMessage,
    UnknownModelError,
    UserMessage,
    estimate_tokens,
)

_ERRORS: Final[Mapping[str, type[DriverError]]] = {
    kind.__name__: kind
    for kind in (
        RateLimitError,
        OverloadedError,
        NetworkError,
        FailedAttemptError,
        AuthenticationError,
        BadRequestError,
        ContextOverflowError,
        UnknownModelError,
    )
}
"""The errors that a script can raise. Requests with one of the first four errors are tried again,
the others are not."""

_SHOWN_CHARACTERS: Final = 60
"""The most characters that an error shows of a request that no answer fits."""


@final
@attrs.frozen(kw_only=True)
class ScriptedAnswer:
    """One ``[[answers]]`` table."""

    when: str = ""
    """The answer fits a request whose system prompt or last message contains this."""
    text: str = ""
    """The text of the answer."""
    error: DriverError | None = None
    """The error of the request. ``None``: the request does not fail."""
    tool: str | None = None
    """The tool to call. ``None``: no tool is called."""
    arguments: str = "{}"
    """That tool's arguments, as JSON."""
    seconds: float = 0.0
    """How long the answer takes. The text comes word by word over this time."""
    times: int | None = None
    """How often the answer can be given. ``None``: always."""

    def fits(self, request: CompletionRequest) -> bool:
        """Return whether this answers *request*."""
        return self.when in request.system or self.when in last_words(request)


def last_words(request: CompletionRequest) -> str:
    """Return the text of the last message of *request*."""
    last = request.messages[-1] if request.messages else UserMessage("")
    return last.content if isinstance(last, ToolMessage) else last.text


def load_script(path: str) -> ScriptFileDriver:
    """Load the driver that the file *path* describes.

    Raises:
        UsageError: If the file cannot be read.
        ManifestError: If anything in the file is wrong. The error has all faults with their paths.
    """
    example = """write [[answers]] and text = "..." into it"""
    text = read_text(path, what=f"the script of --driver {f'script:{path}'!r}", if_empty=example)
    if path.endswith(".json"):
        try:
            values: object = json.loads(text)
        except ValueError as exc:
            raise ManifestError([Fault("", f"is not valid JSON: {exc}")], source=path) from exc
        if not isinstance(values, dict):
            fault = Fault("", 'must be an object such as {"answers": [{"text": "Yes."}]}')
            raise ManifestError([fault], source=path)
        top = TomlTable("", cast("dict[str, object]", values), [])
    else:
        top = TomlTable.parse(text, source=path)
    tables = [table for table in top.tables("answers") or () if table is not None]
    answers = [_answer(table) for table in tables]
    top.close({})
    if not answers and not top.faults:
        top.fault("answers", 'is missing; write [[answers]] and text = "..."')
    if top.faults:
        raise ManifestError(top.faults, source=path)
    return ScriptFileDriver(path, answers)


def _answer(table: TomlTable) -> ScriptedAnswer:
    answer = ScriptedAnswer(
        when=table.text("when", ""),
        text=table.text("text", ""),
        error=_error(table),
        tool=table.text("tool", None),
        arguments=json.dumps(dict(table.table("arguments").values), default=str),
        seconds=table.number("seconds", 0.0),
        times=table.integer("times", None),
    )
    table.close({})
    if not 0 <= answer.seconds < float("inf"):
        table.fault("seconds", f"must be a finite number >= 0, got {answer.seconds!r}")
    if answer.times is not None and answer.times < 1:
        table.fault("times", f"must be >= 1, got {answer.times!r}")
    return answer


def _error(table: TomlTable) -> DriverError | None:
    """Return the error of an answer: a text, or ``{ type = "RateLimitError", text = "…" }``."""
    if not isinstance(table.values.get("error"), dict):
        text = table.text("error", None)
        return None if text is None else BadRequestError(text)
    error = table.table("error")
    error.require("type", f"write one of {', '.join(_ERRORS)}")
    kind: type[DriverError] = error.choice("type", _ERRORS, BadRequestError)
    says: str = error.text("text", "as the script says")
    error.close({})
    return kind(says)


@final
@attrs.define(eq=False)
class ScriptFileDriver(Driver):
    """Answers each request by the first rule that matches."""

    _path: str
    _answers: list[ScriptedAnswer]
    _given: dict[int, int] = attrs.field(factory=dict[int, int])
    _calls: int = 0

    @property
    def context_window(self) -> int | None:
        """Always ``None``: the window is unknown, so the manifest's number counts."""
        return None

    @property
    def privacy(self) -> PrivacyTier:
        """Sovereign: nothing leaves this machine."""
        return PrivacyTier.SOVEREIGN

    def price(self, usage: Usage, *, model: str | None = None) -> float | None:  # noqa: ARG002  # as free as the next
        """Return 0.0: a script is free."""
        return 0.0

    async def complete(
        self, request: CompletionRequest, *, on_delta: OnDelta | None = None
    ) -> Completion:
        """Answer *request* by the first rule that matches.

        Raises:
            DriverError: If that rule is an error.
            ProtocolError: If no rule fits.

        Cancellation:
            The answer counts as given.
        """
        await trio.lowlevel.checkpoint()
        answer = self._take(request)
        # A word at a time, each with the space after it, as models write.
        words = [word + " " for word in answer.text.split(" ")]
        words[-1] = words[-1][:-1]
        for word in words:
            if on_delta is not None and word:
                on_delta(word)
            await trio.sleep(answer.seconds / len(words))
        if answer.error is not None:
            # A new one each time: it is told where it was raised, and how often.
            raise type(answer.error)(str(answer.error))
        usage = Usage(
            input_tokens=estimate_tokens(request.system + last_words(request)),
            output_tokens=estimate_tokens(answer.text),
        )
        if answer.tool is None:
            return Completion(answer.text, usage=usage)
        self._calls += 1
        call = ToolCall(f"call-{self._calls}", answer.tool, answer.arguments)
        return Completion(answer.text, (call,), FinishReason.TOOL_USE, usage)

    def _take(self, request: CompletionRequest) -> ScriptedAnswer:
        for index, answer in enumerate(self._answers):
            given = self._given.get(index, 0)
            if answer.fits(request) and (answer.times is None or given < answer.times):
                self._given[index] = given + 1
                return answer
        words = last_words(request)[:_SHOWN_CHARACTERS]
        raise ProtocolError(
            f"no answer in {self._path!r} fits the request {words!r}; add one without 'when'"
        )
