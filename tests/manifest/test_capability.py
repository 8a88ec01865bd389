"""What a grant covers, and what it does not."""

import pickle

import attrs
import pytest

from agentpool import Capability, CapabilityKind, PrivacyTier
from agentpool._manifest.capability import (
    SCOPE_KEYS,
    grant_in_toml,
    grants_allow,
    host_covers,
    path_covers,
)

SIMPLE_KINDS = (
    CapabilityKind.MEMORY,
    CapabilityKind.RAG,
    CapabilityKind.INFERENCE,
    CapabilityKind.COMPUTE,
    CapabilityKind.BROWSER,
    CapabilityKind.MESSAGE,
)


def test_a_tool_that_needs_nothing_is_always_allowed() -> None:
    """Most tools of a user touch nothing that has to be granted."""
    assert grants_allow((), None)


@pytest.mark.parametrize("kind", CapabilityKind)
def test_no_grants_allow_nothing(kind: CapabilityKind) -> None:
    """Deny by default, whatever is asked for."""
    assert not grants_allow((), Capability(kind))


@pytest.mark.parametrize("kind", SIMPLE_KINDS)
def test_a_grant_without_scope_allows_its_own_kind_only(kind: CapabilityKind) -> None:
    """Memory is not inference."""
    others = [Capability(other) for other in SIMPLE_KINDS if other is not kind]
    assert grants_allow([Capability(kind)], Capability(kind))
    assert not grants_allow(others, Capability(kind))


def test_grants_add_up() -> None:
    """Two grants of one command each are a grant of two commands."""
    needed = Capability.shell("ls", "cat")
    assert grants_allow([Capability.shell("ls"), Capability.shell("cat")], needed)
    assert not grants_allow([Capability.shell("ls"), Capability.file_read("cat")], needed)


@pytest.mark.parametrize("kind", SCOPE_KEYS)
def test_a_grant_of_an_empty_list_allows_nothing(kind: CapabilityKind) -> None:
    """Not even a tool that says nothing about what it touches."""
    assert not grants_allow([Capability(kind)], Capability(kind))
    assert not grants_allow([Capability(kind, ("",))], Capability(kind, ("",)))


def test_a_requirement_without_scope_needs_a_grant_that_allows_something() -> None:
    """Such a tool checks each path itself, at the moment of use."""
    assert grants_allow([Capability.file_read("/data")], Capability.file_read())
    assert not grants_allow([Capability.file_write("/data")], Capability.file_read())


def test_only_a_star_covers_a_star() -> None:
    """A tool that needs everything must not be satisfied with a part."""
    everything = Capability.file_read("*")
    assert grants_allow([Capability.file_read("*")], everything)
    assert not grants_allow([Capability.file_read(".", "/")], everything)
    assert not grants_allow([Capability.network(".org")], Capability.network("*"))
    assert not grants_allow([Capability.shell("ls")], Capability.shell("*"))


@pytest.mark.parametrize(
    ("root", "path", "covered"),
    [
        ("/data", "/data", True),
        ("/data", "/data/a/b.txt", True),
        ("/data/", "/data//./a", True),
        ("/", "/etc/passwd", True),
        (".", "notes.txt", True),
        ("notes", "notes/a", True),
        ("*", "/anything", True),
        ("*", "../anything", True),
        ("/data", "/database", False),
        ("/data", "/dat", False),
        ("/data", "data", False),
        (".", "/data", False),
        ("/data", "/data/../etc", False),
        ("/data/..", "/data", False),
        (".", "..", False),
        ("", "notes.txt", False),
        (".", "", False),
        (".", "*", False),
    ],
)
def test_paths_are_covered_part_by_part(root: str, path: str, *, covered: bool) -> None:
    """The beginning of a name is not a folder, and nobody climbs out of one."""
    assert path_covers(root, path) is covered
    assert grants_allow([Capability.file_read(root)], Capability.file_read(path)) is covered


