"""Refuses anything but text where nothing else is supported.

An image that was dropped without a word would be a model that looks at nothing and says
something all the same.
"""

from __future__ import annotations

from typing import Final

import msgspec

from agentpool._errors import BadRequestError, ProtocolError

_NOTHING: Final = frozenset({b"", b"null", b"[]", b"{}", b'""'})
"""What servers write where there is none."""


def checked_text(text: object) -> str:
    """Return *text*, which is about to be sent.

    Raises:
        BadRequestError: If it is none, such as a list with images.
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
        ProtocolError: If it is something.
    """
    if bytes(value) not in _NOTHING:
        msg = f"the answer has {kind}, and only text is supported; use a model that writes text"
        raise ProtocolError(msg)
