"""What a manifest may say, and that every fault is found at once, in its place."""

import math
import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest

from agentpool import (
    AgentManifest,
    BudgetConfig,
    Capability,
    CapabilityKind,
    ContextConfig,
    ManifestError,
    ModelConfig,
    PrivacyTier,
    ResourceQuota,
)
from agentpool._manifest.capability import SCOPE_KEYS
from agentpool._manifest.hosts import is_host_rule
from agentpool._manifest.manifest import McpServerConfig, McpTransport, is_loopback_url
from agentpool._manifest.toml_table import TomlTable
from agentpool.drivers import PROVIDERS, TokenPrice
from tests.support.growth import lines_run
from tests.support.keys import KEY

FULL = """
name        = "repo-reviewer"
version     = "1.2.0"
description = "Looks for risky diffs"
privacy     = "Standard"

[model]
remote_model   = "claude-sonnet-x"
provider       = "anthropic"
api_key_env    = "ANTHROPIC_API_KEY"
max_tokens     = 1024
on_cut         = "continue"
temperature    = 1
context_window = 32000
system_prompt  = "Review changes and report risks."

[resources]
max_iterations     = 12
max_tool_calls     = 40
max_cost_usd       = 0.75
max_tokens_budget  = 60000
max_repeated_calls = 5
run_seconds        = 600
request_seconds    = 60.5
tool_seconds       = 30
approval_seconds   = 60

[context]
strategy = "summary"

[[capabilities]]
type = "memory"
[[capabilities]]
type = "shell"
allowed_commands = ["git", "ls"]
[[capabilities]]
type = "file_read"
allowed_paths = ["/data", "."]
[[capabilities]]
type = "network"
allowed_hosts = ["api.example.org", ".example.com", "::1"]
[[capabilities]]
type = "mcp"
server = "index"
tool = "*"
[[capabilities]]
type = "spawn"
max_depth = 2

[[mcp_servers]]
name = "index"
on_unknown = "ask"
transport = "stdio"
command = ["python", "-m", "index_server"]
capabilities = ["search"]
[[mcp_servers]]
name = "web"
transport = "http"
url = "https://mcp.example.org/mcp"
capabilities = ["*"]
"""


def faults_of(text: str) -> dict[str, str]:
    """Return the faults of a manifest in TOML by their paths, in their order."""
    with pytest.raises(ManifestError) as caught:
        AgentManifest.parse(text)
    faults = caught.value.faults
    assert len({fault.path for fault in faults}) == len(faults)
    return {fault.path: fault.text for fault in faults}


# --- what is read


def test_an_empty_manifest_has_all_defaults() -> None:
    """As in the original, but for what is sent: nothing that nobody said."""
    manifest = AgentManifest.parse("")
    assert manifest == AgentManifest()
    assert (manifest.name, manifest.version, manifest.description) == (
        "unnamed-agent",
        "0.1.0",
        "",
    )
    assert manifest.privacy is PrivacyTier.SOVEREIGN
    assert [str(grant) for grant in manifest.capabilities] == ["rag", "memory"]
    assert manifest.mcp_servers == ()
    model = manifest.model
    assert model == ModelConfig(system_prompt="You are a helpful assistant.")
    assert model.max_tokens is model.temperature is model.top_p is model.seed is None
    assert model.reasoning_effort is model.verbosity is model.api is None
    assert (model.stop, model.options, model.cache) == ((), {}, True)
    assert manifest.resources == ResourceQuota(
        max_iterations=20,
        max_tool_calls=50,
        max_cost_usd=0.0,
        max_repeated_calls=3,
        tool_seconds=120.0,
    )


def test_a_full_manifest_is_read_whole() -> None:
    """Every key that there is, and integers where numbers are meant."""
    assert AgentManifest.parse(FULL) == AgentManifest(
        name="repo-reviewer",
        version="1.2.0",
        description="Looks for risky diffs",
        privacy=PrivacyTier.STANDARD,
        model=ModelConfig(
            remote_model="claude-sonnet-x",
            provider="anthropic",
            api_key_env="ANTHROPIC_API_KEY",
            on_cut="continue",
            max_tokens=1024,
            temperature=1.0,
            context_window=32000,
            system_prompt="Review changes and report risks.",
        ),
        context=ContextConfig(strategy="summary"),
        resources=ResourceQuota(
            max_iterations=12,
            max_tool_calls=40,
            max_cost_usd=0.75,
            max_tokens_budget=60000,
            max_repeated_calls=5,
            run_seconds=600.0,
            request_seconds=60.5,
            tool_seconds=30.0,
            approval_seconds=60.0,
        ),
        capabilities=(
            Capability(CapabilityKind.MEMORY),
            Capability.shell("git", "ls"),
            Capability.file_read("/data", "."),
            Capability.network("api.example.org", ".example.com", "::1"),
            Capability.mcp("index", "*"),
            Capability.spawn(2),
        ),
        mcp_servers=(
            McpServerConfig(
                name="index",
                on_unknown="ask",
                transport=McpTransport.STDIO,
                command=("python", "-m", "index_server"),
                capabilities=("search",),
            ),
            McpServerConfig(
                name="web",
                transport=McpTransport.HTTP,
                url="https://mcp.example.org/mcp",
                capabilities=("*",),
            ),
        ),
    )


