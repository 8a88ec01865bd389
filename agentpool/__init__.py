"""Pools of LLM agents on trio, in which nothing leaks, hangs, overspends or gets lost.

A pool of agents is a nursery: what starts inside its block ends inside its block. Read the
packages in this order: ``_loop`` (what an agent does), ``_agent`` (how it is driven), ``_pool``
(how many at once), ``abc`` (where you plug in).
"""

from typing import TYPE_CHECKING

from agentpool._agent.retry_policy import RetryPolicy as RetryPolicy
from agentpool._budget.budget import Budget as Budget
from agentpool._budget.statistics import PoolStatistics as PoolStatistics
from agentpool._errors import AgentCancelledError as AgentCancelledError
from agentpool._errors import AgentGoneError as AgentGoneError
from agentpool._errors import AgentPoolError as AgentPoolError
from agentpool._errors import CapabilityDeniedError as CapabilityDeniedError
from agentpool._errors import DeadlockError as DeadlockError
from agentpool._errors import DriverError as DriverError
from agentpool._errors import InboxFullError as InboxFullError
from agentpool._errors import LimitExceededError as LimitExceededError
from agentpool._errors import ManifestError as ManifestError
from agentpool._errors import MessageError as MessageError
from agentpool._errors import PoolClosedError as PoolClosedError
from agentpool._errors import PoolError as PoolError
from agentpool._errors import PoolFullError as PoolFullError
from agentpool._errors import PrivacyError as PrivacyError
from agentpool._errors import ToolError as ToolError
from agentpool._errors import UnknownAgentError as UnknownAgentError
from agentpool._errors import UsageError as UsageError
from agentpool._manifest.budget import BudgetConfig as BudgetConfig
from agentpool._manifest.capability import Capability as Capability
from agentpool._manifest.capability import CapabilityKind as CapabilityKind
from agentpool._manifest.capability import PrivacyTier as PrivacyTier
from agentpool._manifest.context import ContextConfig as ContextConfig
from agentpool._manifest.manifest import AgentManifest as AgentManifest
from agentpool._manifest.manifest import ModelConfig as ModelConfig
from agentpool._manifest.manifest import ResourceQuota as ResourceQuota
from agentpool._manifest.parts import McpServerConfig as McpServerConfig
from agentpool._manifest.parts import McpTransport as McpTransport
from agentpool._manifest.usage_limits import UsageLimits as UsageLimits
from agentpool._messages import OWNER_ID as OWNER_ID
from agentpool._messages import AgentMessage as AgentMessage
from agentpool._messages import AssistantMessage as AssistantMessage
from agentpool._messages import ChatMessage as ChatMessage
from agentpool._messages import ToolCall as ToolCall
from agentpool._messages import ToolMessage as ToolMessage
from agentpool._messages import Usage as Usage
from agentpool._messages import UserMessage as UserMessage
from agentpool._outcome import AgentOutcome as AgentOutcome
from agentpool._outcome import AgentStatus as AgentStatus
from agentpool._outcome import RestartLimitError as RestartLimitError
from agentpool._outcome import StopReason as StopReason
from agentpool._pool.handle import AgentHandle as AgentHandle
from agentpool._pool.open import open_pool as open_pool
from agentpool._pool.pool import AgentPool as AgentPool
from agentpool._pool.router import MessageRouter as MessageRouter
from agentpool._pool.shutdown import ShutdownStep as ShutdownStep
from agentpool._pool.spawn_checks import Queries as Queries
from agentpool._pool.starting import ToolBuilder as ToolBuilder
from agentpool._public import advise_calls as _advise_calls
from agentpool._public import publish as _publish
from agentpool._scheduling.owner import as_bystander as as_bystander
from agentpool._spawn import SpawnConfig as SpawnConfig

_advise_calls(globals())

if TYPE_CHECKING:
    from agentpool._build.drivers import open_drivers as open_drivers
    from agentpool._build.manifest_pool import PoolPlan as PoolPlan
    from agentpool._build.manifest_pool import open_manifest_pool as open_manifest_pool
    from agentpool._pool.approval_waits import wait_until_asking as wait_until_asking
    from agentpool._pool.journal_trace import trace_of_journal as trace_of_journal
    from agentpool._pool.map import OutcomeStream as OutcomeStream
    from agentpool._pool.restart_policy import RestartPolicy as RestartPolicy
    from agentpool._pool.session import Session as Session
    from agentpool._pool.session import SessionTurn as SessionTurn
    from agentpool._pool.session import open_session as open_session
    from agentpool._pool.session import session_names as session_names
    from agentpool._pool.session import session_pool_name as session_pool_name
    from agentpool._pool.text_stream import TextStream as TextStream
    from agentpool._version import __version__ as __version__

# Most programs do not need these.
_publish(
    globals(),
    {
        "_build.drivers": ("open_drivers",),
        "_build.manifest_pool": ("PoolPlan", "open_manifest_pool"),
        "_pool.approval_waits": ("wait_until_asking",),
        "_pool.journal_trace": ("trace_of_journal",),
        "_pool.map": ("OutcomeStream",),
        "_pool.restart_policy": ("RestartPolicy",),
        "_pool.session": (
            "Session",
            "SessionTurn",
            "open_session",
            "session_names",
            "session_pool_name",
        ),
        "_pool.text_stream": ("TextStream",),
        "_version": ("__version__",),
    },
)
