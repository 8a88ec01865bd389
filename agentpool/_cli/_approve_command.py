"""``agentpool approve``: shows the questions of agents whose program has ended, or answers one."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import trio

from agentpool import UsageError
from agentpool import journal as journals
from agentpool._cli._command import ApproveCommand
from agentpool._cli._journal_file import expect_journal
from agentpool._cli._report import ExitCode
from agentpool._cli._screen import write_out
from agentpool.drivers import Json
from agentpool.journal import OpenQuestion, answer_question, open_questions
from agentpool.tools import Approved, Decision, Denied, one_line, printable


def answer(command: ApproveCommand) -> int:
    """Run *command* and return the exit code.

    Raises:
        UsageError: If there is no such file, or the file has no such question.
        JournalError: If the file cannot be used, or a process runs the pool.
    """
    expect_journal(command.file)

    async def main() -> str:
        looks = command.question is None
        async with journals.open_journal(command.file, read_only=looks) as journal:
            found = await _questions(journal, command.pool)
            if command.question is None:
                return _listed(found, as_json=command.json)
            return await _answer(journal, found, command)

    write_out(sys.stdout, trio.run(main))
    return ExitCode.COMPLETED


async def _questions(
    journal: journals.SqliteJournal, pool: str | None
) -> list[tuple[str, OpenQuestion]]:
    names = [one.pool for one in await journal.pools()]
    if pool is not None and pool not in names:
        known = ", ".join(map(repr, names)) or "none"
        raise UsageError(f"the journal has no pool {pool!r}; it has {known}")
    wanted = names if pool is None else [pool]
    return [(name, one) for name in wanted for one in open_questions(await journal.read(name))]


def _listed(found: Sequence[tuple[str, OpenQuestion]], *, as_json: bool) -> str:
    if as_json:
        return "".join(f"{json.dumps(_object(pool, one))}\n" for pool, one in found)
    lines = [f"{printable(pool)} {_words(one)}" for pool, one in found]
    return "".join(f"{line}\n" for line in lines or ["no questions"])


async def _answer(
    journal: journals.SqliteJournal,
    found: Sequence[tuple[str, OpenQuestion]],
    command: ApproveCommand,
) -> str:
    assert command.question is not None  # noqa: S101  # or they would be listed
    pools = [pool for pool, one in found if one.question_id == command.question]
    if len(pools) != 1:
        if pools:
            raise UsageError(
                f"question {command.question!r} is open in several pools; choose one with --pool: "
                f"{', '.join(pools)}"
            )
        known = ", ".join(f"{pool} {one.question_id}" for pool, one in found) or "none"
        raise UsageError(f"there is no open question {command.question!r}; these are open: {known}")
    by = "agentpool approve"
    decision: Decision = Approved(by) if command.answer == "yes" else Denied(command.reason, by)
    question = await answer_question(journal, pools[0], command.question, decision)
    return f"{command.answer}: {_words(question)}; run its command again to go on\n"


def _words(question: OpenQuestion) -> str:
    call = question.call
    return (
        f"{question.question_id}: agent {question.agent_id} asks to call {one_line(call.name, 60)} "
        f"with {one_line(call.arguments)}"
    )


def _object(pool: str, question: OpenQuestion) -> Json:
    return {
        "type": "question",
        "pool": pool,
        "question": question.question_id,
        "agent_id": question.agent_id,
        "tool": question.call.name,
        "arguments": question.call.arguments,
    }
