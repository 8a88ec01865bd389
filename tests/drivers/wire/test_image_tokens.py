"""What attachments take of a window, by the provider: as measured, and as its page says."""

from __future__ import annotations

import pickle
import struct

import pytest

from agentpool import (
    AgentManifest,
    Budget,
    LimitExceededError,
    PrivacyTier,
    SpawnConfig,
    open_pool,
)
from agentpool.abc import Driver, OnDelta, ToolContext, ToolResult
from agentpool.drivers import (
    Attachment,
    Completion,
    CompletionRequest,
    ContextOverflowError,
    FallbackDriver,
    GatedDriver,
    RequestGate,
    ScriptedDriver,
    ToolMessage,
    open_anthropic,
    open_openai,
)
from agentpool.drivers._attachment_counts import portable_count
from agentpool.drivers.wire._image_tokens import counting_of
from agentpool.testing import FakeTurn, strict_fake
from agentpool.tools import ToolRegistry, tool
from tests.support.measured_images import MEASURED_IMAGES

OPENAI, CLAUDE, GEMINI = "api.openai.com", "api.anthropic.com", "generativelanguage.googleapis.com"
MISTRAL, XAI = "api.mistral.ai", "api.x.ai"


def image(width: int, height: int, name: str = "") -> Attachment:
    """Return an image of that size."""
    size = struct.pack(">II", width, height)
    return Attachment(
        "image/png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + size + b"\x08\x02\0\0\0", name
    )


def tokens(host: str, model: str, width: int, height: int) -> int:
    """Return what an image takes there."""
    counting = counting_of(host, model)
    assert counting is not None
    return counting.tokens(image(width, height))


@pytest.mark.parametrize(("width", "height", "anthropic", "gemini", "openai"), MEASURED_IMAGES)
def test_no_provider_counts_more_than_is_estimated_for_it(
    width: int, height: int, anthropic: int, gemini: int, openai: int
) -> None:
    """Of what was measured at the newest models, and published, in November of 2026."""
    assert tokens(OPENAI, "gpt-5.6", width, height) == openai
    assert gemini <= tokens(GEMINI, "gemini-3-pro", width, height) <= 1.06 * gemini
    large = 1.6 if max(width, height) > 2_000 else 1.02
    assert anthropic <= tokens(CLAUDE, "claude-opus-5", width, height) <= large * anthropic


@pytest.mark.parametrize(
    ("host", "model", "width", "height", "expected"),
    [
        (OPENAI, "gpt-4o", 1024, 1024, 765),
        (OPENAI, "gpt-4o", 2048, 4096, 1_105),
        (OPENAI, "gpt-4.1", 1024, 1024, 765),
        (OPENAI, "gpt-4o-mini-2024-07-18", 128, 64, 8_500),
        (OPENAI, "gpt-4.1-mini", 4000, 1474, 2_489),
        (OPENAI, "gpt-5-nano", 32, 32, 3),
        (OPENAI, "o4-mini", 64, 64, 7),
        (OPENAI, "o3", 128, 64, 225),
        (OPENAI, "gpt-5", 1024, 1024, 630),
        (OPENAI, "gpt-5-2025-08-07", 1024, 1024, 630),
        (OPENAI, "gpt-5.1", 1024, 1024, 1_229),
        (OPENAI, "gpt-7", 20_000, 20_000, 15_000),
        ("us.api.openai.com", "gpt-7", 256, 256, 77),
        ("mine.openai.azure.com", "gpt-7", 256, 256, 77),
        (CLAUDE, "claude-3-5-sonnet-20241022", 4032, 3024, 1_680),
        (CLAUDE, "claude-opus-4-20250514", 4032, 3024, 1_680),
        (CLAUDE, "claude-sonnet-4-6", 200, 200, 144),
        (CLAUDE, "claude-opus-4-7", 4032, 3024, 4_864),
        (CLAUDE, "claude-fable-5", 4032, 3024, 4_864),
        (GEMINI, "gemini-2.5-flash", 384, 384, 258),
        (GEMINI, "gemini-2.5-flash", 960, 540, 1_548),
        (GEMINI, "gemini-2.5-flash", 4032, 3024, 6_192),
        (GEMINI, "gemini-3.5-flash", 1, 1, 1_120),
        (MISTRAL, "mistral-medium-latest", 1540, 1540, 4_160),
        (MISTRAL, "pixtral-12b", 64, 32, 10),
        (XAI, "grok-4", 448, 448, 512),
        (XAI, "grok-4", 4032, 3024, 1_792),
        ("openrouter.ai", "openai/gpt-4o", 1024, 1024, 765),
        ("openrouter.ai", "anthropic/claude-opus-4.6", 4032, 3024, 1_680),
        ("openrouter.ai", "google/gemini-2.5-pro", 300, 300, 258),
        ("openrouter.ai", "mistralai/pixtral-12b", 64, 32, 10),
        ("openrouter.ai", "x-ai/grok-4", 448, 448, 512),
        ("gateway.example", "eu/anthropic/claude-opus-5", 256, 256, 180),
    ],
)
def test_each_provider_counts_in_its_own_way(
    host: str, model: str, width: int, height: int, expected: int
) -> None:
    """As its page says; older models have other ways, and routers name the vendor."""
    assert tokens(host, model, width, height) == expected


