"""The providers by name: where their models are, and where their keys go."""

from __future__ import annotations

import pickle

import pytest

from agentpool import AgentManifest, ManifestError, ModelConfig, PrivacyTier
from agentpool.drivers import PROVIDERS, Provider

MINE = Provider(base_url="https://llm.corp.example/v1", api_key_env="CORP_KEY")


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_name_is_all_that_is_needed(name: str) -> None:
    """Address, wire format and variable come with it; a server of this machine wants no key."""
    text = f'privacy = "Standard"\n[model]\nprovider = "{name}"\nremote_model = "m"'
    place = AgentManifest.parse(text).model.place
    assert place is not None
    assert place.base_url == PROVIDERS[name].base_url
    assert place.api_key_env == PROVIDERS[name].api_key_env
    assert place.is_here == (place.api_key_env is None) == (place.facts is None)
    assert not place.shows_key
    assert not place.base_url.endswith("/")


def test_a_service_that_was_closed_is_no_provider() -> None:
    """GitHub Models is gone since 30 July 2026, and whoever names it is told before a request."""
    text = 'privacy = "Standard"\n[model]\nprovider = "github"\nremote_model = "m"'
    with pytest.raises(ManifestError, match=r"model\.provider: must be one of .*, got 'github'"):
        AgentManifest.parse(text)


def test_the_table_cannot_be_changed() -> None:
    """A reader extends a copy of it."""
    with pytest.raises(TypeError):
        PROVIDERS["mine"] = MINE  # type: ignore[index]  # that is what is tested


def test_a_provider_of_ones_own_has_a_name_in_manifests() -> None:
    """It is passed in; elsewhere the name means nothing."""
    text = 'privacy = "Standard"\n[model]\nprovider = "mine"\nremote_model = "m"'
    text += '\n[model.fallback]\nprovider = "mistral"\nremote_model = "n"'
    manifest = AgentManifest.parse(text, providers={**PROVIDERS, "mine": MINE})
    assert manifest.model.provider == MINE
    assert manifest.model.fallback is not None
    assert manifest.model.fallback.provider == "mistral"
    place = manifest.model.place
    assert place is not None
    assert (place.host, place.api_key_env) == ("llm.corp.example", "CORP_KEY")
    assert pickle.loads(pickle.dumps(manifest)) == manifest
    with pytest.raises(ManifestError, match=r"model\.provider: must be one of"):
        AgentManifest.parse(text)


@pytest.mark.parametrize(
    ("provider", "base_url", "variable"),
    [
        ("openai", None, "OPENAI_API_KEY"),
        ("openai", "https://api.openai.com/v1/", "OPENAI_API_KEY"),
        ("openai", "https://API.openai.com/v2", "OPENAI_API_KEY"),
        ("openai", "https://eu.api.openai.com/v1", "OPENAI_API_KEY"),
        ("openai", "http://api.openai.com/v1", None),
        ("openai", "https://api.openai.com:8443/v1", None),
        ("openai", "https://api.openai.com.evil.example/v1", None),
        ("openai", "https://xapi.openai.com/v1", None),
        ("openai", "https://api.openai.com@evil.example/v1", None),
        ("openai", "https://attacker.example/v1", None),
        ("openai", "http://127.0.0.1:8080/v1", None),
        ("anthropic", "https://api.deepseek.com/anthropic", None),
        ("ollama", "https://gpu.example.com/v1", None),
    ],
)
def test_a_key_goes_to_its_own_provider_and_nowhere_else(
    provider: str, base_url: str | None, variable: str | None
) -> None:
    """Whoever writes a manifest could otherwise collect the keys of those who run it."""
    try:
        model = ModelConfig(remote_model="m", provider=provider, base_url=base_url)
    except ManifestError:
        assert variable is None
        return
    place = model.place
    assert place is not None
    assert place.api_key_env == variable
    named = ModelConfig(
        remote_model="m", provider=provider, base_url=base_url, api_key_env="MY_KEY"
    )
    assert named.place is not None
    assert named.place.api_key_env == "MY_KEY"


def test_a_sovereign_manifest_may_name_a_server_of_this_machine() -> None:
    """And no other one."""
    ModelConfig(remote_model="m", provider="ollama")
    AgentManifest(model=ModelConfig(remote_model="m", provider="ollama"))
    with pytest.raises(ManifestError, match="sovereign"):
        AgentManifest(model=ModelConfig(remote_model="m", provider="groq"))
    url = "https://gpu.example.com/v1"
    with pytest.raises(ManifestError, match="sovereign"):
        AgentManifest(model=ModelConfig(remote_model="m", provider="ollama", base_url=url))


def test_a_local_model_is_at_no_place() -> None:
    """It has no address and no key."""
    assert ModelConfig().place is None
    assert AgentManifest(privacy=PrivacyTier.STANDARD).model.place is None
