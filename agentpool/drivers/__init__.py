"""Drivers, which answer requests to models.

``open_driver`` opens one for a manifest's ``[model]``; ``open_local``, ``open_openai`` and
``open_anthropic`` open one from arguments; ``ScriptedDriver`` and ``FunctionDriver`` are for tests.
Drivers that need httpx are imported on first use, so that a test with a script does not wait for
it.
"""

from typing import TYPE_CHECKING

from agentpool._attachments import Attachment as Attachment
from agentpool._errors import AllDriversFailedError as AllDriversFailedError
from agentpool._errors import AuthenticationError as AuthenticationError
from agentpool._errors import BadRequestError as BadRequestError
from agentpool._errors import ContextOverflowError as ContextOverflowError
from agentpool._errors import EmptyAnswerError as EmptyAnswerError
from agentpool._errors import FailedAttemptError as FailedAttemptError
from agentpool._errors import InvalidOutputError as InvalidOutputError
from agentpool._errors import NetworkError as NetworkError
from agentpool._errors import OverloadedError as OverloadedError
from agentpool._errors import ProtocolError as ProtocolError
from agentpool._errors import RateLimitError as RateLimitError
from agentpool._errors import UnknownModelError as UnknownModelError
from agentpool._manifest.facts import ModelFacts as ModelFacts
from agentpool._manifest.facts import PublishedPrice as PublishedPrice
from agentpool._manifest.model import TokenPrice as TokenPrice
from agentpool._manifest.providers import PROVIDERS as PROVIDERS
from agentpool._manifest.providers import Place as Place
from agentpool._manifest.providers import Provider as Provider
from agentpool._message_json import messages_from_json as messages_from_json
from agentpool._message_json import messages_to_json as messages_to_json
from agentpool._messages import NO_USAGE as NO_USAGE
from agentpool._messages import AnswerForm as AnswerForm
from agentpool._messages import AssistantMessage as AssistantMessage
from agentpool._messages import ChatMessage as ChatMessage
from agentpool._messages import Completion as Completion
from agentpool._messages import CompletionRequest as CompletionRequest
from agentpool._messages import FinishReason as FinishReason
from agentpool._messages import Json as Json
from agentpool._messages import ProviderPart as ProviderPart
from agentpool._messages import ToolCall as ToolCall
from agentpool._messages import ToolDefinition as ToolDefinition
from agentpool._messages import ToolMessage as ToolMessage
from agentpool._messages import UserMessage as UserMessage
from agentpool._messages import estimate_tokens as estimate_tokens
from agentpool._public import publish as _publish
from agentpool.abc import HearsThoughts as HearsThoughts
from agentpool.drivers._breaker import BreakerState as BreakerState
from agentpool.drivers._breaker import FallbackCounts as FallbackCounts
from agentpool.drivers._fallback import FallbackDriver as FallbackDriver
from agentpool.drivers._gate import GateStatistics as GateStatistics
from agentpool.drivers._gate import GateTicket as GateTicket
from agentpool.drivers._gate import RequestGate as RequestGate
from agentpool.drivers._gated import GatedDriver as GatedDriver
from agentpool.drivers._gated import ProviderGates as ProviderGates
from agentpool.drivers._scripted import FunctionDriver as FunctionDriver
from agentpool.drivers._scripted import ScriptedDriver as ScriptedDriver
from agentpool.drivers._scripted import call as call
from agentpool.drivers._scripted import calls as calls
from agentpool.drivers._scripted import say as say

if TYPE_CHECKING:
    from agentpool.drivers._anthropic import AnthropicDriver as AnthropicDriver
    from agentpool.drivers._anthropic import open_anthropic as open_anthropic
    from agentpool.drivers._facts import find_facts as find_facts
    from agentpool.drivers._facts import near_names as near_names
    from agentpool.drivers._facts import published_names as published_names
    from agentpool.drivers._hosted import ApiKey as ApiKey
    from agentpool.drivers._local import LocalDriver as LocalDriver
    from agentpool.drivers._local import open_local as open_local
    from agentpool.drivers._open import open_driver as open_driver
    from agentpool.drivers._openai import OpenAIDriver as OpenAIDriver
    from agentpool.drivers._openai import open_openai as open_openai
    from agentpool.drivers._prices import Prices as Prices

# These need httpx.
_publish(
    globals(),
    {
        "_anthropic": ("AnthropicDriver", "open_anthropic"),
        "_facts": ("find_facts", "near_names", "published_names"),
        "_hosted": ("ApiKey",),
        "_local": ("LocalDriver", "open_local"),
        "_open": ("open_driver",),
        "_openai": ("OpenAIDriver", "open_openai"),
        "_prices": ("Prices",),
    },
)
