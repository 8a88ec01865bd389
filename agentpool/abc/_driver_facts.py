"""Checks what a driver says of itself: users write classes of drivers by hand."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from operator import attrgetter
from typing import Final, final

import msgspec

from agentpool._attachments import Attachment, CountAttachment, highest_tokens
from agentpool._checks import expect, expect_fields
from agentpool._errors import UsageError
from agentpool._manifest.capability import PrivacyTier
from agentpool._messages import Completion
from agentpool._numbers import is_whole, plain_number, quoted
from agentpool.abc._driver import Driver


@final
class _Facts(msgspec.Struct, frozen=True):
    """What a driver says of itself."""

    privacy: PrivacyTier
    context_window: int | None
    max_output_tokens: int | None
    inputs: Collection[str] | None
    most_image_bytes: int | None
    most_image_pixels: int | None
    most_input_tokens: int | None


_read_facts: Final = attrgetter(*_Facts.__struct_fields__)


def expect_completion(answer: object, driver: Driver) -> None:
    """Raise unless *answer* is a ``Completion``.

    Raises:
        UsageError: If it is not. Says which *driver* returned it.
    """
    expect(
        answer, Completion, f"{type(driver).__name__}.complete() must return a Completion",
        "write return Completion(text)",
    )  # fmt: skip


def check_facts(driver: Driver) -> None:
    """Refuse a driver with a property of a wrong type, or without one.

    Raises:
        UsageError: If it has one, or lacks one. Says which.
    """
    try:
        facts = _Facts(*_read_facts(driver))
    except AttributeError:  # registered as a driver, which gives a class nothing
        kind = type(driver).__name__
        lacks = [name for name in _Facts.__struct_fields__ if not hasattr(driver, name)]
        raise UsageError(
            f"driver must have what a Driver has, and {kind} lacks {', '.join(lacks)}; let it "
            "inherit from agentpool.abc.Driver"
        ) from None
    expect_fields(facts, of=type(driver).__name__)


def count_of(driver: Driver) -> CountAttachment:
    """Return a function that estimates attachments as *driver* does, mostly the same object.

    It raises a ``UsageError`` with the name of the driver if the driver returns no count.
    """
    if type(driver).attachment_tokens is Driver.attachment_tokens:
        return highest_tokens
    return partial(_counted, driver)


def _counted(driver: Driver, attachment: Attachment) -> int:
    tokens = driver.attachment_tokens(attachment)
    if not is_whole(tokens) or tokens < 0:
        raise UsageError(
            f"{type(driver).__name__}.attachment_tokens() must return a whole number >= 0, "
            f"got {quoted(tokens)}"
        )
    return plain_number(tokens)
