"""Every error that agentpool raises on purpose.

The tree shows all errors, and what they mean or what to do::

    AgentPoolError
    ├── UsageError                 fix the calling code
    ├── ManifestError              fix the manifest; carries every fault
    ├── PoolFullError              wait, or increase max_queued
    ├── PoolClosedError            the pool takes no more work
    ├── MessageError               nothing was sent
    │   ├── UnknownAgentError      there never was such an agent
    │   ├── AgentGoneError         the agent has ended
    │   └── InboxFullError         the inbox of the agent is full
    ├── DeadlockError              agents wait for each other in a circle
    ├── DriverError                the model's side; retryable or not
    │   ├── RateLimitError
    │   ├── OverloadedError
    │   ├── NetworkError
    │   ├── AuthenticationError
    │   ├── BadRequestError
    │   ├── ContextOverflowError
    │   ├── UnknownModelError
    │   ├── FailedAttemptError     the model's output was unusable
    │   ├── AllDriversFailedError
    │   ├── InvalidOutputError     no answer had the form that was asked for
    │   ├── EmptyAnswerError       the model's answer was empty
    │   ├── ProtocolError
    │   └── RecordingMissError
    ├── ToolError                  the model gets its text, and may try again
    │   └── CapabilityDeniedError
    ├── LimitExceededError         a guard or a budget said stop
    ├── MemoryStoreError           the file of a memory is locked, damaged or newer
    ├── JournalError               the journal cannot be read or written
    │   ├── RunBusyError           another process owns the pool's records
    │   ├── SessionBusyError       the session has a turn that has not ended
    │   ├── LeaseLostError         another process took the pool's records over
    │   └── ResumeMismatchError    the program asks for something other than before
    ├── PrivacyError               the data may not go there
    ├── AgentCancelledError        the agent was cancelled; says who did it and why
    ├── TraceError                 the file of a trace cannot be read or written
    ├── RecordedError              the error of an agent, as read from a trace
    └── PoolError                  the group raised at the pool's exit

A message has three parts: what went wrong, with which value, and what to do about it.
Errors are data: their fields are public, and every one of them survives pickle.
"""

from agentpool._errors.driver import AllDriversFailedError as AllDriversFailedError
from agentpool._errors.driver import AuthenticationError as AuthenticationError
from agentpool._errors.driver import BadRequestError as BadRequestError
from agentpool._errors.driver import ContextOverflowError as ContextOverflowError
from agentpool._errors.driver import DriverError as DriverError
from agentpool._errors.driver import EmptyAnswerError as EmptyAnswerError
from agentpool._errors.driver import FailedAttemptError as FailedAttemptError
from agentpool._errors.driver import InvalidOutputError as InvalidOutputError
from agentpool._errors.driver import NetworkError as NetworkError
from agentpool._errors.driver import OverloadedError as OverloadedError
from agentpool._errors.driver import ProtocolError as ProtocolError
from agentpool._errors.driver import RateLimitError as RateLimitError
from agentpool._errors.driver import RecordingMissError as RecordingMissError
from agentpool._errors.driver import UnknownModelError as UnknownModelError
from agentpool._errors.errors import MAX_TRACEBACK_CHARACTERS as MAX_TRACEBACK_CHARACTERS
from agentpool._errors.errors import PARENT_LEFT as PARENT_LEFT
from agentpool._errors.errors import AgentCancelledError as AgentCancelledError
from agentpool._errors.errors import AgentGoneError as AgentGoneError
from agentpool._errors.errors import AgentPoolError as AgentPoolError
from agentpool._errors.errors import CapabilityDeniedError as CapabilityDeniedError
from agentpool._errors.errors import DeadlockError as DeadlockError
from agentpool._errors.errors import Fault as Fault
from agentpool._errors.errors import InboxFullError as InboxFullError
from agentpool._errors.errors import LimitExceededError as LimitExceededError
from agentpool._errors.errors import ManifestError as ManifestError
from agentpool._errors.errors import MemoryStoreError as MemoryStoreError
from agentpool._errors.errors import MessageError as MessageError
from agentpool._errors.errors import PoolClosedError as PoolClosedError
from agentpool._errors.errors import PoolFullError as PoolFullError
from agentpool._errors.errors import PrivacyError as PrivacyError
from agentpool._errors.errors import RecordedError as RecordedError
from agentpool._errors.errors import ToolError as ToolError
from agentpool._errors.errors import TraceError as TraceError
from agentpool._errors.errors import UnknownAgentError as UnknownAgentError
from agentpool._errors.errors import UsageError as UsageError
from agentpool._errors.errors import leaves as leaves
from agentpool._errors.errors import traceback_text as traceback_text
from agentpool._errors.journal import JournalError as JournalError
from agentpool._errors.journal import LeaseLostError as LeaseLostError
from agentpool._errors.journal import ResumeMismatchError as ResumeMismatchError
from agentpool._errors.journal import RunBusyError as RunBusyError
from agentpool._errors.journal import SessionBusyError as SessionBusyError
from agentpool._errors.pool import PoolError as PoolError
