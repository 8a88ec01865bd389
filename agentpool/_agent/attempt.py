"""One attempt of a request: how far it has come, and what it has used if it fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Final

from agentpool._agent.spending import is_refusal
from agentpool._errors import DriverError
from agentpool._loop.tokens import sound_cost, sound_usage
from agentpool._messages import CompletionRequest, Usage, estimate_tokens
from agentpool._served_call import Loss
from agentpool.abc import Driver


class Step(Enum):
    """How far an attempt has come."""

    NEW = "new"
    """Nothing of it was sent."""
    SENT = "sent"
    """A part of it was sent, and no answer has come."""
    ANSWERED = "answered"
    """Its answer has come."""
    COUNTED = "counted"
    """It has failed, and its usage is counted."""


# A member of an enum takes thirty times as long as a name here.
NEW: Final = Step.NEW
SENT: Final = Step.SENT
ANSWERED: Final = Step.ANSWERED
COUNTED: Final = Step.COUNTED


def loss_of(
    error: BaseException,
    driver: Driver,
    request: CompletionRequest,
    arrived: Sequence[str],
    most: Callable[[], tuple[int, float | None]],
) -> Loss:
    """Return the usage of an attempt that was sent and ended with *error*.

    Args:
        error: Why it ended.
        driver: The driver that was asked.
        request: The request.
        arrived: The pieces of its answer that had come.
        most: Returns the tokens and US dollars that it may have used.
    """
    was_cut = not isinstance(error, Exception)
    if not was_cut:
        if not arrived and is_refusal(error):
            return Loss(0, 0.0)
        if isinstance(error, DriverError) and error.tokens is not None:
            usage = sound_usage(Usage(*error.tokens))
            if usage is not None:
                return Loss(usage.total_tokens, sound_cost(error.cost_usd), usage=usage)
    written = estimate_tokens("".join(arrived)) if arrived else 0
    # The price of what is known tells whether there is any: one that is free stays free.
    try:
        price = sound_cost(driver.price(Usage(1, written), model=request.model))
    except Exception:  # noqa: BLE001  # foreign code; what ended the attempt is raised
        price = None
    return Loss(*most(), written, None if price else price, was_cut)
