"""From a manifest's model to a driver, and what an import of the room loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import agentpool.drivers
from agentpool import (
    AgentManifest,
    ModelConfig,
    PrivacyError,
    PrivacyTier,
    SpawnConfig,
    Usage,
    open_pool,
)
from agentpool.drivers import (
    AnthropicDriver,
    AuthenticationError,
    BadRequestError,
    FallbackDriver,
    GatedDriver,
    LocalDriver,
    OpenAIDriver,
    ProviderGates,
    TokenPrice,
    UnknownModelError,
    open_driver,
)
from tests.support.fake_llama import install, write_model
from tests.support.http_servers import HELLO, always, open_loopback, whole
from tests.support.keys import KEY, make_key

REMOTE = ModelConfig(remote_model="gpt-x", context_window=50_000)


async def test_a_file_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sovereign, free, with the window that the manifest wants."""
    install(monkeypatch, tmp_path)
    model = ModelConfig(model_path=str(write_model(tmp_path)), context_window=2048)
    async with open_driver(model, environ={}) as driver:
        assert isinstance(driver, LocalDriver)
        assert driver.context_window == 2048
        assert driver.privacy is PrivacyTier.SOVEREIGN


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"])
async def test_a_repository_that_was_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """Looked up where the hub's own tools put it; nothing is downloaded."""
    install(monkeypatch, tmp_path)
    below = {"HF_HUB_CACHE": "", "HF_HOME": "hub", "XDG_CACHE_HOME": "huggingface/hub"}
    snapshot = tmp_path / below[variable] / "models--org--m" / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    path = write_model(snapshot)
    model = ModelConfig(model_repo="org/m", model_quantization="model")
    async with open_driver(model, environ={variable: str(tmp_path)}) as driver:
        assert isinstance(driver, LocalDriver)
        assert driver.model_path == path.resolve()


async def test_a_repository_that_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The place where it was looked for is named: by default in the home."""
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    with pytest.raises(UnknownModelError, match=r"\.cache/huggingface/hub"):
        async with open_driver(ModelConfig(model_repo="org/m"), environ={}):
            pass


async def test_a_model_behind_an_api() -> None:
    """At the provider itself, with its usual variable; the place is a standard one."""
    environ = {"OPENAI_API_KEY": f" {KEY} \n"}
    async with open_driver(REMOTE, environ=environ) as driver:
        assert isinstance(driver, OpenAIDriver)
        assert driver.privacy is PrivacyTier.STANDARD
        assert driver.context_window == 50_000
        assert driver._settings.api_key == KEY
        assert driver._options.is_openai
    async with open_driver(REMOTE, privacy=PrivacyTier.PRIVATE, environ=environ) as driver:
        assert driver.privacy is PrivacyTier.PRIVATE


async def test_a_server_on_this_machine_is_sovereign_and_needs_no_key() -> None:
    """And does not get the one that is meant for somebody else."""
    model = ModelConfig(remote_model="m", base_url="http://127.0.0.1:8080/v1")
    async with open_driver(model, environ={"OPENAI_API_KEY": KEY}) as driver:
        assert isinstance(driver, OpenAIDriver)
        assert driver.privacy is PrivacyTier.SOVEREIGN
        assert driver._settings.api_key is None


@pytest.mark.parametrize("environ", [{}, {"MY_KEY": "  "}])
async def test_a_missing_key_names_its_variable(environ: dict[str, str]) -> None:
    """Before anything is sent."""
    model = ModelConfig(remote_model="m", api_key_env="MY_KEY")
    with pytest.raises(AuthenticationError, match="MY_KEY is not set"):
        async with open_driver(model, environ=environ):
            pass


@pytest.mark.parametrize("between", ["\n", "\u2028", "é"])
async def test_a_key_that_has_more_than_a_key_names_its_variable(between: str) -> None:
    """A file with two lines, or a text with a mark that was copied with it."""
    with pytest.raises(AuthenticationError) as caught:
        async with open_driver(REMOTE, environ={"OPENAI_API_KEY": f"{KEY}{between}{KEY}"}):
            pass
    assert "'gpt-x' in OPENAI_API_KEY has a line break or another" in str(caught.value)
    assert KEY not in str(caught.value)


async def test_the_environment_is_the_processs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless another is given."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(AuthenticationError, match="OPENAI_API_KEY"):
        async with open_driver(REMOTE):
            pass


async def test_a_model_at_anthropic() -> None:
    """Each provider has its own address and its own variable."""
    model = ModelConfig(remote_model="claude", provider="anthropic")
    with pytest.raises(AuthenticationError, match="ANTHROPIC_API_KEY is not set"):
        async with open_driver(model, environ={"OPENAI_API_KEY": KEY}):
            pass
    async with open_driver(model, environ={"ANTHROPIC_API_KEY": KEY}) as driver:
        assert isinstance(driver, AnthropicDriver)
        assert driver.privacy is PrivacyTier.STANDARD
        assert driver._client._base_url == "https://api.anthropic.com/v1"


async def test_a_host_of_ones_own_is_private() -> None:
    """Only its user knows that, so the manifest says it."""
    model = ModelConfig(remote_model="m", base_url="https://gpu.example.com/v1", private_host=True)
    async with open_driver(model, environ={"OPENAI_API_KEY": KEY}) as driver:
        assert driver.privacy is PrivacyTier.PRIVATE


async def test_a_price_in_the_manifest_is_the_drivers() -> None:
    """Without one nobody knows: a provider's name is not a price."""
    price = TokenPrice(input_usd_per_million=2, output_usd_per_million=10)
    environ = {"OPENAI_API_KEY": KEY}
    async with open_driver(ModelConfig(remote_model="m", price=price), environ=environ) as driver:
        assert driver.price(Usage(1_000_000, 100_000)) == 3.0
    async with open_driver(ModelConfig(remote_model="m"), environ=environ) as driver:
        assert driver.price(Usage(1, 1)) is None


