"""What is measured, at which sizes, and what it is held against.

The targets of agentpool over its yardsticks, its limits, and what both measured when they were set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, final

import attrs


@final
@attrs.frozen
class Run:
    """One process to measure."""

    workload: str
    """As the script calls it: ``W1:agents``."""
    n: int
    """Operations, or how many ask at once. 0 for an import."""
    is_before: bool = False
    """Whether the older copy is measured, by its own benchmarks."""

    @property
    def earlier(self) -> Run:
        """The same of the older copy."""
        return attrs.evolve(self, is_before=True)

    @property
    def command(self) -> tuple[str, ...]:
        """What to give to Python."""
        kind, _, what = self.workload.partition(":")
        if kind == "W6":
            return "imports.py", what
        script = "yardsticks.py" if is_yardstick(self) else "agents.py"
        if kind == "W9":
            script = "wire.py"
        return script, self.workload, "--n", str(self.n)


@final
@attrs.frozen
class Target:
    """How much dearer one run may be than another, in time per operation."""

    name: str
    of: Run
    over: Run
    at_most: float

    @property
    def by(self) -> str:
        """The time that counts."""
        return "wall_us" if self.of.workload.startswith("W2:") else "cpu_us"

    @property
    def before(self) -> str:
        """The ratio at 5cff005, which was measured at the usual sizes alone."""
        if not self.is_usual:
            return "-"
        of_all = BEFORE.get(self.name, "")
        return BEFORE.get(f"{self.name} {self.of.n}", of_all) or "-"

    @property
    def is_usual(self) -> bool:
        """Whether the sizes are those that the targets were set for."""
        usual = SIZES[self.of.workload.partition(":")[0]]
        if self.of.n != self.over.n:
            return (self.of.n, self.over.n) == (max(usual), min(usual))
        return self.of.n in usual

    @property
    def sizes(self) -> str:
        """Both sizes in words, or the one that both have."""
        if self.of.n == self.over.n:
            return f"{self.of.n:,}"
        return f"{self.of.n:,} / {self.over.n:,}"

    @property
    def over_before(self) -> Run:
        """What the older copy is divided by: the same yardstick, or its own smaller size."""
        return self.over if is_yardstick(self.over) else self.over.earlier


@final
@attrs.frozen
class Limit:
    """How much one run may take, all by itself."""

    name: str
    of: Run
    figure: str
    """Which of its figures."""
    times: float
    """What makes the figure what the name says."""
    at_most: float


YARDSTICKS: Final = ("naive", "reference", "full", "channel", "scoped")
"""What bare trio does; the rest is agentpool's."""

FOREIGN: Final = ("W6:trio", "W9:handmade", "W9:httpx")
"""Yardsticks in other scripts than that of bare trio."""


def is_yardstick(run: Run) -> bool:
    """Return whether *run* has nothing of agentpool in it."""
    return run.workload.partition(":")[2].startswith(YARDSTICKS) or run.workload in FOREIGN


SIZES: Final[Mapping[str, tuple[int, ...]]] = {
    "W1": (1_000, 10_000, 100_000),
    "W2": (2_000,),
    "W3": (100, 1_000, 10_000),
    "W4": (20_000,),
    "W5": (10_000,),
    "W6": (0,),
    "W7": (10_000,),
    "W8": (1, 10, 100, 1_000),
    "W10": (10, 1_000, 100_000),
    "W9": (10, 100, 1_000),
}
"""The workloads, and how many operations of each; of W8 how many observers, of W9 how many
at once, of W10 how many messages wait."""

LEAST: Final = {"W4": 100}
"""The least size of some: everybody of a mesh of 100 sends once."""

WORDS: Final[Mapping[str, str]] = {
    "W1": "many agents that do nothing, by each way to spawn and to collect them",
    "W2": "agents whose models take 50 ms, a thousand at once",
    "W3": "one agent that calls a tool in each of n turns",
    "W4": "n messages: a stream, batches, ping-pong, questions, a mesh of 100 agents",
    "W5": "the abort of n agents, running or queued",
    "W6": "the import of the package",
    "W7": "the start of n agents that wait in their models, and their memory",
    "W8": "an event, heard by nobody, by one, and by n observers",
    "W9": "completions over HTTP, n at once",
    "W10": "messages to inboxes in which n wait in the end",
}
"""What the workloads are, for ``--help``."""

