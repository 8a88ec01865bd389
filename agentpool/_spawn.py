"""The input of ``spawn``: a manifest, a query, and the terms of one run."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import Final, Self, TypeVar, final

import attrs
import msgspec
from msgspec.structs import astuple, force_setattr

from agentpool._attachments import Attachment
from agentpool._budget.budget import Budget
from agentpool._checks import (
    at_least,
    expect,
    expect_each,
    expect_fields,
    expect_name,
    expect_output_type,
    expect_whole,
    plain_text,
)
from agentpool._errors import CapabilityDeniedError, UsageError
from agentpool._manifest.capability import Capability, CapabilityKind, asks_first
from agentpool._manifest.manifest import AgentManifest
from agentpool._manifest.usage_limits import UsageLimits
from agentpool._messages import ChatMessage, UserMessage
from agentpool._public import AdvisedStruct
from agentpool._scheduling.fair_queue import PLAIN, Share
from agentpool._surrogates import without_halves

T = TypeVar("T")

# These are checked with words of their own. What an output type may be depends on what msgspec
# can read besides, and building it says so.
_CHECKED: Final = frozenset({"manifest", "query", "output_type", "weight"})


class _Asked(msgspec.Struct, frozen=True, gc=False):
    """The fields of a config that are written without their names."""

    manifest: AgentManifest
    """The kind of agent."""
    query: str
    """The query, not empty."""


@final
class SpawnConfig(_Asked, frozen=True, kw_only=True, metaclass=AdvisedStruct):
    """One agent to run: its manifest, its query, and the terms of this run.

    Copy one with other fields by ``msgspec.structs.replace(config, query="...")``. All copies, also
    those of ``copy.deepcopy``, spend from the same ``budget``: its limit holds for all of them
    together. A config with a budget cannot be pickled.

    >>> from agentpool import AgentManifest, SpawnConfig, UsageLimits
    >>> config = SpawnConfig(
    ...     AgentManifest(), "Review a.py", name="a.py", limits=UsageLimits(request_limit=3)
    ... )
    >>> config.agent_name, config.limited_manifest.resources.max_iterations
    ('a.py', 3)
    """

    name: str | None = None
    """Its name in this run. One line, not empty. ``None``: the manifest's name."""
    attachments: tuple[Attachment, ...] = ()
    """Images and documents for the query: ``Attachment.load("photo.png")``."""
    history: tuple[ChatMessage, ...] = ()
    """A conversation to continue, such as the ``messages`` of an earlier outcome."""
    deadline_seconds: float | None = None
    """The longest that the run may take, from its first slot. ``None``: as the manifest says."""
    output_type: type | None = None
    """The type of the answer: an attrs class, a dataclass, a TypedDict or a msgspec struct. The
    outcome's ``value`` is an instance. ``None``: any text."""
    memory_scope: str | None = None
    """The memory scope to use: agents with the same scope share their fragments. ``None``: a
    separate scope."""
    limits: UsageLimits | None = None
    """Limits that narrow the manifest's for this run. ``None``: no change."""
    budget: Budget | None = None
    """The budget that the agent and its children spend from. It must be a part of the parent's
    budget, or of the pool's if there is no parent. ``None``: they spend from that larger budget
    directly."""
    key: str | None = None
    """Names the agent in the pool's journal: in a resumed pool, a spawn with the same key is the
    same agent, finished or not. A child's key names it within the call that spawns it. Children
    that are spawned at the same time need keys, since children without keys are identified by their
    order. A key must not begin with ``#`` or ``=``. ``None``: the agent's number serves as its key.
    The resumed pool goes on with such an agent by itself, and the same spawn is then a new one. In
    a map or a supervision the query serves as the key, and in a race the place."""
    group: str = ""
    """The group with which it shares slots and gates. Waiting groups take turns, whatever their
    sizes."""
    weight: int = 1
    """How many agents of its group are let in at each turn of the group. If the weights differ,
    that of the newest agent counts."""
    priority: int = 0
    """The priority within its group: one level is worth a hundred places in the queue."""
    outlives_parent: bool = False
    """Whether an agent that a tool spawned goes on after its parent, the agent of that tool, has
    ended. Otherwise it is cancelled when its parent ends."""

    def __post_init__(self) -> None:
        """Refuse an empty query and fields of the wrong type or range."""
        manifest_type: type = type(self.manifest)
        query = self.query
        if manifest_type is not AgentManifest or type(query) is not str:
            expect(
                self.manifest, AgentManifest, "manifest must be an AgentManifest",
                "write SpawnConfig(manifest, query)",
            )  # fmt: skip
            expect(query, str, "query must be a str", "write SpawnConfig(manifest, query)")
            query = plain_text(query)
            force_setattr(self, "query", query)
        # Most agents have the usual terms: one comparison in place of a look at each.
        # True equals 1 and 0 equals False, so the types of such fields are looked at as well.
        is_usual = (
            astuple(self)[2:] == SpawnConfig.__struct_defaults__
            and type(self.weight) is type(self.priority) is int
            and type(self.outlives_parent) is bool
        )
        if not is_usual:
            self._check_types()
        if not query.isascii() or not query or query.isspace():
            force_setattr(self, "query", _sound_query(query))
        if not is_usual:
            self._check_terms()

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """Return a copy of everything but the budget, which both spend from."""
        if self.budget is not None:
            memo[id(self.budget)] = self.budget
        fields = msgspec.structs.asdict(self).items()
        return type(self)(**{name: copy.deepcopy(value, memo) for name, value in fields})

    def _check_types(self) -> None:
        expect_fields(self, but=_CHECKED)
        if self.name is not None:
            force_setattr(self, "name", without_halves(self.name))
            expect_name(self.name)
        for message in self.history:
            expect_whole(message, of="history: ")
        if self.output_type is not None:
            expect_output_type(self.output_type)

    def _check_terms(self) -> None:
        if self.key is not None and (not self.key or self.key[0] in "#="):
            raise UsageError(
                f"key must be text that does not begin with '#' or '=', got {self.key!r}"
            )
        if self.key is not None and without_halves(self.key) != self.key:
            raise UsageError(
                f"key must not contain lone surrogates, got {self.key!r}; leave them out"
            )
        if self.deadline_seconds is not None and not self.deadline_seconds > 0:
            raise UsageError(
                f"deadline_seconds must be > 0, got {self.deadline_seconds!r}; "
                "leave it out for no deadline"
            )
        if self.weight != 1 or type(self.weight) is not int:
            at_least(1, "weight", self.weight)

    @property
    def question(self) -> UserMessage:
        """The query with its attachments, as the message to the model."""
        return UserMessage(self.query, self.attachments)

    @property
    def limited_manifest(self) -> AgentManifest:
        """The manifest, narrowed by the limits of this run."""
        if self.limits is None:
            return self.manifest
        resources = self.limits.narrow(self.manifest.resources)
        return attrs.evolve(self.manifest, resources=resources)

    @property
    def agent_name(self) -> str:
        """The name of the agent."""
        return self.name or self.manifest.name

    @property
    def share(self) -> Share:
        """Its group, weight and priority in a queue."""
        if self.weight == 1 and not self.group and not self.priority:
            return PLAIN
        return Share(self.group, self.weight, self.priority)


