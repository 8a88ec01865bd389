"""Translates an effort such as ``high`` into Claude's settings for thinking.

Rules:

1. From 4.6 on, Claude itself decides how much to think (``adaptive``), and gets the effort as a
   hint.
2. Older models refuse ``adaptive``; they get a budget in tokens instead. Of these, only Opus 4.5
   also accepts an effort, up to ``high``.
3. A budget is at most half of the answer's limit, which includes it. If it would be under 1,024
   tokens, the least that the API accepts, the model does not think.
4. Models before 3.7 cannot think: any effort except ``none`` is refused before anything is paid.
5. The user's own ``thinking`` option has precedence.

Source: Anthropic's pages on adaptive thinking, extended thinking and effort, as quoted in
bugbug#5719 and pensarai/apex#890, and its list of models that think (2026-11).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from agentpool._errors import BadRequestError
from agentpool._messages import Json

LEAST_BUDGET: Final = 1024
"""The fewest tokens for thoughts that the API takes."""

_BUDGETS: Final[Mapping[str, int]] = {
    "minimal": LEAST_BUDGET,
    "low": LEAST_BUDGET,
    "medium": 4096,
    "high": 16_384,
    "xhigh": 32_768,
    "max": 32_768,
}

# "claude-sonnet-4-5-20250929", "anthropic/claude-opus-4.1", "claude-sonnet-4-20250514".
_VERSION: Final = re.compile(r"claude-(?:opus|sonnet|haiku)-(\d+)(?:[-.](\d{1,2})(?!\d))?")
# "claude-3-7-sonnet-latest".
_OLD_NAME: Final = re.compile(r"claude-[123]\b")
# "claude-3-5-sonnet-20241022", "claude-3.5-haiku", "claude-3-opus-latest", "claude-instant-1.2".
_NEVER_THINKS: Final = re.compile(r"claude-(?:instant|v?[12]\b|3(?![-.]7)\b)")
_FIRST_ADAPTIVE: Final = (4, 6)
_FIRST_WITH_EFFORT: Final = (4, 5)
_AT_FIRST: Final[Mapping[str, str]] = {"minimal": "low", "xhigh": "high", "max": "high"}
"""The nearest effort of the three that Opus 4.5 knows."""


def claude_thinking(
    model: str, effort: str | None, own: Json, limit: int
) -> Mapping[str, Json] | None:
    """Return the ``thinking`` field of a request. ``None``: leave it out.

    Args:
        model: The model that is asked.
        effort: How much to think, as a word.
        own: The ``thinking`` field in the user's options.
        limit: The most tokens of the answer.

    Raises:
        BadRequestError: If the model cannot think, or has no budget for that word.
    """
    if isinstance(own, Mapping):
        return own
    if effort is None:
        return None
    never_thinks = _NEVER_THINKS.search(model) is not None
    if effort == "none":
        return None if never_thinks else {"type": "disabled"}
    if never_thinks:
        raise BadRequestError(
            f"{model} cannot think, so it takes no reasoning_effort, got {effort!r}; leave it out, "
            "or choose a model from Claude 3.7 on"
        )
    if not _wants_budget(model):
        return {"type": "adaptive", "display": "summarized"}
    if effort not in _BUDGETS:
        msg = (
            f"{model} needs a thinking budget, and none is known for reasoning_effort {effort!r}; "
        )
        raise BadRequestError(f"{msg}write one of: none, {', '.join(_BUDGETS)}")
    budget = min(_BUDGETS[effort], limit // 2)
    return {"type": "enabled", "budget_tokens": budget} if budget >= LEAST_BUDGET else None


def claude_effort(model: str, effort: str | None) -> str | None:
    """Return the ``effort`` field of a request. ``None``: leave it out."""
    if effort is None or effort == "none":
        return None
    if not _wants_budget(model):
        return effort
    is_known = "claude-opus-" in model and _version_of(model) == _FIRST_WITH_EFFORT
    return _AT_FIRST.get(effort, effort) if is_known else None


def _wants_budget(model: str) -> bool:
    version = _version_of(model)
    return version < _FIRST_ADAPTIVE if version is not None else bool(_OLD_NAME.search(model))


def _version_of(model: str) -> tuple[int, int] | None:
    found = _VERSION.search(model)
    return None if found is None else (int(found[1]), int(found[2] or 0))