async def test_a_fallback_is_opened_as_well_and_is_no_more_private_than_it_is() -> None:
    """What a caller says of the first model's place is not said of the second's."""
    second = ModelConfig(remote_model="b")
    url = "https://gpu.example.com/v1"
    model = ModelConfig(remote_model="a", base_url=url, fallback=second, patience_seconds=9)
    environ = {"OPENAI_API_KEY": KEY}
    async with open_driver(model, privacy=PrivacyTier.PRIVATE, environ=environ) as driver:
        assert isinstance(driver, FallbackDriver)
        assert driver.privacy is PrivacyTier.STANDARD
        assert driver._patience_seconds == 9
        assert driver._models[:2] == ("a", "b")


async def test_a_sovereign_agent_reaches_nobody_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By trying: no proxy of the environment, no redirect, no server that is not its own."""
    async with open_loopback(always(whole(HELLO))) as elsewhere:
        for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(variable, elsewhere.url)
        away = whole(b"", status=307, location=f"{elsewhere.url}/chat/completions")
        for answer, ends in ((whole(HELLO), None), (away, BadRequestError)):
            async with open_loopback(always(answer)) as here:
                model = ModelConfig(remote_model="m", base_url=here.url)
                async with open_driver(model) as driver, open_pool(driver) as pool:
                    config = SpawnConfig(AgentManifest(model=model, capabilities=()), "secret")
                    outcome = await (await pool.spawn(config)).wait()
            assert type(outcome.error) is (ends or type(None))
            assert len(here.requests) == 1
    assert elsewhere.lines == []


@pytest.mark.parametrize(
    "host",
    ["localhost.evil.com", "2130706433", "0x7f.1", "127.1", "127.0.0.1.nip.io", "localhost."],
)
async def test_a_name_that_only_looks_like_this_machine_is_elsewhere(host: str) -> None:
    """The driver says so too, for whoever gives it to a pool without a manifest of its own."""
    model = ModelConfig(remote_model="m", base_url=f"http://{host}/v1")
    environ = {"OPENAI_API_KEY": KEY}
    async with open_driver(model, environ=environ) as driver, open_pool(driver) as pool:
        assert driver.privacy is PrivacyTier.STANDARD
        with pytest.raises(PrivacyError):
            pool.spawn_nowait(SpawnConfig(AgentManifest(), "secret"))


async def test_requests_to_one_provider_wait_at_one_gate() -> None:
    """It counts them together by place and key, whatever the model; a fallback is elsewhere."""
    environ = {"OPENAI_API_KEY": KEY, "OTHER": make_key("sk-other-")}
    spare = ModelConfig(remote_model="s", provider="anthropic", base_url="http://127.0.0.1:9/v1/")
    models = [
        REMOTE,
        ModelConfig(remote_model="n", base_url="https://api.openai.com/v1/", fallback=spare),
        ModelConfig(remote_model="m", api_key_env="OTHER"),
    ]
    gates = ProviderGates(requests_per_minute=60, tokens_per_minute=9000, max_in_flight=3)
    for model in models * 2:
        async with open_driver(model, environ=environ, gates=gates) as driver:
            assert isinstance(driver, GatedDriver if model.fallback is None else FallbackDriver)
    assert [gate.name for gate in gates.statistics()] == [
        "api.openai.com with OPENAI_API_KEY",
        "127.0.0.1:9",
        "api.openai.com with OTHER",
    ]
    (first, *_) = gates.statistics()
    assert (first.limit, first.requests_last_minute, first.tokens_last_minute) == (3, 0, 0)


async def test_a_model_on_this_machine_has_no_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody counts its minutes."""
    install(monkeypatch, tmp_path)
    gates = ProviderGates(requests_per_minute=1)
    model = ModelConfig(model_path=str(write_model(tmp_path)))
    async with open_driver(model, environ={}, gates=gates) as driver:
        assert isinstance(driver, LocalDriver)
    assert gates.statistics() == ()


def test_the_room_is_light() -> None:
    """A test with a script does not wait for httpx."""
    code = (
        "import sys, agentpool.drivers as d; d.ScriptedDriver([]);"
        "print([m for m in ('httpx', 'httptools', 'h11', 'xllamacpp') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_names_that_are_not_there() -> None:
    """An AttributeError, as from any module."""
    with pytest.raises(AttributeError, match="has no attribute 'open_oracle'"):
        _ = agentpool.drivers.open_oracle  # type: ignore[attr-defined]  # that is the point