def test_every_key_of_a_part_can_be_said_in_toml() -> None:
    """A field that only code can set would surprise who writes the files."""
    local = '[model]\nmodel_repo="a/b"\nmodel_quantization="q8_0"\n'
    at_home = (
        'privacy="Private"\n[model]\nremote_model="m"\nbase_url="http://localhost:1234/v1"\n'
        "private_host=true\n"
    )
    path = '[model]\nmodel_path="model.gguf"\n'
    second = (
        '[model]\nmodel_path="a.gguf"\npatience_seconds=9\n'
        '[model.fallback]\nremote_model="m"\nbase_url="http://localhost:1234/v1"\n'
        "[model.fallback.price]\ninput_usd_per_million=1\noutput_usd_per_million=2\n"
        "cached_usd_per_million=0.5\ncache_write_usd_per_million=1.5\ncache_write_hour_usd_per_million=2\n"
    )
    asked = (
        f'{at_home}top_p=1\nstop=["x"]\nseed=1\nreasoning_effort="low"\nverbosity="low"\n'
        'api="chat"\nmax_tokens_field="max_tokens"\ncache=true\ninputs=["image"]\noptions={user="x"}\n'
    )
    texts = (FULL, local, at_home, path, second, asked)
    said = "\n".join(texts)
    for part in (
        AgentManifest,
        ModelConfig,
        TokenPrice,
        ResourceQuota,
        McpServerConfig,
        ContextConfig,
    ):
        assert all(field.name in said for field in attrs.fields(part))
    assert all(AgentManifest.parse(text) for text in texts)


PROVIDER_WORDS = ", ".join(map(repr, PROVIDERS))


@pytest.mark.parametrize("tier", PrivacyTier)
def test_privacy_is_read_by_its_word(tier: PrivacyTier) -> None:
    """The capitalised words of manifests that exist."""
    assert AgentManifest.parse(f'privacy = "{tier.value}"').privacy is tier


def test_no_grants_can_be_said() -> None:
    """An empty array is an answer; only silence means the defaults."""
    assert AgentManifest.parse("capabilities = []").capabilities == ()


@pytest.mark.parametrize("kind", ["memory", "rag", "inference", "compute", "browser", "message"])
def test_grants_without_scope_are_a_word(kind: str) -> None:
    """Their table holds the type and nothing else."""
    manifest = AgentManifest.parse(f'[[capabilities]]\ntype = "{kind}"')
    assert manifest.capabilities == (Capability(CapabilityKind(kind)),)


# --- what is refused, and in which words


@pytest.mark.parametrize(
    ("text", "path", "fault"),
    [
        ('name = " "', "name", "name must not be empty"),
        (
            'name = "a\\nb"',
            "name",
            "must be one line of printable text, got 'a\\nb'",
        ),
        ("[model]\nmax_tokens = 0", "model.max_tokens", "must be > 0, got 0"),
        (
            "[model]\nmax_tokens = 4096\ncontext_window = 4096",
            "model.max_tokens",
            "must be less than context_window (4096), got 4096; the question needs room as well",
        ),
        (
            '[context]\nstrategy = "forget"',
            "context.strategy",
            "must be one of 'drop', 'clear_results', 'summary', got 'forget'",
        ),
        ('[model]\non_cut = "go"', "model.on_cut", "must be one of 'stop', 'continue', got 'go'"),
        ("[model]\ncontext_window = 0", "model.context_window", "must be > 0, got 0"),
        ("[model]\ntemperature = 2.1", "model.temperature", "must be in [0.0, 2.0], got 2.1"),
        ("[model]\ntemperature = -1", "model.temperature", "must be in [0.0, 2.0], got -1.0"),
        ("[model]\ntemperature = nan", "model.temperature", "must be in [0.0, 2.0], got nan"),
        (
            '[model]\nmodel_path = ""',
            "model.model_path",
            "must not be empty, got ''; leave it out",
        ),
        (
            '[model]\nmodel_path = "a"\nmodel_repo = "b/c"',
            "model.model_repo",
            "model_repo and model_path are mutually exclusive",
        ),
        (
            '[model]\nmodel_quantization = "q8_0"',
            "model.model_quantization",
            "means nothing without model_repo",
        ),
        (
            'privacy = "Standard"\n[model]\nremote_model = "a"\nmodel_path = "b"',
            "model.remote_model",
            "cannot be combined with model_path or model_repo; keep one of them",
        ),
        (
            '[model]\nprovider = "openai"',
            "model.provider",
            "means nothing without remote_model",
        ),
        (
            '[model]\nname = "gpt-5"',
            "model.name",
            (
                "unknown key here; it belongs at the top of the file, before the first [table], "
                "if it is the agent's; the model's is remote_model"
            ),
        ),
        (
            '[model]\nmodel = "gpt-5"',
            "model.model",
            "unknown key here; it belongs in remote_model, next to provider",
        ),
        (
            '[model]\nprovider = "anthropic"',
            "model.provider",
            "means nothing without remote_model",
        ),
        (
            '[model]\nbase_url = "http://localhost"',
            "model.base_url",
            "means nothing without remote_model",
        ),
        (
            'privacy = "Private"\n[model]\nremote_model = "m"\nprivate_host = true',
            "model.private_host",
            "means nothing without base_url: no provider's host is yours",
        ),
        (
            '[model]\nprivate_host = "yes"',
            "model.private_host",
            "must be true or false, got 'yes'",
        ),
        (
            '[model]\napi_key_env = "KEY"',
            "model.api_key_env",
            "means nothing without remote_model",
        ),
        (
            '[model]\nprovider = "openia"',
            "model.provider",
            f"must be one of {PROVIDER_WORDS}, got 'openia'; did you mean 'openai'?",
        ),
        ("[resources]\nmax_iterations = 0", "resources.max_iterations", "must be > 0, got 0"),
        ("[resources]\nmax_tool_calls = -1", "resources.max_tool_calls", "must be > 0, got -1"),
        (
            "[resources]\nmax_tokens_budget = 0",
            "resources.max_tokens_budget",
            "must be > 0, got 0",
        ),
        (
            "[resources]\nmax_repeated_calls = 1",
            "resources.max_repeated_calls",
            "must be > 1, got 1",
        ),
        (
            "[resources]\nmax_cost_usd = -0.5",
            "resources.max_cost_usd",
            "must be a finite number >= 0, got -0.5; 0 means no limit",
        ),
        (
            "[resources]\nmax_cost_usd = nan",
            "resources.max_cost_usd",
            "must be a finite number >= 0, got nan; 0 means no limit",
        ),
        (
            "[resources]\nmax_cost_usd = inf",
            "resources.max_cost_usd",
            "must be a finite number >= 0, got inf; 0 means no limit",
        ),
        (
            "[resources]\nrun_seconds = 0",
            "resources.run_seconds",
            "must be a finite number > 0, got 0.0",
        ),
        (
            "[resources]\nrequest_seconds = nan",
            "resources.request_seconds",
            "must be a finite number > 0, got nan",
        ),
        (
            "[resources]\ntool_seconds = inf",
            "resources.tool_seconds",
            "must be a finite number > 0, got inf",
        ),
    ],
)
def test_model_and_limits_say_what_is_wrong(text: str, path: str, fault: str) -> None:
    """One fault, with its path and value, and what is allowed."""
    assert faults_of(text) == {path: fault}


