"""The extension points: abstract classes for you to implement.

Write a subclass, give it to ``open_pool``, and test it with the checks in ``agentpool.testing``.
"""

from agentpool._budget.budget import Budget as Budget
from agentpool._budget.statistics import PoolStatistics as PoolStatistics
from agentpool._budget.store import BudgetStore as BudgetStore
from agentpool._budget.store import Correction as Correction
from agentpool._budget.store import StoredUse as StoredUse
from agentpool._events import Event as Event
from agentpool._events import PoolInfo as PoolInfo
from agentpool._fragments import Fragment as Fragment
from agentpool._fragments import MemoryHit as MemoryHit
from agentpool._fragments import MemoryQuery as MemoryQuery
from agentpool._manifest.capability import Capability as Capability
from agentpool._manifest.capability import PrivacyTier as PrivacyTier
from agentpool._manifest.manifest import AgentManifest as AgentManifest
from agentpool._manifest.parts import OnUnknown as OnUnknown
from agentpool._messages import AgentId as AgentId
from agentpool._messages import AgentMessage as AgentMessage
from agentpool._messages import Completion as Completion
from agentpool._messages import CompletionRequest as CompletionRequest
from agentpool._messages import ToolDefinition as ToolDefinition
from agentpool._messages import Usage as Usage
from agentpool._outcome import AgentOutcome as AgentOutcome
from agentpool._outcome import AgentStatus as AgentStatus
from agentpool._public import publish as _publish
from agentpool.abc._context import AgentContext as AgentContext
from agentpool.abc._context import AgentInfo as AgentInfo
from agentpool.abc._driver import Driver as Driver
from agentpool.abc._driver import DriverFactory as DriverFactory
from agentpool.abc._driver import HearsThoughts as HearsThoughts
from agentpool.abc._driver import OnDelta as OnDelta
from agentpool.abc._driver import OnSent as OnSent
from agentpool.abc._driver import SendingDriver as SendingDriver
from agentpool.abc._journal import Journal as Journal
from agentpool.abc._memory import Memory as Memory
from agentpool.abc._observer import Observer as Observer
from agentpool.abc._tool import Tool as Tool
from agentpool.abc._tool import ToolContext as ToolContext
from agentpool.abc._tool import ToolResult as ToolResult

_publish(globals())
