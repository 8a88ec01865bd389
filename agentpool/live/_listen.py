"""A socket that only this machine can reach."""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import Final

from agentpool._checks import expect_arguments
from agentpool._errors import UsageError

_LAST_PORT: Final = 65_535


def listen(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """Return a listening socket on *host*, a loopback address of this machine.

    Args:
        host: An IP address such as ``127.0.0.1`` or ``::1``.
        port: The port. 0: any free one.

    Raises:
        UsageError: If another machine could reach the socket, or the port is taken.
    """
    expect_arguments(listen, locals())
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError as error:
        raise UsageError(f"host must be an IP address such as 127.0.0.1, got {host!r}") from error
    if not loopback:
        raise UsageError(
            f"host must be a loopback address such as 127.0.0.1, got {host!r}; "
            "anyone who can reach the page could cancel agents"
        )
    if not 0 <= port <= _LAST_PORT:
        raise UsageError(f"port must be from 0 to {_LAST_PORT}, got {port!r}; 0 picks a free one")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise UsageError(f"cannot listen on {host}:{port}: {reason}; try another port") from error