@pytest.mark.parametrize(
    ("table", "key", "fault"),
    [
        ("", "type", "is missing; write one of memory, rag, inference, compute, browser, "),
        ('type = "shel"', "type", "did you mean 'shell'?"),
        ('type = "Rag"', "type", "did you mean 'rag'?"),
        ('type = "shel"\nallowed_commands = ["ls"]', "type", "did you mean 'shell'?"),
        (
            'type = "shell"',
            "allowed_commands",
            "must not be empty: an empty list allows nothing; '*' allows all",
        ),
        (
            'type = "file_write"\nallowed_paths = []',
            "allowed_paths",
            "must not be empty: an empty list allows nothing; '*' allows all",
        ),
        (
            'type = "file_read"\nallowed_paths = ["/data/.."]',
            "allowed_paths",
            "must not contain '..', got '/data/..'; such a path covers nothing",
        ),
        (
            'type = "shell"\nallowed_commands = ["ls", "ls"]',
            "allowed_commands",
            "must not contain 'ls' twice",
        ),
        (
            'type = "shell"\nallowed_commands = [" "]',
            "allowed_commands",
            "must not contain an empty text, got ' '",
        ),
        (
            'type = "shell"\nallowed_commands = "ls"',
            "allowed_commands",
            "must be an array of strings, got 'ls'",
        ),
        (
            'type = "shell"\nallowed_commands = ["ls", 1]',
            "allowed_commands",
            "must be an array of strings, got an array",
        ),
        (
            'type = "network"\nallowed_hosts = ["https://example.org"]',
            "allowed_hosts",
            (
                "must be a host, '.host', an address or a network, perhaps with a port, "
                "got 'https://example.org'"
            ),
        ),
        (
            'type = "network"\nallowed_hosts = ["example.org:99999"]',
            "allowed_hosts",
            (
                "must be a host, '.host', an address or a network, perhaps with a port, "
                "got 'example.org:99999'"
            ),
        ),
        (
            'type = "network"\nallowed_hosts = ["10.0.0.1/8"]',
            "allowed_hosts",
            (
                "must be a host, '.host', an address or a network, perhaps with a port, "
                "got '10.0.0.1/8'"
            ),
        ),
        (
            'type = "network"\nallowed_hosts = ["*.example.org"]',
            "allowed_hosts",
            "must not be a pattern, got '*.example.org'; write '.example.org' instead",
        ),
        ('type = "mcp"\nserver = "a"', "tool", "is missing; write its name, or '*' for all"),
        ('type = "mcp"\ntool = "a"', "server", "is missing; write its name, or '*' for all"),
        (
            'type = "mcp"\nserver = "a"\ntool = ""',
            "tool",
            "must not be empty; write its name, or '*' for all",
        ),
        ('type = "spawn"', "max_depth", "is missing; write how many generations of children"),
        ('type = "spawn"\nmax_depth = 0', "max_depth", "must be > 0, got 0"),
        (
            'type = "memory"\nallowed_paths = ["/"]',
            "allowed_paths",
            "unknown key; known here: ask_first, type",
        ),
    ],
)
def test_a_grant_says_what_is_wrong(table: str, key: str, fault: str) -> None:
    """With the number of its table, counted from 0 as in code."""
    text = f'[[capabilities]]\ntype = "rag"\n[[capabilities]]\n{table}'
    faults = faults_of(text)
    assert list(faults) == [f"capabilities[1].{key}"]
    assert fault in faults[f"capabilities[1].{key}"]


