"""The limits of one run: counts its use, and decides whether to go on, warn, refuse or stop.

Rules:

1. Each check first counts and then decides. A counter rises by exactly one per check.
2. From four fifths of the iterations or tokens on there is a warning each time; the
   first iteration never warns, since a run of one turn is at its limit by design.
3. Reaching a limit is allowed, exceeding it is not: a run of 5 iterations makes 5 requests.
4. Every requested tool call counts, whether it can run or not. The first call above the limit stops
   the run and is not counted.
5. Two calls are the same if they have the same name and equal JSON arguments: spaces and the order
   of keys do not matter. From ``max_repeated_calls`` on, such a call is refused, however long ago
   the others were, as long as all had the same result. A result that
   differs from the previous one starts the count again, even if only its picture is new: a model
   that polls is not in a loop.
6. A run is stuck if the same batch of calls had the same results four times in a row, or if two
   batches took turns four times each. If ``max_repeated_calls`` allows more repetitions, that
   number counts instead. The whole batch is compared, not its first call.
7. A tool that waits for what others do never counts as repeated: it is meant to be called again. A
   call that failed has waited for nothing. It is still never refused, but rule 6 applies to it.
8. Five truncated answers in a row stop the run; an answer with tool calls starts the count again.
9. Unknown usage is counted as unmeasured, not as zero, and there is one warning for each limit that
   cannot be checked any more. If a part of the cost is unknown, the cost is unknown, but the known
   part still must not exceed the limit. If a request broke off, the tokens of the text that arrived
   are counted by an estimate, and the rest is unknown.

A guard trusts its limits: a `ResourceQuota` cannot be made with wrong ones. It never goes through
earlier turns again, so turn 10,000 costs what turn 10 costs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final, TypeAlias, final

import msgspec

from agentpool._base import Live
from agentpool._errors import LimitExceededError, UsageError
from agentpool._loop.seen_calls import Batch, SeenCall, SeenCalls
from agentpool._manifest.manifest import ResourceQuota
from agentpool._messages import NO_USAGE, ToolCall, Usage
from agentpool._outcome import StopReason

MAX_TRUNCATIONS: Final = 5
"""Truncated answers in a row that stop a run. A model that has not finished after five answers of
full length will hardly finish in a sixth."""

STUCK_REPEATS: Final = 4
"""After this many equal batches of calls with equal results, a model is stuck and not polling: by
then each call has been refused once."""

NO_NAMES: Final[frozenset[str]] = frozenset()

NO_PLACES: Final[frozenset[int]] = frozenset()


@final
class Allow(msgspec.Struct, frozen=True, gc=False):
    """Go on."""


@final
class Warn(msgspec.Struct, frozen=True, gc=False):
    """Go on, and send a warning."""

    text: str
    """The limit that is near, with the numbers."""


@final
class Block(msgspec.Struct, frozen=True, gc=False):
    """Do not run this tool call. The run goes on."""

    text: str
    """The reason, for the model."""


@final
class Stop(msgspec.Struct, frozen=True, gc=False):
    """End the run."""

    reason: StopReason
    """The limit that ended it."""
    text: str
    """The limit that was reached, with the numbers."""
    used: float
    """How much was used, in the limit's own unit."""
    limit: float
    """How much was allowed, in the same unit."""
    source: str = "guard"
    """The owner of the limit: the run's guard, or a budget by its name."""

    def to_error(self, unfit: str = "", quota: ResourceQuota | None = None) -> LimitExceededError:
        """Make the error that ``unwrap`` raises for this verdict.

        Args:
            unfit: Why no earlier answer was of the required type. Empty: there was no answer of a
                wrong type.
            quota: The limits of the manifest. The error names the key that set the limit, unless
                the run had a lower limit. ``None``: the manifest was narrowed for the run.
        """
        key = _KEYS.get(self.reason) if self.source == "guard" and quota is not None else None
        if key is not None and getattr(quota, key) != self.limit:
            key = None
        return LimitExceededError(
            self.text
            + (f", and {unfit}" if unfit else "")
            + ("" if key is None else f"; the limit is [resources] {key}"),
            kind=self.reason.value,
            used=self.used,
            limit=self.limit,
            source=self.source,
        )


_KEYS: Final[Mapping[StopReason, str]] = {
    StopReason.MAX_ITERATIONS: "max_iterations",
    StopReason.MAX_TOOL_CALLS: "max_tool_calls",
    StopReason.TOKEN_BUDGET: "max_tokens_budget",
    StopReason.COST_BUDGET: "max_cost_usd",
}
"""The name of each limit in a manifest."""

Verdict: TypeAlias = Allow | Warn | Block | Stop
"""The possible decisions of a guard."""

