"""Reads the MCP servers of a manifest in TOML.

A manifest contains no secrets: ``env`` and ``api_key_env`` name variables.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from agentpool._manifest.parts import McpServerConfig, McpTransport, OnUnknown
from agentpool._manifest.toml_table import TomlTable, words_of

_TRANSPORTS: Final = {transport.value: transport for transport in McpTransport}
_ON_UNKNOWN: Final[Mapping[str, OnUnknown]] = words_of(OnUnknown)
_OLD_TRANSPORTS: Final[Mapping[str, str]] = dict.fromkeys(
    ("sse", "web_socket", "websocket"), "; such servers speak 'http' now"
)


def read_server(table: TomlTable, homes: Mapping[str, str]) -> McpServerConfig | None:
    """Return the server in *table*. ``None``: it has faults, which are noted.

    Args:
        table: One ``[[mcp_servers]]`` table; it collects what is wrong.
        homes: Keys that belong elsewhere in the file, each with its place, for advice.
    """
    table.require("name", "write a name of letters, digits, '_' and '-'")
    table.require("transport", "write 'stdio' or 'http'")
    name = table.text("name", "")
    transport = table.choice("transport", _TRANSPORTS, None, hints=_OLD_TRANSPORTS)
    command, url = table.texts("command"), table.text("url", None)
    capabilities, env = table.texts("capabilities"), table.texts("env")
    api_key_env = table.text("api_key_env", None)
    private_host = table.flag("private_host", default=False)
    on_unknown: OnUnknown = table.choice("on_unknown", _ON_UNKNOWN, "report")
    table.close(homes)
    if transport is None:
        return None
    return table.build(
        McpServerConfig,
        name=name,
        transport=transport,
        command=command,
        url=url,
        capabilities=capabilities,
        env=env,
        api_key_env=api_key_env,
        private_host=private_host,
        on_unknown=on_unknown,
    )
