"""URLs, hosts and addresses that an agent may connect to, parsed without ambiguity.

Rules:

1. A URL is parsed once, here, and the request is made from the parts: no other parser can read the
   URL differently. URLs on which clients disagree are refused: those with a user name, a backslash,
   white space, ``%`` in the host, or numbers that some read as an address and others as a name.
2. A host is compared in lower case, without its last dot, in the ASCII form of IDNA.
3. A rule is a name, ``.name`` for all hosts below it, ``*``, an address or a network, each perhaps
   with a port. Without a port it covers 80 and 443; ``*`` covers every port.
4. An address that is not public is covered only by a rule that names the address or its network:
   neither ``*`` nor a rule for the host name that leads to it is enough. There is one exception:
   the rule ``localhost`` lets the host ``localhost`` lead to a loopback address.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Final, Self, TypeAlias, final
from urllib.parse import quote, urljoin

import attrs
import idna

from agentpool._errors import ToolError
from agentpool._manifest.capability import ANYTHING, host_covers
from agentpool._manifest.urls import split_url

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

PORTS: Final = {"http": 80, "https": 443}

_HOST: Final = re.compile(
    r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
)
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_MOST_HOST_CHARS: Final = 253
_MOST_PORT: Final = 65_535
_MOST_URL_CHARS: Final = 8_000

# Of the global IPv6 space, what tunnels, translates or documents: another address is inside.
_NO_PLACES: Final = tuple(
    ipaddress.ip_network(text)
    for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "192.0.0.0/24",
                 "192.88.99.0/24", "100.64.0.0/10", "240.0.0.0/4")
)  # fmt: skip
_GLOBAL_V6: Final = ipaddress.IPv6Network("2000::/3")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


@final
@attrs.frozen
class HttpUrl:
    """A parsed URL."""

    scheme: str
    """``http`` or ``https``."""
    host: str
    """A name or an address, without brackets."""
    port: int
    """The port, whether or not the URL has it."""
    target: str
    """Path and query, as they are in the request."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse *text*.

        Raises:
            ToolError: If it is not a URL, or is a URL that another program might read differently.
        """
        parts = None if len(text) > _MOST_URL_CHARS else split_url(text)
        if parts is None:
            raise ToolError(
                "the URL is too long, has white space or a backslash in it, or cannot be read; "
                "write http://host/path"
            )
        if parts.scheme not in PORTS:
            raise ToolError("only http and https URLs can be used")
        if "@" in parts.netloc:
            # Not quoted: it may be a password.
            raise ToolError("a URL must not have a user name or a password before its host")
        host = parse_host(parts.netloc)
        port = parts.port or PORTS[parts.scheme]
        target = quote(parts.path or "/", safe="/%:;=@!$&'()*+,~-._")
        if parts.query:
            target += "?" + quote(parts.query, safe="/%:;=@!$&'()*+,~-._?")
        return cls(parts.scheme, host, port, target)

    def join(self, location: str) -> HttpUrl:
        """Return the URL that a redirect to *location* leads to.

        Raises:
            ToolError: If it does not lead to a URL that can be used.
        """
        return HttpUrl.parse(urljoin(str(self), location))

    @property
    def authority(self) -> str:
        """The value of the ``Host`` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        """Return the URL without its fragment."""
        return f"{self.scheme}://{self.authority}{self.target}"