EACH: Final = (
    ("T1 fan_out / reference pool", "W1:agents", "W1:reference", 2.0),
    ("T1 fan_out_nowait / reference pool", "W1:nowait", "W1:reference", 1.8),
    ("T1 fan_out / naive trio", "W1:agents", "W1:naive", 1.5),
    ("T2 spawn one by one / reference pool", "W1:spawn", "W1:reference", 2.2),
    ("T2 as_completed / reference pool", "W1:as-completed", "W1:reference", 2.5),
    ("T2 map / reference pool", "W1:map", "W1:reference", 2.5),
    ("T5 agents of 50 ms / reference pool, wall", "W2:agents", "W2:reference", 1.05),
    ("T6 turn / full loop", "W3:unwatched", "W3:full", 1.2),
    # The bound that it had at 5cff005: T6 is set for a turn that nobody watches.
    ("T6 turn with an observer / full loop", "W3:deadlines", "W3:full", 1.7),
    ("T7 stream / channel", "W4:stream", "W4:channel-stream", 1.3),
    ("T7 mesh / channel", "W4:mesh", "W4:channel-mesh", 1.5),
    ("T8 batch / channel", "W4:batch", "W4:channel-stream", 0.25),
    ("T9 ping-pong / channel", "W4:ping-pong", "W4:channel-ping-pong", 1.4),
    ("T9 ask and reply / channel", "W4:ask", "W4:channel-ping-pong", 1.8),
    ("T10 abort / scoped trio", "W5:running", "W5:scoped", 1.1),
    ("T12 import / trio", "W6:agentpool", "W6:trio", 1.4),
    ("T14 driver / h11 by hand", "W9:driver", "W9:handmade", 1.3),
    ("T14 driver / stock httpx", "W9:driver", "W9:httpx", 1.0),
)
"""Targets at each size: name, what, over what, at most."""

FLAT: Final = (
    ("T3 agent, many / few", "W1:agents", 1.1),
    ("growth: turn, late / early", "W3:deadlines", 1.2),
    ("growth: message, many waiting / few", "W10:waiting", 1.2),
    ("growth: event, many observers / few, each", "W8:observers", 1.2),
    ("growth: completion, many at once / few", "W9:driver", 1.2),
)
"""Targets of the largest size over the smallest: name, what, at most."""

LIMITS: Final = (
    Limit("T4 peak MB of 100,000 agents", Run("W1:agents", 100_000), "peak_mb", 1.0, 80.0),
    Limit("T11 abort of 10,000 queued, ms", Run("W5:queued", 10_000), "cpu_us", 10.0, 10.0),
    Limit("T14 ms on the clock at 1,000 at once", Run("W9:driver", 1_000), "wall_us", 1e-3, 0.2),
    Limit("T15 event unheard, us", Run("W8:unheard", 1), "cpu_us", 1.0, 0.4),
    Limit("T15 event heard once, us", Run("W8:heard", 1), "cpu_us", 1.0, 0.8),
)
"""Targets over no yardstick: what one of them takes, or of T11 all."""

BEFORE: Final[Mapping[str, str]] = {
    "T1 fan_out / reference pool": "3.5",
    "T1 fan_out_nowait / reference pool": "2.06-2.43",
    "T2 spawn one by one / reference pool": "3.6",
    "T2 as_completed / reference pool": "3.9",
    "T2 map / reference pool": "4.4-4.6",
    "T3 agent, many / few": "1.05",
    "T4 peak MB of 100,000 agents": "121",
    "T5 agents of 50 ms / reference pool, wall": "1.11",
    "T6 turn / full loop 100": "1.42",
    "T6 turn / full loop 1000": "1.28",
    "T6 turn / full loop 10000": "1.09",
    "T6 turn with an observer / full loop 100": "1.67",
    "T6 turn with an observer / full loop 1000": "1.56",
    "T6 turn with an observer / full loop 10000": "1.31",
    "T7 stream / channel": "2.1",
    "T7 mesh / channel": "3.2",
    "T8 batch / channel": "0.30",
    "T9 ping-pong / channel": "2.45",
    "T9 ask and reply / channel": "2.60",
    "T10 abort / scoped trio": "2.12",
    "T11 abort of 10,000 queued, ms": "29",
    "T12 import / trio": "1.41",
    "T14 driver / h11 by hand 10": "1.22",
    "T14 driver / h11 by hand 100": "1.26",
    "T14 driver / h11 by hand 1000": "1.46",
    "T14 ms on the clock at 1,000 at once": "0.22",
    "T15 event heard once, us": "0.40",
}
"""What today's benchmarks measured at 5cff005, on a quiet machine with CPython 3.11.7."""

ONLY: Final = {"W1:naive": 10_000}
"""The size of a target over a yardstick that gets dearer with the size."""

ALSO: Final = ("W1:remembering", "W3:agent", "W5:queued", "W7:waiting", "W8:unheard", "W8:heard")
"""What is measured and has no target over a yardstick."""


def targets(workload: str, sizes: Sequence[int]) -> Iterator[Target]:
    """Yield what *workload* is held against, at each of *sizes*."""
    for name, of, over, at_most in EACH:
        if of.startswith(f"{workload}:"):
            for n in sizes:
                if ONLY.get(over, n) == n:
                    yield Target(name, Run(of, n), Run(over, n), at_most)
    for name, of, at_most in FLAT:
        if of.startswith(f"{workload}:") and len(sizes) > 1:
            yield Target(name, Run(of, max(sizes)), Run(of, min(sizes)), at_most)
