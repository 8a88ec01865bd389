"""How a driver estimates attachments, as a value for another process."""

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
    """The ways."""

    def __call__(self, attachment: Attachment) -> int:
        """Return the highest of their estimates."""
        return max(count(attachment) for count in self.counts)


def portable_count(driver: Driver) -> CountAttachment:
    """Return how *driver* estimates attachments, as a value that can be pickled.

    Of a driver whose way is its own code alone, the highest that any provider counts.
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
