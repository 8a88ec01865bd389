"""The usage of requests, counted from events alone.

Rules:

1. What is unknown is counted as unknown, and never as zero.
2. Two kinds of estimates are also counted separately: the tokens of text that arrived before a
   request broke off, and the amounts that a budget was charged for such a request. For a request
   whose usage is unknown, a budget is charged everything that was set aside, so a budget may count
   more than the agents.
"""

from __future__ import annotations

from typing import Self, final

from agentpool._amounts import counted, dollars
from agentpool._base import Record
from agentpool._events import CompletionReceived, LostRequest, RequestFailed, RequestStarted
from agentpool._messages import NO_USAGE, Usage
from agentpool._outcome import AgentOutcome


@final
class Bill(Record):
    """The usage of requests to models."""

    requests: int = 0
    """Requests, including those to each driver of a fallback and those still under way."""
    failed: int = 0
    """Requests that got no complete answer: retried, refused or given up."""
    usage: Usage = NO_USAGE
    """The known tokens, plus an estimate for the text of requests that broke off."""
    estimated_tokens: int = 0
    """The part of ``usage`` that is an estimate."""
    unmeasured: int = 0
    """Requests whose tokens are unknown. If there are any, ``usage`` is too low."""
    known_usd: float = 0.0
    """US dollars of all requests whose cost is known."""
    unpriced: int = 0
    """Requests whose cost is unknown."""
    charged_requests: int = 0
    """Requests for which a budget was charged an estimate, in tokens or in US dollars."""
    charged_tokens: int = 0
    """Estimated tokens that budgets were charged."""
    charged_usd: float = 0.0
    """Estimated US dollars that budgets were charged."""

    @property
    def cost_usd(self) -> float | None:
        """The cost in US dollars. ``None``: part of the cost is unknown."""
        return None if self.unpriced else self.known_usd

    @property
    def budget_tokens(self) -> int:
        """The tokens that a budget counts for all these requests."""
        return self.usage.total_tokens - self.estimated_tokens + self.charged_tokens

    def tokens_words(self) -> str:
        """Return the tokens in a short form: ``?`` if unknown, ``15+?`` if partly unknown."""
        return self._partly(self.usage.total_tokens)

    def sides_words(self) -> tuple[str, str]:
        """Return the tokens of requests and the tokens of answers, both in a short form."""
        return self._partly(self.usage.input_tokens), self._partly(self.usage.output_tokens)

    def _partly(self, known: int) -> str:
        if not self.unmeasured:
            return f"{known:,}"
        return f"{known:,}+?" if known else "?"

    def unknown_words(self) -> list[str]:
        """Say which parts are unknown or estimated, and what budgets were charged for them."""
        return [*self.tokens_notes(), *self.cost_notes()]

    def tokens_notes(self) -> list[str]:
        """Say which part of the tokens is unknown, and which is an estimate."""
        found: list[str] = []
        if self.unmeasured:
            found.append(f"the tokens of {counted(self.unmeasured, 'request')} are unknown")
        if self.estimated_tokens:
            found.append(
                f"{self.estimated_tokens:,} of the tokens are an estimate of text that came"
            )
        return found

    def cost_notes(self) -> list[str]:
        """Say which part of the cost is unknown, and what budgets were charged for that part."""
        found: list[str] = []
        if self.unpriced:
            rest = dollars(self.known_usd)
            found.append(
                f"the cost of {counted(self.unpriced, 'request')} is unknown, the rest is {rest}"
            )
        if self.charged_requests:
            parts = [f"{self.charged_tokens:,} tokens"] if self.charged_tokens else []
            parts += [dollars(self.charged_usd)] if self.charged_usd else []
            what = " and ".join(parts) or "nothing"
            found.append(f"budgets were charged {what} as an estimate")
        return found

    def take(self, event: RequestStarted | RequestFailed | CompletionReceived) -> None:
        """Count *event*."""
        if isinstance(event, RequestStarted):
            self.requests += 1
        elif isinstance(event, CompletionReceived):
            self.requests += len(event.lost)
            self._lost(event.lost)
            self._count(event.usage, event.cost_usd)
            self._charge(event.charged_tokens, event.charged_usd)
        elif event.lost is None:
            self.failed += 1
        else:
            self.requests += len(event.lost) - 1
            self._lost(event.lost)

    def end(self, outcome: AgentOutcome, of_children: int = 0) -> None:
        """Add from *outcome* what events of earlier versions lack and what readers missed.

        Args:
            outcome: The agent's outcome.
            of_children: Requests with unknown usage that are in the children's outcomes.
        """
        more = outcome.unmeasured_requests - self.unmeasured - of_children
        if more > 0:
            self.unmeasured += more
            self.unpriced += more if outcome.cost_usd is None else 0

    def leave_open(self, requests: int) -> None:
        """Count the usage of *requests* as unknown, since their ends are not in the trace."""
        self.unmeasured += requests
        self.unpriced += requests

    def add(self, other: Self) -> None:
        """Add *other* to this bill."""
        self.requests += other.requests
        self.failed += other.failed
        self.usage += other.usage
        self.estimated_tokens += other.estimated_tokens
        self.unmeasured += other.unmeasured
        self.known_usd += other.known_usd
        self.unpriced += other.unpriced
        self.charged_requests += other.charged_requests
        self.charged_tokens += other.charged_tokens
        self.charged_usd += other.charged_usd

    def _lost(self, lost: tuple[LostRequest, ...]) -> None:
        self.failed += len(lost)
        for one in lost:
            self._count(one.usage, one.cost_usd)
            if not one.is_measured:
                self.unmeasured += 1
                self.estimated_tokens += one.usage.total_tokens
            self._charge(one.charged_tokens, one.charged_usd)

    def _count(self, usage: Usage | None, cost_usd: float | None) -> None:
        if usage is None:
            self.unmeasured += 1
        else:
            self.usage += usage
        if cost_usd is None:
            self.unpriced += 1
        else:
            self.known_usd += cost_usd

    def _charge(self, tokens: int | None, usd: float | None) -> None:
        self.charged_requests += tokens is not None or usd is not None
        self.charged_tokens += tokens or 0
        self.charged_usd += usd or 0.0
