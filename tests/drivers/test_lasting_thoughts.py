"""What a model thought lives through all that a conversation lives through, byte for byte."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import httpx
import pytest
import trio

from agentpool import (
    AgentManifest,
    AgentOutcome,
    ModelConfig,
    PrivacyTier,
    SpawnConfig,
    open_pool,
    open_session,
)
from agentpool.drivers import (
    ChatMessage,
    FallbackDriver,
    messages_from_json,
    messages_to_json,
    open_driver,
)
from agentpool.journal import open_journal
from agentpool.observe import WindowCut, outcome_from_json, outcome_to_json
from agentpool.testing import FakeTurn, StrictFake, strict_fake
from agentpool.testing._strict import StrictName
from agentpool.tools import ToolRegistry, tool
from tests.drivers.test_strict import ENVIRON, manifest_of
from tests.support.fakes import Recorder, of_type

THINKERS: Final = ("openai", "anthropic", "gemini", "deepseek", "groq", "mistral", "moonshot")
"""The fakes that think, and want back what they thought."""

TURNS: Final = (
    FakeTurn(calls=[("page", {"number": 1}), ("page", {"number": 2})]),
    FakeTurn(text="And one more.", calls=[("page", {"number": 3})]),
    FakeTurn(text="Read."),
)

Way = Callable[[AgentOutcome], Sequence[ChatMessage]]


@tool
async def page(number: int) -> str:
    """Read a page.

    Args:
        number: Which one.
    """
    await trio.lowlevel.checkpoint()
    return f"page {number}: " + "words " * 200


PICKLED: Final[Mapping[str, Way]] = {
    "pickle": lambda outcome: pickle.loads(pickle.dumps(outcome.messages)),
    "json": lambda outcome: messages_from_json(messages_to_json(outcome.messages)),
    "outcome": lambda outcome: outcome_from_json(outcome_to_json(outcome)).messages,
}
"""The ways in which a conversation leaves its process."""


@attrs.define(eq=False)
class Failing(httpx.AsyncBaseTransport):
    """Hands on what a fake answers, but for one request: there the provider is overloaded."""

    fake: StrictFake
    failing: int
    """Which request, from 1."""
    count: int = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer as the fake does, or not at all."""
        self.count += 1
        if self.count == self.failing:
            await trio.lowlevel.checkpoint()
            return httpx.Response(529, json={"error": {"message": "busy"}})
        return await self.fake.handle_async_request(request)


def sent(body: Mapping[str, Any]) -> list[object]:
    """Return the conversation in a request, without the marks of a cache, which wander."""
    said = body["input"] if "input" in body else body["messages"]
    return [without_marks(one) for one in said]


def without_marks(value: Any) -> Any:  # noqa: ANN401  # JSON
    """Return *value* without any ``cache_control``."""
    if isinstance(value, dict):
        return {key: without_marks(one) for key, one in value.items() if key != "cache_control"}
    return [without_marks(one) for one in value] if isinstance(value, list) else value


def thinks(body: Mapping[str, Any]) -> bool:
    """Whether a thought of a fake is in a request, or the signature of one."""
    return any(sign in str(sent(body)) for sign in ("sig-", "'hm"))


def config(name: str, query: str, *more: str, history: Sequence[ChatMessage] = ()) -> SpawnConfig:
    """Return what is asked of the model *name*."""
    return SpawnConfig(manifest_of(name, *more), query, history=tuple(history))


async def ask(fake: StrictFake, asked: SpawnConfig, **terms: Any) -> AgentOutcome:  # noqa: ANN401  # those of open_pool
    """Let an agent that reads pages ask *fake*."""
    tools = ToolRegistry([page])
    async with (
        open_driver(asked.manifest.model, environ=ENVIRON, transport=fake) as driver,
        open_pool(driver, tools=tools, **terms) as pool,
    ):
        outcome = await (await pool.spawn(asked)).wait()
    assert fake.refusals == ()
    return outcome


@pytest.mark.parametrize("way", PICKLED)
@pytest.mark.parametrize("name", THINKERS)
async def test_thoughts_last_outside_of_the_process(name: StrictName, way: str) -> None:
    """The conversation that goes on begins exactly as it was."""
    fake = strict_fake(name, [*TURNS, FakeTurn(text="Again.")])
    first = await ask(fake, config(name, "Read."))
    assert first.text == "Read."
    await ask(fake, config(name, "Once more.", history=PICKLED[way](first)))
    before, after = sent(fake.requests[2]), sent(fake.requests[3])
    assert after[: len(before)] == before
    assert thinks(fake.requests[2])


