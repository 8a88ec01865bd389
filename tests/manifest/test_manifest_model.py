"""The model of a manifest: fallback, patience and price."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentpool import AgentManifest, ManifestError, ModelConfig, PrivacyTier, Usage
from agentpool._manifest.manifest import is_loopback_url
from agentpool.drivers import TokenPrice

SECOND = ModelConfig(model_path="b.gguf")
PRICE = TokenPrice(input_usd_per_million=3, output_usd_per_million=15, cached_usd_per_million=0.3)


def faults_of(text: str) -> dict[str, str]:
    """Return the faults of a manifest by their paths."""
    with pytest.raises(ManifestError) as caught:
        AgentManifest.parse(text)
    return {fault.path: fault.text for fault in caught.value.faults}


# --- fallback


def test_a_fallback_is_another_model_asked_in_the_same_way() -> None:
    """What is said once holds for both; where they are and what they cost is each one's own."""
    manifest = AgentManifest.parse("""
        privacy = "Standard"
        [model]
        remote_model = "big"
        max_tokens = 500
        temperature = 0.0
        system_prompt = "Be brief."
        context_window = 100000
        patience_seconds = 20
        [model.price]
        input_usd_per_million = 3
        output_usd_per_million = 15
        cached_usd_per_million = 0.3
        [model.fallback]
        model_path = "b.gguf"
        context_window = 4096
    """)
    asked = {"max_tokens": 500, "temperature": 0.0, "system_prompt": "Be brief."}
    second = ModelConfig(model_path="b.gguf", context_window=4096, **asked)  # type: ignore[arg-type]  # each fits
    assert manifest.model == ModelConfig(
        remote_model="big",
        context_window=100_000,
        price=PRICE,
        fallback=second,
        patience_seconds=20.0,
        **asked,  # type: ignore[arg-type]  # each fits
    )


@pytest.mark.parametrize(
    ("text", "path", "fault"),
    [
        (
            "[model.fallback]\n[model.fallback.fallback]",
            "model.fallback.fallback",
            "unknown key here; it belongs in [model]",
        ),
        (
            "[model.fallback]\ntemperature = 1.0",
            "model.fallback.temperature",
            "unknown key here; it belongs in [model]",
        ),
        (
            "[model]\npatience_seconds = 5",
            "model.patience_seconds",
            "means nothing without a fallback",
        ),
        (
            "[model]\npatience_seconds = 0\n[model.fallback]",
            "model.patience_seconds",
            "must be a finite number > 0, got 0.0",
        ),
        (
            '[model]\nfallback = "big"',
            "model.fallback",
            "must be a table, got 'big'; write [model.fallback]",
        ),
        (
            "[model]\nmax_tokens = 1024\n[model.fallback]\ncontext_window = 1000",
            "model.fallback.max_tokens",
            "must be less than context_window (1000), got 1024; the question needs room as well",
        ),
    ],
)
def test_a_fallback_says_what_is_wrong(text: str, path: str, fault: str) -> None:
    """With the path at which it stands."""
    assert faults_of(text) == {path: fault}


@pytest.mark.parametrize(
    ("made", "fault"),
    [
        ({"fallback": ModelConfig(fallback=SECOND)}, "fallback.fallback: is not allowed"),
        (
            {"fallback": ModelConfig(temperature=1.5)},
            "fallback.temperature: is set in [model] and counts for the fallback too, got 1.5",
        ),
        ({"patience_seconds": math.nan, "fallback": SECOND}, "patience_seconds: must be a finite"),
    ],
)
def test_a_fallback_made_in_code_is_held_to_the_same_rules(
    made: Mapping[str, object], fault: str
) -> None:
    """What would be ignored is refused."""
    with pytest.raises(ManifestError, match=re.escape(fault)):
        ModelConfig(**made)  # type: ignore[arg-type]  # each fits, but in its value
    assert ModelConfig(temperature=1.5, fallback=ModelConfig(temperature=1.5)).fallback


