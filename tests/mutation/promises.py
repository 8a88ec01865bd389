"""The promises of a journal, broken one at a time: one fault for each, and the test that is red.

``python -m tests.mutation.promises`` prints the table, and exits with 1 if one is green.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.mutation.fault import Fault
from tests.mutation.faults import is_red

PROMISES: Final = (
    Fault(
        "J1", "the same end: what was received at a turn's beginning is not kept",
        "_agent/run_journal.py",
        "            if effect.messages or effect.interrupted:\n",
        "            if effect.interrupted:\n",
        "tests/journal/test_resume.py", "memory_messages_and_approvals",
    ),
    Fault(
        "J1", "the same end: a stream leaves out what was said before", "_pool/text_stream.py",
        "            stream._said_from = len(record.take_work()[0].history)\n",
        "            pass\n",
        "tests/journal/test_streams.py", "a_stream_has_all_answers",
    ),
    Fault(
        "J1", "the same end: an error is of another class", "_pool/past.py",
        "        outcome = msgspec.structs.replace(outcome, error=own_error(outcome.error))\n",
        "        pass\n",
        "tests/journal/test_errors_of_before.py", "a_limit_is_a_limit_again",
    ),
    Fault(
        "J2", "nothing is paid again: an answer is not kept", "_agent/run_journal.py",
        "self._note(RecordKind.RESULT, body=encode(Answered.of(effect, run)), wakes=False)\n",
        "encode(Answered.of(effect, run))\n",
        "tests/journal/test_promises.py", "every_call_has_a_key",
    ),
    Fault(
        "J3", "a finished call never runs again: its result is not kept", "_agent/run_journal.py",
        "        self._note(RecordKind.RESULT, part, digest, encode(called), wakes=wakes)\n",
        "        encode(called)\n",
        "tests/journal/test_resume.py", "a_call_that_ended_never_runs_again",
    ),
    Fault(
        "J4", "a call that may have run is not guessed: it is run again", "_agent/tool_calls.py",
        '        case "rerun" | "ask":\n            return False\n',
        '        case "rerun" | "ask" | "report":\n            return False\n',
        "tests/journal/test_resume.py", "a_tool_that_says_nothing_of_it",
    ),
    Fault(
        "J4", "a call that had begun is spent once: it is spent again when it runs again",
        "_agent/tool_calls.py",
        "    started, error = (None, None) if is_unknown else await _spend(",
        "    started, error = await _spend(",
        "tests/journal/test_begun_calls.py", "a_begun_call_is_spent_once",
    ),
    Fault(
        "J9", "what was done is never told as not run: a lower limit ends the run before",
        "_agent/resume_mismatch.py",
        "    if place >= last_place:\n        return None\n",
        "    if place >= 0:\n        return None\n",
        "tests/journal/test_other_calls.py", "a_run_that_would_end_now",
    ),
    Fault(
        "J5", "every call has a key of its own: agents share keys", "_agent/run_journal.py",
        "digest_of(self.key, self.place, part, call.name, call.arguments)",
        "digest_of(self.place, part, call.name, call.arguments)",
        "tests/journal/test_promises.py", "every_call_has_a_key",
    ),
    Fault(
        "J6", "the row comes before the deed: a call begins before it is kept",
        "_agent/tool_calls.py",
        "        if not journal.writer.flush_at_once():\n",
        "        if False:\n",
        "tests/journal/test_before_the_deed.py", "a_request_and_a_call_leave_when_it_is_kept",
    ),
    Fault(
        "J6", "power: the disk is not waited for", "journal/_sqlite.py",
        '{"process": "OFF", "power": "FULL"}',
        '{"process": "OFF", "power": "NORMAL"}',
        "tests/journal/test_power.py", "power_waits_for_the_disk",
    ),
    Fault(
        "J1", "the same end: a reply waits for a question that is not asked again",
        "_messaging/post_office.py",
        "            kept.sent_again(known)\n",
        "            pass\n",
        "tests/journal/test_sent_once.py", "a_reply_to_the_owner",
    ),
    Fault(
        "J1", "the same end: a racer that is not started again gives its key to others",
        "_pool/race.py",
        "    if journal is None or journal.keys.is_plain:\n",
        "    if True:\n",
        "tests/journal/test_agent_keys.py", "a_loser_that_is_not_started_again",
    ),
    Fault(
        "J3", "a child that ended is not run again: it goes by its order",
        "_pool/agent_keys.py",
        "    def _next_of_call(self, config: SpawnConfig, call: ServedCall) -> str:\n"
        "        if config.key is not None and not self.is_plain:\n",
        "    def _next_of_call(self, config: SpawnConfig, call: ServedCall) -> str:\n"
        "        if False:\n",
        "tests/journal/test_agent_keys.py", "children_have_their_keys",
    ),
    Fault(
        "J7", "linear: each request keeps the conversation", "_agent/run_journal.py",
        '        body = b"" if reserved is None else encode(reserved)\n',
        "        body = encode(tuple(request.messages))\n",
        "tests/journal/test_promises.py", "ten_times_the_turns",
    ),
    Fault(
        "J8", "one owner: an old fence writes as well", "_lease.py",
        "        if fence != self.fence or self.holder == NOBODY:\n            return None\n"
        "        return msgspec.structs.replace(self, renewed_at=now)",
        "        return msgspec.structs.replace(self, renewed_at=now)",
        "tests/journal/test_contract.py", "the_contract_is_kept",
    ),
    Fault(
        "J9", "a change is seen: requests are not compared", "_agent/run_journal.py",
        "            and begun.digest != self._digests.of(effect.request)\n",
        "            and False\n",
        "tests/journal/test_resume.py", "another_tool_is_seen",
    ),
    Fault(
        "J9", "a change is seen: a memory that comes or goes shifts the records",
        "_agent/resume_mismatch.py",
        "    return _HAD if is_other else None\n",
        "    return None\n",
        "tests/journal/test_second_process.py", "a_memory_that_comes",
    ),
    Fault(
        "J9", "what was settled is the history of a branch: it begins with nothing",
        "_agent/branching.py",
        "    return messages, lost\n",
        "    return old.history, lost\n",
        "tests/journal/test_branch.py", "what_was_settled_is_the_history",
    ),
    Fault(
        "J10", "a newer file is refused: it is written to", "_database/format.py",
        "    if number in {0, APPLICATION_ID} and found > len(kind.migrations):\n",
        "    if False:\n",
        "tests/cli/test_journal.py", "a_file_of_a_later_version_is_refused",
    ),
    Fault(
        "J10", "what fails is not half done: it is not rolled back", "_database/database.py",
        '                    self._connection.execute("ROLLBACK")\n',
        "                    pass\n",
        "tests/journal/test_each_statement.py", "after_each_statement_that_fails",
    ),
    Fault(
        "J11", "sessions: a turn that failed is one", "_pool/past.py",
        "WHOLE: Final = frozenset({AgentStatus.COMPLETED, AgentStatus.STOPPED})",
        "WHOLE: Final = frozenset(AgentStatus)",
        "tests/journal/test_session.py", "what_failed_or_was_cancelled_is_no_turn",
    ),
    Fault(
        "J11", "a turn that was given out is kept: it is kept some time later",
        "_pool/session.py",
        "                await self.flush()\n",
        "                pass\n",
        "tests/journal/test_session.py", "a_turn_that_was_given_out",
    ),
    Fault(
        "J9", "a branch begins with the history that it was spawned with: with the old one",
        "_pool/branch.py",
        "    before = config.history if is_changed else past.config.history[:base]\n",
        "    before = past.config.history[:base]\n",
        "tests/journal/test_branch.py", "another_history",
    ),
    Fault(
        "J10", "the check sees what a store cuts: it looks at short bodies alone",
        "testing/_check_journal.py",
        "        await _check_long_bodies(journal)\n",
        "",
        "tests/journal/test_contract.py", "a_fault_is_seen",
    ),
    Fault(
        "J12", "pruning touches no open run: it does", "journal/_sqlite.py",
        "        check_over(found[pool])\n",
        "",
        "tests/journal/test_sqlite.py", "a_pool_is_summed_up_and_pruned",
    ),
    Fault(
        "J13", "approvals survive: an answer is asked for again", "_agent/run_journal.py",
        "        if known is not None and known.digest == digest:\n",
        "        if known is not None and False:\n",
        "tests/journal/test_approvals.py", "what_is_answered_later_is_done_once",
    ),
    Fault(
        "J14", "two processes do not overspend: what one takes the other does not see",
        "_budget/store.py",
        "            table.add(one.name, period, one.wanted)\n",
        "",
        "tests/budget/test_store.py", "two_processes_spend_exactly",
    ),
    Fault(
        "J14", "a request begins and is reserved in one write: it is written on its own",
        "journal/_writer.py",
        " and store.backing_store is self.journal\n",
        " and not store\n",
        "tests/budget/test_store.py", "after_any_crash_the_store_has_exactly",
    ),
    Fault(
        "J14", "what a result took is written with it: the store is told before",
        "_agent/request.py",
        "                told_later = purse.kept_with(self._journal)  # its result is noted next\n",
        "                told_later = ()\n",
        "tests/budget/test_store.py", "after_any_crash_the_store_has_exactly",
    ),
    Fault(
        "J14", "a fallback counts each driver: the one that failed is not kept at once",
        "drivers/_fallback.py",
        "                await asking.go_on()\n",
        "                pass\n",
        "tests/journal/test_fallbacks.py", "a_kill_while_the_second_is_asked",
    ),
    Fault(
        "J14", "a fallback counts each driver: what a tool asks has one row",
        "_agent/request.py",
        "            await self.aside.begin(self._most())\n        if not self.driver",
        "            await trio.lowlevel.checkpoint()\n        if not self.driver",
        "tests/journal/test_fallbacks.py", "the_row_of_each_driver_comes_before",
    ),
    Fault(
        "G16", "a fallback stays within the budget: its next driver is not reserved for",
        "_agent/request.py",
        "                raise self.refusal\n",
        "                self.refusal = None\n",
        "tests/agent/test_each_driver.py", "no_driver_is_asked_beyond_the_limit",
    ),
    Fault(
        "G16", "who pays for a fallback: the agent whose tool's driver spawned another",
        "_scheduling/watcher.py",
        " and by_tool[0] is slot:\n",
        ":\n",
        "tests/agent/test_inherited_context.py", "what_a_fallback_asks_counts_for_its_own",
    ),
    Fault(
        "J14", "what never left is not counted: a tool's request at a gate is",
        "_agent/request.py",
        "            self.aside.withdraw()\n",
        "            pass\n",
        "tests/journal/test_fallbacks.py", "a_tools_request_that_never_left",
    ),
    Fault(
        "J14", "what never left is not counted: a request is whose record was being written",
        "_agent/driving.py",
        "                journal.keep_unsent()\n",
        "                pass\n",
        "tests/journal/test_fallbacks.py", "a_request_that_is_cut_before_it_begins",
    ),
    Fault(
        "J14", "the budget of a manifest outlives its pool: it is not made", "_build/budgets.py",
        "    for name, (config, whose) in wanted.items():\n",
        "    for name, (config, whose) in ():\n",
        "tests/cli/test_budget_file.py", "a_manifest_has_a_budget_for_all_commands",
    ),
    Fault(
        "J14", "every wait ends: who holds a gate waits for who waits at it",
        "_budget/reservation.py",
        "            return self._is_told and not self._is_waiting()\n",
        "            return not (self._started and self._is_stalled())\n",
        "tests/budget/test_periods_and_gates.py", "who_holds_the_turn_at_a_gate",
    ),
    Fault(
        "J14", "a period begins with nothing: what is under way takes of it", "_budget/claims.py",
        "        self.account.set_aside(reserved_by(reservation), -1)\n",
        "        pass\n",
        "tests/budget/test_periods_and_gates.py", "what_is_under_way_from_the_last_hour",
    ),
    Fault(
        "J14", "who waited into a period is judged by it: by the one before",
        "_agent/spending.py",
        "            if not (isinstance(result, LimitExceededError) and self.is_stored):\n",
        "            if True:\n",
        "tests/budget/test_periods_and_gates.py", "who_waited_into_the_next_hour",
    ),
    Fault(
        "J14", "the numbers are the store's: all that is set aside is taken off",
        "_budget/claims.py",
        "self.kept.pending(found.period), self.counted_amounts)\n",
        "self.kept.pending(found.period), self.account.reserved)\n",
        "tests/budget/test_periods_and_gates.py", "the_numbers_stay_right_after_a_refusal",
    ),
    Fault(
        "J14", "no driver is asked unreserved: one without a price frees all",
        "drivers/_fallback.py",
        "        return max((price for price in prices if price is not None), default=None)\n",
        "        return None if None in prices else max(price or 0 for price in prices)\n",
        "tests/budget/test_periods_and_gates.py", "a_driver_without_a_price_leaves",
    ),
    Fault(
        "J14", "unknown is not zero: the next process does not know of it",
        "_budget/claims.py",
        "            self.account.see_unknown(found.used)\n",
        "            pass\n",
        "tests/budget/test_periods_and_gates.py",
        "an_answer_without_a_price_stops_the_next_process",
    ),
    Fault(
        "J14", "unknown is not zero: what a killed process had under way is none",
        "_agent/stored_spending.py",
        " if is_for_request(reservation) else NOTHING\n",
        " if not reservation else NOTHING\n",
        "tests/budget/test_lost_requests.py", "the_request_of_a_killed_process_is_unknown",
    ),
    Fault(
        "J14", "unknown is not zero: a mark goes before what is told of its request",
        "_agent/stored_spending.py",
        "    news = _take_news(kept)\n    try:\n",
        "    news = _take_news(kept)\n    try:\n"
        "        row = under_way_row(ledger.name)\n"
        "        await _ask(kept, row, NO_LIMITS, NOTHING, news.ended)\n"
        "        news.ended = []\n",
        "tests/budget/test_lost_requests.py", "after_a_death_at_any_call",
    ),
    Fault(
        "J14", "unknown is not zero: what nobody will settle is the process's own",
        "_budget/store.py",
        "        if not self.agents:\n",
        "        if self.agents < 0:\n",
        "tests/budget/test_lost_requests.py", "what_no_budget_will_settle_is_lost",
    ),
    Fault(
        "J14", "what is one's own is not lost", "_agent/stored_spending.py",
        "        ledger.see_lost(found)\n",
        "        ledger.account.lost = found.used[:2]\n",
        "tests/budget/test_lost_requests.py", "budgets_of_one_name_in_one_process",
    ),
    Fault(
        "J14", "the outcome says what the budget does: not if its payment fails",
        "_agent/request.py",
        "                self._tell_unpaid()\n",
        "                pass\n",
        "tests/budget/test_periods_and_gates.py", "an_answer_whose_payment_was_not_stored",
    ),
    Fault(
        "G10", "a map that was left starts no agent, also one whose turn had just come",
        "_pool/map.py",
        "                await trio.lowlevel.checkpoint_if_cancelled()\n"
        "                self._start_first(config)\n",
        "                self._start_first(config)\n",
        "tests/pool/test_left_maps.py", "the_owner_leaves_a_map",
    ),
    Fault(
        "G12", "Ctrl-C leaves nothing reserved", "_agent/request.py",
        "    async def _reserve(",
        "    @interruptible\n    async def _reserve(",
        "tests/pool/test_ctrl_c_anywhere.py", "at_each_line_that_pays",
    ),
    Fault(
        "G10", "after the scope around a pool was cancelled, no agent begins", "_pool/admission.py",
        "        newcomers = self.queued_count > 0 and not is_cancelled()\n",
        "        newcomers = self.queued_count > 0\n",
        "tests/pool/test_pool_ends.py", "after_an_outer_cancellation_no_agent_begins",
    ),
    Fault(
        "G4", "no newcomer takes a slot that is about to be handed on", "_pool/admission.py",
        "        if self._is_handing_on:\n            self.pump()  # it overtakes nobody\n",
        "",
        "tests/pool/test_slots_handed_on.py", "no_newcomer_overtakes",
    ),
    Fault(
        "G10", "after a cancellation, no slot is handed on", "_pool/admission.py",
        "            self.pump(newcomers=not is_cancelled())\n",
        "            self.pump()\n",
        "tests/pool/test_slots_handed_on.py", "after_a_cancellation_meanwhile",
    ),
    Fault(
        "G6", "a slot for an agent that comes back is no room for a new one",
        "_pool/admission.py",
        "        if self._is_handing_on and slot.held and not self._returning:\n",
        "        if self._is_handing_on and slot.held:\n",
        "tests/pool/test_slots_handed_on.py", "the_queue_holds_no_more",
    ),
    Fault(
        "G12", "nothing stays reserved for who is told of a wait as the program ends",
        "_agent/spending.py",
        "                claim.withdraw()  # an observer may end the program as it is told of "
        "the wait\n",
        "",
        "tests/pool/test_ending_observers.py", "at_any_event_nothing_stays_reserved",
    ),
    Fault(
        "G12", "nothing stays reserved for who is told of a limit as the program ends",
        "_agent/request.py",
        "        found = await purse.reserve(*asked, is_begun=is_begun)\n",
        "        found = await purse.reserve(*asked, is_begun=is_begun)\n        purse.tell()\n",
        "tests/pool/test_ending_observers.py", "at_any_event_nothing_stays_reserved",
    ),
    Fault(
        "G12", "what a claim got is given back once", "_budget/claims.py",
        "        self.result = None\n        root.reconsider()", "        root.reconsider()",
        "tests/agent/test_spending.py", "who_is_cancelled_as_it_gets_its_turn",
    ),
    Fault(
        "G14", "who waits for the last agent of the queue is told when that is cancelled",
        "_pool/nursery.py",
        "        self.deadlocks.suspect()  # one of them may have been the last that could act\n",
        "",
        "tests/pool/test_slots_handed_on.py", "who_waits_for_a_message_hears",
    ),
    Fault(
        "G6", "free slots are room, although others get them", "_pool/admission.py",
        "        return wanted <= free or wanted <= self.max_queued + max(0, free)\n",
        "        return wanted <= free or wanted <= self.max_queued\n",
        "tests/pool/test_slots_handed_on.py", "there_is_room_for_what",
    ),
    Fault(
        "G18", "an agent begins with nothing that another one left in its context",
        "_pool/admission.py",
        "        record.begins_in.run(self._start, record, self._slot_for(record, now))\n",
        "        self._start(record, self._slot_for(record, now))\n",
        "tests/pool/test_caller_context.py", "no_agent_begins_with_what_another_one_left",
    ),
    Fault(
        "G18", "the context of a caller is let go when its agents have begun",
        "_pool/admission.py",
        "        if self._callers.last is not None:\n            self._forget_callers()\n",
        "",
        "tests/pool/test_caller_context.py", "a_value_is_not_kept_by_who_runs_long",
    ),
    Fault(
        "G2", "an agent whose observer ends the program has its outcome", "_pool/nursery.py",
        "        finally:  # an observer may be where Ctrl-C comes\n",
        "        except ValueError:\n            pass\n        else:\n",
        "tests/pool/test_ending_observers.py", "at_any_event_every_agent_gets_its_outcome",
    ),
    Fault(
        "G1", "no agent that has ended gets a slot", "_pool/admission.py",
        "            if slot.wanted and slot.task is not None:",
        "            if slot.wanted:",
        "tests/pool/test_ending_observers.py", "at_any_event_every_agent_gets_its_outcome",
    ),
    Fault(
        "G18", "what an observer does is not the agent's in whose task it is told",
        "_pool/agent_context.py",
        "        if slot.task is not current_task() or (hub.listening and hub.is_telling):\n",
        "        if slot.task is not current_task():\n",
        "tests/pool/test_who_speaks.py", "an_observer_cannot_use_the_context_of_the_agent",
    ),
    Fault(
        "G1", "an agent is closed though an observer ends the program as it is told",
        "_pool/nursery.py",
        "            try:\n                self._end(record, outcome, slot)\n"
        "            finally:\n                agent.close()\n",
        "            self._end(record, outcome, slot)\n            agent.close()\n",
        "tests/pool/test_ending_observers.py", "an_ended_agent_is_closed_though",
    ),
    Fault(
        "G18", "what an observer sets is nobody else's", "observe/_hub.py",
        "                        copy_context().run(observer.on_event, event)\n",
        "                        observer.on_event(event)\n",
        "tests/pool/test_caller_context.py", "what_an_observer_sets_is_seen_by_nobody_else",
    ),
    Fault(
        "G12", "Ctrl-C in a price is raised there, also before the request", "_agent/spending.py",
        "@interruptible\ndef _highest_price(",
        "@unbroken\ndef _highest_price(",
        "tests/pool/test_ctrl_c_anywhere.py", "a_users_driver_is_interrupted_where_it_is",
    ),
    Fault(
        "G18", "a server of several agents is in the context of none", "tools/mcp/_servers.py",
        "        self._context.run(self._start_soon, self._start)\n",
        "        self._start_soon(self._start)\n",
        "tests/tools/mcp/test_servers.py", "a_server_is_of_the_block_and_not",
    ),
    Fault(
        "G18", "context variables are compared by identity", "_scheduling/caller_context.py",
        "            and all(map(is_, now.values(), last.values()))\n",
        "            and now == last\n",
        "tests/pool/test_caller_context.py", "values_are_told_apart_without_comparing_them",
    ),
    Fault(
        "J7", "what is looked at for one agent of before does not grow with their number",
        "_pool/past_families.py",
        "        return self._children.get(past.agent_id, ())\n",
        "        every = [one for some in self._children.values() for one in some]\n"
        "        return [one for one in every if one.parent_id == past.agent_id]\n",
        "tests/journal/test_growth_of_resumes.py", "an_agent_of_before and families",
    ),
    Fault(
        "J8", "a killed process is dead before its parent has waited for it", "journal/_holder.py",
        '    return "" if state in "ZXx" and int(threads) <= 1 else started\n',
        "    return started\n",
        "tests/journal/test_sqlite.py", "a_killed_process_is_dead",
    ),
    Fault(
        "J14", "every wait ends: a next driver waits for none whose driver is silent",
        "_budget/reservation.py",
        "            return self._is_told and not self._is_waiting()\n",
        "            return self._started and not self._is_waiting()\n",
        "tests/budget/test_periods_and_gates.py", "who_holds_a_limiter_of_a_driver",
    ),
    Fault(
        "G1", "Ctrl-C in a driver is raised in it, also under a budget", "_agent/request.py",
        "    @interruptible\n    def _ask(",
        "    def _ask(",
        "tests/pool/test_ctrl_c_anywhere.py", "a_users_driver_is_interrupted",
    ),
)  # fmt: skip


def main() -> None:
    """Break each, and print whether its test is red."""
    green = 0
    with tempfile.TemporaryDirectory() as name:
        for fault in PROMISES:
            red = is_red(fault, Path(name))
            green += not red
            word = "red" if red else "GREEN"
            print(f"{word:6} {fault.what} ({fault.tests} -k {fault.chosen!r})", flush=True)  # noqa: T201  # what it is for
    sys.exit(green > 0)


if __name__ == "__main__":
    main()
