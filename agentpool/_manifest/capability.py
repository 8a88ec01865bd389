"""Capabilities: grants, privacy tiers, and the rules that compare them.

Rules:

1. Nothing is allowed unless it is granted.
2. Grants add up: ``shell [ls]`` and ``shell [cat]`` allow a tool that needs both.
3. Paths are compared by containment, part by part: ``/data`` covers ``/data/a.txt`` and
   not ``/database``. A path that climbs out with ``..`` is covered only by ``*``.
4. Hosts are compared by name without case; ``.example.org`` covers every host below
   ``example.org`` and not ``example.org`` itself.
5. Only a written ``*`` means everything: an empty grant allows nothing. A requirement of ``*``
   needs everything, so only ``*`` covers it.

This module does not look up where a name leads on the disk (symlinks) or in the network
(addresses): the tools do that at the moment of use.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Final, Self, final

import attrs

from agentpool._base import Value
from agentpool._checks import Checked

ANYTHING = "*"
"""The scope that covers every other."""


class PrivacyTier(enum.Enum):
    """Where an agent's data may go, strictest first."""

    SOVEREIGN = "Sovereign"
    """To this machine only."""
    PRIVATE = "Private"
    """To services with which you have a contract."""
    STANDARD = "Standard"
    """To any service."""

    def allows(self, other: PrivacyTier) -> bool:
        """Return whether data of this tier may go to something of tier *other*."""
        return _STRICTNESS[other] >= _STRICTNESS[self]


_STRICTNESS = {PrivacyTier.STANDARD: 0, PrivacyTier.PRIVATE: 1, PrivacyTier.SOVEREIGN: 2}


class CapabilityKind(enum.Enum):
    """The kinds of grant, with their names in a manifest."""

    MEMORY = "memory"
    """Remember, and recall what was remembered."""
    RAG = "rag"
    """Look things up with tools of the program."""
    INFERENCE = "inference"
    """Ask the model once more, with a tool."""
    COMPUTE = "compute"
    """Compute with tools of the program."""
    BROWSER = "browser"
    """Browse with tools of the program."""
    MESSAGE = "message"
    """Send messages to other agents, and receive theirs."""
    FILE_READ = "file_read"
    """Read files below the allowed paths."""
    FILE_WRITE = "file_write"
    """Write files below the allowed paths."""
    SHELL = "shell"
    """Run the allowed commands."""
    NETWORK = "network"
    """Send requests to the allowed hosts."""
    MCP = "mcp"
    """Call a tool of a server in ``[[mcp_servers]]``."""
    SPAWN = "spawn"
    """Spawn children, as many generations deep as the grant allows."""


SCOPE_KEYS = {
    CapabilityKind.FILE_READ: "allowed_paths",
    CapabilityKind.FILE_WRITE: "allowed_paths",
    CapabilityKind.SHELL: "allowed_commands",
    CapabilityKind.NETWORK: "allowed_hosts",
}
"""The kinds with a list of scopes, and the list's name in a manifest."""


OUTSIDE_KINDS = frozenset(
    {
        CapabilityKind.MEMORY,
        CapabilityKind.RAG,
        CapabilityKind.COMPUTE,
        CapabilityKind.BROWSER,
        CapabilityKind.FILE_READ,
        CapabilityKind.SHELL,
        CapabilityKind.NETWORK,
        CapabilityKind.MCP,
    }
)
"""The kinds with tools that bring in text from outside. Answers of agents and models do not count,
since they were asked for."""


@final
@attrs.frozen(eq=False, repr=False)
class Capability(Value, Checked):
    """One grant, or one requirement."""

    kind: CapabilityKind
    """The kind of capability."""
    scope: tuple[str, ...] = ()
    """Commands, paths or hosts; for MCP the server and the tool. ``*`` is all."""
    max_depth: int = 0
    """For ``spawn``: the number of generations of children. 0 for every other kind."""
    ask_first: bool = False
    """Whether approval is needed before each call of a tool of this kind."""

    @classmethod
    def shell(cls, *commands: str) -> Self:
        """Grant these programs."""
        return cls(CapabilityKind.SHELL, commands)

    @classmethod
    def file_read(cls, *paths: str) -> Self:
        """Grant reading below these paths."""
        return cls(CapabilityKind.FILE_READ, paths)

    @classmethod
    def file_write(cls, *paths: str) -> Self:
        """Grant writing below these paths."""
        return cls(CapabilityKind.FILE_WRITE, paths)

    @classmethod
    def network(cls, *hosts: str) -> Self:
        """Grant connections to these hosts."""
        return cls(CapabilityKind.NETWORK, hosts)

    @classmethod
    def mcp(cls, server: str, tool: str) -> Self:
        """Grant *tool* of the MCP server *server*."""
        return cls(CapabilityKind.MCP, (server, tool))

    @classmethod
    def spawn(cls, max_depth: int) -> Self:
        """Grant child agents, *max_depth* generations deep."""
        return cls(CapabilityKind.SPAWN, max_depth=max_depth)

    def __str__(self) -> str:
        """Return the grant as a person would write it: ``shell [git, ls]``."""
        if self.kind is CapabilityKind.SPAWN:
            text = f"spawn (depth {self.max_depth})"
        elif self.scope:
            text = f"{self.kind.value} [{', '.join(self.scope)}]"
        else:
            text = self.kind.value
        return f"{text}, asks first" if self.ask_first else text


