"""Writes a finding as one word, which repeats it in any process.

Rules:

1. A token contains the decisions themselves, not how they were drawn, so it stays valid when a
   later version of the kit draws other orders from the same seeds.
2. It has only characters that are safe in a shell, a URL and a file name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias, final

import attrs

from agentpool._errors import UsageError

Target: TypeAlias = Literal["scenario", "agents", "agent", "scope"]
"""What is cancelled: the scope around the scenario; every agent of every pool, by ``abort_all``;
the agent whose step comes next, by ``handle.cancel``; or an ``operation()``, after which the
scenario goes on."""

TARGETS: Final[tuple[Target, ...]] = ("scenario", "agents", "agent", "scope")

VERSION: Final = "1"

_PART: Final = re.compile(r"([spdc])(-?[0-9a-wyz]+)(?:x([0-9.e+-]+))?")


@final
@attrs.frozen(kw_only=True)
class Finding:
    """The decisions of one run."""

    seed: int
    """The seed of the scenario's ``dice()``."""
    preemptions: Mapping[int, int] = attrs.field(factory=dict[int, int])
    """As in ``Plan``."""
    delays: Mapping[int, float] = attrs.field(factory=dict[int, float])
    """As in ``Plan``."""
    target: Target | None = None
    """What is cancelled. ``None``: nothing."""
    point: int = 0
    """The number of the point, from 1."""


def token_of(finding: Finding) -> str:
    """Encode *finding* as a token.

    >>> token_of(Finding(seed=7, preemptions={3: 1}, delays={0: 0.25}))
    '1_s7_p3x1_d0x0.25'
    """
    parts = [VERSION, f"s{finding.seed}"]
    parts += [f"p{place}x{back}" for place, back in sorted(finding.preemptions.items())]
    parts += [f"d{jump}x{seconds!r}" for jump, seconds in sorted(finding.delays.items())]
    if finding.target is not None:
        parts.append(f"c{finding.target}x{finding.point}")
    return "_".join(parts)


def parse_token(token: str) -> Finding:
    """Decode *token*.

    Raises:
        UsageError: If *token* is not a token, or a token of a different version.
    """
    version, *parts = token.strip().split("_")
    seed: int | None = None
    preemptions: dict[int, int] = {}
    delays: dict[int, float] = {}
    target: Target | None = None
    point = 0
    try:
        if version != VERSION:
            raise ValueError  # noqa: TRY301  # one sentence for all that may be wrong
        for part in parts:
            kind, number, more = _parse_part(part)
            if kind == "s":
                seed = int(number)
            elif kind == "p":
                preemptions[int(number)] = int(more)
            elif kind == "d":
                delays[int(number)] = float(more)
            else:
                target, point = TARGETS[TARGETS.index(number)], int(more)  # pyright: ignore[reportArgumentType]  # a text that is none is not found
    except ValueError:
        seed = None
    if seed is None:
        raise UsageError(
            f"{token!r} is not a token of this kit; copy the whole word that begins with "
            f"{VERSION}_s, as the finding printed it"
        )
    return Finding(seed=seed, preemptions=preemptions, delays=delays, target=target, point=point)


def _parse_part(part: str) -> tuple[str, str, str]:
    found = _PART.fullmatch(part)
    if found is None or (found[3] is None) != (found[1] == "s"):
        raise ValueError(part)
    return found[1], found[2], found[3] or ""
