"""Turns a driver's estimate of attachments into a value for another process."""

# pyright: reportPrivateUsage=false
# One package: what a driver is made of is not for its users.

from __future__ import annotations

from typing import final

import attrs

from agentpool._attachments import Attachment, CountAttachment, highest_tokens
from agentpool.abc import Driver


@final
@attrs.frozen
class HighestOf:
    """Combines several estimates, for a driver that may ask several providers."""

    counts: tuple[CountAttachment, ...]
    """The estimates to combine."""

    def __call__(self, attachment: Attachment) -> int:
        """Return the highest estimate for *attachment*."""
        return max(count(attachment) for count in self.counts)


def portable_count(driver: Driver) -> CountAttachment:
    """Return the way in which *driver* estimates attachments, as a value that can be pickled.

    For a driver with its own code for that, this is the highest estimate of any provider.
    """
    if type(driver).attachment_tokens is Driver.attachment_tokens:
        return highest_tokens
    # Only a driver of these has them loaded already.
    from agentpool.drivers._fallback import FallbackDriver  # noqa: PLC0415
    from agentpool.drivers._gated import GatedDriver  # noqa: PLC0415
    from agentpool.drivers._hosted import HostedDriver  # noqa: PLC0415

    match driver:
        case HostedDriver():
            counting = driver._settings.counting
            return highest_tokens if counting is None else counting.tokens
        case GatedDriver():
            return portable_count(driver._driver)
        case FallbackDriver():
            return HighestOf(tuple(portable_count(one.driver) for one in driver._choices))
        case _:
            return highest_tokens