@pytest.mark.parametrize(
    ("grant", "path", "fault"),
    [
        (
            Capability(CapabilityKind.MEMORY, ("a",)),
            "capabilities[0]",
            "memory takes no scope, got ('a',)",
        ),
        (
            Capability(CapabilityKind.RAG, max_depth=2),
            "capabilities[0].max_depth",
            "means nothing for rag, got 2",
        ),
        (
            Capability(CapabilityKind.MCP, ("a",)),
            "capabilities[0].tool",
            "must not be empty; write its name, or '*' for all",
        ),
        (Capability.spawn(0), "capabilities[0].max_depth", "must be > 0, got 0"),
        (
            Capability(CapabilityKind.NETWORK),
            "capabilities[0].allowed_hosts",
            "must not be empty: an empty list allows nothing; '*' allows all",
        ),
    ],
)
def test_a_grant_made_in_code_is_held_to_the_same_rules(
    grant: Capability, path: str, fault: str
) -> None:
    """Capabilities themselves are made freely: they are requirements of tools as well."""
    with pytest.raises(ManifestError) as caught:
        AgentManifest(capabilities=(grant,))
    assert [(f.path, f.text) for f in caught.value.faults] == [(path, fault)]


def test_the_same_grant_twice_is_a_fault() -> None:
    """One of them was meant to be something else."""
    text = '[[capabilities]]\ntype="rag"\n[[capabilities]]\ntype="rag"'
    assert faults_of(text) == {"capabilities[1]": "is the same as capabilities[0]; drop it"}


@pytest.mark.parametrize(
    ("table", "path", "fault"),
    [
        (
            'transport="stdio"\ncommand=["x"]',
            "name",
            "is missing; write a name of letters, digits, '_' and '-'",
        ),
        ('name=""\ntransport="stdio"\ncommand=["x"]', "name", "MCP server name must not be empty"),
        (
            'name="a b"\ntransport="stdio"\ncommand=["x"]',
            "name",
            "must be letters, digits, '_' and '-', got 'a b'",
        ),
        ('name="a"\ncommand=["x"]', "transport", "is missing; write 'stdio' or 'http'"),
        (
            'name="a"\ntransport="sse"\nurl="http://localhost"',
            "transport",
            "must be one of 'stdio', 'http', got 'sse'; such servers speak 'http' now",
        ),
        (
            'name="a"\ntransport="web_socket"\nurl="ws://localhost"',
            "transport",
            "must be one of 'stdio', 'http', got 'web_socket'; such servers speak 'http' now",
        ),
        (
            'name="a"\ntransport="stdio"',
            "command",
            "MCP server 'a' uses stdio transport but has no command",
        ),
        (
            'name="a"\ntransport="stdio"\ncommand=[""]',
            "command",
            "MCP server 'a' uses stdio transport but has no command",
        ),
        (
            'name="a"\ntransport="stdio"\ncommand=["x"]\nurl="http://localhost"',
            "url",
            "means nothing with stdio transport; use http",
        ),
        (
            'name="a"\ntransport="http"',
            "url",
            "MCP server 'a' uses http transport but has no url",
        ),
        (
            'name="a"\ntransport="http"\nurl="http://localhost"\ncommand=["x"]',
            "command",
            "means nothing with http transport; use stdio",
        ),
        (
            'name="a"\ntransport="http"\nurl="localhost:80"',
            "url",
            "must be a URL such as 'http://127.0.0.1:8080/v1', got 'localhost:80'",
        ),
        (
            'name="a"\ntransport="http"\nurl="http://mcp.example.org"',
            "url",
            "sovereign privacy tier blocks network MCP transport for server 'a'",
        ),
        (
            'name="a"\ntransport="stdio"\ncommand=["x"]\ncapabilities=["t", "t"]',
            "capabilities",
            "must not contain 't' twice",
        ),
        (
            'name="a"\ntransport="stdio"\ncommand=["x"]\nenv=["ghp-12345"]',
            "env",
            "must be the name of an environment variable, not the key itself",
        ),
        (
            'name="a"\ntransport="stdio"\ncommand=["x"]\nenv=["A", " "]',
            "env",
            "must not contain an empty text, got ' '",
        ),
        (
            'name="a"\ntransport="stdio"\ncommand=["x"]\napi_key_env="KEY"',
            "api_key_env",
            "means nothing with stdio transport; use http",
        ),
        (
            'name="a"\ntransport="stdio"\ncommand=["x"]\nprivate_host=true',
            "private_host",
            "means nothing with stdio transport; use http",
        ),
        (
            'name="a"\ntransport="http"\nurl="http://localhost"\nenv=["KEY"]',
            "env",
            "means nothing with http transport; use stdio",
        ),
        (
            'name="a"\ntransport="http"\nurl="http://localhost"\napi_key_env="sk-KEY"',
            "api_key_env",
            "must be the name of an environment variable, not the key itself",
        ),
    ],
)
def test_an_mcp_server_says_what_is_wrong(table: str, path: str, fault: str) -> None:
    """In the original's words where it had some."""
    assert faults_of(f"[[mcp_servers]]\n{table.replace('sk-KEY', KEY)}") == {
        f"mcp_servers[0].{path}": fault
    }


