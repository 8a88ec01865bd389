"""Tools: functions that an agent can call, and the registry that holds them."""

from typing import TYPE_CHECKING

from agentpool._approval import ApprovalRequest as ApprovalRequest
from agentpool._approval import Approved as Approved
from agentpool._approval import Approver as Approver
from agentpool._approval import Changed as Changed
from agentpool._approval import Decision as Decision
from agentpool._approval import Denied as Denied
from agentpool._budget.reservation import Reservation as Reservation
from agentpool._chat_markers import MARKERS as MARKERS
from agentpool._chat_markers import Cleaner as Cleaner
from agentpool._chat_markers import as_data as as_data
from agentpool._messages import ToolDefinition as ToolDefinition
from agentpool._one_line import one_line as one_line
from agentpool._one_line import printable as printable
from agentpool._public import publish as _publish
from agentpool.abc import Tool as Tool
from agentpool.abc import ToolContext as ToolContext
from agentpool.abc import ToolResult as ToolResult
from agentpool.tools._registry import EMPTY_REGISTRY as EMPTY_REGISTRY
from agentpool.tools._registry import ToolRegistry as ToolRegistry

if TYPE_CHECKING:
    from agentpool.tools._function import FunctionTool as FunctionTool
    from agentpool.tools._function import tool as tool
    from agentpool.tools.builtin._files import file_tools as file_tools
    from agentpool.tools.builtin._http_request import http_tools as http_tools
    from agentpool.tools.builtin._inference import inference_tools as inference_tools
    from agentpool.tools.builtin._memory import memory_tools as memory_tools
    from agentpool.tools.builtin._shell import find_isolation as find_isolation
    from agentpool.tools.builtin._shell import shell_tools as shell_tools
    from agentpool.tools.builtin._team import TEAM_TOOLS as TEAM_TOOLS
    from agentpool.tools.mcp._servers import McpServers as McpServers
    from agentpool.tools.mcp._servers import open_mcp_servers as open_mcp_servers
    from agentpool.tools.system._file_work import FileWork as FileWork

# These load what makes schemas, docstring-parser for one, and the pool needs no more than
# the registry. Whoever makes a tool pays for them at that moment.
_publish(
    globals(),
    {
        "_function": ("FunctionTool", "tool"),
        "builtin._files": ("file_tools",),
        "builtin._http_request": ("http_tools",),
        "builtin._inference": ("inference_tools",),
        "builtin._memory": ("memory_tools",),
        "builtin._shell": ("find_isolation", "shell_tools"),
        "builtin._team": ("TEAM_TOOLS",),
        "mcp._servers": ("McpServers", "open_mcp_servers"),
        "system._file_work": ("FileWork",),
    },
)
