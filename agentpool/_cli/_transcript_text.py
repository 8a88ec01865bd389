"""A conversation of a trace in words, with marks on what is no longer sent to the model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from agentpool._cli._who import who
from agentpool.drivers import AssistantMessage, ChatMessage, ToolMessage, UserMessage
from agentpool.observe import AgentRecord, Reason


def transcript(agent: AgentRecord, *, has_times: bool) -> str:
    """Return the conversation of *agent*, and where its time went."""
    lines = [f"{who(agent)}: {agent.status}"]
    if agent.error is not None:
        lines.append(f"{agent.error[0]}: {agent.error[1]}")
    times = [f"{agent.seconds_of(r):.2f} s {r.value}" for r in Reason if agent.seconds_of(r)]
    lines += [", ".join(times) or ("it never ran" if has_times else "times unknown"), ""]
    if agent.spawned.system_prompt:
        lines += ["--- system", agent.spawned.system_prompt, ""]
    cuts = list(agent.window.cuts)
    for place, message in enumerate(agent.messages):
        while cuts and cuts[0].place <= place:
            mark = cuts.pop(0)
            lines += [*_cut(mark.turn, mark.cut.words(), mark.cut.summary), ""]
        heading, *said = _said(message)
        lines += [heading + _mark(agent, place), *said, ""]
    for mark in cuts:
        lines += [*_cut(mark.turn, mark.cut.words(), mark.cut.summary), ""]
    return "\n".join([*lines, *_begun(agent)])


def _cut(turn: int, words: str, summary: str) -> Iterator[str]:
    """Yield what was left out of the window before *turn*, and what replaces that part."""
    yield f"--- before turn {turn}, {words}"
    if summary:
        yield summary


def _mark(agent: AgentRecord, place: int) -> str:
    """Return whether the message at *place* is still sent, for its heading."""
    marks = agent.window
    if place in marks.gone:
        return f" [not sent since turn {marks.gone[place]}]"
    if place in marks.stubs:
        return f" [sent as a stub since turn {marks.stubs[place]}]"
    return ""


def _begun(agent: AgentRecord) -> list[str]:
    """Return the part of an unfinished answer that had arrived."""
    lines: list[str] = []
    if agent.begun.thoughts:
        lines += ["--- model thinks, as far as it had come", agent.begun.thoughts, ""]
    if agent.begun.text:
        lines += ["--- model, as far as it had come", agent.begun.text, ""]
    return lines


def _said(message: ChatMessage) -> list[str]:
    match message:
        case UserMessage():
            return ["--- user", message.text, *_attached(message)]
        case AssistantMessage():
            calls = [f"calls {c.name} ({c.call_id}): {c.arguments}" for c in message.tool_calls]
            return ["--- model", *([message.text] if message.text else []), *calls]
        case ToolMessage():
            failed = ", failed" if message.is_error else ""
            heading = f"--- {message.name} ({message.call_id}){failed}"
            return [heading, message.content, *_attached(message)]
        case _:
            assert_never(message)


def _attached(message: UserMessage | ToolMessage) -> list[str]:
    return [
        f"[{one.name or 'attached'}: {one.media_type}, {len(one.data):,} bytes]"
        for one in message.attachments
    ]
