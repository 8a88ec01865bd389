"""The live page, asked as a browser asks it."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, final

import attrs
import httpx
import pytest
import trio

from agentpool import (
    AgentHandle,
    AgentManifest,
    AgentPool,
    AgentStatus,
    Budget,
    SpawnConfig,
    StopReason,
    UsageError,
    open_pool,
)
from agentpool._messages import Json, ToolCall
from agentpool.abc import OnDelta
from agentpool.drivers import Completion, CompletionRequest
from agentpool.live import ApprovalDesk, LivePage, listen, serve_live
from agentpool.live._approvals import PendingCall
from agentpool.live._serve import MAX_VISITS
from agentpool.live._view import shown_call
from agentpool.testing import cancel_everywhere
from agentpool.tools import ApprovalRequest, ToolRegistry, tool
from tests.support.fakes import LiveDriver, calling, manifest, query_of, tool_call, turns_of
from tests.support.page_looks import Looks, looking

PATIENCE = 60
"""Seconds for what happens at once on a machine with nothing else to do."""


@final
@attrs.define(eq=False)
class Browser:
    """One browser that looks at the page, or somebody who says so."""

    page: LivePage
    client: httpx.AsyncClient

    @property
    def base(self) -> str:
        """The address without the token."""
        return self.page.url.partition("#")[0]

    @property
    def token(self) -> str:
        """The token."""
        return self.page.url.partition("#")[2]

    async def do(self, what: object, **headers: str) -> httpx.Response:
        """Press a button."""
        said = {"Origin": self.base.rstrip("/"), "X-Agentpool-Token": self.token} | headers
        body = what if isinstance(what, bytes) else json.dumps(what).encode()
        return await self.client.post(self.base + "do", content=body, headers=said)

    @asynccontextmanager
    async def looking(self) -> AsyncGenerator[Looks]:
        """Look at the page."""
        async with looking(self.page) as looks:
            yield looks

    async def look(self) -> dict[str, Any]:
        """Return what is shown now."""
        async with self.looking() as looks:
            shown = await looks.next()
        assert shown is not None
        return shown


@final
@attrs.define(eq=False)
class Scene:
    """A pool with its page."""

    pool: AgentPool
    browser: Browser
    desk: ApprovalDesk
    go: trio.Event
    """Lets the agents that are asked to wait go on."""

    async def spawn(self, query: str, of: AgentManifest | None = None) -> AgentHandle:
        """Start an agent, and wait until it has asked its model."""
        handle = await self.pool.spawn(SpawnConfig(of or manifest(), query, name=query))
        await trio.testing.wait_all_tasks_blocked(0.01)
        return handle


@tool(needs_approval=True)
def erase(what: str) -> str:
    """Erase something."""
    return f"erased {what}"


@asynccontextmanager
async def scene(*, budget: Budget | None = None, slots: int = 4) -> AsyncGenerator[Scene]:
    """Open a pool whose agents wait, ask for approval, or answer, as they are told."""
    desk, go = ApprovalDesk(), trio.Event()

    async def answer(request: CompletionRequest, on_delta: OnDelta) -> Completion:
        query, turn = query_of(request), turns_of(request)
        await trio.lowlevel.checkpoint()
        if query.startswith("wait"):
            on_delta("it begins")
            await go.wait()
        if query.startswith("erase") and turn == 0:
            arguments: dict[str, Json] = {"what": "all"}
            return calling(tool_call("erase", **arguments))
        if query == "fail":
            raise LookupError("there is nothing")
        return Completion("done")

    with trio.fail_after(PATIENCE):
        async with (
            open_pool(
                LiveDriver(answer),
                max_concurrent=slots,
                approve=desk.ask,
                budget=budget,
                tools=ToolRegistry([erase]),
            ) as pool,
            serve_live(pool, approvals=desk) as page,
            httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client,
        ):
            yield Scene(pool, Browser(page, client), desk, go)
            go.set()
            await pool.join_all(children=True)


# --- what is shown


async def test_the_page_loads_nothing_from_elsewhere() -> None:
    """Its policy allows its own script and style, and its own address."""
    async with scene() as on:
        answer = await on.browser.client.get(on.browser.base)
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "connect-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "http://" not in answer.text
        assert "https://" not in answer.text
        assert on.browser.token not in answer.text
        assert answer.headers["cache-control"] == "no-store"


async def test_agents_are_shown_while_they_run_and_after() -> None:
    """Who does what, what went wrong, and the pool's numbers."""
    async with scene() as on:
        await on.spawn("wait")
        await (await on.spawn("fail")).wait()
        shown = await on.browser.look()
        (running,) = shown["agents"]
        assert running[:5] == [1, "wait", 0, "running", "answer"]
        assert running[13] == "it begins"
        (ended,) = shown["ended"]
        assert ended[:4] == [2, "fail", 0, "failed"]
        assert shown["counts"] == {"failed": 1}
        assert any("there is nothing" in one[4] for one in shown["news"])
        assert shown["statistics"]["running"] == 1


