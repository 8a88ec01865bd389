"""Checks what drivers return, and repairs answers: their texts and their numbers.

Rules:

1. An answer gets its price here, if it is known: the price that the answer came with, or else the
   one that the driver computes.
2. A usage or a cost that is negative, or not a number, counts as unknown, with a warning.
"""

from __future__ import annotations

from types import NoneType
from typing import Final

import msgspec

from agentpool._agent.agent import Agent
from agentpool._budget.reservation import RequestReservation
from agentpool._checks import expect_whole
from agentpool._errors import UsageError
from agentpool._loop.tokens import means_nothing, sound_cost, sound_usage
from agentpool._messages import Completion, FinishReason, ToolCall, Usage
from agentpool._numbers import is_number, quoted
from agentpool._scheduling.ctrl_c import interruptible
from agentpool._surrogates import answer_without_halves
from agentpool.abc import Driver
from agentpool.abc._driver_facts import expect_completion

_USAGES: Final = (Usage, NoneType)
_MODELS: Final = (str, NoneType)


def sound_answer(
    agent: Agent, driver: Driver, completion: Completion, paid: RequestReservation | None
) -> Completion:
    """Return the answer with its price, without impossible numbers and broken characters.

    Args:
        agent: The agent that asked.
        driver: The driver that answered.
        completion: Its answer.
        paid: The reservation for the request. ``None``: no budget pays for it.

    Raises:
        UsageError: If *completion* is not a ``Completion``, or has a field of a wrong type: the
            driver may be a user's.
    """
    kind: object = type(completion)
    if kind is not Completion:
        expect_completion(completion, driver)
    if not _is_plain(completion):
        completion = answer_without_halves(_expected(completion))
    usage, cost_usd = completion.usage, completion.cost_usd
    if usage is None and cost_usd is None:
        return completion  # as most models on this machine answer
    if usage is not None and means_nothing(usage):
        usage = _counted(agent, usage)
    if cost_usd is not None:
        cost_usd = sound_cost(cost_usd)
        if cost_usd is None:
            # The price that the driver computes does not stand in: the answer contradicts it.
            _warn(agent, "cost", completion.cost_usd)
            if paid is not None:
                paid.doubt_price()
    elif usage is not None:
        cost_usd = sound_cost(_price_of(driver, usage, completion.model))
    if usage is completion.usage and cost_usd is completion.cost_usd:
        return completion
    return msgspec.structs.replace(completion, usage=usage, cost_usd=cost_usd)


def _expected(answer: Completion) -> Completion:
    """Return *answer* with plain texts. Raise if a field is of a wrong type.

    Impossible numbers are not an error, since a provider may report them. They later count as
    unknown.
    """
    usage: object = answer.usage
    kept = {"usage": usage if isinstance(usage, Usage) else None, "cost_usd": answer.cost_usd}
    wrong = {"usage": None if isinstance(usage, Usage) else usage, "cost_usd": None}
    checked = msgspec.structs.replace(answer, **wrong)
    expect_whole(checked, of="answer of the driver: ")
    return msgspec.structs.replace(checked, **kept)


def _counted(agent: Agent, usage: Usage) -> Usage | None:
    """Return *usage* in plain numbers. ``None``: it is impossible, and the agent was warned."""
    if (plain := sound_usage(usage)) is None:
        _warn(agent, "usage", usage)
    return plain


def _warn(agent: Agent, what: str, value: object) -> None:
    try:
        shown = repr(value)
    except ValueError:  # of a number that Python does not write
        shown = "of thousands of digits"
    text = f"the provider reported the impossible {what} {shown}; it is counted as unknown"
    agent.hub.warned(agent.agent_id, agent.name, text)


@interruptible
def _price_of(driver: Driver, usage: Usage, model: str | None) -> float | None:
    price = driver.price(usage, model=model)
    if price is not None and not is_number(price):
        who = type(driver).__name__
        raise UsageError(f"{who}.price() must return a float or None, got {quoted(price)}")
    return price


def refuse_wrong_method(driver: Driver, error: BaseException) -> None:
    """Raise a clear error if *error* shows that the driver's method cannot be called.

    Raises:
        UsageError: If ``complete`` is not async, or takes different arguments.
    """
    if type(error) is TypeError and _raised_in(error) in _ASKING:
        raise UsageError(
            f"{type(driver).__name__}.complete() cannot be called: {error}; write "
            "async def complete(self, request, *, on_delta=None)"
        ) from error


_ASKING: Final = ("agentpool._agent.request", "agentpool.abc._driver")
"""The modules that call drivers. A TypeError that is raised in them, and not in the driver, comes
from the call itself."""


def _raised_in(error: BaseException) -> object:
    """Return the name of the module in which *error* was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return None if trace is None else trace.tb_frame.f_globals.get("__name__")


def _is_plain(answer: Completion) -> bool:
    """Return whether *answer* has fields of the usual types and no text with half a character.

    Spelled out, since a look at the annotation of each field takes ten times as long. Half a
    character is never ASCII.
    """
    if (
        type(answer.text) is not str
        or not answer.text.isascii()
        or type(answer.tool_calls) is not tuple
        or type(answer.finish_reason) is not FinishReason
        or type(answer.usage) not in _USAGES
        or type(answer.model) not in _MODELS
        or answer.parts != ()
    ):
        return False
    for call in answer.tool_calls:
        kind: object = type(call)
        if kind is not ToolCall:
            return False
        call_id, name, arguments = call.call_id, call.name, call.arguments
        if not (type(call_id) is type(name) is type(arguments) is str):
            return False
        if not (call_id.isascii() and name.isascii() and arguments.isascii()):
            return False
    return True
