"""What a trace knows of earlier conversations, so that it need not write them again."""

from __future__ import annotations

from agentpool.drivers import UserMessage
from agentpool.observe import AgentStarted, MessagesAdded
from agentpool.observe._content import reduced
from agentpool.observe._shared_history import SharedHistory


def test_only_the_last_conversations_are_known() -> None:
    """A pool may run for a year."""
    shared = SharedHistory()
    told = [(UserMessage(f"question {at}"),) for at in range(300)]
    for agent_id, messages in enumerate(told, 1):
        shared.keep(agent_id, messages)
    first, last = (MessagesAdded(1, 0.0, 999, "a", 0, told[at]) for at in (0, -1))
    assert shared.shortened(first) is first
    short = shared.shortened(last)
    assert (short.messages, short.after, short.shared) == ((), 300, 1)


def test_an_empty_conversation_is_none() -> None:
    """An agent that was cancelled in the queue has said nothing."""
    shared = SharedHistory()
    shared.keep(1, ())
    event = MessagesAdded(1, 0.0, 2, "a", 0, ())
    assert shared.shortened(event) is event


def test_full_content_stays_as_it_is() -> None:
    """Texts are neither cleaned nor cut."""
    event = AgentStarted(1, 0.0, 1, "a")
    assert reduced(event, "full", str.upper) is event