async def test_a_browser_sees_changes_and_the_end() -> None:
    """Each look is the newest; the last one says that it is over."""
    looks: list[dict[str, Any]] = []
    async with trio.open_nursery() as nursery, scene() as on:
        await on.spawn("wait")
        looking = trio.Event()

        async def look() -> None:
            async with on.browser.looking() as shown:
                while (one := await shown.next()) is not None:
                    looks.append(one)
                    looking.set()

        nursery.start_soon(look)
        await looking.wait()
        on.go.set()
        await on.pool.join_all()
    assert looks[0]["agents"]
    assert not looks[-1]["agents"]
    assert looks[-1]["ended_page"]


async def test_many_agents_are_counted() -> None:
    """A long queue is not drawn, but said."""
    async with scene(slots=1) as on:
        await on.pool.fan_out(SpawnConfig(manifest(), "wait", name=f"wait {n}") for n in range(60))
        await on.pool.fan_out(SpawnConfig(manifest(), "wait", name=f"wait {n}") for n in range(60))
        await trio.testing.wait_all_tasks_blocked(0.01)
        shown = await on.browser.look()
        assert len(shown["agents"]) == 100
        assert shown["more"] == 20
        assert shown["agents"][0][3] == "running"
        on.pool.abort_all()


# --- what can be done


async def test_an_agent_is_cancelled_or_interrupted() -> None:
    """The outcome says who did it."""
    async with scene() as on:
        first, second = await on.spawn("wait"), await on.spawn("wait")
        assert (await on.browser.do({"do": "cancel", "agent": 1})).status_code == 200
        outcome = await first.wait()
        assert outcome.status is AgentStatus.CANCELLED
        assert "cancelled on the live page" in str(outcome.error)
        assert (await on.browser.do({"do": "interrupt", "agent": 2})).status_code == 200
        on.go.set()
        assert (await second.wait()).status in {AgentStatus.STOPPED, AgentStatus.COMPLETED}
        late = await on.browser.do({"do": "cancel", "agent": 1})
        assert (late.status_code, late.text) == (409, "agent 1 has ended already")
        nobody = await on.browser.do({"do": "cancel", "agent": 99})
        assert nobody.status_code == 409


async def test_all_are_ended_at_once() -> None:
    """The big button."""
    async with scene() as on:
        handles = [await on.spawn("wait"), await on.spawn("wait")]
        assert (await on.browser.do({"do": "abort"})).status_code == 200
        for handle in handles:
            assert (await handle.wait()).status is AgentStatus.CANCELLED


async def test_the_number_of_slots_is_changed() -> None:
    """More run at once."""
    async with scene(slots=1) as on:
        await on.spawn("wait")
        await on.spawn("wait")
        assert on.pool.statistics().running == 1
        assert (await on.browser.do({"do": "resize", "slots": 2})).status_code == 200
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert on.pool.statistics().running == 2
        assert (await on.browser.do({"do": "resize", "slots": 0})).status_code == 400


async def test_a_limit_is_changed() -> None:
    """Agents that come later keep to it; one that was stopped stays stopped."""
    async with scene(budget=Budget(requests=1)) as on:
        await (await on.spawn("plain")).wait()
        stopped = await (await on.spawn("plain")).wait()
        assert stopped.stop_reason is StopReason.REQUEST_BUDGET
        change = {"do": "limit", "kind": "requests", "limit": 2}
        assert (await on.browser.do(change)).status_code == 200
        assert (await (await on.spawn("plain")).wait()).status is AgentStatus.COMPLETED
        assert (await on.browser.do(change | {"limit": 1.5})).status_code == 409
        assert (await on.browser.do(change | {"limit": None})).status_code == 200
        shown = await on.browser.look()
        assert shown["statistics"]["budget"]["requests"]["limit"] is None