@pytest.mark.parametrize("name", THINKERS)
async def test_thoughts_last_in_a_full_window(name: StrictName) -> None:
    """A turn is sent with what was thought, or not at all."""
    # A fake counts the answers that it is sent, so what has left is read again to the limit.
    fake = strict_fake(name, [FakeTurn(calls=[("page", {"number": n})]) for n in range(20)])
    seen = Recorder()
    asked = config(name, "Read.", "context_window = 4000", "max_tokens = 500")
    await ask(fake, asked, observers=[seen])
    assert of_type(seen.events, WindowCut)
    assert len(fake.requests) == 20
    assert all(thinks(body) for body in fake.requests[1:])


@pytest.mark.parametrize("name", THINKERS)
async def test_thoughts_last_in_a_session_that_another_model_had_a_turn_of(
    name: StrictName, tmp_path: Path
) -> None:
    """It is told none of them; the first has all of its own again, from the journal's file."""
    fake = strict_fake(name, [*TURNS, FakeTurn(text="Again.")])
    other_name: StrictName = "vllm" if name != "groq" else "deepseek"
    other = strict_fake(other_name, [FakeTurn(text="Me too.")])
    for who, whose, query in (
        (name, fake, "Read."), (other_name, other, "And you?"), (name, fake, "Again?"),
    ):  # fmt: skip
        asked = config(who, query)
        async with (
            open_driver(asked.manifest.model, environ=ENVIRON, transport=whose) as driver,
            open_journal(tmp_path / "talk.db") as journal,
            open_session(journal, "us", driver, tools=ToolRegistry([page])) as session,
        ):
            outcome = await session.ask(asked)
        assert outcome.error is None
    assert (fake.refusals, other.refusals) == ((), ())
    before, after = sent(fake.requests[2]), sent(fake.requests[3])
    assert after[: len(before)] == before
    assert thinks(fake.requests[3])
    assert not thinks(other.requests[0])


@pytest.mark.parametrize("name", THINKERS)
async def test_thoughts_are_left_out_for_a_fallback_and_go_back_after_it(name: StrictName) -> None:
    """Another provider's signature is refused, or worse, believed."""
    fake = strict_fake(name, TURNS)
    other = strict_fake("vllm", [FakeTurn(calls=[("page", {"number": 9})])])
    asked = config(name, "Read.")
    elsewhere = ModelConfig(provider="vllm", remote_model="m")
    async with (
        open_driver(asked.manifest.model, environ=ENVIRON, transport=Failing(fake, 2)) as first,
        open_driver(elsewhere, environ={}, transport=other) as second,
        open_pool(FallbackDriver(first, second), tools=ToolRegistry([page])) as pool,
    ):
        outcome = await (await pool.spawn(asked)).wait()
    assert (fake.refusals, other.refusals) == ((), ())
    assert outcome.text == "Read.", outcome.error
    assert (len(fake.requests), len(other.requests)) == (2, 1)
    assert not thinks(other.requests[0])
    before, after = sent(fake.requests[0]), sent(fake.requests[1])
    assert after[: len(before)] == before
    assert thinks(fake.requests[1])


@pytest.mark.parametrize(
    ("model", "failing", "thinking"),
    [
        ("claude-sonnet-4-5", 1, None),
        ("claude-sonnet-4-5", 2, {"type": "enabled", "budget_tokens": 10_000}),
        ("claude-opus-4-7", 1, {"type": "adaptive", "display": "summarized"}),
    ],
)
async def test_a_claude_with_a_budget_takes_over_without_thoughts(
    model: str, failing: int, thinking: object
) -> None:
    """It refuses a loop of tools that another model began, unless it does not think in it."""
    config = ModelConfig(
        provider="anthropic", remote_model=model, reasoning_effort="high", max_tokens=20_000
    )
    fake = strict_fake("anthropic", TURNS)
    other = strict_fake("vllm", [FakeTurn(calls=[("page", {"number": 9})])])
    elsewhere = ModelConfig(provider="vllm", remote_model="m")
    manifest = AgentManifest(model=config, privacy=PrivacyTier.STANDARD)
    async with (
        open_driver(config, environ=ENVIRON, transport=Failing(fake, failing)) as first,
        open_driver(elsewhere, environ={}, transport=other) as second,
        open_pool(FallbackDriver(first, second), tools=ToolRegistry([page])) as pool,
    ):
        outcome = await (await pool.spawn(SpawnConfig(manifest, "Read."))).wait()
    assert (fake.refusals, other.refusals) == ((), ())
    assert outcome.text == "Read.", outcome.error
    assert fake.requests[-1].get("thinking") == thinking
