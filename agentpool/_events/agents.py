"""Events of an agent: it is spawned, waits, runs and ends."""

from __future__ import annotations

import enum
from typing import final

from agentpool._events.base import EventBase
from agentpool._messages import AgentId
from agentpool._outcome import AgentOutcome
from agentpool._scheduling.waits import WaitReason


@final
class AgentSpawned(EventBase, frozen=True, gc=False):
    """A spawn was accepted. Never dropped."""

    parent_id: AgentId
    """Who spawned it. 0: the owner."""
    query: str = ""
    """What it is asked."""
    manifest: str = ""
    """The name of its manifest."""
    model: str = ""
    """The model that its manifest names. Empty: it names none."""
    provider: str = ""
    """Who serves that model, as its manifest names it; ``local`` for one on this machine.
    Empty: the manifest does not say."""
    system_prompt: str = ""
    """What its model is told before everything else."""
    grants: tuple[str, ...] = ()
    """What it may do, such as ``memory`` or ``spawn``."""
    group: str = ""
    """With whom it shares slots and gates."""
    deadline_seconds: float | None = None
    """The longest that it may take. ``None``: no limit."""
    prompt_id: int = 0
    """In the file of a trace: the number of the system prompt, which stands there once.
    0 everywhere else."""


@final
class AgentQueued(EventBase, frozen=True, gc=False):
    """All slots are taken, so the agent waits for one."""

    running: int
    """Agents that have a slot."""
    max_concurrent: float
    """Slots that there are."""
    ahead: int
    """Agents that wait as well, and came before it."""
    again: bool
    """Whether it had a slot before, and waited for something without one."""


@final
class AgentStarted(EventBase, frozen=True, gc=False):
    """The agent got its first slot. Never dropped."""


@final
class AgentFinished(EventBase, frozen=True):
    """The agent ended; this is its last event. Never dropped."""

    outcome: AgentOutcome
    """What became of it."""


@final
class AgentParked(EventBase, frozen=True, gc=False):
    """The agent gave its slot back while it waits."""

    waits_for: str
    """What it waits for, in words: ``agent 3 (critic)``, ``a message``, …"""
    reason: WaitReason = WaitReason.OTHER
    """What kind of thing it waits for."""
    target_id: AgentId | None = None
    """The agent that must act. ``None``: no agent in particular."""


@final
class AgentResumed(EventBase, frozen=True, gc=False):
    """The agent got a slot again after a wait."""


class Phase(enum.Enum):
    """What an agent is doing."""

    PERCEIVE = "perceive"
    """It looks at what it knows and what it was told."""
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
    """In ``ACT``: the tool. Empty otherwise."""
    turn: int = 0
    """Which turn of the agent, from 1. 0: its first has not begun."""


@final
class WindowCut(EventBase, frozen=True, gc=False):
    """Part of the agent's conversation no longer fits the model's window.

    It stays in the outcome's messages; later requests do not have it, or not whole.
    """

    strategy: str
    """How room was made: ``drop``, ``clear_results`` or ``summary``."""
    messages: int
    """Messages that are not sent any more."""
    results: int
    """Tool results that are sent as a stub from now on."""
    tokens: int
    """An estimate of what they took."""
    summary: str = ""
    """What the model wrote to stand for them. Empty: nothing."""
    failure: str = ""
    """Why there is no summary although one was wanted. Empty: there is, or none was."""


@final
class AgentWarned(EventBase, frozen=True, gc=False):
    """A limit is near, or something unusual was tolerated."""

    text: str
    """What."""