async def test_without_a_budget_there_is_no_limit() -> None:
    """It is said, and nothing breaks."""
    async with scene() as on:
        answer = await on.browser.do({"do": "limit", "kind": "cost_usd", "limit": 2})
        assert (answer.status_code, answer.text) == (409, "the pool has no budget")


@pytest.mark.parametrize(
    ("decision", "result"),
    [
        ({"do": "approve"}, "erased all"),
        ({"do": "deny", "reason": "not today"}, "not today"),
        ({"do": "change", "arguments": '{"what": "a part"}'}, "erased a part"),
    ],
)
async def test_a_call_is_decided(decision: dict[str, str], result: str) -> None:
    """The call waits on the page, with its arguments; then it does not."""
    async with scene() as on:
        handle = await on.spawn("erase")
        (call,) = (await on.browser.look())["calls"]
        text = '{"what": "all"}'
        assert call == [1, 1, "erase", 0, "erase", text, text]
        assert (await on.browser.do(decision | {"call": 1})).status_code == 200
        outcome = await handle.wait()
        assert any(result in getattr(message, "content", "") for message in outcome.messages)
        assert (await on.browser.look())["calls"] == []


def test_who_asks_cannot_hide_what_is_asked() -> None:
    """A model chose the name and the arguments: both are one line in which all can be seen."""
    hidden = '{"what": "a note",' + " " * 2000 + '"\u3164": "all"}'
    request = ApprovalRequest(
        agent_id=2,
        agent_name="x" * 99 + " agent 1",
        parent_id=1,
        call=ToolCall("c", "erase", hidden),
        capability=None,
    )
    _, _, name, _, _, arguments, shown = shown_call(PendingCall(1, request))
    assert name == "x" * 60 + "…"
    assert arguments == hidden
    assert shown == '{"what": "a note",[2000 blanks]"\\u3164": "all"}'


async def test_two_browsers_make_one_decision() -> None:
    """The first one counts, and the second is told."""
    async with scene() as on:
        handle = await on.spawn("erase")
        answers: list[int] = []

        async def press(what: dict[str, object]) -> None:
            answers.append((await on.browser.do(what)).status_code)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(press, {"do": "approve", "call": 1})
            nursery.start_soon(press, {"do": "deny", "call": 1})
        assert sorted(answers) == [200, 409]
        assert (await handle.wait()).status is AgentStatus.COMPLETED


async def test_changed_arguments_are_a_json_object() -> None:
    """Otherwise the call goes on waiting."""
    async with scene() as on:
        handle = await on.spawn("erase")
        for wrong in ("[]", "{", ""):
            wanted = {"do": "change", "call": 1, "arguments": wrong}
            assert (await on.browser.do(wanted)).status_code == 400
        assert len(on.desk.pending) == 1
        assert (await on.browser.do({"do": "approve", "call": 1})).status_code == 200
        await handle.wait()


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'{"do": "explode"}', b'{"do": "cancel"}', b"\xff",
     b'{"do": "abort", "also": 1}', b"[" * 60_000],
)  # fmt: skip
async def test_nonsense_does_nothing(body: bytes) -> None:
    """Whatever is sent, agents go on."""
    async with scene() as on:
        await on.spawn("wait")
        assert (await on.browser.do(body)).status_code == 400
        assert on.pool.active_count == 1


async def test_a_pool_without_a_desk_asks_nobody() -> None:
    """There is nothing to decide."""
    with trio.fail_after(PATIENCE):
        async with (
            open_pool(LiveDriver(answer_at_once)) as pool,
            serve_live(pool) as page,
            httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client,
        ):
            browser = Browser(page, client)
            assert (await browser.do({"do": "approve", "call": 1})).status_code == 409
            assert (await browser.look())["calls"] == []


async def answer_at_once(_: CompletionRequest, __: OnDelta) -> Completion:
    """Answer."""
    await trio.lowlevel.checkpoint()
    return Completion("done")


# --- who may come in


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "https://localhost"}, 403),
        ({"X-Agentpool-Token": ""}, 403),
        ({"X-Agentpool-Token": "guessed"}, 403),
        ({"X-Agentpool-Token": "gu\u00e4ssed"}, 403),
    ],
)
async def test_forged_requests_are_refused(headers: dict[str, str], status: int) -> None:
    """A page of somebody else's reads nothing and ends nobody."""
    async with scene() as on:
        await on.spawn("wait")
        said = {
            b"Origin": on.browser.base.rstrip("/").encode(),
            b"X-Agentpool-Token": on.browser.token.encode(),
        }
        said |= {name.encode(): value.encode("latin-1") for name, value in headers.items()}
        client, base = on.browser.client, on.browser.base
        done = await client.post(base + "do", content=b'{"do": "abort"}', headers=said)
        assert done.status_code == status
        assert (await client.get(base + "events", headers=said)).status_code == status
        assert on.pool.active_count == 1


