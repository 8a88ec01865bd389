"""The loop of an agent on bare asyncio: what every framework on it could cost."""

from __future__ import annotations

from one import Ask, Run

PACKAGE, IMPORT = "", "import asyncio"


def add(x: int) -> int:
    """Add one."""
    return x + 1


def runner(ask: Ask, calls: int) -> Run:
    """Make an agent that asks, calls its tool, and asks again."""

    async def run() -> str:
        messages = ["go"]
        for called in range(calls):
            await ask()
            messages.append(str(add(called)))
        await ask()
        return "done"

    return run
