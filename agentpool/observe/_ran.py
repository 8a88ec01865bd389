"""What ran in a pool: by which command, with which manifests and models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from agentpool._events import AgentSpawned, CompletionReceived, Event

NAMED: Final = 3
"""The most manifests or models that are named. The rest are only counted."""


def ran_words(command: str, events: Iterable[Event]) -> list[str]:
    """Return *command*, and the manifests and models in *events*, as far as these are known."""
    spawned: dict[int, AgentSpawned] = {}
    models: dict[str, None] = {}
    for event in events:
        if isinstance(event, AgentSpawned):
            spawned[event.agent_id] = event
        elif isinstance(event, CompletionReceived):
            agent = spawned.get(event.agent_id)
            if name := event.model or ("" if agent is None else agent.model):
                models[_served(name, agent)] = None
    if not models:
        models = dict.fromkeys(_served(one.model, one) for one in spawned.values() if one.model)
    found = [command] if command else []
    found += _named("manifest", dict.fromkeys(one.manifest for one in spawned.values()))
    return found + _named("model", models)


def _served(model: str, agent: AgentSpawned | None) -> str:
    provider = "" if agent is None else agent.provider
    return f"{model} at {provider}" if provider not in {"", "local"} else model


def _named(noun: str, names: dict[str, None]) -> list[str]:
    known = [name for name in names if name]
    if not known:
        return []
    left = len(known) - NAMED
    more = f" and {left:,} more" if left > 0 else ""
    return [f"{noun if len(known) == 1 else noun + 's'} {', '.join(known[:NAMED])}{more}"]