def test_mcp_servers_have_different_names() -> None:
    """Their tools are named after them."""
    server = '[[mcp_servers]]\nname="a"\ntransport="stdio"\ncommand=["x"]\n'
    fault = "must differ from mcp_servers[0], got 'a'"
    assert faults_of(server * 2) == {"mcp_servers[1].name": fault}


# --- privacy


def test_sovereign_data_goes_to_no_remote_model() -> None:
    """The strictest tier is the default, so a remote model needs a decision."""
    fault = (
        "sovereign privacy tier cannot use remote_model; "
        'use a local model, a base_url on this machine, or privacy = "Standard"'
    )
    assert faults_of('[model]\nremote_model = "gpt"') == {"model.remote_model": fault}
    private = AgentManifest.parse('privacy = "Private"\n[model]\nremote_model = "gpt"')
    assert private.model.remote_model == "gpt"


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8080/v1",
        "https://LOCALHOST",
        "http://127.0.0.1:8080",
        "http://127.9.9.9/",
        "http://[::1]:8080/v1",
    ],
)
def test_sovereign_data_may_go_to_a_server_on_this_machine(url: str) -> None:
    """Such as a llama.cpp or vLLM server of one's own."""
    assert is_loopback_url(url)
    manifest = AgentManifest(model=ModelConfig(remote_model="m", base_url=url))
    assert manifest.privacy is PrivacyTier.SOVEREIGN


def test_sovereign_data_may_go_to_an_mcp_server_on_this_machine() -> None:
    """The tier is about where data goes, not about how it gets there."""
    server = McpServerConfig(
        name="index", transport=McpTransport.HTTP, url="http://127.0.0.1:9000/mcp"
    )
    assert AgentManifest(mcp_servers=(server,)).privacy is PrivacyTier.SOVEREIGN


def test_private_data_goes_to_no_mcp_server_of_others() -> None:
    """A host off this machine is somebody's; whose, the author of the manifest has to say."""
    server = 'name="a"\ntransport="http"\nurl="https://mcp.example.org"\n'
    private, standard = 'privacy = "Private"\n', 'privacy = "Standard"\n'
    table = f"[[mcp_servers]]\n{server}"
    assert faults_of(private + table) == {
        "mcp_servers[0].url": "private privacy tier blocks the MCP server 'a' off this machine; "
        "if its host is your own, say private_host = true"
    }
    mine = AgentManifest.parse(private + table + "private_host = true")
    assert mine.mcp_servers[0].private_host
    assert not AgentManifest.parse(standard + table).mcp_servers[0].private_host
    assert list(faults_of(table + "private_host = true")) == ["mcp_servers[0].url"]


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost.evil.example",
        "http://127.0.0.1.evil.example",
        "https://0x7f.0.0.1/",
        "https://10.0.0.1/v1",
        "https://[2001:db8::1]/",
    ],
)
def test_an_address_that_only_begins_like_this_machine_is_elsewhere(url: str) -> None:
    """Judged by the parsed host, not by how the text begins."""
    assert not is_loopback_url(url)
    with pytest.raises(ManifestError, match="cannot use a base_url off this machine, got 'http"):
        AgentManifest(model=ModelConfig(remote_model="m", base_url=url))


