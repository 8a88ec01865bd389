"""Builds the schema of an output type, and converts answers to it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache, partial
from itertools import islice
from typing import Final, cast

import msgspec

from agentpool._checks import expect_output_type
from agentpool._errors import UsageError
from agentpool._loop.output import Misfit, Output
from agentpool._messages import AnswerForm
from agentpool._surrogates import escapes_without_halves
from agentpool.tools._arguments import (
    MAX_FAULTS,
    all_faults,
    decode,
    listed,
    read_keys,
    unknown_keys,
)
from agentpool.tools._common_schema import common_schema
from agentpool.tools._find_json import find_objects
from agentpool.tools._schema import Schema, read_hints, refuse_ignored, written_out

_MAX_OBJECTS: Final = 32
"""The most JSON objects in an answer. A text with more objects was not meant as a single object."""

_MAX_NAME_CHARS: Final = 64


# It remembers what a pure function gave, for types, of which a program has few.
@lru_cache(maxsize=256)
def build_output(output_type: object) -> Output:
    """Build the schema and the reader for answers of *output_type*.

    Raises:
        UsageError: If *output_type* has no form in JSON. The error says why.
    """
    expect_output_type(output_type)
    assert isinstance(output_type, type)  # noqa: S101  # so it is
    name = output_type.__name__
    refuse_ignored(output_type, f"output_type {name}", set())
    try:
        schema = _at_the_top(written_out(cast("Schema", msgspec.json.schema(output_type))))
        decoder = msgspec.json.Decoder(cast("type[object]", output_type))
    except (TypeError, NameError, AttributeError) as exc:
        detail = str(exc).splitlines()[-1]  # the lines above it are about msgspec hooks
        where = "".join(f", field {field!r}," for field in _unreadable_fields(output_type)[:1])
        raise UsageError(f"output_type {name}{where} cannot be read from JSON: {detail}") from exc
    if schema.get("type") != "object":
        raise UsageError(
            f"output_type {name} must be a JSON object at its top, as providers require; "
            "make it a field of a class"
        )
    shown = common_schema(schema, keep_references=True)
    form = AnswerForm(re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:_MAX_NAME_CHARS], shown)
    text = msgspec.json.encode(shown).decode()
    return Output(form, partial(_read, decoder, schema), text)


def _at_the_top(schema: Schema) -> Schema:
    """Return *schema* with its top level written out.

    The top level of a type that contains itself is a reference.
    """
    reference, kept = schema.get("$ref"), cast("Mapping[str, Schema]", schema.get("$defs", {}))
    if not isinstance(reference, str):
        return schema
    top = kept.get(reference.removeprefix("#/$defs/"), {})
    return {**top, "$defs": kept} if top else schema


def _unreadable_fields(output_type: type) -> list[str]:
    """Return the fields whose own types have no form in JSON."""
    found: list[str] = []
    for field, hint in read_hints(output_type, f"the fields of {output_type.__name__}").items():
        try:
            msgspec.json.schema(hint)
        except TypeError:
            found.append(field)
    return found


def _read(decoder: msgspec.json.Decoder[object], schema: Schema, text: str) -> object:
    """Return the one value in *text*, or the reason why there is none."""
    text = escapes_without_halves(text)
    whole = _read_one(decoder, schema, text)
    if not isinstance(whole, Misfit):
        return whole
    found = tuple(islice(find_objects(text), _MAX_OBJECTS))
    # What is written twice is one answer, and braces alone are none beside another.
    values = {one: _read_one(decoder, schema, one) for one in found}
    fits = [one for one, value in values.items() if not isinstance(value, Misfit)]
    if len(fits) > 1:
        fits = [one for one in fits if one.strip("{ }")]
    if len(fits) > 1:
        return Misfit(f"- it has {len(fits)} JSON objects that fit; answer with one")
    if fits:
        return values[fits[0]]
    return values[found[-1]] if found else whole


def _read_one(decoder: msgspec.json.Decoder[object], schema: Schema, text: str) -> object:
    try:
        value = decode(decoder, text)
        known, repeated = read_keys(text)
        kept = cast("Schema", schema.get("$defs", {}))
        faults = list(islice(unknown_keys(schema, known, "$", kept), MAX_FAULTS + 1))
        faults += repeated
    except msgspec.ValidationError as exc:
        faults = all_faults(schema, text) or [str(exc)]
    except msgspec.DecodeError as exc:
        faults = [f"not valid JSON: {exc}"]
    except (ValueError, RecursionError) as exc:
        faults = [f"cannot be read: {exc}"]
    else:
        if not faults:
            return value
    return Misfit(listed(faults))
