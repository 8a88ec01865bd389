"""A driver whose requests pass a gate, and a set of gates, one for each provider."""

from __future__ import annotations

from typing import final

from agentpool._amounts import counted
from agentpool._attachments import Attachment
from agentpool._base import Shown, Unique
from agentpool._checks import expect, expect_arguments
from agentpool._loop.conversation import request_tokens
from agentpool._loop.tokens import sound_usage
from agentpool._manifest.capability import PrivacyTier
from agentpool._manifest.urls import place_of
from agentpool._messages import Completion, CompletionRequest, Usage
from agentpool.abc import Driver, OnDelta, OnSent, SendingDriver
from agentpool.abc._driver_facts import count_of, expect_completion
from agentpool.drivers._gate import GateStatistics, RequestGate


@final
class GatedDriver(SendingDriver):
    """Asks another driver through a gate.

    An agent that waits at the gate holds no slot, and the waiting does not count towards its
    manifest's time limit for a request.
    """

    __slots__ = ("_driver", "_gate")

    def __init__(self, driver: Driver, gate: RequestGate) -> None:
        """Make a driver that asks *driver* through *gate*.

        Args:
            driver: The driver to ask. The code that opened it must close it.
            gate: The gate at which requests wait. Several drivers, and so several pools, may share
                it.
        """
        expect(driver, Driver, "driver must be a Driver", "write GatedDriver(driver, gate)")
        expect(gate, RequestGate, "gate must be a RequestGate", "write GatedDriver(driver, gate)")
        self._driver = driver
        self._gate = gate

    def _repr_words(self) -> str:
        return f"of {type(self._driver).__name__} at gate {self._gate.name!r}"

    @property
    def gate(self) -> RequestGate:
        """The gate that its requests pass."""
        return self._gate

    @property
    def context_window(self) -> int | None:
        """The window of the inner driver."""
        return self._driver.context_window

    @property
    def max_output_tokens(self) -> int | None:
        """The limit of the inner driver."""
        return self._driver.max_output_tokens

    @property
    def inputs(self) -> frozenset[str] | None:
        """What the inner driver's model reads besides text."""
        return self._driver.inputs

    @property
    def most_input_tokens(self) -> int | None:
        """The limit of the inner driver."""
        return self._driver.most_input_tokens

    @property
    def most_image_bytes(self) -> int | None:
        """The limit of the inner driver."""
        return self._driver.most_image_bytes

    @property
    def most_image_pixels(self) -> int | None:
        """The limit of the inner driver."""
        return self._driver.most_image_pixels

    def attachment_tokens(self, attachment: Attachment) -> int:
        """Return the estimate of the inner driver."""
        return count_of(self._driver)(attachment)

    @property
    def privacy(self) -> PrivacyTier:
        """The tier of the inner driver."""
        return self._driver.privacy

    def price(self, usage: Usage, *, model: str | None = None) -> float | None:
        """Return the price of the inner driver."""
        return self._driver.price(usage, model=model)

    def highest_price(self, usage: Usage, *, model: str | None = None) -> float | None:
        """Return the highest price of the inner driver."""
        return self._driver.highest_price(usage, model=model)

    async def complete(
        self,
        request: CompletionRequest,
        *,
        on_delta: OnDelta | None = None,
        on_sent: OnSent | None = None,
    ) -> Completion:
        """Wait until the gate lets the request in, then ask the inner driver.

        Raises:
            DriverError: What the inner driver raises. A rate limit or overload closes the gate.

        Cancellation:
            No other request loses its turn, and this one ends at the provider as well.
        """
        window = self._driver.context_window
        count = count_of(self._driver)
        tokens = request_tokens(request, window, count) if self._gate.counts_tokens else 0
        async with self._gate.request(tokens) as ticket:
            completion = await self._driver.complete_telling(request, on_delta, on_sent)
            expect_completion(completion, self._driver)
            usage = completion.usage
            if isinstance(usage, Usage) and (usage := sound_usage(usage)) is not None:
                ticket.used_tokens = usage.total_tokens
            return completion


@final
class ProviderGates(Unique, Shown):
    """One gate for each provider, with the same limits, made on first use.

    Requests to the same server with the same key share a gate, since the provider counts them
    together.
    """

    __slots__ = ("_gates", "_max_in_flight", "_requests_per_minute", "_tokens_per_minute")

    def __init__(
        self,
        *,
        max_in_flight: int | None = None,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
    ) -> None:
        """Make a set of gates, which is empty at first.

        Args:
            max_in_flight: The limit of each gate, as in ``RequestGate``.
            requests_per_minute: The limit of each gate.
            tokens_per_minute: The limit of each gate.
        """
        expect_arguments(ProviderGates.__init__, locals())
        self._max_in_flight = max_in_flight
        self._requests_per_minute = requests_per_minute
        self._tokens_per_minute = tokens_per_minute
        self._gates: dict[tuple[str, str, str | None], RequestGate] = {}

    def _repr_words(self) -> str:
        return f"of {counted(len(self._gates), 'provider')}"

    def gate(self, provider: str, base_url: str, api_key_env: str | None = None) -> RequestGate:
        """Return the gate of a provider, the same one at each call.

        Args:
            provider: The wire format.
            base_url: The address of the server. Its host is a part of the gate's name.
            api_key_env: The variable with the key, which is also a part of the name. ``None``:
                there is no key.

        Raises:
            UsageError: If a limit is not a whole number of at least 1.
        """
        expect_arguments(ProviderGates.gate, locals())
        key = provider, base_url.rstrip("/"), api_key_env
        if key not in self._gates:
            # Not the whole address: it may have a name and a password in it.
            place = place_of(base_url)
            self._gates[key] = RequestGate(
                place if api_key_env is None else f"{place} with {api_key_env}",
                max_in_flight=self._max_in_flight,
                requests_per_minute=self._requests_per_minute,
                tokens_per_minute=self._tokens_per_minute,
            )
        return self._gates[key]

    def statistics(self) -> tuple[GateStatistics, ...]:
        """Return a snapshot of each gate, in the order of their first use."""
        return tuple(gate.statistics() for gate in self._gates.values())
