"""agentpool: pools of LLM agents on trio that do not leak, hang, overspend or lose anything.

A pool of agents is a nursery: what starts inside its block ends inside its block. Read the
rooms in this order: ``_loop`` (what an agent does), ``_agent`` (how it is driven), ``_pool``
(how many at once), ``abc`` (where you plug in).
"""

from agentpool._budget import Budget as Budget
from agentpool._capability import Capability as Capability
from agentpool._capability import CapabilityKind as CapabilityKind
from agentpool._capability import PrivacyTier as PrivacyTier
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
from agentpool._handle import AgentHandle as AgentHandle
from agentpool._manifest import AgentManifest as AgentManifest
from agentpool._manifest import ModelConfig as ModelConfig
from agentpool._manifest import ResourceQuota as ResourceQuota
from agentpool._messages import OWNER_ID as OWNER_ID
from agentpool._messages import AgentMessage as AgentMessage
from agentpool._messages import Usage as Usage
from agentpool._nursery import ShutdownStep as ShutdownStep
from agentpool._open import open_pool as open_pool
from agentpool._outcome import AgentOutcome as AgentOutcome
from agentpool._outcome import AgentStatus as AgentStatus
from agentpool._outcome import StopReason as StopReason
from agentpool._pool import AgentPool as AgentPool
from agentpool._public import publish as _publish
from agentpool._restart import RestartPolicy as RestartPolicy
from agentpool._router import MessageRouter as MessageRouter
from agentpool._spawn import SpawnConfig as SpawnConfig
from agentpool._statistics import PoolStatistics as PoolStatistics
from agentpool._stream import OutcomeStream as OutcomeStream
from agentpool._usage_limits import UsageLimits as UsageLimits

_publish(__name__, globals())