@pytest.mark.parametrize(
    "url",
    [
        "http://evil.example%2F.localhost/v1",
        "http://localhost%00.evil.example/v1",
        "http://evil.example;localhost/v1",
        "http://localhost,evil.example/v1",
        "http://127.0.0.1\\@evil.example/",
        "http://127.0.0.1\\.evil.example/",
        "http://127.0.0.1\n.evil.example",
        "http://127.0.0.1 .evil.example",
        "ftp://127.0.0.1/",
        "127.0.0.1:8080",
        "http:///v1",
        "http://[::1/",
        "http://evil.example[::1]/",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:0/",
        "",
    ],
)
def test_an_address_that_can_be_read_in_two_ways_is_none(url: str) -> None:
    """What is judged must be what is asked."""
    assert not is_loopback_url(url)
    with pytest.raises(ManifestError, match="base_url: must"):
        ModelConfig(remote_model="m", base_url=url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:hunter2@evil.example/", "x:hunter2@y"])
def test_a_password_is_neither_accepted_nor_quoted(url: str) -> None:
    """Files are shared, and errors are logged."""
    assert not is_loopback_url(url)
    with pytest.raises(ManifestError, match="must not carry a user name or password") as caught:
        ModelConfig(remote_model="m", base_url=url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("key", [KEY, "", "1KEY", "KEY A", "KÉY"], ids=range(5))  # no key in a name
def test_a_key_is_named_and_never_written_down(key: str) -> None:
    """Who gets this wrong has often pasted the key itself, so it is not quoted."""
    with pytest.raises(ManifestError, match="must be the name of an environment") as caught:
        ModelConfig(remote_model="m", api_key_env=key)
    assert not key or key not in str(caught.value)


# --- strictness


def test_privacy_below_a_table_says_where_it_belongs() -> None:
    """TOML gives it to the last capability, where the original ignored it in silence."""
    text = '[model]\nremote_model = "m"\n[[capabilities]]\ntype = "rag"\nprivacy = "Standard"'
    place = "unknown key here; it belongs at the top of the file, before the first [table]"
    assert faults_of(text) == {"capabilities[0].privacy": place}


def test_capabilities_below_a_table_say_where_they_belong() -> None:
    """As the original's own documentation had it."""
    place = "unknown key here; it belongs at the top of the file, before the first [table]"
    text = '[resources]\ncapabilities = ["Rag", "Memory"]'
    assert faults_of(text) == {"resources.capabilities": place}


@pytest.mark.parametrize(
    ("text", "path", "place"),
    [
        ("max_iterations = 3", "max_iterations", "in [resources]"),
        ("[resources]\ntemperature = 1.0", "resources.temperature", "in [model]"),
        ("allowed_hosts = []", "allowed_hosts", "in a [[capabilities]] table"),
        ("transport = 'stdio'", "transport", "in an [[mcp_servers]] table"),
        ("[[capabilities]]\nserver = 'a'\nname = 'b'\ntype = 'rag'", "capabilities[0].name", "at"),
    ],
)
def test_a_key_in_the_wrong_table_says_where_it_belongs(text: str, path: str, place: str) -> None:
    """Every key that has a place somewhere knows it."""
    assert faults_of(text)[path].startswith(f"unknown key here; it belongs {place}")


@pytest.mark.parametrize(
    ("text", "path", "fault"),
    [
        ('nmae = "x"', "nmae", "unknown key; did you mean 'name'?"),
        ("[modle]", "modle", "unknown key; did you mean 'model'?"),
        ('[model]\napi_key = "x"', "model.api_key", "unknown key; did you mean 'api_key_env'?"),
        ("[model.sub]", "model.sub", "unknown key; known here: api, api_key_env, base_url, "),
        ("[resources]\nMAX_ITERATIONS = 1", "resources.MAX_ITERATIONS", "'max_iterations'?"),
        (
            '"a.b" = 1',
            '"a.b"',
            "unknown key; known here: budget, capabilities, context, ",
        ),
        ('"é" = 1', '"é"', "unknown key; "),
    ],
)
def test_an_unknown_key_is_a_fault_with_a_suggestion(text: str, path: str, fault: str) -> None:
    """A slip of the pen must not switch a limit off."""
    faults = faults_of(text)
    assert list(faults) == [path]
    assert fault in faults[path]


@pytest.mark.parametrize(
    ("text", "path", "fault"),
    [
        ("name = 1", "name", "must be a string, got 1"),
        ("model = 'gpt'", "model", "must be a table, got 'gpt'; write [model]"),
        ("[[model]]", "model", "must be a table, got an array; write [model]"),
        ("[model]\nmax_tokens = 1.5", "model.max_tokens", "must be an integer, got 1.5"),
        ("[model]\nmax_tokens = true", "model.max_tokens", "must be an integer, got true"),
        ("[model]\ntemperature = false", "model.temperature", "must be a number, got false"),
        ("[model]\ntemperature = '1'", "model.temperature", "must be a number, got '1'"),
        (
            f"[model]\ntemperature = 1{'0' * 400}",
            "model.temperature",
            "is too large, got a number of more than 50 digits",
        ),
        # What Python reads in another base than ten has no limit, and cannot be written out.
        *(
            (
                f"[model]\nmax_tokens = {number}",
                "model.max_tokens",
                "is too large, got a number of more than 50 digits",
            )
            for number in (f"0x{'f' * 9000}", f"0o{'7' * 9000}", f"0b{'1' * 16000}", "9" * 99)
        ),
        (f"[model]\nmax_tokens = {2**63}", "model.max_tokens", f"is too large, got {2**63}"),
        ("[model]\nmodel_path = {}", "model.model_path", "must be a string, got a table"),
        ("version = 1979-05-27", "version", "must be a string, got datetime.date(1979, 5, 27)"),
        (
            "[capabilities]\ntype = 'rag'",
            "capabilities",
            "must be an array of tables, got a table; write [[capabilities]]",
        ),
        (
            "capabilities = ['Rag']",
            "capabilities[0]",
            "must be a table, got 'Rag'; write [[capabilities]]",
        ),
        (
            "mcp_servers = 'index'",
            "mcp_servers",
            "must be an array of tables, got 'index'; write [[mcp_servers]]",
        ),
        (
            "privacy = 'standard'",
            "privacy",
            "got 'standard'; did you mean 'Standard'?",
        ),
        ("privacy = 3", "privacy", "must be one of 'Sovereign', 'Private', 'Standard', got 3"),
        (f"privacy = '{'x' * 90}'", "privacy", f"got '{'x' * 60}…'"),
    ],
)
def test_a_value_of_the_wrong_type_is_a_fault(text: str, path: str, fault: str) -> None:
    """True is not 1, and '1' is not 1."""
    faults = faults_of(text)
    assert list(faults) == [path]
    assert faults[path].endswith(fault)


def test_true_is_no_integer_and_an_integer_is_a_number() -> None:
    """Python thinks otherwise of the first."""
    table = TomlTable.parse("flag = true\ncount = 3", source="x.toml")
    assert table.integer("flag", 5) == 5
    assert table.number("flag", 5.0) == 5.0
    assert [str(fault) for fault in table.faults] == [
        "flag: must be an integer, got true",
        "flag: must be a number, got true",
    ]
    assert isinstance(table.number("count", 5.0), float)


def test_all_faults_are_reported_at_once_in_the_order_of_the_file() -> None:
    """Nobody wants to find ten faults in ten runs."""
    text = """
    nmae = ""
    [resources]
    max_iterations = 0
    max_cost_usd = "1"
    [model]
    max_tokens = 0
    remote_model = "m"
    [[mcp_servers]]
    name = ""
    transport = "stdio"
    [[capabilities]]
    type = "shell"
    [[capabilities]]
    type = "what"
    [[capabilities]]
    type = "spawn"
    max_depth = -1
    """
    assert list(faults_of(text)) == [
        "nmae",
        "model.max_tokens",
        "resources.max_cost_usd",
        "resources.max_iterations",
        "capabilities[0].allowed_commands",
        "capabilities[1].type",
        "capabilities[2].max_depth",
        "mcp_servers[0].name",
        "mcp_servers[0].command",
    ]


def test_one_slip_is_one_fault() -> None:
    """What could not be read is not judged by the default that stands in for it."""
    text = "privacy = 'standard'\n[model]\nmax_tokens = '9'\ncontext_window = 512\n"
    assert list(faults_of(f"{text}remote_model = 'm'")) == ["privacy", "model.max_tokens"]


# --- files


def test_a_toml_error_says_the_line() -> None:
    """An editor jumps to it."""
    faults = faults_of('name = "x"\nversion = \n')
    assert list(faults) == [""]
    assert faults[""].startswith("is not valid TOML: ")
    assert "line 2" in faults[""]


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("text", ["x = " + "[" * 5000, "x = " + "9" * 5000])
def test_a_manifest_made_to_break_the_parser_is_a_fault(text: str) -> None:
    """Whoever writes such a file gets an error of ours, and no traceback."""
    assert list(faults_of(text)) == [""]


def test_a_file_is_read_and_named_in_its_errors(tmp_path: Path) -> None:
    """With many manifests on the command line, the name is what one needs."""
    path = tmp_path / "agent.toml"
    path.write_text('name = "é"', encoding="utf-8")
    assert AgentManifest.load(path).name == AgentManifest.load(str(path)).name == "é"
    path.write_text("name = 1")
    with pytest.raises(ManifestError) as caught:
        AgentManifest.load(path)
    assert caught.value.source == str(path)
    assert str(caught.value) == f"{path}: name: must be a string, got 1"


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    """Some editors write one, and nobody sees it."""
    path = tmp_path / "agent.toml"
    path.write_bytes(b'\xef\xbb\xbfname = "a"\r\nversion = "2"\r\n')
    assert AgentManifest.load(path).version == "2"


def test_a_file_that_is_not_utf8_is_a_fault(tmp_path: Path) -> None:
    """Its line is named: a single letter may be wrong."""
    path = tmp_path / "agent.toml"
    path.write_bytes(b'name = "a"\ndescription = "caf\xe9"\n')
    with pytest.raises(ManifestError) as caught:
        AgentManifest.load(path)
    assert str(caught.value) == f"{path}: is not UTF-8: line 2; save it as UTF-8"


def test_a_file_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    """Missing, a folder, or a name that no file can have."""
    with pytest.raises(ManifestError, match=r"missing\.toml: cannot be read: No such file"):
        AgentManifest.load(tmp_path / "missing.toml")
    with pytest.raises(ManifestError, match="cannot be read: "):
        AgentManifest.load(tmp_path)
    with pytest.raises(ManifestError, match="cannot be read: embedded null byte"):
        AgentManifest.load("agent\0.toml")


# --- values made in code


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs a file without an end")
def test_a_file_without_an_end_is_a_fault() -> None:
    """Otherwise it is read until there is no memory left."""
    with pytest.raises(ManifestError, match=r"zero: is larger than 1,048,576 bytes; is it a"):
        AgentManifest.load("/dev/zero")


def test_a_text_of_megabytes_is_no_manifest() -> None:
    """A hundred thousand keys take a second to be refused one by one."""
    text = "#" * 1024 * 1024
    assert AgentManifest.parse(text) == AgentManifest()
    with pytest.raises(ManifestError, match="manifest: is larger than 1,048,576 bytes"):
        AgentManifest.parse(text + "#")


def test_only_so_many_keys_are_guessed_at() -> None:
    """A slip is guessed at; a hundred of them are no slips."""
    faults = faults_of("[model]\n" + "".join(f"api_ke{i} = 1\n" for i in range(102)))
    hints = [text for path, text in faults.items() if path.startswith("model.api_ke")]
    assert "did you mean" in hints[0]
    assert hints[-1] == "unknown key"


def test_many_faulty_tables_take_time_in_proportion() -> None:
    """Each was compared with the faults of all before it."""

    def steps(count: int) -> int:
        server = '[[mcp_servers]]\nname = "a"\ntransport = "stdio"\ncommand = []\n'

        def read() -> None:
            with pytest.raises(ManifestError):
                AgentManifest.parse(server * count)

        return lines_run(read, "_manifest/toml_table.py")

    assert steps(200) <= 2.1 * steps(100)


def test_an_invalid_manifest_cannot_be_made() -> None:
    """So nobody has to check one again, and a pool cannot be given one."""
    with pytest.raises(ManifestError) as caught:
        AgentManifest(
            name="",
            model=ModelConfig(remote_model="m"),
            capabilities=(Capability.shell(),),
        )
    assert [fault.path for fault in caught.value.faults] == [
        "name",
        "model.remote_model",
        "capabilities[0].allowed_commands",
    ]
    with pytest.raises(ManifestError):
        attrs.evolve(AgentManifest(), name="")


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_iterations": True},
        {"max_iterations": 2.0},
        {"max_tool_calls": "5"},
        {"max_tool_calls": -(10**60)},
        {"max_cost_usd": "1"},
        {"max_cost_usd": True},
        {"run_seconds": "1"},
        {"tool_seconds": -math.inf},
    ],
)
def test_code_that_is_not_typed_is_held_to_the_types(wrong: Mapping[str, object]) -> None:
    """True would pass as 1, and a string would fail in the middle of a run."""
    (name,) = wrong
    with pytest.raises(ManifestError, match=f"^ResourceQuota: {name}: must be "):
        ResourceQuota(**wrong)  # type: ignore[arg-type]  # that is what is tested


