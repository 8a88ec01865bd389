"""What an agent can do: tools made of functions, and the registry that holds them."""

from typing import TYPE_CHECKING

from agentpool.abc import Tool as Tool
from agentpool.abc import ToolContext as ToolContext
from agentpool.abc import ToolResult as ToolResult
from agentpool.tools._registry import EMPTY_REGISTRY as EMPTY_REGISTRY
from agentpool.tools._registry import ToolRegistry as ToolRegistry

if TYPE_CHECKING:
    from agentpool.tools._function import FunctionTool as FunctionTool
    from agentpool.tools._function import tool as tool
    from agentpool.tools._memory import memory_tools as memory_tools

# These load what makes schemas, docstring-parser for one, and the pool needs no more than
# the registry. Whoever makes a tool pays for them at that moment.
_LAZY = {
    "FunctionTool": "agentpool.tools._function",
    "memory_tools": "agentpool.tools._memory",
    "tool": "agentpool.tools._function",
}


def __getattr__(name: str) -> object:
    """Load what needs msgspec when it is first asked for (PEP 562)."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415  # for the lazy path only

    value = globals()[name] = getattr(import_module(_LAZY[name]), name)
    return value


def __dir__() -> list[str]:
    """Name the lazy names too."""
    return sorted({*globals(), *_LAZY})