def _sound_query(query: str) -> str:
    """Return *query* without halves of characters, which cannot be sent; refuse an empty one."""
    if not query.isascii():
        query = without_halves(query)
    if not query or query.isspace():
        raise UsageError(f"query must not be empty, got {query!r}; say what to do")
    return query


def with_query(config: SpawnConfig, query: str) -> SpawnConfig:
    """Return *config* with another query. What was looked at before is not looked at again.

    Raises:
        UsageError: If the query is empty.
    """
    made = copy.copy(config)
    force_setattr(made, "query", _sound_query(query))
    return made


def listed(configs: Iterable[SpawnConfig]) -> list[SpawnConfig]:
    """Return *configs* as a new list.

    Raises:
        UsageError: If they are a single config, a text, or no iterable.
    """
    expect_each(
        configs, SpawnConfig, "configs must be an iterable of SpawnConfig objects",
        "write [SpawnConfig(manifest, query), ...]",
    )  # fmt: skip
    return list(configs)


def emptying(items: list[T]) -> Iterator[T]:
    """Yield *items* in order and remove them, so that each can be freed before the next."""
    items.reverse()
    return map(list[T].pop, repeat(items, len(items)))


def seconds_of(config: SpawnConfig) -> float | None:
    """Return the maximum duration of the run. ``None``: no limit."""
    return config.deadline_seconds or config.manifest.resources.run_seconds