def test_a_provider_made_in_code_is_checked() -> None:
    """Who reads it from a configuration of their own has no type checker."""
    with pytest.raises(ManifestError, match=r"must be one of 'openai', .*'sglang', got 'x'"):
        ModelConfig(remote_model="m", provider="x")
    with pytest.raises(ManifestError, match="must be one of 'stop', 'continue', got 'go'"):
        ModelConfig(on_cut="go")  # type: ignore[arg-type]  # tested


def test_a_window_that_is_no_number_gives_one_fault() -> None:
    """And is not compared with anything."""
    with pytest.raises(ManifestError) as caught:
        ModelConfig(context_window="4096", max_tokens="x")  # type: ignore[arg-type]  # tested
    assert [fault.path for fault in caught.value.faults] == ["max_tokens", "context_window"]
    with pytest.raises(ManifestError, match=r"^ModelConfig: max_tokens: must be an integer"):
        ModelConfig(context_window=4096, max_tokens="x")  # type: ignore[arg-type]  # tested


def test_no_limit_for_tools_can_be_set_in_code() -> None:
    """A tool that takes an hour is legitimate; a scope around each call costs time."""
    assert ResourceQuota(tool_seconds=None).tool_seconds is None


def test_a_manifest_is_a_value() -> None:
    """It crosses process lines, can be a key, and does not change."""
    manifest = AgentManifest.parse(FULL)
    assert pickle.loads(pickle.dumps(manifest)) == manifest
    assert len({manifest, AgentManifest.parse(FULL)}) == 1
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        manifest.name = "x"  # type: ignore[misc]  # that is what is tested