@pytest.mark.parametrize(
    ("host", "model"),
    [
        ("127.0.0.1", "gpt-4o"),
        ("openrouter.ai", "qwen/qwen3-vl"),
        ("api.openai.com.evil.example", "gpt-4o"),
        ("api.groq.com", "llama-4"),
    ],
)
def test_who_is_unknown_has_no_way(host: str, model: str) -> None:
    """The highest of all counts there: a local server may call its model anything."""
    assert counting_of(host, model) is None


def test_a_page_and_what_does_not_say_its_size() -> None:
    """A page has text and a picture; an image without a size is a large photo."""
    paper = Attachment("application/pdf", b"%PDF-1.7 /Type /Page /Type /Page")
    for host, model, page, unknown in (
        (OPENAI, "gpt-7", 4_000, 14_364),
        (OPENAI, "gpt-4o-mini", 28_501, 25_501),
        (CLAUDE, "claude-opus-5", 4_000, 4_864),
        (GEMINI, "gemini-2.5-pro", 258, 6_192),
        (GEMINI, "gemini-3-pro", 1_120, 1_120),
    ):
        counting = counting_of(host, model)
        assert counting is not None
        assert counting.tokens(paper) == 2 * page
        assert counting.tokens(Attachment("image/gif", b"GIF87a")) == unknown
        assert counting.tokens(image(0, 0)) > 0
    assert counting_of("gateway.example", "m", "gemini") is not None
    assert counting_of("gateway.example", "m", "deepseek") is None


async def test_a_driver_says_what_its_provider_counts() -> None:
    """And one that may ask several the most of them."""
    small = image(256, 256)
    async with (
        open_openai("gpt-7") as openai,
        open_anthropic("claude-opus-5") as claude,
        open_openai("m", base_url="http://127.0.0.1:9/v1") as unknown,
    ):
        assert openai.attachment_tokens(small) == 77
        assert claude.attachment_tokens(small) == 180
        assert unknown.attachment_tokens(small) == small.tokens == 1_120
        assert FallbackDriver(openai, claude).attachment_tokens(small) == 180
        assert GatedDriver(openai, RequestGate("g")).attachment_tokens(small) == 77
        assert ScriptedDriver([]).attachment_tokens(small) == 1_120


class Own(Driver):
    """A driver that counts by its own code."""

    @property
    def context_window(self) -> int | None:
        """Unknown."""
        return None

    @property
    def privacy(self) -> PrivacyTier:
        """It is here."""
        return PrivacyTier.SOVEREIGN

    async def complete(
        self, request: CompletionRequest, *, on_delta: OnDelta | None = None
    ) -> Completion:
        """Never asked."""
        raise AssertionError(request, on_delta)

    def attachment_tokens(self, attachment: Attachment) -> int:
        """Count bytes."""
        return len(attachment.data)


async def test_the_way_of_a_driver_to_count_can_go_to_another_process() -> None:
    """Without the driver, its key and its connections; if it is of its own code, the highest."""
    small, large = image(256, 256), image(4032, 3024)
    async with (
        open_openai("gpt-7") as openai,
        open_anthropic("claude-opus-5") as claude,
        open_openai("m", base_url="http://127.0.0.1:9/v1") as unknown,
    ):
        both = FallbackDriver(openai, claude)
        gated = GatedDriver(both, RequestGate("g"))
        for driver in (openai, claude, unknown, both, gated, ScriptedDriver([])):
            count = pickle.loads(pickle.dumps(portable_count(driver)))
            assert [count(one) for one in (small, large)] == [
                driver.attachment_tokens(one) for one in (small, large)
            ]
    assert portable_count(Own())(small) == small.tokens > Own().attachment_tokens(small)


@tool
async def look(context: ToolContext) -> ToolResult:  # noqa: ASYNC124  # as tools are
    """Take a photo."""
    return ToolResult("[image]", attachments=(image(256, 256, "shot.png"),))


ASKED = AgentManifest.parse('privacy = "Standard"\n[model]\nmax_tokens = 100')


@pytest.mark.parametrize(("host", "fits"), [(OPENAI, True), ("gpu.example", False)])
async def test_a_window_has_room_for_what_the_provider_counts(host: str, *, fits: bool) -> None:
    """In a query, in a result and in a budget; elsewhere the highest is assumed."""
    turns = [FakeTurn(calls=[("look", {})]), FakeTurn(text="Seen.")]
    fake = strict_fake("openai" if fits else "llamacpp", turns)
    url = f"https://{host}/v1"
    shown = SpawnConfig(ASKED, "?", attachments=(image(256, 256),))
    tools, budget = ToolRegistry([look]), Budget(tokens=1_000)
    async with (
        open_openai("gpt-7", transport=fake, context_window=1_000, base_url=url) as driver,
        open_openai("gpt-7", transport=fake, base_url=url) as endless,
    ):
        async with open_pool(driver, tools=tools) as pool:
            called = await (await pool.spawn(SpawnConfig(ASKED, "?"))).wait()
            asked = await (await pool.spawn(shown)).wait()
        async with open_pool(endless, budget=budget) as pool:
            paid = await (await pool.spawn(shown)).wait()
    (result,) = [one for one in called.messages if isinstance(one, ToolMessage)]
    assert called.text == "Seen."
    assert len(result.attachments) == fits
    assert isinstance(asked.error, ContextOverflowError) is not fits
    assert isinstance(paid.error, LimitExceededError) is not fits
