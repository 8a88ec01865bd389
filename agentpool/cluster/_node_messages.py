"""The messages between the program and a node, as plain values."""

from __future__ import annotations

from typing import Final, TypeAlias, final

import msgspec

from agentpool._attachments import CountAttachment, highest_tokens
from agentpool._manifest.capability import Capability, PrivacyTier
from agentpool._manifest.manifest import AgentManifest
from agentpool._messages import AgentId, CompletionRequest, ToolDefinition
from agentpool.abc import AgentInfo, OnUnknown

# --- work


@final
class Prepare(msgspec.Struct, frozen=True, gc=False):
    """Open the driver of a manifest. The answer is `DriverFacts`."""

    number: int
    """The number that later requests name."""
    manifest: AgentManifest


@final
class Ask(msgspec.Struct, frozen=True, gc=False):
    """Answer a request to a model. The answer is a ``Completion``."""

    number: int
    """The number of the driver."""
    request: CompletionRequest
    streams: bool
    """Whether the pieces of the answer are wanted."""


SHARED: Final = 0
"""The number of the kit that all agents of a node share."""


@final
class OpenKit(msgspec.Struct, frozen=True, gc=False):
    """Make the tools of one agent. The answer is a tuple of `ToolFacts`."""

    kit: int
    """The number that later calls name."""
    agent: AgentFacts


@final
class RunTool(msgspec.Struct, frozen=True, gc=False):
    """Run one call of a tool. The answer is a ``ToolResult``."""

    kit: int
    name: str
    arguments: str
    call_id: str
    key: str
    fence: int | None
    agent: AgentFacts


Work: TypeAlias = Prepare | Ask | OpenKit | RunTool


@final
class AgentFacts(msgspec.Struct, frozen=True, gc=False):
    """What a tool may know about its agent."""

    agent_id: AgentId
    name: str
    manifest: AgentManifest
    depth: int
    parent_id: AgentId
    memory_scope: str
    seconds: float
    """Seconds from the pool's opening until this was sent."""
    others: tuple[AgentInfo, ...] | None
    """The other running agents. ``None``: there are too many to list."""


@final
class DriverFacts(msgspec.Struct, frozen=True, gc=False):
    """A driver's facts about itself."""

    context_window: int | None
    max_output_tokens: int | None
    inputs: frozenset[str] | None
    privacy: PrivacyTier
    input_usd: float | None
    """US dollars for a million input tokens. ``None``: no price is known."""
    output_usd: float | None
    """US dollars for a million output tokens."""
    most_image_bytes: int | None = None
    """The most bytes of an image. ``None``: no limit is known."""
    most_image_pixels: int | None = None
    """The most pixels of an image's longer side. ``None``: no limit is known."""
    most_input_tokens: int | None = None
    """The most tokens of a request alone. ``None``: no limit is known."""
    count: CountAttachment = highest_tokens
    """Returns the tokens that the driver counts for an attachment."""


@final
class ToolFacts(msgspec.Struct, frozen=True, gc=False):
    """A tool's facts about itself."""

    definition: ToolDefinition
    capability: Capability | None
    timeout_seconds: float | None
    needs_approval: bool
    waits: bool
    on_unknown: OnUnknown


@final
class Greeting(msgspec.Struct, frozen=True, gc=False):
    """The first message of a node."""

    faults: tuple[str, ...]
    """What is missing on the node. Empty: nothing."""
    tools: tuple[ToolFacts, ...] | None
    """The tools that all agents on the node share. ``None``: each agent gets tools of its own, or
    no tools run on nodes."""


# --- from the program to a node


@final
class Begin(msgspec.Struct, frozen=True, gc=False):
    """Begin a piece of work."""

    call: int
    work: Work
    seconds_left: float | None
    """The seconds until the deadline of the work. ``None``: the work has no deadline."""


@final
class End(msgspec.Struct, frozen=True, gc=False):
    """Cancel a piece of work. Its end is still reported."""

    call: int


@final
class Reply(msgspec.Struct, frozen=True, gc=False):
    """Answer a question that a tool asked its agent."""

    question: int
    value: object
    error: Exception | None


@final
class CloseKit(msgspec.Struct, frozen=True, gc=False):
    """Drop the tools of an agent that has ended."""

    kit: int


Order: TypeAlias = Begin | End | Reply | CloseKit

# --- from a node to the program


@final
class Done(msgspec.Struct, frozen=True, gc=False):
    """A piece of work has ended completely."""

    call: int
    value: object
    error: Exception | None
    was_cancelled: bool = False


@final
class Piece(msgspec.Struct, frozen=True, gc=False):
    """A piece of an answer arrived."""

    call: int
    text: str
    is_thought: bool


@final
class Question(msgspec.Struct, frozen=True, gc=False):
    """A tool asks its agent something."""

    call: int
    """The call of the tool."""
    question: int
    method: str
    arguments: tuple[object, ...]
    is_sole: bool
    """Whether the tool does nothing else meanwhile and has set no time limit. If so, the agent
    waits."""


@final
class Withdraw(msgspec.Struct, frozen=True, gc=False):
    """A tool no longer waits for an answer."""

    call: int
    question: int


News: TypeAlias = Done | Piece | Question | Withdraw