ALLOW: Final = Allow()
"""The verdict of nearly every check. One object serves all checks, so that none of them creates a
new one."""


@final
class LoopGuard(Live, gc=False):
    """Counts the usage of one run against its limits."""

    resources: ResourceQuota
    """The limits."""
    waiting_tools: AbstractSet[str] = NO_NAMES
    """The tools that wait for what others do."""
    iterations: int = 0
    """Iterations that were checked, including the one that ended the run."""
    tool_calls: int = 0
    """Tool calls that the model asked for, whether they ran or not."""
    usage: Usage = NO_USAGE
    """Tokens of all answers with known usage."""
    unmeasured_requests: int = 0
    """Answers without known usage."""
    known_cost_usd: float = 0.0
    """US dollars so far, counting only answers with a price."""
    _truncations: int = 0
    _cost_is_known: bool = True
    _calls: SeenCalls | None = None

    @property
    def turns(self) -> int:
        """Iterations that were allowed: the model requests of the run."""
        return min(self.iterations, self.resources.max_iterations)

    @property
    def cost_usd(self) -> float | None:
        """US dollars so far. ``None``: some answers have no price; 0.0 is free."""
        return self.known_cost_usd if self._cost_is_known else None

    def check_iteration(self) -> Allow | Warn | Stop:
        """Count an iteration and decide whether it may make its request."""
        self.iterations = count = self.iterations + 1
        limit = self.resources.max_iterations
        # In whole numbers: at 2 of 3 iterations no four fifths are used.
        if count * 5 < limit * 4 or count == 1:
            return ALLOW
        if count > limit:
            text = f"max iterations reached ({limit})"
            return Stop(StopReason.MAX_ITERATIONS, text, limit, limit)
        return Warn(f"iteration {count}/{limit} ({count * 100 // limit}% of max_iterations)")

    def check_tool_call(self, name: str, arguments: str) -> Allow | Block | Stop:
        """Count a tool call and decide whether it may run.

        Call this for every call, before looking up the tool and whether it is granted: calls of
        invented tools use up the limit as well.

        Args:
            name: The tool's name, as the model wrote it.
            arguments: JSON text, as the model wrote it; it may be invalid.
        """
        limit = self.resources.max_tool_calls
        if self.tool_calls >= limit:
            text = f"max tool calls reached ({limit})"
            return Stop(StopReason.MAX_TOOL_CALLS, text, limit, limit)
        self.tool_calls += 1
        if name in self.waiting_tools:
            return ALLOW
        seen = (self._calls or self._seen()).find(name, arguments)
        seen.count += 1
        if seen.count < self.resources.max_repeated_calls:
            return ALLOW
        return Block(
            f"ping-pong detected: tool '{name}' called {seen.count} times with same input, and "
            "its result has not changed; do something else"
        )

    def check_stuck(self, calls: Sequence[ToolCall]) -> Allow | Stop:
        """Record the calls of one answer and decide whether the model repeats itself.

        Call this once for each answer with tool calls, before `check_tool_call`, which uses the
        findings.
        """
        seen = self._calls or self._seen()
        waiting = self.waiting_tools
        if len(calls) == 1:  # as in most answers
            found: tuple[SeenCall, ...] = (seen.find_call(calls[0]),)
        else:
            found = tuple(map(seen.find_call, calls))
        waits = False
        if waiting:
            for call, one in zip(calls, found, strict=True):
                one.waits = call.name in waiting and not one.failed
                waits = waits or one.waits
        seen.note_batch(Batch(found, waits))
        if seen.same_in_row < STUCK_REPEATS and seen.alternating_in_row < 2 * STUCK_REPEATS:
            return ALLOW
        # A call that may be repeated more often must be able to reach its own limit first.
        limit = max(STUCK_REPEATS, self.resources.max_repeated_calls + 1)
        if seen.same_in_row >= limit:
            text = f"stuck: the same tool calls {limit} times in a row, with the same results"
        elif seen.alternating_in_row >= 2 * limit:
            text = f"stuck: the same two sets of tool calls in turn, {limit} times each"
        else:
            return ALLOW
        return Stop(StopReason.STUCK, text, limit, limit)

    def record_results(
        self, results: Sequence[str | None], failed: AbstractSet[int] = NO_PLACES
    ) -> None:
        """Record the results of the newest calls.

        Args:
            results: One for each call, in their order. ``None``: the call was refused.
            failed: The places of the calls that failed.
        """
        batch = (self._calls or self._seen()).batches[0]
        calls = batch.calls
        place = -1
        for result in results:
            place += 1  # enumerate() takes as long as the rest of this for a single call
            if result is None:
                continue
            seen = calls[place]
            has_failed = place in failed
            if has_failed is not seen.failed:
                seen.failed = has_failed
            if has_failed and seen.waits:
                seen.waits = False
            if result != seen.result:
                if seen.result is not None:
                    seen.count = 1
                seen.result = result
        if batch.waits and failed:
            batch.waits = any(seen.waits for seen in calls)
        # One that was refused has changed nothing: it counts as what it came to before.
        batch.results = tuple([seen.result for seen in calls])

    def record_text(self, text: str) -> None:
        """Record the result of the only call of the newest answer, as ``record_results`` does.

        Args:
            text: The result, without attachments, of a call that did not fail.
        """
        batch = (self._calls or self._seen()).batches[0]
        seen = batch.calls[0]
        if seen.failed:
            seen.failed = False
        if text != seen.result:
            if seen.result is not None:
                seen.count = 1
            seen.result = text
        batch.results = (text,)

    def record_truncation(self) -> Allow | Stop:
        """Count a truncated answer and decide whether to ask for the rest."""
        self._truncations += 1
        if self._truncations < MAX_TRUNCATIONS:
            return ALLOW
        # The original's words, which people search their logs for.
        text = f"{self._truncations} consecutive MaxTokens responses"
        return Stop(StopReason.TRUNCATION, text, self._truncations, MAX_TRUNCATIONS)

    def reset_truncation(self) -> None:
        """Forget earlier truncated answers, because the model asked for tools."""
        if self._truncations:
            self._truncations = 0

    def record_usage(self, usage: Usage | None) -> Allow | Warn | Stop:
        """Add the tokens of an answer and decide whether the run may go on.

        Args:
            usage: The tokens of the answer. ``None``: the provider did not say.

        Raises:
            UsageError: If a number is negative. Nothing was added.
        """
        if usage is None:
            self.unmeasured_requests += 1
            budget = self.resources.max_tokens_budget
            if budget is not None and self.unmeasured_requests == 1:
                return Warn(
                    f"usage of an answer is unknown: the budget of {budget} tokens "
                    "cannot be checked"
                )
            return ALLOW
        if usage.input_tokens < 0 or usage.output_tokens < 0:
            raise UsageError(f"tokens must be >= 0, got {usage!r}; no budget is refunded")
        self.usage += usage
        budget = self.resources.max_tokens_budget
        if budget is None:
            return ALLOW
        total = self.usage.total_tokens
        if total < budget * 4 // 5:
            return ALLOW
        if total > budget:
            text = f"token budget exhausted: {total} > {budget}"
            return Stop(StopReason.TOKEN_BUDGET, text, total, budget)
        percent = total * 100 // budget
        return Warn(f"token usage {total}/{budget} ({percent}% of max_tokens_budget)")

    def record_lost(self, written_tokens: int, cost_usd: float | None) -> Allow | Warn:
        """Count a request that broke off with unknown usage.

        Args:
            written_tokens: An estimate of the text that had come.
            cost_usd: The cost of such a request in US dollars. ``None``: unknown.
        """
        if written_tokens:
            self.usage += Usage(output_tokens=written_tokens)
        usage, cost = self.record_usage(None), self.record_cost(cost_usd)
        # An instance check of a struct takes ten times as long as a look at its type.
        if type(usage) is Warn:
            return usage
        return cost if type(cost) is Warn else ALLOW

    def record_unmeasured(self, count: int) -> None:
        """Count requests of children with unknown usage."""
        self.unmeasured_requests += count

    def record_cost(self, cost_usd: float | None) -> Allow | Warn | Stop:
        """Add the cost of an answer and decide whether the run may go on.

        Args:
            cost_usd: US dollars. ``None``: the answer has no known price.

        Raises:
            UsageError: If it is negative, infinite or not a number. Nothing was added.
        """
        limit = self.resources.max_cost_usd
        if cost_usd is None:
            if not self._cost_is_known:
                return ALLOW
            self._cost_is_known = False
            if limit > 0:
                return Warn(
                    f"cost of an answer is unknown: the budget of ${limit:.4f} cannot be checked"
                )
            return ALLOW
        if not 0 <= cost_usd < math.inf:
            raise UsageError(
                f"cost_usd must be finite and >= 0, got {cost_usd!r}; use None if it is unknown"
            )
        self.known_cost_usd = spent = self.known_cost_usd + cost_usd
        if 0 < limit < spent:
            text = f"cost budget exceeded: ${spent:.4f} > ${limit:.4f}"
            return Stop(StopReason.COST_BUDGET, text, spent, limit)
        return ALLOW

    def _seen(self) -> SeenCalls:
        self._calls = SeenCalls()
        return self._calls
