"""The manifest of an agent, written in TOML or in code, and always valid.

Rules, in addition to those in ``parts``:

1. An invalid manifest does not exist: making one raises `ManifestError` with every
   fault. Reading TOML reports the faults of all parts together, each with its path.
2. Sovereign data stays on this machine: no model and no MCP server elsewhere. A Private agent also
   uses its user's own servers. No rule can check what a local program does, so the grant must name
   the program.
3. A grant must be explicit: an empty list of paths, commands or hosts allows
   nothing, so it is refused, as is a scope that could never match.
4. If the tier could not be read, nothing is checked against it: one mistake gives one fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path, PurePath
from typing import Final, Self, cast, final

import attrs

from agentpool._base import Value
from agentpool._checks import expect, expect_arguments, expect_fields
from agentpool._errors import Fault, ManifestError
from agentpool._manifest.budget import BudgetConfig
from agentpool._manifest.capability import (
    DEFAULT_CAPABILITIES,
    SCOPE_KEYS,
    Capability,
    CapabilityKind,
    PrivacyTier,
)
from agentpool._manifest.context import ContextConfig
from agentpool._manifest.model import ModelConfig, TokenPrice
from agentpool._manifest.parts import (
    DEFAULT_NAME,
    DEFAULT_VERSION,
    McpServerConfig,
    McpTransport,
    ResourceQuota,
    control_trouble,
    count_faults,
    is_loopback_url,
    shown,
    text_faults,
)
from agentpool._manifest.providers import PROVIDERS, Provider

__all__ = [
    "AgentManifest",
    "McpServerConfig",
    "McpTransport",
    "ModelConfig",
    "Provider",
    "ResourceQuota",
    "TokenPrice",
    "is_loopback_url",
]

# A long system prompt is a hundredth of it. A device such as /dev/zero never ends.
_MAX_BYTES: Final = 1024 * 1024


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class AgentManifest(Value):
    """The description of an agent: model, limits, grants, and where its data may go.

    >>> from agentpool import AgentManifest
    >>> manifest = AgentManifest.parse('''
    ... name = "reviewer"
    ... [resources]
    ... max_iterations = 5
    ... ''')
    >>> manifest.name, manifest.resources.max_iterations, manifest.privacy.value
    ('reviewer', 5, 'Sovereign')
    """

    name: str = DEFAULT_NAME
    """The agent's name in logs and outcomes. One line, not empty."""
    version: str = DEFAULT_VERSION
    """The manifest's own version, for its author."""
    description: str = ""
    """The purpose of the agent, in words."""
    privacy: PrivacyTier = PrivacyTier.SOVEREIGN
    """Where the agent's data may go. The strictest tier by default."""
    model: ModelConfig = attrs.field(factory=ModelConfig)
    """Which model answers."""
    resources: ResourceQuota = attrs.field(factory=cache(ResourceQuota))  # it never changes
    """The limits of one run."""
    context: ContextConfig = attrs.field(factory=cache(ContextConfig))
    """How its conversation is kept within the model's window."""
    budget: BudgetConfig | None = None
    """The limit on what agents spend together per day or another period. ``None``: no limit."""
    capabilities: tuple[Capability, ...] = DEFAULT_CAPABILITIES
    """The granted capabilities. Everything else is forbidden."""
    mcp_servers: tuple[McpServerConfig, ...] = ()
    """The MCP servers with tools for the agent."""

    def __attrs_post_init__(self) -> None:
        """Refuse parts that are wrong or contradict each other."""
        expect_fields(self)
        faults = tuple(
            _manifest_faults(
                self.name, self.privacy, self.model, self.capabilities, self.mcp_servers
            )
        )
        if faults:
            raise ManifestError(faults)

    @classmethod
    def parse(
        cls, text: str, *, source: str = "manifest", providers: Mapping[str, Provider] = PROVIDERS
    ) -> Self:
        """Parse a manifest in TOML.

        Args:
            text: The TOML. Empty: all defaults.
            source: The name of the manifest in errors.
            providers: The providers that ``provider`` may name: ``{**PROVIDERS, "mine": ...}``.

        Raises:
            ManifestError: If it is too large, or anything in it is wrong. Carries all faults
                with their paths.
        """
        expect(text, str, "text must be a str", "read a file with AgentManifest.load(path)")
        expect_arguments(AgentManifest.parse, locals())
        if len(text) > _MAX_BYTES:
            raise _too_large(source)
        if text.endswith(".toml") and "\n" not in text:
            fault = Fault("", f"{text!r} is the name of a file; write AgentManifest.load(path)")
            raise ManifestError([fault], source=source)
        from agentpool._manifest.reading import read_parts  # noqa: PLC0415  # for files alone

        parts = read_parts(text, _SECTIONS, source=source, providers=providers)
        model, resources, context = parts.model, parts.resources, parts.context
        noted = {fault.path for fault in parts.faults}
        tier_is_known = not any(path.split(".")[-1] == "privacy" for path in noted)
        privacy = parts.privacy if tier_is_known else None
        found = _manifest_faults(parts.name, privacy, model, parts.capabilities, parts.mcp_servers)
        faults = [*parts.faults, *(fault for fault in found if fault.path not in noted)]
        if model is None or resources is None or context is None or faults:
            raise ManifestError(sorted(faults, key=_place), source=source)
        return cls(
            name=parts.name,
            version=parts.version,
            description=parts.description,
            privacy=parts.privacy,
            model=model,
            resources=resources,
            context=context,
            budget=parts.budget,
            # No None: it would be a fault.
            capabilities=cast("tuple[Capability, ...]", parts.capabilities),
            mcp_servers=tuple(server for server in parts.mcp_servers if server),
        )

    @classmethod
    def load(cls, path: str | Path, *, providers: Mapping[str, Provider] = PROVIDERS) -> Self:
        """Load the manifest in the file *path*.

        Args:
            path: A TOML file.
            providers: As in ``parse``.

        Raises:
            ManifestError: If the file cannot be read, is too large, is not UTF-8, or
                anything in it is wrong. Names the file.
        """
        expect(
            path,
            (str, PurePath),
            "path must be a str or a Path",
            "read a str with AgentManifest.parse",
        )
        expect_arguments(AgentManifest.load, locals())
        # The one place among the rules that touches the disk: `AgentManifest.load` is
        # where people look for it, and it waits for nothing but one small file.
        source = str(path)
        try:
            with open(path, "rb") as file:  # noqa: PTH123  # accepts str as well
                data = file.read(_MAX_BYTES + 1)
        except (OSError, ValueError) as exc:  # ValueError: a path that no system has
            reason = getattr(exc, "strerror", None) or str(exc)
            is_folder = isinstance(exc, IsADirectoryError)
            hint = "; name a manifest in it" if is_folder else ""
            fault = Fault("", f"cannot be read: {reason}{hint}")
            raise ManifestError([fault], source=source) from exc
        if len(data) > _MAX_BYTES:
            raise _too_large(source)
        try:
            text = data.decode("utf-8-sig")  # some editors begin a file with a mark
        except UnicodeDecodeError as exc:
            line = data.count(b"\n", 0, exc.start) + 1
            fault = Fault("", f"is not UTF-8: line {line}; save it as UTF-8")
            raise ManifestError([fault], source=source) from exc
        return cls.parse(text, source=source, providers=providers)


