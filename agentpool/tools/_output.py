"""A type as the form of an answer, read by the same rules as the arguments of a tool."""

from __future__ import annotations

import json
import re
from functools import lru_cache, partial
from typing import Final, cast

import msgspec

from agentpool._errors import UsageError
from agentpool._loop.output import Misfit, Output
from agentpool._messages import AnswerForm, Json
from agentpool.tools._arguments import all_faults, shortened, unknown_keys
from agentpool.tools._schema import Schema, has_fields, refuse_ignored, written_out

_MAX_FAULTS: Final = 10
"""A model that made more mistakes than that has misunderstood the whole."""

_MAX_NAME_CHARS: Final = 64

_FENCED: Final = re.compile(r"\s*```[a-zA-Z]*\s*\n(?P<inside>.*?)\n?\s*```\s*", re.DOTALL)


# It remembers what a pure function gave, for types, of which a program has few.
@lru_cache(maxsize=256)
def build_output(output_type: object) -> Output:
    """Return what an answer of *output_type* must be.

    Raises:
        UsageError: If it has no form in JSON. Says why.
    """
    if not isinstance(output_type, type) or not has_fields(output_type):
        raise UsageError(
            "output_type must be an attrs class, a dataclass, a TypedDict or a msgspec struct, "
            f"got {output_type!r}"
        )
    name = output_type.__name__
    refuse_ignored(output_type, f"output_type {name}", set())
    try:
        schema = written_out(cast("Schema", msgspec.json.schema(output_type)))
        decoder = msgspec.json.Decoder(cast("type[object]", output_type))
    except (TypeError, NameError, AttributeError) as exc:
        detail = str(exc).splitlines()[-1]  # the lines above it are about msgspec hooks
        raise UsageError(f"output_type {name} cannot be read from JSON: {detail}") from exc
    if schema.get("type") != "object":
        raise UsageError(
            f"output_type {name} is no JSON object at its top, which providers want; "
            "make it a field of another class"
        )
    form = AnswerForm(re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:_MAX_NAME_CHARS], schema)
    text = msgspec.json.encode(schema).decode()
    return Output(form, partial(_read, decoder, schema), text)


def _read(decoder: msgspec.json.Decoder[object], schema: Schema, text: str) -> object:
    fenced = _FENCED.fullmatch(text)
    if fenced is not None:
        text = fenced["inside"]
    try:
        value = decoder.decode(text)
        kept = cast("Schema", schema.get("$defs", {}))
        faults = list(unknown_keys(schema, cast("Json", json.loads(text)), "$", kept))
    except msgspec.ValidationError as exc:
        faults = all_faults(schema, text) or [str(exc)]
    except msgspec.DecodeError as exc:
        faults = [f"not valid JSON: {exc}"]
    except (ValueError, RecursionError) as exc:
        faults = [f"cannot be read: {exc}"]
    else:
        if not faults:
            return value
    lines = [f"- {shortened(fault)}" for fault in faults[:_MAX_FAULTS]]
    if len(faults) > _MAX_FAULTS:
        lines.append(f"- and {len(faults) - _MAX_FAULTS} more")
    return Misfit("\n".join(lines))
