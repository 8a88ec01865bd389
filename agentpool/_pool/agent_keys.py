"""The keys of a pool's agents, by which the next process finds each of them again.

Rules:

1. An agent has the key that its spawn gives it. The key of a child belongs to the call that spawns
   it: a different call may use the same key for a different child.
2. An agent of a map or supervision that was given no key is identified by its work and by a count
   of the requests for that same work.
3. A racer belongs to its race, whether or not it was ever started: a spawn of the same work
   elsewhere never gets the outcome of a racer.
4. After an agent has ended, its group or its call may start the same work again. A new agent then
   does it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import final

import attrs

from agentpool._errors import UsageError
from agentpool._messages import AgentId
from agentpool._pool.branch import asked_digest
from agentpool._recorded_results import digest_of
from agentpool._served_call import ServedCall
from agentpool._spawn import SpawnConfig


@final
@attrs.define(eq=False)
class AgentKeys:
    """The keys that this process has given out."""

    is_plain: bool
    """Whether the pool was begun by an earlier version, which identified racers and children by
    order."""
    taken: dict[str, AgentId] = attrs.field(factory=dict[str, AgentId])
    """The agents that have the keys."""
    over: set[AgentId] = attrs.field(factory=set[AgentId])
    """The agents that have ended."""
    raced: set[str] = attrs.field(factory=set[str])
    """The keys of racers that were never started, in races that are over."""
    _times: Counter[str] = attrs.field(factory=Counter[str])
    """How often a group of agents was asked for the same work, by its digest."""
    _reused: dict[str, int] = attrs.field(factory=dict[str, int])
    """How often a key was given out again, at least."""

    def next(
        self, config: SpawnConfig, call: ServedCall | None, number: AgentId, *, in_group: bool
    ) -> str:
        """Return the key of an agent that is spawned.

        Args:
            config: The agent's config.
            call: The tool call that spawns it. ``None``: the owner does.
            number: The agent's number, if it is new.
            in_group: Whether it belongs to a map, a race or a supervision.
        """
        if call is not None:
            return self._next_of_call(config, call)
        if config.key is not None:
            return self._unused(config.key) if in_group else config.key
        # The same work, asked for as often: a program that runs again asks so again.
        return self._counted(f"={asked_digest(config)}") if in_group else f"#{number}"

    def foreseen(
        self, configs: Sequence[SpawnConfig], call: ServedCall | None
    ) -> Iterator[tuple[SpawnConfig, str]]:
        """Yield those of *configs* that have a key before they are spawned, with that key.

        Raises:
            UsageError: If two have the same key.
        """
        ahead, known = 0, set[str]()
        for config in configs:
            if config.key is not None and (call is None or not self.is_plain):
                key = config.key if call is None else self._unused(call.own_key(config.key))
            elif call is not None:
                key = call.child_key(ahead)
                ahead += 1
            else:
                continue  # its number, which is new
            if key in known:
                raise _twice(config, len(configs))
            known.add(key)
            yield config, key

    @contextmanager
    def of_race(
        self, configs: Sequence[SpawnConfig], call: ServedCall | None
    ) -> Generator[Sequence[str]]:
        """Reserve the keys of all racers of *configs*, in order, whether or not they are started.

        Args:
            configs: The configs of the racers.
            call: The tool call that starts the race. ``None``: the owner does.

        Raises:
            UsageError: If two have the same key, or one that another agent has.
        """
        digest = digest_of(*map(asked_digest, configs))
        race = self._counted(f"{'' if call is None else f'{call.key}/'}=race {digest}")
        keys = list[str]()
        for place, config in enumerate(configs):
            key = f"{race}.{place}"
            if config.key is not None:
                key = self.next(config, call, 0, in_group=True)
                self.refuse_used(key, config)
                if key in keys:
                    raise _twice(config, len(configs))
            keys.append(key)
        try:
            yield keys
        finally:
            self.raced.update(key for key in keys if key not in self.taken)

    def refuse_used(self, key: str, config: SpawnConfig) -> None:
        """Raise if this process has an agent with *key*, or had a racer with it.

        Raises:
            UsageError: If there is or was such an agent or racer.
        """
        said = config.key or key
        if key in self.taken:
            raise UsageError(
                f"key {said!r} already belongs to agent {self.taken[key]}; choose another key"
            )
        if key in self.raced:
            raise UsageError(
                f"key {said!r} belongs to a racer that was not started; give the agent another key"
            )

    def _next_of_call(self, config: SpawnConfig, call: ServedCall) -> str:
        if config.key is not None and not self.is_plain:
            return self._unused(call.own_key(config.key))
        key = call.child_key()
        call.children += 1
        return key

    def _counted(self, key: str) -> str:
        self._times[key] += 1
        return f"{key}.{self._times[key]}"

    def _unused(self, key: str) -> str:
        """Return *key* if it is unused, or else the key of the next agent with the same work."""
        first, times = key, self._reused.get(key, 0)
        if times:  # what was used then is so still
            key = f"{first}~{times}"
        while key in self.raced or self.taken.get(key) in self.over:
            times += 1
            self._reused[first] = times
            key = f"{first}~{times}"
        return key


def _twice(config: SpawnConfig, count: int) -> UsageError:
    return UsageError(
        f"key {config.key!r} is the key of two of {count} agents; give one of them another key"
    )


def refuse_unkept(config: SpawnConfig) -> None:
    """Raise if the agent has no key and another process could not continue it.

    Raises:
        UsageError: If another process could not continue the agent.
    """
    if config.output_type is not None or config.budget is not None:
        raise UsageError(
            f"agent {config.agent_name!r} has an output_type or its own budget, which no journal "
            f"can keep; give it a key, and spawn it again after a crash"
        )