def provider_of(config: SpawnConfig) -> str:
    """Return the name of the model's provider. Empty: it has none."""
    model = config.manifest.model
    if model.remote_model is not None:
        return model.provider if isinstance(model.provider, str) else model.provider.facts or ""
    return "local" if model.model_path or model.model_repo else ""


CHILD_MAX_ITERATIONS = 10
"""The most turns that a child may have: it does a part of its parent's work, not all of it."""


def child_of(
    parent: SpawnConfig,
    query: str,
    *,
    name: str,
    used_tokens: int,
    seconds_left: float,
    used_usd: float = 0.0,
    budget: Budget | None = None,
) -> SpawnConfig:
    """Return the config of a child: its parent's, with fewer rights and lower limits.

    Args:
        parent: The config of the agent that wants a child.
        query: What the child is asked.
        name: The name of the child.
        used_tokens: What the parent has used of its own token budget.
        seconds_left: What the parent has left of its time; ``inf``: no limit.
        used_usd: What the parent has spent of its own cost limit, as far as is known.
        budget: The budget that the child spends from. ``None``: its parent's budget.

    Raises:
        CapabilityDeniedError: If the parent may have no children, or has nothing left.
    """
    manifest = parent.limited_manifest
    depth = max(
        (g.max_depth for g in manifest.capabilities if g.kind is CapabilityKind.SPAWN), default=0
    )
    if depth < 1:
        raise CapabilityDeniedError(
            "spawn depth limit reached: this agent may have no children; do the work yourself"
        )
    grants = _grants_of_child(manifest, depth)
    resources = manifest.resources
    tokens = resources.max_tokens_budget
    if tokens is not None:
        tokens -= used_tokens
        if tokens < 1:
            raise CapabilityDeniedError("no tokens are left for a child; give your answer now")
    cost_usd = resources.max_cost_usd
    if cost_usd > 0:
        # 0 would mean no limit.
        cost_usd -= used_usd
        if cost_usd <= 0:
            raise CapabilityDeniedError("no money is left for a child; give your answer now")
    narrowed = attrs.evolve(
        resources,
        max_iterations=min(resources.max_iterations, CHILD_MAX_ITERATIONS),
        max_tokens_budget=tokens,
        max_cost_usd=cost_usd,
    )
    return SpawnConfig(
        attrs.evolve(manifest, name=name, capabilities=grants, resources=narrowed),
        query,
        deadline_seconds=seconds_left if seconds_left < math.inf else None,
        budget=budget,
        group=parent.group,
        weight=parent.weight,
        priority=parent.priority,
    )


def _grants_of_child(manifest: AgentManifest, depth: int) -> tuple[Capability, ...]:
    grants = tuple(g for g in manifest.capabilities if g.kind is not CapabilityKind.SPAWN)
    if depth <= 1:
        return grants
    asks = asks_first(manifest.capabilities, Capability.spawn(1))
    return (*grants, Capability(CapabilityKind.SPAWN, max_depth=depth - 1, ask_first=asks))
