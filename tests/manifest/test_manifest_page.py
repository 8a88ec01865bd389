"""The page with the keys of a manifest has all of them, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest

from agentpool import (
    AgentManifest,
    BudgetConfig,
    CapabilityKind,
    McpServerConfig,
    ModelConfig,
    ResourceQuota,
)
from agentpool._manifest.capability import SCOPE_KEYS
from agentpool._manifest.context import ContextConfig
from agentpool.drivers import TokenPrice

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "manifest.md"


def table(heading: str) -> list[str]:
    """Return the keys in the table below *heading*."""
    (section,) = re.findall(
        rf"^## {re.escape(heading)}$(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    return re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)


@pytest.mark.parametrize(
    ("heading", "cls"),
    [
        ("At the top", AgentManifest),
        ("`[model]`", ModelConfig),
        ("`[model.price]`", TokenPrice),
        ("`[resources]`", ResourceQuota),
        ("`[context]`", ContextConfig),
        ("`[budget]`", BudgetConfig),
        ("`[[mcp_servers]]`", McpServerConfig),
    ],
)
def test_each_table_has_its_keys(heading: str, cls: type[attrs.AttrsInstance]) -> None:
    """But for those that are tables themselves."""
    tables = {
        "model",
        "resources",
        "budget",
        "context",
        "capabilities",
        "mcp_servers",
        "fallback",
        "price",
    }
    if cls is McpServerConfig:
        tables = set()  # there capabilities are names
    assert table(heading) == [one.name for one in attrs.fields(cls) if one.name not in tables]


def test_each_grant_has_its_line() -> None:
    """With the key of its scope."""
    assert table("`[[capabilities]]`") == ["type", *[kind.value for kind in CapabilityKind]]
    for kind, key in SCOPE_KEYS.items():
        assert f"| `{kind.value}` | `{key}` |" in PAGE.read_text()