def _too_large(source: str) -> ManifestError:
    fault = Fault("", f"is larger than {_MAX_BYTES:,} bytes; is it a manifest?")
    return ManifestError([fault], source=source)


_SECTIONS: Final = tuple(field.name for field in attrs.fields(AgentManifest))


def _place(fault: Fault) -> tuple[int, int]:
    """Return the sort key of *fault*, in the order of sections and entries."""
    section, _, rest = fault.path.partition(".")[0].partition("[")
    entry = int(rest.rstrip("]") or 0)
    return (_SECTIONS.index(section) if section in _SECTIONS else -1, entry)


def _manifest_faults(
    name: str,
    privacy: PrivacyTier | None,
    model: ModelConfig | None,
    capabilities: Sequence[Capability | None],
    servers: Sequence[McpServerConfig | None],
) -> Iterator[Fault]:
    """Yield the faults between several parts. ``None`` stands for an unknown part."""
    if not name.strip():
        yield Fault("name", "name must not be empty")
    elif not name.isprintable():
        yield Fault("name", f"must be one line of printable text, got {name!r}")
    if privacy is PrivacyTier.SOVEREIGN:
        yield from _sovereign_faults("model", model)
        yield from _sovereign_faults("model.fallback", model and model.fallback)
    yield from _remote_server_faults(privacy, servers)
    grants: dict[Capability, int] = {}
    for index, grant in enumerate(capabilities):
        if grant is None:
            continue
        path = f"capabilities[{index}]"
        if grants.setdefault(grant, index) != index:
            yield Fault(path, f"is the same as capabilities[{grants[grant]}]; drop it")
        else:
            yield from _grant_faults(path, grant)
    names: dict[str, int] = {}
    for index, server in enumerate(servers):
        if server is not None and names.setdefault(server.name, index) != index:
            text = f"must differ from mcp_servers[{names[server.name]}], got "
            yield Fault(f"mcp_servers[{index}].name", text + repr(server.name))