@pytest.mark.parametrize(
    ("rule", "host", "covered"),
    [
        ("example.org", "example.org", True),
        ("Example.ORG", "example.org.", True),
        (".example.org", "api.example.org", True),
        (".example.org", "a.b.Example.org", True),
        ("*", "anything", True),
        ("::1", "::1", True),
        ("example.org", "api.example.org", False),
        (".example.org", "example.org", False),
        (".example.org", ".example.org", False),
        (".example.org", "evilexample.org", False),
        ("example.org", "example.org.evil.com", False),
        ("", "", False),
        (".", ".", False),
        ("", "example.org", False),
    ],
)
def test_hosts_are_covered_by_name(rule: str, host: str, *, covered: bool) -> None:
    """A host below another is meant only if the rule begins with a dot."""
    assert host_covers(rule, host) is covered
    assert grants_allow([Capability.network(rule)], Capability.network(host)) is covered


def test_a_spawn_grant_covers_what_is_not_deeper() -> None:
    """And a requirement that does not say how deep needs one generation."""
    two = [Capability.spawn(2)]
    assert grants_allow(two, Capability.spawn(1))
    assert grants_allow(two, Capability.spawn(2))
    assert not grants_allow(two, Capability.spawn(3))
    assert not grants_allow([Capability.spawn(0)], Capability.spawn(0))
    assert grants_allow([Capability.spawn(1)], Capability.spawn(0))


@pytest.mark.parametrize(
    ("granted", "allowed"),
    [
        (("index", "search"), True),
        (("index", "*"), True),
        (("*", "search"), True),
        (("*", "*"), True),
        (("index", "write"), False),
        (("other", "search"), False),
        (("index", ""), False),
        (("index",), False),
        ((), False),
    ],
)
def test_an_mcp_grant_names_server_and_tool(granted: tuple[str, ...], *, allowed: bool) -> None:
    """Each of them may be a star."""
    grant = Capability(CapabilityKind.MCP, granted)
    assert grants_allow([grant], Capability.mcp("index", "search")) is allowed


def test_an_mcp_requirement_that_names_nothing_is_never_met() -> None:
    """Empty against empty is not a match: an empty grant allows nothing."""
    nothing = Capability(CapabilityKind.MCP)
    assert not grants_allow([nothing, Capability.mcp("*", "*")], nothing)
    half = Capability.mcp("index", "")
    assert not grants_allow([half], half)


@pytest.mark.parametrize(
    ("grant", "text"),
    [
        (Capability(CapabilityKind.MEMORY), "memory"),
        (Capability.shell("git", "ls"), "shell [git, ls]"),
        (Capability.file_write("/tmp"), "file_write [/tmp]"),  # noqa: S108  # a name only
        (Capability.mcp("index", "search"), "mcp [index, search]"),
        (Capability.spawn(2), "spawn (depth 2)"),
    ],
)
def test_a_grant_reads_as_a_person_would_write_it(grant: Capability, text: str) -> None:
    """It stands in errors that people read."""
    assert str(grant) == text


def test_a_grant_is_a_value() -> None:
    """It is compared, crosses process lines and does not change."""
    grant = Capability.network("example.org")
    assert pickle.loads(pickle.dumps(grant)) == grant
    assert len({grant, Capability.network("example.org")}) == 1
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        grant.scope = ()  # type: ignore[misc]  # that is what is tested


@pytest.mark.parametrize("data", PrivacyTier)
@pytest.mark.parametrize("place", PrivacyTier)
def test_data_goes_only_to_places_as_strict_as_itself(
    data: PrivacyTier, place: PrivacyTier
) -> None:
    """Standard data may go anywhere, sovereign data nowhere but here."""
    strictest_first = list(PrivacyTier)
    allowed = strictest_first.index(place) <= strictest_first.index(data)
    assert data.allows(place) is allowed


@pytest.mark.parametrize(
    ("required", "text"),
    [
        (Capability(CapabilityKind.MEMORY), 'type = "memory"'),
        (Capability(CapabilityKind.SPAWN), 'type = "spawn", max_depth = 1'),
        (Capability.spawn(2), 'type = "spawn", max_depth = 2'),
        (Capability.mcp("files", "read"), 'type = "mcp", server = "files", tool = "read"'),
        (Capability(CapabilityKind.MCP), 'type = "mcp", server = "*", tool = "*"'),
        (Capability.shell("git", "ls"), 'type = "shell", allowed_commands = ["git", "ls"]'),
    ],
)
def test_a_grant_is_told_as_a_manifest_has_it(required: Capability, text: str) -> None:
    """Whoever reads it can write it down."""
    assert grant_in_toml(required) == f"[[capabilities]] {text}"
