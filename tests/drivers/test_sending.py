"""What never left costs nothing, and what may have left is paid for."""

from __future__ import annotations

import contextlib
import gc
import socket
from collections.abc import Callable
from functools import partial
from typing import NoReturn

import httpx
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from agentpool import AgentOutcome, AgentStatus, Budget, PrivacyTier, SpawnConfig, open_pool
from agentpool.abc import (
    Completion,
    CompletionRequest,
    Driver,
    OnDelta,
    OnSent,
    SendingDriver,
)
from agentpool.drivers import (
    FallbackDriver,
    GatedDriver,
    NetworkError,
    OverloadedError,
    RateLimitError,
    RequestGate,
    ScriptedDriver,
    UserMessage,
    open_anthropic,
    open_openai,
)
from agentpool.drivers.wire._stream_answer import GrowingCompletion
from agentpool.testing import cancel_everywhere, explore
from tests.support.fakes import LiveDriver, job, jobs, manifest, query_of
from tests.support.hostile_server import open_watched, resetting
from tests.support.http_servers import HELLO, Line, always, open_loopback, whole

REQUEST = CompletionRequest([UserMessage("Hi")])
Opening = Callable[..., "contextlib.AbstractAsyncContextManager[Driver]"]


def committed(budget: Budget) -> tuple[float, float, int]:
    """Return requests, tokens, and how many were charged without an answer."""
    now = budget.statistics()
    assert (now.requests.reserved, now.tokens.reserved) == (0, 0)
    return now.requests.committed, now.tokens.committed, now.unmeasured


async def run(driver: Driver, budget: Budget, *, seconds: float | None = None) -> AgentOutcome:
    """Run one agent that draws on *budget*; a request may take so long."""
    async with open_pool(driver, budget=budget) as pool:
        config = SpawnConfig(manifest(privacy=PrivacyTier.STANDARD, request_seconds=seconds), "Hi")
        return await (await pool.spawn(config)).wait()