def parse_host(netloc: str) -> str:
    """Return the host in *netloc* in its canonical form.

    Raises:
        ToolError: If it is not a host, or some clients would take it for a different host.
    """
    if netloc.startswith("["):
        inside, bracket, rest = netloc[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ToolError(
                "the host in brackets must end with ']', followed by nothing or ':' and a port"
            )
        try:
            return str(ipaddress.IPv6Address(inside if "%" not in inside else ""))
        except ValueError:
            raise ToolError("the host in brackets must be an IPv6 address, such as [::1]") from None
    host = netloc.partition(":")[0]
    if not host.isascii():
        try:
            host = idna.encode(host, uts46=True).decode()
        except idna.IDNAError:
            raise ToolError(f"the host {host!r} is neither a valid name nor an address") from None
    host = host.lower().removesuffix(".")
    if len(host) > _MOST_HOST_CHARS or not _HOST.fullmatch(host):
        raise ToolError(f"the host {host!r} is neither a valid name nor an address")
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        # 2130706433, 0x7f.1 and 0177.0.0.1 are addresses to some programs.
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise ToolError(
                f"the host {host!r} is an unusual form of an address; write four decimal numbers"
            ) from None
    return host


def is_public(address: Address) -> bool:
    """Return whether *address* belongs to the public internet.

    >>> is_public(ipaddress.ip_address("::ffff:127.0.0.1"))
    False
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if address not in _GLOBAL_V6:
            return False
    return (
        address.is_global
        and not address.is_multicast
        and not any(address in place for place in _NO_PLACES if place.version == address.version)
    )


@final
@attrs.frozen
class _Rule:
    name: str
    """A name, ``.name`` or ``*``. Empty: a network."""
    network: Network | None
    port: int | None

    def covers_port(self, port: int) -> bool:
        if self.port is not None:
            return port == self.port
        return self.name == ANYTHING or port in PORTS.values()


@final
@attrs.frozen
class HostRules:
    """The hosts and addresses that may be connected to."""

    scopes: tuple[str, ...]
    """The rules as they were written. An invalid rule covers nothing."""
    _rules: tuple[_Rule, ...] = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        """Parse the rules once."""
        object.__setattr__(self, "_rules", tuple(_read_rules(self.scopes)))

    def check_url(self, url: HttpUrl) -> None:
        """Raise if no rule covers the host of *url*.

        Raises:
            ToolError: If no rule covers the host. Says which rules there are.
        """
        address = address_of(url.host)
        for rule in self._rules:
            if not rule.covers_port(url.port):
                continue
            if rule.network is not None and address is not None and address in rule.network:
                return
            # Which addresses a name has, or "*" may mean, is checked when they are known.
            if rule.name and host_covers(rule.name, url.host):
                return
        raise ToolError(f"host {url.authority!r} is not in allowed_hosts: {', '.join(self.scopes)}")

    def check_address(self, url: HttpUrl, address: Address) -> None:
        """Raise if *address*, one of the addresses of *url*'s host, may not be connected to.

        Raises:
            ToolError: If the address is not public, and no rule names it.
        """
        if is_public(address):
            return
        named = (r for r in self._rules if r.network and r.covers_port(url.port))
        if any(address in rule.network for rule in named if rule.network is not None):
            return
        if url.host == "localhost" and address.is_loopback and self._names_localhost(url.port):
            return
        raise ToolError(
            f"host {url.host!r} leads to {address}, which is not a public address; "
            "allowed_hosts must name that address or its network"
        )

    def _names_localhost(self, port: int) -> bool:
        return any(rule.name == "localhost" and rule.covers_port(port) for rule in self._rules)


def is_host_rule(scope: str) -> bool:
    """Return whether *scope* is a valid rule, so that it could cover some host.

    >>> is_host_rule("example.org:8080"), is_host_rule("https://example.org")
    (True, False)
    """
    return _read_rule(scope) is not None


def address_of(host: str) -> Address | None:
    """Return *host* as an address. ``None``: it is a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _read_rules(scopes: Iterable[str]) -> Iterable[_Rule]:
    for scope in scopes:
        rule = _read_rule(scope)
        if rule is not None:
            yield rule


def _read_rule(scope: str) -> _Rule | None:
    if scope == ANYTHING:
        return _Rule(ANYTHING, None, None)
    try:
        return _Rule("", ipaddress.ip_network(scope), None)
    except ValueError:
        below = "." if scope.startswith(".") else ""
        netloc = scope.removeprefix(".")
    try:
        host = parse_host(netloc)
    except ToolError:
        return None
    _, colon, word = netloc.rpartition("]")[2].partition(":")
    if colon and not (word.isascii() and word.isdigit() and 0 < int(word) <= _MOST_PORT):
        return None
    port = int(word) if colon else None
    address = address_of(host)
    network = None if address is None else ipaddress.ip_network(address)
    return _Rule("" if network else below + host, network, port)
