"""A lead that asks two researchers and writes what they say, before a deadline strikes.

    python research_team.py "How do bees find their way?" --seconds 60

The roles send each other messages. Who waits gives its slot back, so the team would run in a
pool of one; with three, nobody waits for a slot while the lead's deadline runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import trio

from agentpool import (
    AgentManifest,
    AgentOutcome,
    AgentPoolError,
    Budget,
    PoolPlan,
    SpawnConfig,
    open_manifest_pool,
)
from agentpool.abc import Driver

GRANTS = '[[capabilities]]\ntype = "message"\n'

RESEARCHER = AgentManifest.parse(
    'name = "researcher"\n'
    + GRANTS
    + """
[model]
temperature = 0.0
max_tokens = 200
system_prompt = "You wait for questions (wait_for_message), and answer each in two sentences."
[resources]
max_iterations = 8
"""
)

LEAD = AgentManifest.parse(
    'name = "lead"\n'
    + GRANTS
    + """
[model]
temperature = 0.0
max_tokens = 400
system_prompt = "You lead a team. Ask each researcher once (list_agents, ask_agent), then answer."
[resources]
max_iterations = 12
"""
)


async def research(
    question: str, *, seconds: float, driver: Driver | None = None
) -> tuple[AgentOutcome, list[AgentOutcome]]:
    """Return what became of the lead, and of its researchers.

    Args:
        question: What the team works on.
        seconds: How long the lead may take. What it had is kept when they are over.
        driver: Answers in place of the models, for tests.
    """
    plan = PoolPlan(
        manifests=(LEAD, RESEARCHER), max_concurrent=3, budget=Budget(tokens=100_000), driver=driver
    )
    async with open_manifest_pool(plan) as pool:
        team = [
            await pool.spawn(SpawnConfig(RESEARCHER, f"Your subject is {subject}.", name=subject))
            for subject in ("facts", "history")
        ]
        lead = await pool.spawn(SpawnConfig(LEAD, question, deadline_seconds=seconds))
        answer = await lead.wait()
        for member in team:
            member.cancel("the lead has its answer")
        return answer, [await member.wait() for member in team]


def main(argv: Sequence[str] | None = None, driver: Driver | None = None) -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description="Let a small team answer a question.")
    parser.add_argument("question")
    parser.add_argument("--seconds", type=float, default=120.0, help="the deadline (%(default)s)")
    words = parser.parse_args(argv)
    try:
        answer, _ = trio.run(lambda: research(words.question, seconds=words.seconds, driver=driver))
    except AgentPoolError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(answer.text or f"no answer: {answer.error}")
    return 0 if answer.text else 1


if __name__ == "__main__":
    sys.exit(main())
