"""What grants allow, for every set of grants: nothing that was not granted."""

from hypothesis import given
from hypothesis import strategies as st

from agentpool import Capability, CapabilityKind
from agentpool._manifest.capability import (
    ANYTHING,
    SCOPE_KEYS,
    grants_allow,
    host_covers,
    path_covers,
)

PARTS = st.sampled_from(["a", "b", "ab", "..", ".", ""])
PATHS = st.builds(
    lambda root, parts: root + "/".join(parts), st.sampled_from(["", "/"]), st.lists(PARTS)
)
LABELS = st.sampled_from(["a", "B", "org", "example"])
HOSTS = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
SCOPES = st.sampled_from(["a", "b", "c", "a/b", "/a", "/a/b", ".a", "x.a", ANYTHING, ""])
KINDS = st.sampled_from(sorted(SCOPE_KEYS, key=str))
CAPABILITIES = st.builds(
    Capability,
    st.sampled_from(sorted(CapabilityKind, key=str)),
    st.lists(SCOPES, max_size=2).map(tuple),
    st.integers(0, 3),
)


@given(CAPABILITIES)
def test_no_grants_allow_nothing(required: Capability) -> None:
    """Deny by default."""
    assert not grants_allow((), required)


@given(st.lists(CAPABILITIES), CAPABILITIES)
def test_another_kind_never_helps(grants: list[Capability], required: Capability) -> None:
    """Only grants of the required kind count."""
    others = [grant for grant in grants if grant.kind is not required.kind]
    assert not grants_allow(others, required)


@given(st.lists(CAPABILITIES), CAPABILITIES, CAPABILITIES)
def test_a_further_grant_takes_nothing_away(
    grants: list[Capability], more: Capability, required: Capability
) -> None:
    """There are no denials among grants, so their order does not matter either."""
    if grants_allow(grants, required):
        assert grants_allow([more, *grants], required)
    assert grants_allow(grants, required) is grants_allow(grants[::-1], required)


@given(KINDS, st.lists(SCOPES), st.lists(SCOPES))
def test_grants_add_up(kind: CapabilityKind, granted: list[str], wanted: list[str]) -> None:
    """One grant of many scopes is many grants of one scope."""
    required = Capability(kind, tuple(wanted))
    together = grants_allow([Capability(kind, tuple(granted))], required)
    assert grants_allow([Capability(kind, (scope,)) for scope in granted], required) is (
        together if granted else False
    )


@given(KINDS, st.lists(SCOPES, min_size=1), st.lists(SCOPES, min_size=1))
def test_needing_more_is_harder(
    kind: CapabilityKind, granted: list[str], wanted: list[str]
) -> None:
    """A tool is allowed exactly if each of its scopes is."""
    grants = [Capability(kind, tuple(granted))]
    whole = grants_allow(grants, Capability(kind, tuple(wanted)))
    assert whole is all(grants_allow(grants, Capability(kind, (one,))) for one in wanted)


@given(KINDS, st.lists(SCOPES))
def test_a_star_covers_all_and_only_a_star_covers_it(
    kind: CapabilityKind, granted: list[str]
) -> None:
    """To need everything is to need a grant that was written to mean it."""
    everything = Capability(kind, (ANYTHING,))
    assert grants_allow([everything], Capability(kind, tuple(granted)))
    grants = [Capability(kind, tuple(granted))]
    assert grants_allow(grants, everything) is (ANYTHING in granted)


@given(PATHS, PATHS, PATHS)
def test_path_containment_is_an_order(one: str, two: str, three: str) -> None:
    """What lies below what lies below lies below."""
    if path_covers(one, two) and path_covers(two, three):
        assert path_covers(one, three)
    if one and ".." not in one.split("/"):
        assert path_covers(one, one)


@given(PATHS, st.lists(PARTS))
def test_whatever_is_below_a_path_is_covered_unless_it_climbs(root: str, parts: list[str]) -> None:
    """And what climbs is covered by nothing but a star."""
    path = "/".join([root, *parts]) if root not in {"", "/"} else root + "/".join(parts)
    climbs = ".." in path.split("/")
    if climbs:
        assert not path_covers(root, path)
    elif root and path.startswith("/") == root.startswith("/"):
        assert path_covers(root, path)


@given(HOSTS, HOSTS)
def test_a_leading_dot_covers_what_is_below_and_only_that(rule: str, host: str) -> None:
    """Whatever the case, and never a host whose name only ends the same."""
    assert host_covers("." + rule, f"{host}.{rule}".upper())
    assert not host_covers("." + rule, rule)
    assert not host_covers("." + rule, f"x{rule}")
    assert host_covers(rule, host) is (rule.lower() == host.lower())