def test_the_guide_lists_every_key() -> None:
    """Nobody should have to read the code to know what may be written."""
    guide = Path(__file__).parents[2] / "docs" / "how-to" / "write-a-manifest.md"
    rows = [line for line in guide.read_text().splitlines() if line.startswith("| `")]
    listed = {word for row in rows for word in re.findall("`([a-z_]+)`", row.split(" | ")[0])}
    parts = (
        AgentManifest,
        ModelConfig,
        TokenPrice,
        ResourceQuota,
        ContextConfig,
        BudgetConfig,
        McpServerConfig,
    )
    tables = {"model", "resources", "budget", "context", "capabilities", "mcp_servers"}
    keys = {field.name for part in parts for field in attrs.fields(part)}
    assert keys - listed == tables - listed
    grants = {"type", "server", "tool", "max_depth", "ask_first", *SCOPE_KEYS.values()}
    assert listed - keys == grants


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('[model]\nmodel_path = "C:\\new\\tiny.gguf"', "model.model_path"),
        (
            '[[capabilities]]\ntype = "file_read"\nallowed_paths = ["C:\\temp\\notes"]',
            "capabilities[0].allowed_paths",
        ),
    ],
)
def test_a_path_that_toml_has_changed_is_refused(text: str, where: str) -> None:
    r"""In double quotes ``\n`` and ``\t`` are a line break and a tab, and no folder."""
    with pytest.raises(ManifestError) as caught:
        AgentManifest.parse(text)
    (fault,) = caught.value.faults
    assert fault.path == where
    assert "write a path with backslashes in single quotes: 'C:\\new\\notes'" in fault.text


def test_an_escape_that_toml_does_not_know_says_how_to_write_it() -> None:
    r"""``C:\Users`` is read as the beginning of a character's number."""
    for path in ("C:\\Users\\me", "C:\\games"):
        with pytest.raises(ManifestError, match="write a path with backslashes in single quotes"):
            AgentManifest.parse(f'[model]\nmodel_path = "{path}"')
    with pytest.raises(ManifestError) as caught:
        AgentManifest.parse("[model")
    assert "single quotes" not in str(caught.value)


def test_a_name_behind_a_literal_address_is_no_address() -> None:
    """``[::1].evil.example`` is not this machine, whatever one client reads in it."""
    assert is_loopback_url("http://[::1]:8080/v1")
    for url in ("http://[::1].evil.example/v1", "http://[::1]evil.example:80/v1"):
        assert not is_loopback_url(url)
        assert not is_host_rule(url.split("/")[2])
        with pytest.raises(ManifestError, match="must be a URL such as"):
            ModelConfig(remote_model="m", base_url=url)
