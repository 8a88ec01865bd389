"""Tools for teamwork: send, ask, wait, look around, run children.

The tools act through the agent's own context, so a model cannot write in the name of another agent,
and a child can do nothing that its parent could not do.
"""

from __future__ import annotations

import contextlib
import math
import re
import unicodedata
from collections.abc import Generator
from itertools import islice
from typing import Final

from agentpool._chat_markers import as_data
from agentpool._errors import MessageError, ToolError, UsageError
from agentpool._manifest.capability import Capability, CapabilityKind
from agentpool._messages import OWNER_ID, AgentMessage
from agentpool._outcome import AgentStatus
from agentpool.abc import Tool, ToolContext
from agentpool.tools._function import tool

_MESSAGE = Capability(CapabilityKind.MESSAGE)


@contextlib.contextmanager
def _told() -> Generator[None]:
    """Tell the model about its mistake, such as a number that no agent has.

    The program is not at fault, so no traceback is logged.
    """
    try:
        yield
    except (MessageError, UsageError) as error:
        raise ToolError(str(error)) from error


# In a resumed pool, what was sent before is sent no second time, so all of these may run again.
@tool(capability=_MESSAGE, on_unknown="rerun")
async def send_message(
    context: ToolContext, to: int, content: str, reply_to: int | None = None
) -> str:
    """Send a message to another agent.

    Args:
        context: The call.
        to: The number of the agent; 0 is whoever runs this team.
        content: What to say.
        reply_to: The number of the message that this one answers, if it answers one.
    """
    with _told():
        message = await context.agent.send(to, content, reply_to=reply_to)
    return f"sent as message {message.message_id}"


@tool(capability=_MESSAGE, timeout_seconds=math.inf, on_unknown="rerun")
async def ask_agent(context: ToolContext, to: int, question: str) -> str:
    """Ask another agent and wait for its answer.

    Args:
        context: The call.
        to: The number of the agent; 0 is whoever runs this team.
        question: What to ask.
    """
    with _told():
        message = await context.agent.ask(to, question)
        return message.content if not has_heading(message.content) else _shown(message)


@tool(capability=_MESSAGE, timeout_seconds=math.inf, waits=True, on_unknown="rerun")
async def wait_for_message(context: ToolContext) -> str:
    """Wait until you get a message, and read all that have arrived."""
    return "\n\n".join(_shown(message) for message in await context.agent.receive_many())


@tool(capability=_MESSAGE, on_unknown="rerun")
def list_agents(context: ToolContext) -> str:
    """List the other agents that are at work, with their numbers."""
    agent = context.agent
    others = [f"{one.agent_id}: {one.name} ({one.status.value})" for one in agent.list_agents()]
    return "\n".join((f"you are agent {agent.agent_id}: {agent.name}", *others))


# A helper that had begun goes on, and one that had ended is not run again.
@tool(capability=Capability.spawn(1), timeout_seconds=math.inf, on_unknown="rerun")
async def spawn_agent(context: ToolContext, query: str, name: str | None = None) -> str:
    """Give a part of the work to a helper of your own, and wait for its answer.

    Args:
        context: The call.
        query: What the helper is asked. It knows nothing else: say all that it needs.
        name: How the helper is called.
    """
    outcome = await context.agent.run_child(query, name=name)
    if outcome.status is not AgentStatus.COMPLETED:
        raise ToolError(f"the helper {outcome.status.value}: {outcome.error}; {outcome.text}")
    if not has_heading(outcome.text):
        return outcome.text
    return as_data(f"agent {outcome.agent_id} answered:", outcome.text)


TEAM_TOOLS: tuple[Tool, ...] = (send_message, ask_agent, wait_for_message, list_agents, spawn_agent)
"""The first four tools need the ``message`` capability, and the last one needs ``spawn``. Tools
that wait have no time limit, since the pool notices when a wait can never end."""


def _shown(message: AgentMessage) -> str:
    sender = "the owner" if message.sender == OWNER_ID else f"agent {message.sender}"
    # Between lines that do not occur in it: nothing in it can pass for another message.
    return as_data(f"message {message.message_id} from {sender}:", message.content)


def has_heading(text: str) -> bool:
    """Return whether a line of *text* looks like the heading of a message or an answer.

    The model reads a reply or a child's answer unchanged. If no line of the text looks like a
    heading, no part of the text can pass for a message of another agent.
    """
    return any(map(_is_heading, text.splitlines()))


def _is_heading(line: str) -> bool:
    if line.strip().casefold().startswith("message "):
        return True
    # As a model may read it: without quotes, bullets and blanks, signs that nobody sees,
    # accents, and forms of letters that mean the same.
    begun = "".join(islice(filter(str.isalnum, line), _LOOKED_AT))
    plain = filter(str.isalnum, unicodedata.normalize("NFKD", begun))
    return _HEADING.match("".join(plain).casefold()) is not None


_LOOKED_AT: Final = 60
"""How many letters and digits of a line are checked. A heading has fewer of them."""

_HEADING: Final = re.compile(
    r"message(?:no|nr|number|id)?\d|message.{0,20}from(?:theowner|agent)|agent\d+answered"
)
