"""What is said on the command line goes before the manifest, and not around its privacy."""

from pathlib import Path

import pytest

from agentpool import (
    AgentManifest,
    ManifestError,
    ModelConfig,
    PrivacyTier,
    UsageError,
)
from agentpool._cli._override import Override
from agentpool.drivers import TokenPrice
from tests.support.fakes import LOCAL, REMOTE


def apply(override: Override, manifest: AgentManifest, **environ: str) -> ModelConfig:
    """Return the model of *manifest* after *override*."""
    return override.apply(manifest, source="a.toml", environ=environ).model


def test_no_override_changes_nothing() -> None:
    """Whoever says nothing gets the manifest."""
    assert Override().apply(REMOTE, source="a.toml", environ={}) == REMOTE


def test_max_tokens_goes_before_the_manifest() -> None:
    """And it alone is changed."""
    model = apply(Override(max_tokens=7), LOCAL)
    assert (model.max_tokens, model.model_path) == (7, "m.gguf")


def test_a_gguf_file_makes_any_manifest_local(tmp_path: Path) -> None:
    """By its ending, or because it is there."""
    other = tmp_path / "model.bin"
    other.touch()
    for path in ("x.gguf", str(other)):
        model = apply(Override(model=path), REMOTE)
        assert (model.model_path, model.remote_model, model.api_key_env) == (path, None, None)


def test_a_name_goes_before_a_remote_model() -> None:
    """Address and key stay."""
    model = apply(Override(model="small"), REMOTE)
    assert (model.remote_model, model.api_key_env) == ("small", "MY_KEY")


def test_a_name_for_a_local_manifest_needs_the_driver() -> None:
    """A slip in a file's name must not become a request to somebody."""
    with pytest.raises(UsageError, match=r"must be a GGUF file.*'smal'.*--driver openai"):
        apply(Override(model="smal"), LOCAL)


def test_driver_local_takes_the_packaged_model() -> None:
    """Or the file that is named, whatever its ending is."""
    assert apply(Override(driver="local"), REMOTE) == ModelConfig()
    assert apply(Override(driver="local"), LOCAL).model_path == "m.gguf"
    assert apply(Override(driver="local", model="w"), LOCAL).model_path == "w"


def test_max_tokens_is_said_for_the_fallback_as_well() -> None:
    """How both are asked is the same."""
    second = ModelConfig(model_path="b.gguf")
    two = AgentManifest(model=ModelConfig(model_path="a.gguf", fallback=second))
    model = apply(Override(max_tokens=7), two)
    assert model.fallback is not None
    assert (model.max_tokens, model.fallback.max_tokens) == (7, 7)


@pytest.mark.parametrize(
    "override",
    [
        Override(model="other"),
        Override(model="other.gguf"),
        Override(driver="openai"),
        Override(driver="local"),
    ],
)
def test_whoever_names_a_model_gets_that_one(override: Override) -> None:
    """Not the fallback of another, nor its price."""
    price = TokenPrice(input_usd_per_million=1, output_usd_per_million=2)
    model = ModelConfig(remote_model="big", price=price, patience_seconds=9, fallback=ModelConfig())
    manifest = AgentManifest(privacy=PrivacyTier.STANDARD, model=model)
    alone = apply(override, manifest)
    assert (alone.fallback, alone.patience_seconds, alone.price) == (None, None, None)


def test_driver_openai_needs_a_name() -> None:
    """There is no default model to be billed for."""
    with pytest.raises(UsageError, match="--model NAME"):
        apply(Override(driver="openai"), LOCAL)


def test_driver_openai_asks_the_server_of_the_environment() -> None:
    """A server on this machine is fine for a Sovereign manifest."""
    url = "http://127.0.0.1:8080/v1"
    model = apply(Override(driver="openai", model="m"), LOCAL, OPENAI_BASE_URL=url)
    assert (model.remote_model, model.base_url, model.model_path) == ("m", url, None)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "http://127.0.0.1:8080/v1/"])
def test_driver_anthropic_takes_the_address_as_other_clients_do(url: str) -> None:
    """They want it without the version, and some people write it all the same."""
    override = Override(driver="anthropic", model="m")
    assert apply(override, LOCAL, ANTHROPIC_BASE_URL=url).base_url == "http://127.0.0.1:8080/v1"


def test_driver_openai_keeps_the_address_of_the_manifest() -> None:
    """The environment is for manifests that name none."""
    manifest = AgentManifest(
        privacy=PrivacyTier.STANDARD,
        model=ModelConfig(remote_model="m", base_url="https://a.example/v1", api_key_env="K"),
    )
    model = apply(Override(driver="openai"), manifest, OPENAI_BASE_URL="https://b.example/v1")
    assert (model.base_url, model.api_key_env) == ("https://a.example/v1", "K")


def test_an_override_does_not_go_around_privacy() -> None:
    """A Sovereign manifest cannot be sent to a provider by an option."""
    with pytest.raises(ManifestError, match="sovereign") as caught:
        apply(Override(driver="openai", model="big"), LOCAL)
    assert caught.value.source == "a.toml, changed by options"