async def closed_port() -> int:
    """Return a port at which nobody listens."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        port: int = listener.socket.getsockname()[1]
        return port


# --- over a real wire


@pytest.mark.parametrize("opening", [open_openai, open_anthropic])
async def test_what_waits_for_an_answer_holds_nothing_of_it(opening: Opening) -> None:
    """Thousands wait at once, and the garbage collector looks at all that they hold."""

    def count() -> int:
        return sum(issubclass(type(one), GrowingCompletion) for one in gc.get_objects())

    async def serve(line: Line) -> None:
        await line.read_request()
        await line.wait_gone()

    async with (
        open_loopback(serve) as server,
        opening("m", base_url=server.url) as driver,
        trio.open_nursery() as nursery,
    ):
        gc.collect()
        before = count()
        for _ in range(3):
            nursery.start_soon(driver.complete, REQUEST)
        while len(server.requests) < 3:
            await wait_all_tasks_blocked(0.001)
        assert count() == before
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("opening", [open_openai, open_anthropic])
@pytest.mark.parametrize("transport", [None, httpx.AsyncHTTPTransport])
async def test_a_refused_connection_costs_nothing(
    opening: Opening, transport: Callable[[], httpx.AsyncBaseTransport] | None
) -> None:
    """It was charged in full, with every attempt, and ate the budget of who could be reached."""
    budget = Budget(tokens=100_000)
    url = f"http://127.0.0.1:{await closed_port()}"
    other = {} if transport is None else {"transport": transport()}
    async with opening(model="m", base_url=url, api_key="k", **other) as driver:
        outcome = await run(driver, budget, seconds=0.4)  # for no second attempt
    assert isinstance(outcome.error, NetworkError)
    assert "onnect" in str(outcome.error)
    assert committed(budget) == (0, 0, 0)


async def test_a_fallback_of_refused_connections_costs_nothing() -> None:
    """And one that is reached after a refused one costs what it says."""
    url = f"http://127.0.0.1:{await closed_port()}"
    async with (
        open_loopback(always(whole(HELLO))) as server,
        open_openai(model="m", base_url=url, api_key="k") as nobody,
        open_openai(model="m", base_url=server.url, api_key="k") as somebody,
    ):
        budget = Budget(tokens=100_000)
        await run(FallbackDriver(nobody, nobody), budget, seconds=0.4)
        assert committed(budget) == (0, 0, 0)
        assert (await run(FallbackDriver(nobody, somebody), budget)).text == "Hello"
        assert committed(budget)[0] == 1


async def test_a_connection_that_breaks_is_paid_for() -> None:
    """Nobody knows what the model had written."""
    budget = Budget(tokens=100_000)
    async with (
        open_watched(resetting(b"")) as server,
        open_openai(model="m", base_url=server.server.url, api_key="k") as driver,
    ):
        await run(driver, budget, seconds=0.4)
    requests, tokens, unmeasured = committed(budget)
    assert (requests, unmeasured) == (1, 1)
    assert tokens > 1000


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_who_is_cancelled_while_it_connects_has_sent_nothing(scheme: str) -> None:
    """Where nobody shakes hands no request goes out; where one reads it, it has."""
    seen = trio.Event()

    async def listen(line: Line) -> None:
        if scheme == "http":
            await line.read_request()
        seen.set()
        await line.wait_gone()

    budget = Budget(tokens=100_000)
    async with open_loopback(listen) as server:
        url = server.url.replace("http", scheme)
        async with (
            open_openai(model="m", base_url=url, api_key="k") as driver,
            open_pool(driver, budget=budget) as pool,
        ):
            handle = await pool.spawn(SpawnConfig(manifest(privacy=PrivacyTier.STANDARD), "Hi"))
            await seen.wait()
            handle.cancel("enough")
            await handle.wait()
    assert committed(budget)[0] == (1 if scheme == "http" else 0)


@pytest.mark.parametrize("answers", [True, False])
async def test_what_another_transport_does_counts_as_sent(*, answers: bool) -> None:
    """It does not say when the request leaves, so only its connecting is known to be free."""

    class Transport(httpx.AsyncBaseTransport):
        async def handle_async_request(  # what it is asked does not matter
            self,
            request: httpx.Request,  # noqa: ARG002  # as in the seam
        ) -> httpx.Response:
            if not answers:
                await trio.sleep_forever()
            raise httpx.ReadError("cut")

    said: list[str] = []
    async with open_openai(
        model="m", base_url="http://here", api_key="k", transport=Transport()
    ) as driver:
        with trio.move_on_after(0.1):
            with pytest.raises(NetworkError):
                await driver.complete_telling(REQUEST, None, lambda: said.append("sent"))
    assert said == ["sent"]


async def test_an_answer_of_another_transport_counts_as_sent() -> None:
    """The replay of a recording is one."""

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(429, json={"error": {"message": "slow down"}})

    said: list[str] = []
    async with open_openai(
        model="m", base_url="http://here", api_key="k", transport=httpx.MockTransport(answer)
    ) as driver:
        with pytest.raises(RateLimitError):
            await driver.complete_telling(REQUEST, None, lambda: said.append("sent"))
    assert said == ["sent"]


# --- of a user's own


class Dialer(SendingDriver):
    """Fails to connect, or is cut off behind that; it says which."""

    def __init__(self, *, connects: bool) -> None:
        """Say whether it connects."""
        self.connects = connects

    context_window = None
    privacy = PrivacyTier.SOVEREIGN

    async def complete(
        self,
        request: CompletionRequest,  # noqa: ARG002  # nobody reads it
        *,
        on_delta: OnDelta | None = None,  # noqa: ARG002  # nothing is said
        on_sent: OnSent | None = None,
    ) -> Completion:
        """Fail."""
        await trio.lowlevel.checkpoint()
        if self.connects and on_sent is not None:
            on_sent()
        raise NetworkError("nobody there", retryable=False)


@pytest.mark.parametrize("connects", [False, True])
async def test_a_drivers_own_word_decides_what_a_request_costs(*, connects: bool) -> None:
    """One that never left is charged to nobody; of one that left nobody knows what it took."""
    budget = Budget(tokens=100_000)
    async with open_pool(
        GatedDriver(Dialer(connects=connects), RequestGate()), budget=budget
    ) as pool:
        outcome = await (await pool.spawn(SpawnConfig(manifest(), "Hi"))).wait()
    assert outcome.unmeasured_requests == connects
    assert committed(budget)[0] == connects


# --- at a gate


@pytest.mark.parametrize("in_fallback", [False, True])
async def test_who_is_cancelled_at_a_gate_is_charged_nothing(
    *, in_fallback: bool, autojump_clock: MockClock
) -> None:
    """It was charged in full, as if it had been sent."""
    budget, gate = Budget(tokens=100_000), RequestGate(max_in_flight=1)

    async def slow(_: CompletionRequest, __: OnDelta) -> str:
        await trio.sleep(60)
        return "done"

    gated = GatedDriver(LiveDriver(slow), gate)
    driver = FallbackDriver(gated) if in_fallback else gated
    async with open_pool(driver, budget=budget) as pool:
        first, second = await pool.fan_out(jobs("first", "second"))
        await wait_all_tasks_blocked()
        assert gate.statistics().waiting == 1
        second.cancel("enough")
        await second.wait()
        await first.wait()
    assert committed(budget)[0] == 1


async def test_who_waited_at_a_gate_and_was_let_in_is_charged(
    autojump_clock: MockClock,
) -> None:
    """From there on it is a request like any other."""
    budget, gate = Budget(tokens=100_000), RequestGate(max_in_flight=1)

    async def slow(_: CompletionRequest, __: OnDelta) -> str:
        await trio.sleep(60)
        return "done"

    async with open_pool(GatedDriver(LiveDriver(slow), gate), budget=budget) as pool:
        _, second = await pool.fan_out(jobs("first", "second"))
        await trio.sleep(90)
        second.cancel("enough")
        await second.wait()
    assert committed(budget)[0] == 2


async def test_a_refusal_before_the_gate_of_another_is_one_request(
    autojump_clock: MockClock,
) -> None:
    """One of a fallback's drivers was asked, so something was sent."""
    budget, gate = Budget(tokens=100_000), RequestGate(max_in_flight=1)
    first = ScriptedDriver([RateLimitError("slow down")])
    driver = FallbackDriver(first, GatedDriver(ScriptedDriver(["two"]), gate))
    async with gate.request(), open_pool(driver, budget=budget) as pool:
        handle = await pool.spawn(job())
        await wait_all_tasks_blocked()
        handle.cancel("enough")
        assert (await handle.wait()).status is AgentStatus.CANCELLED
    assert committed(budget)[0] == 1


