"""What is said on the command line goes before the manifest, and not around its privacy."""

from pathlib import Path

import attrs
import pytest

from agentpool import (
    AgentManifest,
    ManifestError,
    ModelConfig,
    PrivacyTier,
    UsageError,
)
from agentpool._cli._override import Override
from agentpool._cli._report import ExitCode
from agentpool.drivers import TokenPrice
from tests.support.cli_runner import Desk, make_desk
from tests.support.fakes import LOCAL, REMOTE


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    """Return a folder with manifests, and the command line in it."""
    return make_desk(tmp_path, capsys, monkeypatch)


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


def test_the_prompt_and_the_seed_go_before_the_manifest() -> None:
    """For the fallback as well: how both are asked is said once."""
    fallback = attrs.evolve(LOCAL.model, model_path="f.gguf")
    manifest = attrs.evolve(LOCAL, model=attrs.evolve(LOCAL.model, fallback=fallback))
    model = apply(Override(system_prompt="Be brief.", seed=0), manifest)
    assert (model.system_prompt, model.seed) == ("Be brief.", 0)
    assert model.fallback is not None
    assert (model.fallback.system_prompt, model.fallback.seed) == ("Be brief.", 0)


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


@pytest.mark.parametrize("word", ["smal", "openia/smal", "openai/", "/x"])
def test_a_name_for_a_local_manifest_needs_a_provider(word: str) -> None:
    """A slip in a file's name must not become a request to somebody."""
    with pytest.raises(UsageError, match=r"must be a GGUF file, or a provider and its model") as e:
        apply(Override(model=word), LOCAL)
    assert repr(word) in str(e.value)


STANDARD = AgentManifest(privacy=PrivacyTier.STANDARD, model=ModelConfig(model_path="m.gguf"))


@pytest.mark.parametrize(
    ("word", "provider", "name"),
    [
        ("openai/gpt-5", "openai", "gpt-5"),
        ("openrouter/anthropic/claude", "openrouter", "anthropic/claude"),
        ("ollama/qwen3:8b", "ollama", "qwen3:8b"),
    ],
)
def test_a_model_may_be_named_with_its_provider(word: str, provider: str, name: str) -> None:
    """In one word, whatever the manifest's model is; its key and its address are its own."""
    model = apply(Override(model=word), STANDARD)
    assert model == ModelConfig(provider=provider, remote_model=name)
    if provider != "openrouter":
        options = {"service_tier": "flex"}
        other = ModelConfig(remote_model="x", api_key_env="K", api="chat", options=options)
        manifest = AgentManifest(privacy=PrivacyTier.STANDARD, model=other)
        kept = options if provider == "openai" else {}
        assert apply(Override(model=word), manifest).options == kept


def test_a_provider_that_serves_models_of_others_keeps_its_names() -> None:
    """Their names begin with a provider's, and mean the manifest's own."""
    mine = ModelConfig(provider="openrouter", remote_model="openai/gpt-4")
    manifest = AgentManifest(privacy=PrivacyTier.STANDARD, model=mine)
    model = apply(Override(model="anthropic/claude"), manifest)
    assert (model.provider, model.remote_model) == ("openrouter", "anthropic/claude")


def test_a_key_goes_to_the_server_that_stands_beside_it_in_the_environment() -> None:
    """Whoever sets both means that; a key of the manifest goes first."""
    url = {"OPENAI_BASE_URL": "https://proxy.example/v1"}
    override = Override(driver="openai", model="m")
    assert apply(override, STANDARD, **url).api_key_env is None
    assert apply(override, STANDARD, **url, OPENAI_API_KEY="k").api_key_env == "OPENAI_API_KEY"
    here = {"OPENAI_BASE_URL": "http://127.0.0.1/v1", "OPENAI_API_KEY": "k"}
    assert apply(override, STANDARD, **here).api_key_env is None
    mine = ModelConfig(remote_model="m", api_key_env="K")
    manifest = AgentManifest(privacy=PrivacyTier.STANDARD, model=mine)
    assert apply(override, manifest, **url, OPENAI_API_KEY="k").api_key_env == "K"


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


@pytest.mark.parametrize(
    ("driver", "word"),
    [("openrouter", "openai/gpt-5"), ("vllm", "openai/my-own"), ("openai", "openai/gpt-5"),
     ("ollama", "someone/llama"), ("openai", "gpt-5")],
)  # fmt: skip
def test_a_provider_serves_models_under_names_of_others(driver: str, word: str) -> None:
    """They contradict each other only where that is published."""
    model = apply(Override(driver=driver, model=word), STANDARD)
    assert (model.provider, model.remote_model) == (driver, word)


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


def test_a_wrong_address_names_the_variable_that_has_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The option `base_url` is in no file that a user could look at."""
    monkeypatch.setenv("OPENAI_BASE_URL", "nonsense")
    done = desk.call("run", "--model", "openai/gpt-5", "Why?")
    assert done.code == ExitCode.WRONG
    assert "error: the options: OPENAI_BASE_URL: must be a URL" in done.err