def test_sovereign_data_falls_over_to_no_remote_model() -> None:
    """Also if the first model is here; the path says which of the two it is about."""
    text = '[model.fallback]\nremote_model = "gpt"'
    assert list(faults_of(text)) == ["model.fallback.remote_model"]
    text += '\nbase_url = "http://localhost.evil.com/v1"'
    assert list(faults_of(text)) == ["model.fallback.base_url"]
    there = '[model]\nremote_model = "a"\n[model.fallback]\nremote_model = "b"'
    assert list(faults_of(there)) == ["model.remote_model", "model.fallback.remote_model"]
    here = '[model.fallback]\nremote_model = "m"\nbase_url = "http://127.0.0.1:8080/v1"'
    assert AgentManifest.parse(here).privacy is PrivacyTier.SOVEREIGN


# --- prices


@pytest.mark.parametrize(
    ("usage", "usd"),
    [
        (Usage(), 0.0),
        (Usage(1_000_000, 0), 3.0),
        (Usage(0, 1_000_000, 0, 500_000), 15.0),
        (Usage(1_000_000, 1_000_000, 400_000), 1.8 + 0.12 + 15.0),
    ],
)
def test_a_price_counts_each_token_once(usage: Usage, usd: float) -> None:
    """Cached ones are a part of the input, reasoning is a part of the output."""
    assert PRICE(usage) == pytest.approx(usd)


def test_without_a_price_of_its_own_a_cached_token_costs_as_any_other() -> None:
    """Too dear rather than too cheap."""
    assert TokenPrice(input_usd_per_million=3, output_usd_per_million=15)(
        Usage(1_000_000, 0, 1_000_000)
    ) == pytest.approx(3.0)


MODEL = 'privacy = "Standard"\n[model]\nremote_model = "m"\n[model.price]\n'


@pytest.mark.parametrize(
    ("text", "path", "fault"),
    [
        (
            MODEL + "input_usd_per_million = 3",
            "model.price.output_usd_per_million",
            "is missing; write US dollars per million tokens; 0 is free of charge",
        ),
        (
            MODEL + "input_usd_per_million = -1\noutput_usd_per_million = 0",
            "model.price.input_usd_per_million",
            "must be a finite number >= 0, got -1.0",
        ),
        (
            MODEL + 'input_usd_per_million = "3"\noutput_usd_per_million = 0',
            "model.price.input_usd_per_million",
            "must be a number, got '3'",
        ),
        (
            MODEL + "input_usd_per_million = 3\noutput_usd_per_million = nan",
            "model.price.output_usd_per_million",
            "must be a finite number >= 0, got nan",
        ),
        (
            "[model.price]\ninput_usd_per_million = 3\noutput_usd_per_million = 3",
            "model.price",
            "means nothing without remote_model",
        ),
        (
            "[model]\ninput_usd_per_million = 3",
            "model.input_usd_per_million",
            "unknown key here; it belongs in a [model.price] table",
        ),
    ],
)
def test_a_price_says_what_is_wrong(text: str, path: str, fault: str) -> None:
    """A wrong price is a wrong budget, so nothing about it is guessed."""
    assert faults_of(text) == {path: fault}


# --- what is judged is what is asked


SHAPES = st.sampled_from(
    [
        *("localhost", "LOCALHOST", "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "[::1%25eth0]"),
        *("127.1", "0x7f000001", "2130706433", "localhost.", "localhost.evil.com", "evil.com"),
        *("127.0.0.1.evil.com", "localhost%2eevil", "\uff11\uff12\uff17.0.0.1", "\u2460.0.0.1"),
        *("user", ""),
    ]
)
GLUE = st.text(st.sampled_from("@:/\\?#[]%.;,&= \t\n") | st.characters(), max_size=3)


@given(
    st.sampled_from(["http://", "https://", "HTTP://", "http:", "//"]),
    SHAPES,
    GLUE,
    SHAPES,
    GLUE,
)
def test_what_passes_as_this_machine_is_this_machine_to_httpx_as_well(
    scheme: str, first: str, between: str, second: str, last: str
) -> None:
    """Two readers of one address must not see two hosts: the one that is asked is httpx's."""
    url = f"{scheme}{first}{between}{second}{last}"
    if is_loopback_url(url):
        try:
            host = httpx.URL(url).host
        except httpx.InvalidURL:
            return  # nobody is asked
        assert host in {"localhost", "::1"} or host.startswith(("127.", "::ffff:127.", "::1%"))