def _sovereign_faults(path: str, model: ModelConfig | None) -> Iterator[Fault]:
    advice = 'use a local model, a base_url on this machine, or privacy = "Standard"'
    place = model and model.place
    if model is None or place is None or place.is_here:
        return
    if model.base_url is None:
        text = f"sovereign privacy tier cannot use remote_model; {advice}"
        yield Fault(f"{path}.remote_model", text)
    else:
        text = "sovereign privacy tier cannot use a base_url off this machine, got "
        yield Fault(f"{path}.base_url", f"{text}{model.base_url!r}; {advice}")


def _remote_server_faults(
    privacy: PrivacyTier | None, servers: Sequence[McpServerConfig | None]
) -> Iterator[Fault]:
    """Yield a fault for each server that must not get data. ``None`` stands for unknown."""
    for index, server in enumerate(servers):
        if server is None or server.url is None or is_loopback_url(server.url):
            continue
        path, name = f"mcp_servers[{index}].url", repr(server.name)
        if privacy is PrivacyTier.SOVEREIGN:
            text = "sovereign privacy tier blocks network MCP transport for server "
            yield Fault(path, text + name)
        elif privacy is PrivacyTier.PRIVATE and not server.private_host:
            text = f"private privacy tier blocks the MCP server {name} off this machine; "
            yield Fault(path, text + "if its host is your own, say private_host = true")


def _grant_faults(path: str, grant: Capability) -> Iterator[Fault]:
    kind, scope = grant.kind, grant.scope
    if kind is CapabilityKind.SPAWN:
        yield from count_faults(f"{path}.max_depth", grant.max_depth)
    elif grant.max_depth != 0:
        text = f"means nothing for {kind.value}, got {grant.max_depth!r}"
        yield Fault(f"{path}.max_depth", text)
    if kind is CapabilityKind.MCP:
        # zip() leaves the missing ones of a scope that is too short to "".
        for key, value in zip(("server", "tool"), (*scope, "", ""), strict=False):
            if not value.strip():
                text = "must not be empty; write its name, or '*' for all"
                yield Fault(f"{path}.{key}", text)
    elif kind in SCOPE_KEYS:
        key = f"{path}.{SCOPE_KEYS[kind]}"
        if not scope:
            text = "must not be empty: an empty list allows nothing; '*' allows all"
            yield Fault(key, text)
        yield from text_faults(key, scope)
        yield from (Fault(key, text) for text in map(_trouble_of(kind), scope) if text)
    elif scope:
        yield Fault(path, f"{kind.value} takes no scope, got {scope!r}")


def _trouble_of(kind: CapabilityKind) -> Callable[[str], str]:
    match kind:
        case CapabilityKind.NETWORK:
            return _host_trouble
        case CapabilityKind.FILE_READ | CapabilityKind.FILE_WRITE:
            return _path_trouble
        case _:
            return lambda _: ""


def _path_trouble(path: str) -> str:
    """Return why *path* could never cover anything; empty if it could."""
    if trouble := control_trouble(path):
        return trouble
    if ".." in path.split("/"):
        return f"must not contain '..', got {path!r}; such a path covers nothing"
    return ""


def _host_trouble(host: str) -> str:
    """Return why *host* could never cover anything; empty if it could."""
    if host.startswith("*."):
        return f"must not be a pattern, got {host!r}; write {host[1:]!r} instead"
    from agentpool._manifest.hosts import is_host_rule  # noqa: PLC0415  # few grant a host

    if host.strip() and not is_host_rule(host):  # an empty one is said already
        text = "must be a host, '.host', an address or a network, perhaps with a port"
        return f"{text}, got {shown(host)}"
    return ""
