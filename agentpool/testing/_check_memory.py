"""The contract of memories, as a check for any implementation."""

from __future__ import annotations

from contextlib import AsyncExitStack

import trio

from agentpool._checks import expect_arguments
from agentpool.abc import Fragment, Memory, MemoryQuery
from agentpool.testing._contract import Opener, is_a, open_one, promise

_SCOPES = ("one", "one:two", "two", "")
"""Names of scopes that a memory could confuse if it joined these names with other text."""


async def check_memory(opener: Opener[Memory]) -> None:
    """Check a memory: what it stores, finds and forgets, and that scopes stay apart.

    Args:
        opener: Opens an empty memory.

    Raises:
        AssertionError: If the memory breaks its contract. The error says how.
    """
    expect_arguments(check_memory, locals())
    async with AsyncExitStack() as stack:
        memory = await open_one(opener, stack)
        promise(is_a(memory, Memory), f"a memory must be a Memory, got {memory!r}")
        await _check_what_is_found(memory)
        await _check_what_is_forgotten(memory)
        await _check_scopes(memory)
        await _check_many(memory)
        await _check_cancellation(memory)


async def _find(memory: Memory, text: str, scope: str = "one", limit: int = 10) -> list[Fragment]:
    hits = await memory.recall(MemoryQuery(text=text, scope=scope, limit=limit))
    scores = [hit.score for hit in hits]
    promise(
        scores == sorted(scores, reverse=True),
        f"recall() must return the best first, got the scores {scores!r}",
    )
    promise(
        all(0.0 <= score <= 1.0 for score in scores),
        f"scores must be from 0.0 to 1.0, got {scores!r}",
    )
    promise(len(hits) <= limit, f"recall() must return at most {limit}, got {len(hits)}")
    return [hit.fragment for hit in hits]


async def _check_what_is_found(memory: Memory) -> None:
    promise(not await _find(memory, "whale"), "a fresh memory must be empty")
    kept = Fragment(content="the whale is grey", scope="one", source="tool", created_at=1.5)
    fragment_id = await memory.remember(kept)
    promise(fragment_id and is_a(fragment_id, str), f"an id must be text, got {fragment_id!r}")
    await memory.remember(Fragment(content="bread and butter", scope="one", created_at=2.5))
    hits = await _find(memory, "whale")
    promise(hits, "recall() must find a word that was remembered")
    promise(len(hits) == 1, f"recall() must not find fragments without the word, got {hits!r}")
    (found,) = hits
    promise(
        (found.content, found.scope, found.source, found.created_at)
        == (kept.content, kept.scope, kept.source, kept.created_at),
        f"a fragment must come back as it was given, got {found!r} for {kept!r}",
    )
    promise(
        found.fragment_id == fragment_id,
        f"a fragment must carry the id {fragment_id!r}, got {found.fragment_id!r}",
    )
    newest = [fragment.content for fragment in await _find(memory, "")]
    promise(
        newest == ["bread and butter", "the whale is grey"],
        f"a recall without words must return the newest first, got {newest!r}",
    )
    await _find(memory, "whale bread", limit=1)


async def _check_what_is_forgotten(memory: Memory) -> None:
    fragment_id = await memory.remember(Fragment(content="a secret", scope="one"))
    promise(
        await memory.forget(fragment_id) is True,
        "forget() must return True for an existing fragment",
    )
    promise(not await _find(memory, "secret"), "a forgotten fragment must not be found")
    promise(await memory.forget(fragment_id) is False, "forget() must return False the second time")
    promise(
        await memory.forget("no such id") is False, "forget() must return False for an unknown id"
    )
    again = await memory.remember(Fragment(content="a secret", scope="one"))
    promise(again != fragment_id, "an id must never be used again")
    await memory.forget(again)


async def _check_scopes(memory: Memory) -> None:
    for scope in _SCOPES:
        await memory.remember(Fragment(content=f"shark of {scope!r}", scope=scope))
    for scope in _SCOPES:
        found = [fragment.content for fragment in await _find(memory, "shark", scope)]
        promise(
            found == [f"shark of {scope!r}"],
            f"scope {scope!r} must find only its own fragments, got {found!r}",
        )
    promise(not await _find(memory, "shark", "three"), "a scope without fragments must be empty")


async def _check_many(memory: Memory) -> None:
    ids: list[str] = []

    async def remember(number: int) -> None:
        ids.append(await memory.remember(Fragment(content=f"fish {number}", scope="many")))

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(remember, number)
    promise(len(set(ids)) == 10, f"ids must differ, got {ids!r}")  # noqa: PLR2004  # ten were kept
    found = await _find(memory, "fish", "many")
    many = len(found)
    promise(many == 10, f"fragments kept in parallel must all be there, got {many} of 10")  # noqa: PLR2004  # see above


async def _check_cancellation(memory: Memory) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await memory.remember(Fragment(content="half a thought", scope="one"))
    promise(scope.cancelled_caught, "remember() must have a checkpoint: a cancelled call completed")
    promise(
        len(await _find(memory, "half")) in {0, 1}, "a fragment must be kept whole or not at all"
    )