@final
class UnsaidCapabilities(tuple[Capability, ...]):
    """The default grants of a manifest without any. Equal to the same grants written out."""

    __slots__ = ()


DEFAULT_CAPABILITIES: Final = UnsaidCapabilities(
    (Capability(CapabilityKind.RAG), Capability(CapabilityKind.MEMORY))
)
"""The capabilities of an agent whose manifest gives none."""


def grant_in_toml(required: Capability) -> str:
    """Return the lines with which a manifest grants what is *required*.

    >>> grant_in_toml(Capability.shell("git"))
    '[[capabilities]] type = "shell", allowed_commands = ["git"]'
    """
    kind, more = required.kind, ""
    if kind is CapabilityKind.SPAWN:
        more = f", max_depth = {max(required.max_depth, 1)}"
    elif kind is CapabilityKind.MCP:
        server, name = (*required.scope, ANYTHING, ANYTHING)[:2]
        more = f', server = "{server}", tool = "{name}"'
    elif kind in SCOPE_KEYS:
        scopes = ", ".join(f'"{one}"' for one in required.scope) or '"…"'
        more = f", {SCOPE_KEYS[kind]} = [{scopes}]"
    return f'[[capabilities]] type = "{kind.value}"{more}'


def grants_allow(grants: Iterable[Capability], required: Capability | None) -> bool:
    """Return whether *grants* together allow what *required* asks for.

    ``None`` asks for nothing and is always allowed. A requirement without a scope, such
    as ``file_read`` of a tool that checks each path itself, is met by any grant of that
    kind that allows something.
    """
    if required is None:
        return True
    same_kind = [grant for grant in grants if grant.kind is required.kind]
    match required.kind:
        case CapabilityKind.SPAWN:
            return any(grant.max_depth >= max(required.max_depth, 1) for grant in same_kind)
        case CapabilityKind.MCP:
            return any(_mcp_covers(grant.scope, required.scope) for grant in same_kind)
        case kind if kind in SCOPE_KEYS:
            granted = [scope for grant in same_kind for scope in grant.scope]
            if not required.scope:
                return bool(granted)
            return all(
                any(_covers(kind, one, wanted) for one in granted) for wanted in required.scope
            )
        case _:
            return bool(same_kind)


def asks_first(grants: Iterable[Capability], required: Capability | None) -> bool:
    """Return whether one of *grants* wants approval before *required* is used.

    The tool itself checks which grant covers a call, so one grant of its kind that asks is enough.
    A grant for MCP names its tools, so only calls of these tools need approval.
    """
    return required is not None and any(
        grant.ask_first
        and grant.kind is required.kind
        and (grant.kind is not CapabilityKind.MCP or _mcp_covers(grant.scope, required.scope))
        for grant in grants
    )


def path_covers(root: str, path: str) -> bool:
    """Return whether *path* is *root* or lies below it, judged by its parts alone.

    Both are absolute or both are relative; anything with ``..`` in it is refused, since
    only the file system knows where that leads.
    """
    if root == ANYTHING:
        return True
    if not root or path in {"", ANYTHING}:
        return False
    root_parts, path_parts = _path_parts(root), _path_parts(path)
    if ".." in root_parts or ".." in path_parts or root.startswith("/") != path.startswith("/"):
        return False
    return path_parts[: len(root_parts)] == root_parts


def host_covers(rule: str, host: str) -> bool:
    """Return whether the *rule* covers *host*: equal, below a leading dot, or ``*``."""
    rule, host = rule.lower().rstrip("."), host.lower().rstrip(".")
    if rule == ANYTHING:
        return True
    if not rule:
        return False
    if rule.startswith("."):
        return host.endswith(rule) and len(host) > len(rule)
    return rule == host


def _covers(kind: CapabilityKind, granted: str, wanted: str) -> bool:
    if kind in {CapabilityKind.FILE_READ, CapabilityKind.FILE_WRITE}:
        return path_covers(granted, wanted)
    if kind is CapabilityKind.NETWORK:
        return host_covers(granted, wanted)
    return bool(granted) and granted in {ANYTHING, wanted}


def _mcp_covers(granted: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    # A grant without server and tool is empty, and so is one with an empty name.
    return (
        all(granted)
        and len(granted) == len(wanted) == len(("server", "tool"))
        and all(one in {ANYTHING, other} for one, other in zip(granted, wanted, strict=True))
    )


def _path_parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in {"", "."}]
