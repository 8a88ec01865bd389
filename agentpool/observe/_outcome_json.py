"""Converts outcomes to JSON and back, with their errors as data.

Rules:

1. Everything is written. For an error, the name of its type, its text, its public fields as texts,
   and its traceback are written. The error is read back as a `RecordedError` with these.
2. The value of an outcome is written as JSON and read back as plain data, since only the program
   that made the value knows its type.
3. A value that cannot be written as JSON is refused, and the error names its type. Nothing is left
   out.
"""

from __future__ import annotations

from functools import cache

import msgspec

from agentpool._checks import expect_arguments
from agentpool._errors import UsageError
from agentpool._outcome import AgentOutcome
from agentpool._surrogates import whole_json
from agentpool.observe._error_data import error_from_data, error_to_data


def outcome_to_json(outcome: AgentOutcome) -> str:
    """Encode *outcome* as JSON, with its conversation and its error.

    Raises:
        UsageError: If the value of *outcome* has no form in JSON.
    """
    expect_arguments(outcome_to_json, locals())
    return whole_json(outcome, _to_data).decode()


def outcome_from_json(text: str | bytes) -> AgentOutcome:
    """Decode an outcome that ``outcome_to_json`` wrote.

    Its error is a `RecordedError` and its value is plain data.

    Raises:
        UsageError: If *text* is not such an outcome. The error says where.
    """
    expect_arguments(outcome_from_json, locals())
    try:
        return _decoder().decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
        msg = f"the text is not an outcome ({exc}); write it with outcome_to_json"
        raise UsageError(msg) from exc


def _to_data(value: object) -> object:
    if isinstance(value, Exception):
        return error_to_data(value)
    msg = (
        f"{type(value).__name__!r} in the outcome's value cannot be written as JSON; give the "
        "agent an output_type of plain data"
    )
    raise UsageError(msg)


def _from_data(kind: type[object], value: object) -> object:
    if kind is object:
        return value  # an outcome's value: plain data
    return error_from_data(value)


@cache
def _decoder() -> msgspec.json.Decoder[AgentOutcome]:
    return msgspec.json.Decoder(AgentOutcome, dec_hook=_from_data)
