"""All ways of sending to one agent, used beside each other and cancelled: each message once."""

from __future__ import annotations

from contextlib import suppress

import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from agentpool import AgentHandle, AgentMessage, AgentPool, InboxFullError, SpawnConfig, open_pool
from agentpool.abc import Completion, CompletionRequest, ToolContext
from agentpool.drivers import FunctionDriver
from agentpool.testing import assert_quiescent, simulate
from agentpool.tools import ToolRegistry, tool
from tests.support.fakes import calling, manifest, results_of, tool_call

WAYS = ("send", "send_nowait", "router", "reply")


async def _send(pool: AgentPool, handle: AgentHandle, way: str, text: str) -> AgentMessage:  # noqa: ASYNC910  # some ways do not wait
    match way:
        case "send":
            return await handle.send(text)
        case "router":
            return await pool.router.send(handle.agent_id, text)
        case "reply":  # to a question that nobody asked
            return handle.send_nowait(text, reply_to=10_000)  # noqa: ASYNC910  # as above
        case _:
            return handle.send_nowait(text)  # noqa: ASYNC910  # as above


@given(
    ways=st.lists(
        st.tuples(st.sampled_from(WAYS), st.integers(0, 6), st.sampled_from((1, 3600))),
        min_size=1,
        max_size=12,
    ),
    capacity=st.integers(1, 4),
    pause=st.integers(0, 3),
    seed=st.integers(0, 50),
)
def test_what_was_accepted_arrives_once_and_in_order(
    ways: list[tuple[str, int, int]], capacity: int, pause: int, seed: int
) -> None:
    """Whichever way it came, and whoever was cancelled beside it."""

    async def scenario() -> None:
        accepted, received, refused = list[AgentMessage](), list[AgentMessage](), list[int]()

        @tool
        async def listen(context: ToolContext) -> str:
            """Listen until told to stop."""
            while not received or received[-1].content != "stop":
                await trio.sleep(pause)
                received.extend(await context.agent.receive_many())
            return "heard"

        async def answer(request: CompletionRequest) -> Completion:  # noqa: ASYNC124  # a stand-in
            return Completion("done") if results_of(request) else calling(tool_call("listen"))

        async with open_pool(
            FunctionDriver(answer), tools=ToolRegistry([listen]), inbox_capacity=capacity
        ) as pool:
            handle = await pool.spawn(SpawnConfig(manifest(tool_seconds=None), "listen"))
            await wait_all_tasks_blocked()

            async def send(place: int, way: str, at: int, limit: int) -> None:
                await trio.sleep(at)
                with trio.move_on_after(limit), suppress(InboxFullError):
                    accepted.append(await _send(pool, handle, way, str(place)))
                    return
                refused.append(place)

            async with trio.open_nursery() as nursery:
                for place, (way, at, limit) in enumerate(ways):
                    nursery.start_soon(send, place, way, at, limit)
            await handle.send("stop")
            assert (await handle.wait()).text == "done"
            assert_quiescent(pool)
            assert not pool.router.dead_letters
            assert pool.router.message_count == len(accepted) + 1
        assert received[-1].content == "stop"
        in_order = sorted(accepted, key=lambda message: message.message_id)
        assert received[:-1] == in_order
        assert len(accepted) + len(refused) == len(ways)

    simulate(scenario, seed=seed)
