"""What a full window costs: the bill of a long run, cut with and without room to spare.

``python -m benchmarks.window`` takes a run of 400 turns through a window of 20,000 tokens, and
prices what is sent as a provider does that keeps the beginning of the request before: tokens
of the same beginning cost a tenth. "each turn" is a window that pushes out at every turn as
much as it takes in; the others are the strategies of a manifest.

"fresh" are the requests of which less than 85 % was the beginning of the one before: short ones
at the beginning ("early"), to which a turn adds much, and the one after each cut. No cut can
spare that one: what stands behind the query moves.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from meter import Parser

from agentpool._loop.conversation import Conversation, message_tokens
from agentpool.drivers import AssistantMessage, ChatMessage, ToolCall, ToolMessage, UserMessage

TURNS = 400
ROOM_TOKENS = 20_000
USD_PER_MILLION = 3.0
CACHED_SHARE = 0.1
GOOD_SHARE = 0.85
SUMMARY = UserMessage("What was found so far. " * 80)


def turn(number: int) -> list[ChatMessage]:
    """Return a call of a tool and its result: some 250 tokens."""
    call = ToolCall(f"call-{number}", "look_up", f'{{"page": {number}}}')
    result = f"page {number}: " + "a line of text that somebody wrote. " * 16
    return [AssistantMessage("Let me see.", (call,)), ToolMessage(call.call_id, call.name, result)]


def requests(strategy: str) -> Iterator[Sequence[ChatMessage]]:
    """Yield what is sent, turn by turn."""
    query = UserMessage("Read all of the pages, and say what they have in common.")
    conversation = Conversation.begin((), (query,), room_tokens=ROOM_TOKENS)
    said: list[ChatMessage] = []
    for number in range(TURNS):
        if strategy == "each turn":
            while sum(map(message_tokens, said)) > ROOM_TOKENS - message_tokens(query):
                del said[:2]
            yield (query, *said)
            said += turn(number)
            continue
        if conversation.is_full():
            if strategy == "summary":
                yield (*conversation.leaving((), message_tokens(SUMMARY)), query)
            summary = SUMMARY if strategy == "summary" else None
            conversation.cut(clears_results=strategy == "clear_results", summary=summary)
        yield tuple(conversation.fit())
        for message in turn(number):
            conversation.append(message)


def bill(strategy: str) -> tuple[int, int, float, int, int, int]:
    """Return tokens sent, tokens kept, US dollars, requests, early and other fresh ones."""
    sent = kept = count = early = fresh = 0
    for before, after in itertools.pairwise(itertools.chain([()], requests(strategy))):
        sizes = [message_tokens(message) for message in after]
        pairs = zip(before, after, strict=False)
        same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        again = sum(sizes[:same])
        sent += sum(sizes)
        kept += again
        count += 1
        if again < GOOD_SHARE * sum(sizes):
            is_early = same == len(before)  # nothing has left
            early, fresh = early + is_early, fresh + (not is_early)
    usd = (sent - kept + kept * CACHED_SHARE) * USD_PER_MILLION / 1_000_000
    return sent, kept, usd, count, early, fresh


def main() -> None:
    """Print one line for each way to cut."""
    Parser(description=(__doc__ or "").partition("\n\n")[0]).parse_args()
    print(f"{TURNS} turns, a window of {ROOM_TOKENS:,} tokens, ${USD_PER_MILLION:g} per million")
    for strategy in ("each turn", "drop", "clear_results", "summary"):
        sent, kept, usd, count, early, fresh = bill(strategy)
        said = f"{sent:>10,} tokens sent  {kept / sent:6.1%} of them kept  ${usd:6.2f}"
        print(f"{strategy:14} {said}  of {count} requests {early} early and {fresh} others fresh")


if __name__ == "__main__":
    main()