async def test_a_fallback_that_asks_nobody_costs_nothing(autojump_clock: MockClock) -> None:
    """All of its drivers had failed too often: its error is not an answer of a provider."""
    budget = Budget(tokens=100_000)
    driver = FallbackDriver(ScriptedDriver([OverloadedError("busy")]), max_failures=1)
    await run(driver, budget, seconds=5)
    assert committed(budget) == (1, 0, 0)
    outcome = await run(driver, budget, seconds=5)
    assert "skipped" in str(outcome.error)
    assert committed(budget) == (1, 0, 0)


def test_g12_g16_whoever_is_cancelled_where_as_many_are_charged_as_were_sent() -> None:
    """At a gate, before its slot, in flight: a budget and its provider count the same."""

    async def scenario() -> None:
        budget, gate = Budget(tokens=20_000), RequestGate(max_in_flight=2)
        sent: list[str] = []

        async def answer(request: CompletionRequest, _: OnDelta) -> Completion:
            sent.append(query_of(request))
            await trio.sleep(1)
            return Completion("done")

        inner = GatedDriver(LiveDriver(answer), gate)
        try:
            async with open_pool(FallbackDriver(inner), max_concurrent=3, budget=budget) as pool:
                await pool.fan_out(jobs(*"abcdef"))
                await pool.join_all()
        finally:
            requests, _, __ = committed(budget)
            # The driver has a checkpoint of its own before it writes down what it was asked.
            assert len(sent) <= requests <= len(sent) + 2

    explore(scenario, schedules=25)
    for target in ("scenario", "agents", "agent"):
        cancel_everywhere(partial(scenario), target=target)


async def test_a_host_without_an_address_comes_with_advice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That its name is not known says nothing about what to change."""

    def unheard(*_: object, **__: object) -> NoReturn:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unheard)
    async with open_openai("m", base_url="http://no-such-host.invalid/v1") as driver:
        with pytest.raises(NetworkError, match="check the name of the host, and that this machine"):
            await driver.complete(REQUEST)
