"""A pool in which everything happens that a trace can tell: for those who show traces."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from agentpool import AgentCancelledError, AgentManifest, Budget, SpawnConfig, Usage, open_pool
from agentpool._messages import Json
from agentpool.abc import Observer, OnDelta, ToolContext
from agentpool.drivers import (
    Completion,
    CompletionRequest,
    FinishReason,
    NetworkError,
    OverloadedError,
    UserMessage,
)
from agentpool.tools import ApprovalRequest, Approved, ToolRegistry, tool
from tests.support.fakes import (
    LiveDriver,
    calling,
    manifest,
    misnamed,
    query_of,
    tool_call,
    turns_of,
)

HOSTILE = (
    "<script>alert(1)</script> \x1b[2J \u202egnp.exe \x00 </script><img src=x onerror=alert(2)>"
)
"""What must come to nothing wherever it is shown."""
HOSTILE_NAME = "night " + "".join(sign for sign in HOSTILE if sign.isprintable())
"""As much of it as a pool may be named."""


@tool
async def search(place: str) -> str:
    """Look somewhere."""
    await trio.sleep(1)
    if place == "nowhere":
        raise LookupError(f"there is no {place}")
    return f"found in {place} " * 3


@tool(needs_approval=True)
def erase() -> str:
    """Erase all."""
    return "erased"


class Failing:
    """Fails at its first attempt."""

    def __init__(self) -> None:
        """Begin."""
        self.failures = 1


async def busy_pool(observers: Sequence[Observer], *, extra: int = 0) -> None:
    """Run a pool in which agents complete, fail, stop, are cancelled, retry, ask and write.

    Args:
        observers: Who watches.
        extra: So many agents more, which do little.
    """
    failing = Failing()
    think = LiveDriver(_think)

    @tool
    async def summarise(context: ToolContext) -> str:
        """Ask another model."""
        request = CompletionRequest((UserMessage("sum up"),), model="small")
        return (await context.agent.complete(think, request)).text

    @tool
    async def tell(recipient: int, context: ToolContext) -> str:
        """Write to an agent."""
        await context.agent.send(recipient, "hello " + HOSTILE)
        return "sent"

    async def answer(request: CompletionRequest, on_delta: OnDelta) -> Completion:
        query, turn = query_of(request), turns_of(request)
        await trio.sleep(0.5)
        if query == "fail":
            raise NetworkError("the line is dead " + HOSTILE, retryable=False)
        if query == "retry" and failing.failures:
            failing.failures -= 1
            raise OverloadedError("busy")
        if query == "hang":
            on_delta("it goes on")
            await trio.sleep(3600)
        calls: dict[str, tuple[tuple[str, dict[str, Json]], ...]] = {
            "search": (("search", {"place": "the attic"}), ("search", {"place": "nowhere"})),
            "erase": (("erase", {}),),
            "sum": (("summarise", {}),),
            "tell": (("tell", {"recipient": 8}),),
        }
        wanted = calls.get(query, ())
        if turn < len(wanted):
            name, arguments = wanted[turn]
            on_delta("let me see")
            call = tool_call(name, f"call-{turn}", **arguments)
            said = calling(call, text="let me see", usage=Usage(100, 20, 40))
            return Completion(
                said.text, said.tool_calls, said.finish_reason, said.usage, "m-1", 0.001
            )
        on_delta("the answer ")
        await trio.sleep(0.5)
        on_delta("is " + HOSTILE)
        text = "the answer is " + HOSTILE
        return Completion(text, (), FinishReason.END_TURN, Usage(120, 30, 60), "m-1", 0.002)

    async def decide(_: ApprovalRequest) -> Approved:
        await trio.sleep(2)
        return Approved(by="kim")

    registry = ToolRegistry([search, erase, summarise, tell])
    budget = Budget(tokens=100_000, name="night")
    plain: AgentManifest = manifest("reader")
    async with open_pool(
        LiveDriver(answer),
        max_concurrent=3,
        tools=registry,
        observers=observers,
        budget=budget,
        approve=decide,
        name=HOSTILE_NAME,
        random_seed=1,
    ) as pool:
        queries = ["plain", "search", "retry", "fail", "erase", "sum", "tell", "hang"]
        queries += ["plain"] * extra
        handles = await pool.fan_out(
            [misnamed(SpawnConfig(plain, query), f"{query} {HOSTILE}") for query in queries]
        )
        for handle in handles[:7]:
            await handle.wait()
        await trio.sleep(1)
        handles[7].cancel("it takes too long")
        assert isinstance((await handles[7].wait()).error, AgentCancelledError)
        await pool.join_all()


async def _think(_: CompletionRequest, on_delta: OnDelta) -> Completion:
    await trio.sleep(0.25)
    on_delta("in short")
    return Completion("in short", usage=Usage(10, 5), model="small", cost_usd=0.0001)
