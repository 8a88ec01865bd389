"""The contract of drivers, as a check for any implementation."""

from __future__ import annotations

from contextlib import AsyncExitStack

import trio

from agentpool._checks import expect_arguments
from agentpool._errors import DriverError
from agentpool._manifest.capability import PrivacyTier
from agentpool._messages import (
    NO_USAGE,
    Completion,
    CompletionRequest,
    FinishReason,
    Usage,
    UserMessage,
)
from agentpool.abc import Driver
from agentpool.testing._contract import Opener, is_a, open_one, promise


async def check_driver(
    opener: Opener[Driver], *, request: CompletionRequest | None = None, is_answered: bool = True
) -> None:
    """Check a driver: its facts, an answer, streaming, cancellation, parallel requests.

    Args:
        opener: Opens a driver that answers at least five requests.
        request: What to ask. ``None``: a greeting.
        is_answered: Whether the driver answers. ``False``: each request must fail with a
            ``DriverError``.

    Raises:
        AssertionError: If the driver breaks its contract. The error says how.
    """
    expect_arguments(check_driver, locals())
    asked = request or CompletionRequest((UserMessage("Say hello."),), max_tokens=16)
    async with AsyncExitStack() as stack:
        driver = await open_one(opener, stack)
        _check_driver_facts(driver)
        if not is_answered:
            await _check_failure(driver, asked)
            return
        await _check_answer(driver, asked)
        with trio.CancelScope() as scope:
            scope.cancel()
            await driver.complete(asked)
        promise(
            scope.cancelled_caught, "complete() must have a checkpoint: a cancelled call completed"
        )
        answers: list[Completion] = []

        async def ask() -> None:
            answers.append(await driver.complete(asked))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(ask)
        promise(len(answers) == 2, "complete() must answer two requests at the same time")  # noqa: PLR2004  # two were asked


def _check_driver_facts(driver: Driver) -> None:
    promise(is_a(driver, Driver), f"a driver must be a Driver, got {driver!r}")
    window = driver.context_window
    promise(
        window is None or (window > 0 and is_a(window, int)),
        f"context_window must be a number > 0 or None, got {window!r}",
    )
    promise(
        is_a(driver.privacy, PrivacyTier), f"privacy must be a PrivacyTier, got {driver.privacy!r}"
    )
    for usage in (NO_USAGE, Usage(1000, 1000)):
        price = driver.price(usage)
        promise(
            price is None or price >= 0.0,
            f"price() must be >= 0 or None (unknown), got {price!r} for {usage}",
        )


async def _check_answer(driver: Driver, request: CompletionRequest) -> None:
    pieces: list[str] = []
    streamed = await driver.complete(request, on_delta=pieces.append)
    plain = await driver.complete(request)
    for completion in (streamed, plain):
        promise(
            is_a(completion, Completion), f"complete() must return a Completion, got {completion!r}"
        )
        calls = completion.tool_calls
        promise(
            bool(calls) == (completion.finish_reason is FinishReason.TOOL_USE),
            f"finish_reason is {completion.finish_reason.value}, but there are {len(calls)} calls",
        )
        ids = [call.call_id for call in calls]
        promise(all(ids) and len(set(ids)) == len(ids), f"call ids must differ, got {ids!r}")
    promise(
        not pieces or "".join(pieces) == streamed.text,
        f"the pieces must join to the text {streamed.text!r}, got {pieces!r}",
    )
    promise("" not in pieces, "on_delta must not be called with an empty piece")


async def _check_failure(driver: Driver, request: CompletionRequest) -> None:  # noqa: ASYNC910  # the driver has a checkpoint, or fails the check
    try:
        answer = await driver.complete(request)
    except DriverError as error:
        promise(str(error), "a DriverError must say what went wrong, got an empty text")
        seconds = error.retry_after_seconds
        promise(
            seconds is None or seconds >= 0.0,
            f"retry_after_seconds must be >= 0 or None, got {seconds!r}",
        )
    except Exception as error:
        raise AssertionError(f"complete() must fail with a DriverError, got {error!r}") from error
    else:
        raise AssertionError(f"complete() should have failed, got {answer!r}")