async def test_a_post_says_where_it_comes_from() -> None:
    """Every browser does."""
    async with scene() as on:
        headers = {"X-Agentpool-Token": on.browser.token}
        answer = await on.browser.client.post(
            on.browser.base + "do", content=b'{"do": "abort"}', headers=headers
        )
        assert answer.status_code == 403


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "elsewhere", 404), ("GET", "do", 405), ("POST", "events", 405), ("PUT", "", 405)],
)
async def test_there_is_nothing_else(method: str, path: str, status: int) -> None:
    """Three addresses, one way to ask each."""
    async with scene() as on:
        answer = await on.browser.client.request(method, on.browser.base + path)
        assert answer.status_code == status


def test_others_cannot_reach_it() -> None:
    """Only addresses of this machine are taken; a port in use is said."""
    for host in ("0.0.0.0", "192.0.2.1", "::", "example.org"):  # noqa: S104  # must be refused
        with pytest.raises(UsageError, match=r"host must be an? (loopback|IP) address"):
            listen(host)
    with listen() as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match="try another port"):
            listen(port=port)


async def test_it_speaks_ipv6() -> None:
    """The link has brackets."""
    with trio.fail_after(PATIENCE):
        async with (
            open_pool(LiveDriver(answer_at_once)) as pool,
            serve_live(pool, listener=listen("::1")) as page,
            httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client,
        ):
            assert page.url.startswith("http://[::1]:")
            assert (await client.get(page.url)).status_code == 200


# --- browsers that misbehave


async def raw(on: Scene) -> trio.SocketStream:
    """Connect without a browser."""
    port = int(on.browser.base.rstrip("/").rpartition(":")[2])
    return await trio.open_tcp_stream("127.0.0.1", port)


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01 hello\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /" + b"x" * 100_000,
        b"POST /do HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000,
        b"POST /do HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_what_is_no_request_is_answered_so(data: bytes) -> None:
    """And the page goes on."""
    async with scene() as on:
        async with await raw(on) as stream:
            with_room = trio.StapledStream(stream, stream)
            try:
                await with_room.send_all(data)
                answer = await stream.receive_some()
            except trio.BrokenResourceError:
                answer = b""  # it was hung up on in the middle of what it sent
        assert answer == b"" or answer.startswith(b"HTTP/1.1 400")
        assert (await on.browser.client.get(on.browser.base)).status_code == 200


