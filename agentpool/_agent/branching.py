"""Starts a changed agent anew in the journal, with the results of its old run as history.

Rules:

1. A run is changed if its spawn was changed, or if it now asks for something other than before.
2. The new run keeps the conversation of the old one: its answers and results of calls, under the
   old config. A call that had begun and not ended is reported as such, and is not run.
3. If the tool says ``stop`` or ``ask`` for such calls, a person decides: there is no new run until
   that call has been settled.
4. Requests that were sent and have no answer are charged to the old run, at the reserved amounts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec

from agentpool._agent.agent import Agent
from agentpool._agent.run_journal import OnMismatch, RunJournal
from agentpool._agent.spending import estimate
from agentpool._errors import ResumeMismatchError
from agentpool._journal_records import JournalRecord, RecordKind, begins_call
from agentpool._loop.guard import Warn
from agentpool._loop.loop import run_loop
from agentpool._loop.run import Complete, Effect, LeftOut, Run, RunTools, Summarize
from agentpool._loop.tokens import Estimator
from agentpool._messages import ChatMessage, CompletionRequest
from agentpool._recorded_results import calls_in, digest_of, encode
from agentpool._served_call import Loss
from agentpool._spawn import SpawnConfig
from agentpool.tools._registry import ToolRegistry

NOT_THEN: Final = "not run: it could not be called then"
"""The result that the history gives for a call that was refused then and is allowed now."""

NewRun: TypeAlias = Callable[[Agent, SpawnConfig, ToolRegistry], Run]
"""Makes the run of an agent from a config."""


def branch_if_changed(
    agent: Agent, journal: RunJournal, registry: ToolRegistry, new_run: NewRun
) -> None:
    """Start a new run of *agent* if it has changed, with the old run's results as history.

    Raises:
        ResumeMismatchError: If a call of the old run must be settled by a person first.
    """
    if journal.history is not None and journal.changed_from is None:
        agent.config = msgspec.structs.replace(agent.config, history=journal.history)
    if journal.on_branch is None:
        return
    if journal.ended_with is not None:
        found = journal.ended_with, list[JournalRecord]()
    else:
        old = journal.changed_from or _changed_config(agent, registry, new_run)
        if old is None:
            return
        found = _settled(agent, old, registry, new_run)
    agent.config = journal.on_branch(agent.config, *found)
    journal.begin_again()


def _changed_config(agent: Agent, registry: ToolRegistry, new_run: NewRun) -> SpawnConfig | None:
    """Return the config of a run whose requests have changed. ``None``: they are as before."""
    try:
        _replay(agent, agent.config, registry, new_run, "refuse")
    except ResumeMismatchError:
        return agent.config
    return None


def _settled(
    agent: Agent, old: SpawnConfig, registry: ToolRegistry, new_run: NewRun
) -> tuple[tuple[ChatMessage, ...], list[JournalRecord]]:
    """Return the full history of a run, and the records of its unanswered requests."""
    scratch, run, effect = _replay(agent, old, registry, new_run, "accept")
    lost = list[JournalRecord]()
    if isinstance(effect, RunTools):
        _tell_begun(scratch, effect, registry)
    elif isinstance(effect, Complete | Summarize):
        lost = _lost(agent, scratch, effect.request)
    messages = run.settled_messages("its run was changed when the program went on")
    return messages, lost


def _replay(
    agent: Agent,
    config: SpawnConfig,
    registry: ToolRegistry,
    new_run: NewRun,
    on_mismatch: OnMismatch,
) -> tuple[RunJournal, Run, Effect | None]:
    """Replay the records of a run. Return the run so far, and its first effect without a result."""
    assert agent.journal is not None  # noqa: S101  # it has the records
    records = agent.journal.records
    scratch = RunJournal(agent.journal.writer, agent.agent_id, "", on_mismatch)
    scratch.recall_past(records)
    run = new_run(agent, config, registry)
    run.refuse = _as_before(run.refuse, records)
    for effect in run_loop(run):
        if not (isinstance(effect, Warn | LeftOut) or scratch.give_back(effect, run)):
            return scratch, run, effect
    scratch.refuse_early_end()
    return scratch, run, None


def _as_before(
    refuse: Callable[[str], str | None], records: tuple[JournalRecord, ...]
) -> Callable[[str], str | None]:
    """Return a *refuse* that allows the tools called before, and refuses the tools refused before.

    Which tools exist and are allowed now does not matter for these calls.
    """
    last_place = max((one.place for one in records), default=-1)
    known = {(one.place, one.part, one.digest) for one in records}
    started = [one for one in records if one.kind is RecordKind.STARTED]
    asked = {one.place for one in started if not begins_call(one)}
    made, missed = set[str](), set[str]()
    for one in records:
        if one.kind is not RecordKind.RESULT or one.place not in asked:
            continue
        for part, call in enumerate(calls_in(one.body)):
            if (one.place + 1, part, digest_of(call.name, call.arguments)) in known:
                made.add(call.name)
            elif one.place + 1 < last_place:
                missed.add(call.name)
    missed -= made
    return lambda name: None if name in made else NOT_THEN if name in missed else refuse(name)


def _tell_begun(scratch: RunJournal, effect: RunTools, registry: ToolRegistry) -> None:
    for part, call in enumerate(effect.calls):
        if effect.results[part] is not None or not scratch.is_unknown(part):
            continue
        effect.begun += (part,)
        tool = registry.get(call.name)
        if tool is not None and tool.on_unknown in {"ask", "stop"}:
            raise ResumeMismatchError(
                f"agent {scratch.agent_id} cannot be branched: call {call.name!r} had begun when "
                "the program ended, and a person must say whether it was done; undo the change and "
                "resume, so that it is settled",
                agent_id=scratch.agent_id,
                place=scratch.place,
                differs=f"call {call.name!r} has no known result",
            )


def _lost(agent: Agent, scratch: RunJournal, request: CompletionRequest) -> list[JournalRecord]:
    """Return a record for each request that was sent and not answered."""
    estimator = Estimator() if agent.purse is None else agent.purse.estimator
    loss = Loss(*estimate(agent.driver, request, estimator), is_repeated=True)
    record = JournalRecord(agent.agent_id, RecordKind.LOST, scratch.place, body=encode(loss))
    return [record] * scratch.left_before
