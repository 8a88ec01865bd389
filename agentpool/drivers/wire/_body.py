"""Encodes the body of a request: the wire's own fields, and fields added by the user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, cast

import msgspec

from agentpool._messages import Json


def encode_body(body: msgspec.Struct, extra: Mapping[str, Json]) -> bytes:
    """Return *body* as JSON, with the fields of *extra* after its own.

    Args:
        body: The fields that the wire sets. It is never empty.
        extra: Other fields, which must differ from the wire's.
    """
    encoded = _ENCODER.encode(body)
    if not extra:
        return encoded
    return encoded[:-1] + b"," + _ENCODER.encode(extra)[1:]


def _plain(value: object) -> object:
    # Schemas may be read-only mappings and sequences, which msgspec does not know.
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, object]", value))
    if isinstance(value, Sequence):
        return list(cast("Sequence[object]", value))
    msg = f"not JSON: {type(value).__name__}"
    raise NotImplementedError(msg)


_ENCODER: Final = msgspec.json.Encoder(enc_hook=_plain)


def encode_json(value: object) -> bytes:
    """Return *value* as JSON; read-only mappings and sequences are allowed."""
    return _ENCODER.encode(value)
