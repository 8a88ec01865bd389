"""Refuses anything but text where only text is supported.

If an image were silently dropped, the model would answer without having seen it.
"""

from __future__ import annotations

from typing import Final

import msgspec

from agentpool._errors import BadRequestError, ProtocolError

_NOTHING: Final = frozenset({b"", b"null", b"[]", b"{}", b'""'})
"""The values that servers write for nothing."""


def checked_text(text: object) -> str:
    """Return *text*, which is about to be sent, if it is text.

    Raises:
        BadRequestError: If it is not text, such as a list with images.
    """
    if isinstance(text, str):
        return text
    msg = (
        f"a message holds {type(text).__name__!r} where its text should be; only text is "
        "supported, no images and no audio: describe them in words"
    )
    raise BadRequestError(msg)


def refuse_media(kind: str, value: msgspec.Raw) -> None:
    """Raise if *value*, received in a place for *kind*, is not empty.

    Raises:
        ProtocolError: If it is not empty.
    """
    if bytes(value) not in _NOTHING:
        msg = f"the answer has {kind}, but only text is supported; use a model that writes text"
        raise ProtocolError(msg)
