"""Which URLs, hosts and addresses an agent may connect to."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentpool import AgentManifest, Capability, ManifestError, ToolError
from agentpool._manifest.hosts import HostRules, HttpUrl, is_public


def may(url: str, *scopes: str) -> bool:
    """Return whether *scopes* cover *url*."""
    try:
        HostRules(scopes).check_url(HttpUrl.parse(url))
    except ToolError:
        return False
    return True


@pytest.mark.parametrize(
    "url",
    [
        "https://allowed.com:x@evil.com/",
        "https://allowed.com:443@169.254.169.254/",
        "https://allowed.com@evil.com/",
        "https://evil.com\\@allowed.com/",
        "https://evil.com/\\allowed.com",
        "https://allowed.com%2eevil.com/",
        "https://evil.com#@allowed.com/",
        "https://evil.com?@allowed.com/",
        "https://allowed.com.evil.com/",
        "https://allowed.com\t.evil.com/",
        "//allowed.com/",
        "ftp://allowed.com/",
        "file://allowed.com/etc/passwd",
        "https:///allowed.com/",
        "https://[allowed.com]/",
        "https://[::1]allowed.com/",
        "https://allowed.com:0/",
        "https://allowed.com:99999/",
        "https://allowed.com:8080/",
        "https://",
        "x" * 9000,
    ],
)
def test_only_the_parsed_host_counts(url: str) -> None:
    """Each of them begins with, ends with or contains a host that is allowed."""
    assert not may(url, "allowed.com")


@pytest.mark.parametrize(
    ("url", "scope"),
    [
        ("HTTPS://Allowed.COM/x", "allowed.com"),
        ("https://allowed.com./", "Allowed.com"),
        ("http://a.b.allowed.com/", ".allowed.com"),
        ("https://b\u00fccher.example/", "xn--bcher-kva.example"),
        ("https://xn--bcher-kva.example/", "B\u00fccher.example."),
        ("http://allowed.com:8080/", "allowed.com:8080"),
        ("http://[::1]:81/", "[::1]:81"),
        ("http://[0:0::1]/", "::1"),
        ("http://10.1.2.3/", "10.0.0.0/8"),
        ("http://127.0.0.1/", "127.0.0.1"),
        ("http://anything.example:81/", "*"),
    ],
)
def test_one_host_has_one_form(url: str, scope: str) -> None:
    """Case, the last dot, IDNA, the long form of an address."""
    assert may(url, scope)


@pytest.mark.parametrize(
    "host",
    ["2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "127.0.0.1.1", "0", "1.2.3.0x4",
     "\uff11\uff12\uff17.1", "[::1%25eth0]", "[fe80::1%eth0]", "a..b", "-a.b", "a b"],
)  # fmt: skip
def test_decimal_octal_and_hex_addresses_are_refused(host: str) -> None:
    """Some programs take them for 127.0.0.1, whatever the rule says."""
    with pytest.raises(ToolError):
        HttpUrl.parse(f"http://{host}/")


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.9.9.9", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "192.168.1.1",  # noqa: S104
     "169.254.169.254", "100.64.0.1", "192.0.0.9", "198.18.0.1", "224.0.0.1", "240.0.0.1",
     "255.255.255.255", "::", "::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::7f00:1", "fe80::1",
     "fc00::1", "ff02::1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "2002:7f00:1::", "2001::1",
     "2001:db8::1", "fec0::1"],
)  # fmt: skip
def test_what_is_not_public_must_be_named_itself(address: str) -> None:
    """A star, a name that leads there and another address do not name it."""
    where = ipaddress.ip_address(address)
    assert not is_public(where)
    url = HttpUrl.parse("http://inside.example/")
    for scopes in (("*",), ("inside.example",), ("*", "8.8.8.8")):
        with pytest.raises(ToolError, match="not a public address"):
            HostRules(scopes).check_address(url, where)
    named = f"[{address}]:80" if ":" in address else f"{address}:80"
    HostRules((named,)).check_address(url, where)
    with pytest.raises(ToolError):
        HostRules((named,)).check_address(HttpUrl.parse("https://inside.example/"), where)


@pytest.mark.parametrize("host", ["\u2603.example", "xn--\u00e9.example", "b\u00fccher..example"])
def test_a_host_that_is_no_name_in_any_script_is_refused(host: str) -> None:
    """The model is told, whatever the library of names says of it."""
    with pytest.raises(ToolError, match="is neither a valid name nor an address"):
        HttpUrl.parse(f"https://{host}/")


def test_public_addresses_need_no_name() -> None:
    """NAT64 is judged by the address in it."""
    for address in ("8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"):
        assert is_public(ipaddress.ip_address(address))
        HostRules(("*",)).check_address(
            HttpUrl.parse("http://a.example/"), ipaddress.ip_address(address)
        )


def test_localhost_names_loopback_for_itself() -> None:
    """And for nobody else: another name that leads there is a trap."""
    rules, loopback = HostRules(("localhost:81", "a.example:81")), ipaddress.ip_address("127.0.0.1")
    rules.check_address(HttpUrl.parse("http://localhost:81/"), loopback)
    for url in ("http://a.example:81/", "http://localhost:82/"):
        with pytest.raises(ToolError):
            rules.check_address(HttpUrl.parse(url), loopback)


def test_a_rule_that_cannot_be_read_covers_nothing() -> None:
    """Denied by default."""
    for scope in ("http://a.example", "a.example:x", "a b", "", "."):
        assert not may("http://a.example/", scope)


def test_a_url_is_asked_for_as_it_was_judged() -> None:
    """Made from its parts; the fragment stays at home, other characters are encoded."""
    url = HttpUrl.parse("HTTP://[::1]:80/\u00e4 b?q=\u00fc#frag".replace(" ", "%20"))
    assert str(url) == "http://[::1]/%C3%A4%20b?q=%C3%BC"
    assert str(url.join("//b.example:81/x")) == "http://b.example:81/x"
    assert str(url.join("../y")) == "http://[::1]/y"


# --- only the parsed host counts, for every URL

LABELS = st.sampled_from(["allowed", "evil", "com", "b\u00fccher", "127", "0x7f", "", "%65vil"])
HOSTS = st.lists(LABELS, min_size=1, max_size=3).map(".".join) | st.sampled_from(
    ["[::1]", "[::ffff:127.0.0.1]", "127.0.0.1", "allowed.com", "ALLOWED.com."]
)
USERS = st.sampled_from(["", "allowed.com@", "allowed.com:443@", "u:p@", "\\@", "/@"])
URLS = st.tuples(
    st.sampled_from(["http://", "HTTPS://", "http:/", "//", "http:\\\\"]),
    USERS, HOSTS, st.sampled_from(["", ":80", ":443", ":0", ":x", ":8080"]),
    st.sampled_from(["", "/", "/allowed.com", "\\allowed.com", "?allowed.com", "#@allowed.com"]),
).map("".join)  # fmt: skip


@given(URLS)
def test_a_url_is_allowed_only_if_its_parsed_host_is(text: str) -> None:
    """Whatever is allowed has exactly that host, and its own text parses to itself."""
    try:
        url = HttpUrl.parse(text)
        HostRules(("allowed.com",)).check_url(url)
    except ToolError:
        return
    assert (url.host, url.port in {80, 443}) == ("allowed.com", True)
    assert HttpUrl.parse(str(url)) == url
    assert "@" not in text.partition("//")[2].partition("/")[0].partition("?")[0].partition("#")[0]


@pytest.mark.parametrize(
    ("scope", "url"),
    [
        ("example.org:8080", "http://example.org:8080/"),
        (".example.org:8080", "http://a.example.org:8080/"),
        ("[::1]:80", "http://[::1]/"),
        ("::1", "http://[::1]/"),
        ("10.0.0.0/8", "http://10.1.2.3/"),
        ("fd00::/8", "http://[fd00::1]/"),
        ("127.0.0.1:1234", "http://127.0.0.1:1234/"),
        ("b\u00fccher.example", "https://b\u00fccher.example/"),
    ],
)
def test_a_manifest_takes_what_the_tool_takes(scope: str, url: str) -> None:
    """A grant that works in Python can be written in a file."""
    manifest = AgentManifest.parse(
        f'[[capabilities]]\ntype = "network"\nallowed_hosts = ["{scope}"]\n'
    )
    assert manifest.capabilities == (Capability.network(scope),)
    assert may(url, *manifest.capabilities[0].scope)


@pytest.mark.parametrize(
    "scope",
    [
        "a.example:0", "a.example:99999", "a.example:http", "a.example/path", "me@a.example",
        "[::1", "[::1]x", "0x7f.1", "a b", "a..b", "10.0.0.1/8", ".", "api.*", "*.a.example",
    ],
)  # fmt: skip
def test_a_manifest_refuses_what_would_cover_nothing(scope: str) -> None:
    """Nobody finds out at the first request that a grant was never one."""
    assert not may("http://a.example/", scope)
    with pytest.raises(ManifestError) as caught:
        AgentManifest(capabilities=(Capability.network("ok.example", scope),))
    (fault,) = caught.value.faults
    assert fault.path == "capabilities[0].allowed_hosts"
