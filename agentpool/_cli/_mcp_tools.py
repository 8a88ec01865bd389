"""A pool as MCP clients see it: agents as tools, outcomes as results.

Rules:

1. Clients can only call agents, each of which has the grants of its own manifest. So clients reach
   the tools, memories and files of this program only through an agent.
2. A call has one argument, the query. Its result is given as text, and as data.
3. Only the latest progress is kept: each report replaces the previous report. A client that reads
   slowly misses some reports, and does not hold up other clients.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, final

import attrs
import msgspec
import trio

from agentpool import OWNER_ID, AgentManifest, AgentOutcome, AgentStatus, ToolError
from agentpool._cli._hidden_keys import hide_keys
from agentpool.abc import AgentId, Event, Observer
from agentpool.drivers import Json
from agentpool.observe import (
    AgentParked,
    AgentResumed,
    AgentSpawned,
    AgentStarted,
    Phase,
    PhaseChanged,
    ToolStarted,
)
from agentpool.tools import printable

MAX_NAME_CHARACTERS: Final = 64
"""The longest name of a tool, which is OpenAI's and Anthropic's limit."""

_ILLEGAL: Final = re.compile(r"[^a-zA-Z0-9_-]+")

QUERY_SCHEMA: Final[Mapping[str, object]] = {
    "type": "object",
    "properties": {"query": {"type": "string", "description": "What the agent is asked."}},
    "required": ["query"],
    "additionalProperties": False,
}
"""The arguments of every agent."""


@final
@attrs.frozen
class Offer:
    """One agent that clients can call."""

    name: str
    """The tool's name: unique, and valid at every provider."""
    description: str
    """The purpose of the agent."""
    manifest: AgentManifest
    """The manifest of the agent."""


def build_offers(manifests: Sequence[AgentManifest]) -> dict[str, Offer]:
    """Return the offers by name: one tool for each of *manifests*, in order.

    Namesakes are numbered.
    """
    offers: dict[str, Offer] = {}
    for manifest in manifests:
        plain = _ILLEGAL.sub("_", manifest.name).strip("_")[:MAX_NAME_CHARACTERS] or "agent"
        name, number = plain, 1
        while name in offers:
            number += 1
            ending = f"_{number}"
            name = plain[: MAX_NAME_CHARACTERS - len(ending)] + ending
        description = manifest.description or f"Asks the agent {manifest.name}."
        offers[name] = Offer(name, description, manifest)
    return offers


def read_query(arguments: Mapping[str, object] | None) -> str:
    """Return the query in a call's arguments.

    Raises:
        ToolError: If there is no valid query, or there are other arguments.
    """
    given = arguments or {}
    others = ", ".join(repr(name) for name in given if name != "query")
    if others:
        raise ToolError(f"there is no argument {printable(others)}; give 'query' alone")
    query = given.get("query")
    if not isinstance(query, str) or not query.strip():
        raise ToolError(f"'query' must be a text that is not empty, got {query!r}; say what to do")
    return query


@final
@attrs.frozen
class Answer:
    """The result of a call."""

    text: str
    """The result in words."""
    is_error: bool
    """Whether the agent did not complete."""
    data: Mapping[str, Json]
    """The result as data, for programs."""


def read_outcome(outcome: AgentOutcome) -> Answer:
    """Convert *outcome* into an answer for the client. The answer's error shows no key."""
    completed = outcome.status is AgentStatus.COMPLETED
    # Half a surrogate is not text, and would end the connection.
    text = outcome.text.encode("utf-8", "replace").decode()
    error = None
    if outcome.error is not None:
        error = printable(hide_keys(f"{type(outcome.error).__name__}: {outcome.error}"))
    if not completed:
        head = f"the agent {outcome.name} was {outcome.status.value}"
        if outcome.status is AgentStatus.FAILED:
            head = f"the agent {outcome.name} failed"
        # What it had is paid for, and may be what was wanted.
        text = f"{head}: {error}" + (f"\n\nUntil then it wrote:\n{text}" if text else "")
    data: dict[str, Json] = {
        "status": outcome.status.value,
        "stop_reason": outcome.stop_reason.value if outcome.stop_reason is not None else None,
        "error": error,
        "iterations": outcome.iterations,
        "tool_calls": outcome.tool_calls,
        "usage": msgspec.structs.asdict(outcome.usage),
        "cost_usd": outcome.cost_usd,
    }
    return Answer(text, not completed, data)


# --- progress


@final
@attrs.define(eq=False)
class Progress:
    """The current activity of one agent."""

    steps: int = 0
    """The number of reports so far."""
    text: str = ""
    """The latest report, in a few words."""
    _news: trio.Event = attrs.field(factory=trio.Event)

    def say(self, text: str) -> None:
        """Replace the current text."""
        self.steps += 1
        self.text = text
        self._news.set()

    async def wait_news(self) -> None:
        """Wait for a text that has not been read yet."""
        await self._news.wait()
        self._news = trio.Event()


@final
@attrs.define(eq=False)
class ProgressDesk(Observer):
    """Tracks the activity of each agent that a client called."""

    _progress: dict[str, Progress] = attrs.field(factory=dict[str, Progress])
    # By the pool's number: a name can also be that of a child, whose parent's model chose it.
    _agents: dict[AgentId, Progress] = attrs.field(factory=dict[AgentId, Progress])
    _calls: int = 0

    def open(self, offer: Offer) -> tuple[str, Progress]:
        """Return a unique name and a progress for a new agent."""
        self._calls += 1
        name = f"{offer.manifest.name} {self._calls}"
        self._progress[name] = Progress()
        return name, self._progress[name]

    def close(self, name: str) -> None:
        """Forget an agent that has ended."""
        progress = self._progress.pop(name)
        for agent_id in [one for one, its in self._agents.items() if its is progress]:
            del self._agents[agent_id]

    def on_event(self, event: Event) -> None:
        """Record *event*."""
        if isinstance(event, AgentSpawned) and event.parent_id == OWNER_ID:
            asked = self._progress.get(event.agent_name)
            if asked is not None:
                self._agents[event.agent_id] = asked
        progress = self._agents.get(event.agent_id)
        if progress is None:
            return
        match event:
            case AgentStarted():
                progress.say("started")
            case PhaseChanged(phase=Phase.REASON) | AgentResumed():
                progress.say("thinks")
            case ToolStarted(call=call):
                progress.say(f"uses {printable(call.name)}")
            case AgentParked(waits_for=waits_for):
                progress.say(f"waits for {waits_for}")
            case _:
                pass