@pytest.mark.parametrize("asked", [b"", b"GET / HT", b"POST /do HTTP/1.1\r\nHost: a\r\n"])
async def test_a_browser_that_goes_away_is_forgotten(
    asked: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Before it has asked, and while it looks; there is nothing to complain of."""
    async with scene() as on:
        stream = await raw(on)
        await stream.send_all(asked)
        await stream.aclose()
        await on.browser.look()
        await on.spawn("plain")
        await on.browser.look()
    # Older ones of httpx tell each client's certificates.
    assert not [record for record in caplog.records if record.name != "httpx"]


async def asleep_at(on: Scene) -> trio.SocketStream:
    """Return the connection of a browser that looks and does not read."""
    stream = await raw(on)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    await stream.send_all(
        f"GET /events HTTP/1.1\r\nHost: {on.browser.base[7:-1]}\r\n"
        f"X-Agentpool-Token: {on.browser.token}\r\n\r\n".encode()
    )
    return stream


async def test_sleeping_browsers_hold_up_nothing() -> None:
    """Ten that never read: agents go on, the others see, and the block is left."""
    async with scene() as on:
        asleep = [await asleep_at(on) for _ in range(10)]
        for _ in range(50):
            await (await on.spawn("plain")).wait()
        shown = await on.browser.look()
        assert shown["counts"]["completed"] == 50
        for stream in asleep:
            await stream.aclose()


async def test_an_error_of_the_block_comes_out_as_itself() -> None:
    """In no group: the page is nobody's business."""
    with trio.fail_after(PATIENCE), pytest.raises(LookupError, match="mine"):
        async with open_pool(LiveDriver(answer_at_once)) as pool, serve_live(pool):
            raise LookupError("mine")


async def test_there_is_an_end_to_how_many_may_look() -> None:
    """Who comes on top of those that look is hung up on."""
    async with scene() as on:
        streams = [await asleep_at(on) for _ in range(MAX_VISITS)]
        for stream in streams:
            assert await stream.receive_some(1) == b"H"
        async with await raw(on) as one_more:
            with contextlib.suppress(trio.BrokenResourceError):
                assert await one_more.receive_some() == b""
        for stream in streams:
            await stream.aclose()


@pytest.mark.parametrize("more", [0, 1, MAX_VISITS])
async def test_who_asks_for_nothing_keeps_nobody_out(more: int) -> None:
    """Strangers who know no token may connect as often as they like."""
    async with scene() as on:
        streams = [await raw(on) for _ in range(MAX_VISITS + more)]
        await trio.testing.wait_all_tasks_blocked(0.01)
        handle = await on.spawn("plain")
        assert (await on.browser.client.get(on.browser.base)).status_code == 200
        assert (await on.browser.look())["counts"]["completed"] <= 1
        await handle.wait()
        for stream in streams:
            await stream.aclose()


async def test_a_page_that_breaks_does_not_end_the_pool(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is logged, and the next look is answered."""
    async with scene() as on:
        handle = await on.spawn("erase")

        def broken() -> None:
            raise LookupError("this is broken")

        with on.desk.tell(broken), contextlib.suppress(httpx.HTTPError):
            await on.browser.do({"do": "approve", "call": 1})
        assert "the live page could not answer" in caplog.text
        assert (await handle.wait()).status is AgentStatus.COMPLETED
        assert (await on.browser.look())["calls"] == []


async def test_a_pool_that_has_closed_can_still_be_looked_at() -> None:
    """Nothing more comes, and that is no error."""
    with trio.fail_after(PATIENCE):
        async with open_pool(LiveDriver(answer_at_once), name="over") as pool:
            pass
        async with (
            serve_live(pool) as page,
            httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client,
        ):
            assert (await Browser(page, client).look())["pool"] == "over"


# --- how it ends


async def test_a_browser_is_told_the_end_of_a_cancelled_block() -> None:
    """It sees that it is over, and not only that nothing comes any more."""
    ended: list[bool] = []
    looking, over = trio.Event(), trio.Event()

    async def look(browser: Browser) -> None:
        async with browser.looking() as shown:
            while (one := await shown.next()) is not None:
                ended.append(one["ended_page"])
                looking.set()
        over.set()

    with trio.fail_after(PATIENCE):
        async with (
            httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client,
            trio.open_nursery() as nursery,
        ):
            with trio.CancelScope() as given_up:
                async with open_pool(LiveDriver(answer_at_once)) as pool, serve_live(pool) as page:
                    nursery.start_soon(look, Browser(page, client))  # noqa: ASYNC111  # it outlives the page
                    await looking.wait()
                    given_up.cancel()
            await over.wait()
    assert ended[0] is False
    assert ended[-1] is True


def test_wherever_it_is_cancelled_the_error_of_its_block_comes_out() -> None:
    """As itself; and the port is free, and no task is left."""
    raised: list[str] = []
    listeners: list[socket.socket] = []

    async def scenario() -> None:
        raised.clear()
        listeners.append(listen())
        error = LookupError("there is nothing")
        try:
            async with (
                open_pool(LiveDriver(answer_at_once)) as pool,
                serve_live(pool, listener=listeners[-1]),
            ):
                await (await pool.spawn(SpawnConfig(manifest(), "a"))).wait()
                raised.append("the block's")
                raise error
        except LookupError:
            raised.append("the caller's")

    def check() -> None:
        assert raised in ([], ["the block's", "the caller's"])
        if raised:
            assert listeners[-1].fileno() == -1
        listeners[-1].close()

    report = cancel_everywhere(scenario, check=check)
    assert report.points == report.steps > 10


def test_wherever_it_is_cancelled_nothing_is_left() -> None:
    """Neither a task, nor the port; what the block waits for is given up."""
    listeners: list[socket.socket] = []

    async def scenario() -> None:
        listeners.append(listen())
        async with open_pool(LiveDriver(answer_at_once)) as pool:
            async with serve_live(pool, listener=listeners[-1], approvals=ApprovalDesk()):
                await pool.spawn(SpawnConfig(manifest(), "a"))
                await pool.join_all()
            assert listeners[-1].fileno() == -1

    def check() -> None:
        listeners[-1].close()

    report = cancel_everywhere(scenario, check=check)
    assert report.points == report.steps > 10
