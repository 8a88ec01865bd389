"""``agentpool check``: checks manifests without running anything."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import trio

from agentpool import (
    AgentManifest,
    CapabilityKind,
    DriverError,
    ManifestError,
    ModelConfig,
    PrivacyTier,
)
from agentpool._build.drivers import find_model_file
from agentpool._build.model_checks import key_words, model_doubts, model_object, window_words
from agentpool._build.tools import (
    HAND_KINDS,
    NO_ISOLATION,
    lacks_memory_tools,
    missing_tools,
    tool_names,
)
from agentpool._cli._command import CheckCommand
from agentpool._cli._hidden_keys import write_told
from agentpool._cli._manifests import load_manifest
from agentpool._cli._report import ExitCode, error_lines
from agentpool._cli._screen import visible
from agentpool._errors import Fault
from agentpool.drivers import Json, Place, find_facts
from agentpool.tools import find_isolation, one_line

_PRIVACY = {
    PrivacyTier.SOVEREIGN: "Sovereign: nothing leaves this machine",
    PrivacyTier.PRIVATE: "Private: only to services under a contract of your own",
    PrivacyTier.STANDARD: "Standard: to any service",
}


def check(command: CheckCommand) -> int:
    """Run *command* and return the exit code."""
    wrong = False
    for path in command.manifests:
        try:
            manifest = load_manifest(path)
            if command.model_file:
                _check_model_file(manifest, path)
        except ManifestError as error:
            wrong = True
            if _is_script(error):
                text = f"this looks like a script for --driver: use it with --driver script:{path}"
                error = ManifestError([Fault("answers", text)], source=path)
            if command.json:
                _print_json(path, None, error.faults, ())
            else:
                _print_error(error)
            continue
        warnings = (
            *missing_tools(manifest),
            *_missing_isolation(manifest),
            *_shown_keys(manifest),
            *_unbound(manifest),
            *_doubts(manifest),
            *_unpriced(manifest),
        )
        if command.json:
            _print_json(path, manifest, (), warnings)
        else:
            write_told("".join(f"{line}\n" for line in _summary(path, manifest)))
            lines = (f"agentpool: warning: {path} {warning}" for warning in warnings)
            # Also the file's name is foreign, and may steer a terminal.
            sys.stderr.write("".join(f"{one_line(line)}\n" for line in lines))
    return ExitCode.WRONG if wrong else ExitCode.COMPLETED


def _is_script(error: ManifestError) -> bool:
    """Return whether a file is a script, which has answers and is not a manifest."""
    return any(fault.path == "answers" for fault in error.faults)


def _missing_isolation(manifest: AgentManifest) -> tuple[str, ...]:
    """Warn if the programs of a Sovereign agent cannot be kept off the network here."""
    kinds = {grant.kind for grant in manifest.capabilities}
    if manifest.privacy is not PrivacyTier.SOVEREIGN or CapabilityKind.SHELL not in kinds:
        return ()
    # It is tried, since a kernel can have it and a container forbid it.
    return () if trio.run(find_isolation, os.environ) else (NO_ISOLATION,)


def _check_model_file(manifest: AgentManifest, path: str) -> None:
    """Raise if a manifest's local model is missing.

    Raises:
        ManifestError: If a model is missing. The error says what to do.
    """
    models = {"model": manifest.model, "model.fallback": manifest.model.fallback}
    for key, model in models.items():
        if model is None:
            continue
        try:
            find_model_file(model, environ=os.environ)
        except DriverError as error:
            place = f"{key}.model_path" if model.model_path is not None else key
            raise ManifestError([Fault(place, str(error))], source=path) from error


def _print_error(error: ManifestError) -> None:
    sys.stderr.write("".join(f"{visible(line)}\n" for line in error_lines(error)))


def _print_json(
    path: str, manifest: AgentManifest | None, faults: tuple[Fault, ...], warnings: tuple[str, ...]
) -> None:
    found: dict[str, Json] = {
        "type": "manifest",
        "path": path,
        "good": manifest is not None,
        "name": manifest.name if manifest is not None else None,
        "models": [] if manifest is None else [*map(model_object, _models(manifest))],
        "faults": [{"path": fault.path, "text": fault.text} for fault in faults],
        "warnings": list(warnings),
    }
    write_told(json.dumps(found) + "\n")


def _summary(path: str, manifest: AgentManifest) -> Iterator[str]:
    model = manifest.model
    yield f"{path}: good"
    yield f"  name     {manifest.name} {manifest.version}"
    yield f"  model    {_model(model)}"
    if model.fallback is not None:
        yield f"  or else  {_model(model.fallback)}"
    most = "no limit" if model.max_tokens is None else f"at most {model.max_tokens:,} tokens"
    yield from _keys(manifest)
    yield from _known(manifest)
    yield from _servers(manifest)
    yield f"  window   {window_words(model)}; {most} for one answer"
    yield f"  limits   {_limits(manifest)}"
    kinds = {grant.kind for grant in manifest.capabilities}
    yield f"  grants   {', '.join(map(str, manifest.capabilities)) or 'none'}"
    yield f"  tools    {', '.join(tool_names(manifest)) or 'none'}{_why_no_memory(manifest)}"
    if kinds & HAND_KINDS:
        yield f"  folder   {Path.cwd()}: relative paths begin there, and programs run there"
    yield f"  privacy  {_PRIVACY[manifest.privacy]}{_but_for(manifest)}"


def _why_no_memory(manifest: AgentManifest) -> str:
    if not lacks_memory_tools(manifest):
        return ""
    return (
        ": the packaged model gets memory tools only on request; --memory, or a [[capabilities]] "
        'table with type = "memory", adds them'
    )


def _model(model: ModelConfig) -> str:
    if (place := model.place) is not None:
        return f"{model.remote_model} at {place.base_url}"
    if model.model_path is not None:
        return f"the file {model.model_path}"
    if model.model_repo is not None:
        kind = f" ({model.model_quantization})" if model.model_quantization is not None else ""
        return f"{model.model_repo}{kind}, on this machine"
    return "the packaged one, on this machine"


def _models(manifest: AgentManifest) -> Iterator[ModelConfig]:
    yield manifest.model
    if manifest.model.fallback is not None:
        yield manifest.model.fallback


def _known(manifest: AgentManifest) -> Iterator[str]:
    """Print the published facts about the models."""
    for model in _models(manifest):
        facts = find_facts(model)
        if facts is not None:
            yield f"  knows    {model.remote_model}: {facts}"


def _doubts(manifest: AgentManifest) -> Iterator[str]:
    """Warn about names, keys and settings that are probably wrong or will be refused."""
    has_tools = bool(tool_names(manifest) or manifest.mcp_servers)
    for model in _models(manifest):
        yield from model_doubts(model, has_tools=has_tools)


def _unpriced(manifest: AgentManifest) -> Iterator[str]:
    """Warn about models without a known price if there is a limit on cost."""
    budget = manifest.budget
    limits_all = budget is not None and budget.cost_usd is not None
    if not (limits_all or manifest.resources.max_cost_usd):
        return
    for key, model in zip(("model", "model.fallback"), _models(manifest), strict=False):
        facts = find_facts(model)
        known = model.price is not None or (facts is not None and facts.price is not None)
        if model.place is not None and not known:
            yield (
                f"{key}: {model.remote_model!r} has no known price, so the limit on cost cannot "
                f"be enforced; write [{key}.price], or limit the tokens"
            )


def _places(manifest: AgentManifest) -> Iterator[Place]:
    for model in _models(manifest):
        if (place := model.place) is not None:
            yield place


def _keys(manifest: AgentManifest) -> Iterator[str]:
    """Print which server gets which key."""
    for place in _places(manifest):
        yield f"  sends    {key_words(place)}"


def _servers(manifest: AgentManifest) -> Iterator[str]:
    """Print the MCP servers that are started, and their variables."""
    for server in manifest.mcp_servers:
        if server.url is not None:
            key = f"with ${server.api_key_env}" if server.api_key_env else "without a key"
            yield f"  asks     {one_line(server.url)} {key}, as soon as an agent runs"
            continue
        yield f"  starts   {one_line(shlex.join(server.command))}, as soon as an agent runs"
        for name in server.env:
            yield f"  hands on ${one_line(name)} to it"


def _unbound(manifest: AgentManifest) -> tuple[str, ...]:
    """Warn about programs that no privacy tier restricts."""
    return tuple(
        f"starts the MCP server {name!r}, a program that no privacy tier restricts, so it "
        "may send anything anywhere"
        for name in _free_programs(manifest)
    )


def _but_for(manifest: AgentManifest) -> str:
    """Return the end of the sentence on privacy, which names what the tier does not restrict."""
    names = ", ".join(one_line(repr(name)) for name in _free_programs(manifest))
    return f", but for what MCP servers that are programs send: {names}" if names else ""


def _free_programs(manifest: AgentManifest) -> list[str]:
    """Return the MCP servers that are programs, which a privacy tier ought to restrict."""
    if manifest.privacy is PrivacyTier.STANDARD:
        return []
    return [server.name for server in manifest.mcp_servers if server.url is None]


def _shown_keys(manifest: AgentManifest) -> tuple[str, ...]:
    """Warn about keys that are sent unencrypted."""
    return tuple(
        f"sends ${place.api_key_env} to {place.host} without TLS, where others can read it; "
        "write base_url with https"
        for place in _places(manifest)
        if place.shows_key
    )


def _limits(manifest: AgentManifest) -> str:
    quota = manifest.resources
    limits = [f"{quota.max_iterations} model requests", f"{quota.max_tool_calls} tool calls"]
    if quota.max_tokens_budget is not None:
        limits.append(f"{quota.max_tokens_budget:,} tokens in all")
    if quota.max_cost_usd:
        limits.append(f"{quota.max_cost_usd:g} US dollars")
    if quota.run_seconds is not None:
        limits.append(f"{quota.run_seconds:g} seconds")
    open_ended = [
        word
        for word, limit in (
            ("tokens", quota.max_tokens_budget),
            ("cost", quota.max_cost_usd),
            ("time", quota.run_seconds),
        )
        if not limit
    ]
    end = f"; no limit on {', '.join(open_ended)}" if open_ended else ""
    may_spawn = any(grant.kind is CapabilityKind.SPAWN for grant in manifest.capabilities)
    whose = ", with its children" if may_spawn else ""
    return f"at most {', '.join(limits)}{whose}{end}{_period_limits(manifest)}"


def _period_limits(manifest: AgentManifest) -> str:
    """Return the end of a sentence on what all agents of *manifest* may use in a period."""
    budget = manifest.budget
    if budget is None:
        return ""
    limits = (
        ("US dollars", budget.cost_usd),
        ("tokens", budget.tokens),
        ("requests", budget.requests),
        ("tool calls", budget.tool_calls),
    )
    words = ", ".join(f"{limit:,g} {unit}" for unit, limit in limits if limit is not None)
    return f"; all together {words} per {budget.per}".replace("per ever", "in all")
