"""Events of an agent: it is spawned, waits, runs and ends."""

from __future__ import annotations

import enum
from typing import final

from agentpool._amounts import counted
from agentpool._events.base import EventBase
from agentpool._messages import AgentId
from agentpool._outcome import AgentOutcome
from agentpool._scheduling.waits import WaitReason


@final
class AgentSpawned(EventBase, frozen=True, gc=False):
    """A spawn was accepted. Never dropped."""

    parent_id: AgentId
    """The id of the agent that spawned it. 0: the owner."""
    query: str = ""
    """The agent's query."""
    manifest: str = ""
    """The name of its manifest."""
    model: str = ""
    """The model that its manifest names. Empty: it names none."""
    provider: str = ""
    """The provider of that model, as in the manifest; ``local`` for a model on this machine.
    Empty: the manifest names none."""
    system_prompt: str = ""
    """The system prompt of the model."""
    grants: tuple[str, ...] = ()
    """The granted capabilities, such as ``memory`` or ``spawn``."""
    group: str = ""
    """The group with which it shares slots and gates."""
    deadline_seconds: float | None = None
    """The most seconds that its run may take. ``None``: no limit."""
    prompt_id: int = 0
    """In the file of a trace: the number of the system prompt, which is stored there once. 0
    everywhere else."""


@final
class AgentQueued(EventBase, frozen=True, gc=False):
    """All slots are taken, so the agent waits for one."""

    running: int
    """Agents that have a slot."""
    max_concurrent: float
    """Slots that there are."""
    ahead: int
    """Agents that also wait, ahead of it."""
    again: bool
    """Whether it had a slot before, and gave it back to wait for something."""


@final
class AgentStarted(EventBase, frozen=True, gc=False):
    """The agent got its first slot. Never dropped."""


@final
class AgentFinished(EventBase, frozen=True):
    """The agent ended; this is its last event. Never dropped."""

    outcome: AgentOutcome
    """The agent's outcome."""


@final
class AgentParked(EventBase, frozen=True, gc=False):
    """The agent gave its slot back while it waits."""

    waits_for: str
    """The reason for the wait, in words: ``agent 3 (critic)``, ``a message``, …"""
    reason: WaitReason = WaitReason.OTHER
    """The kind of wait."""
    target_id: AgentId | None = None
    """The agent that must act. ``None``: no agent in particular."""


@final
class AgentResumed(EventBase, frozen=True, gc=False):
    """The agent got a slot again after a wait."""


class Phase(enum.Enum):
    """What an agent is doing."""

    PERCEIVE = "perceive"
    """It collects its memories and messages."""
    REASON = "reason"
    """It waits for the model."""
    ACT = "act"
    """It runs tools."""
    DONE = "done"
    """It has its answer."""


@final
class PhaseChanged(EventBase, frozen=True, gc=False):
    """The agent entered another phase."""

    phase: Phase
    """The phase that begins."""
    tool_name: str = ""
    """In ``ACT``: the name of the tool. Otherwise empty."""
    turn: int = 0
    """Which turn of the agent, from 1. 0: its first has not begun."""


@final
class WindowCut(EventBase, frozen=True, gc=False):
    """Part of the agent's conversation no longer fits the model's window.

    That part stays in the outcome's messages. Later requests leave it out, or shorten it.
    """

    strategy: str
    """How room was made: ``drop``, ``clear_results`` or ``summary``."""
    messages: int
    """Messages that are no longer sent."""
    results: int
    """Tool results that are sent as a stub from now on."""
    tokens: int
    """An estimate of the tokens that these messages and results took."""
    summary: str = ""
    """The model's summary of them. Empty: there is none."""
    failure: str = ""
    """The reason why a wanted summary is missing. Empty: the summary is there, or none was
    wanted."""
    stubs: tuple[int, ...] = ()
    """The places of the ``results`` in the conversation. Empty in traces of earlier versions."""

    def words(self) -> str:
        """Describe what was left out of the window, and what replaces it."""
        parts: list[str] = []
        if self.messages:
            are = "is" if self.messages == 1 else "are"
            parts.append(f"{counted(self.messages, 'message')} {are} no longer sent")
        if self.results:
            sent = "is sent as a stub" if self.results == 1 else "are sent as stubs"
            parts.append(f"{counted(self.results, 'tool result')} {sent}")
        if self.summary:
            parts.append("a summary replaces what was left out")
        if self.failure:
            parts.append(f"there is no summary: {self.failure}")
        return f"the window was full: {', '.join(parts) or 'nothing was left out'}"


@final
class AgentWarned(EventBase, frozen=True, gc=False):
    """A limit is near, or something unusual was tolerated."""

    text: str
    """The text of the warning."""
