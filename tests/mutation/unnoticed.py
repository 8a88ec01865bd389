"""Lines that could be broken without a red test, as they stand today.

As in ``tests.mutation.faults``, which runs them.
"""

from __future__ import annotations

from typing import Final

from tests.mutation.fault import Fault

SPENDING: Final = "tests/agent/test_spending.py"

UNNOTICED: Final = (
    Fault(
        "E", "an end wakes nobody who waits for the next", "_pool/fan_in.py",
        "                self._next.unpark(1)\n", "                pass\n",
        "tests/pool/test_fan_in.py", "each_end_wakes_one",
    ),
    Fault(
        "E", "a circle is not named while others work", "_pool/deadlock.py",
        "        if first is not None and book.has_awaited and self._seems_to_close(first):\n",
        "        if self._admission.running_count:\n            return\n"
        "        if first is not None and book.has_awaited and self._seems_to_close(first):\n",
        "tests/pool/test_every_wait.py", "a_circle_through_any_wait_is_named",
    ),
    Fault(
        "E", "a place that was used up stays promised", "_messaging/inbox.py",
        "        self._promised -= 1\n", "        pass\n",
        "tests/messaging/test_many_senders.py", "no_sender_waits_beside_an_inbox_with_room",
    ),
    Fault(
        "E", "a thread that was left behind gives its agent's slot away",
        "_scheduling/thread_strand.py",
        "            strand.ended = True\n", "            pass\n",
        "tests/scheduling/test_threads.py", "a_thread_that_was_left_behind_gives_away_no_slot",
    ),
    Fault(
        "E", "an owner's other task is overlooked", "_pool/deadlock.py",
        "            if not looks_on(task) and _works(task, waiters)\n",
        "            if not looks_on(task) and task is None\n",
        "tests/pool/test_deadlock.py", "a_task_beside_the_owner_can_still_send",
    ),
    Fault(
        "E", "a request overtakes those that wait at a gate", "drivers/_gate.py",
        "if not (self._queue or self._again) and throttle.ready_at",
        "if throttle.ready_at",
        "tests/drivers/test_gate.py", "a_request_does_not_overtake",
    ),
    Fault(
        "E", "the turn does not pass on when a group has gone", "_scheduling/fair_queue.py",
        "            if self._turns:\n                self._begin_turn()\n        elif",
        "            if not self._turns:\n                pass\n        elif",
        "tests/scheduling/test_fair_queue.py", "a_group_that_has_gone_leaves_its_turn",
    ),
    Fault(
        "E", "a refusal is charged", "_agent/attempt.py",
        "            return Loss(0, 0.0)\n", "            pass\n",
        SPENDING, "a_refusal_is_free",
    ),
    Fault(
        "E", "one refusal of several drivers makes all free", "_agent/spending.py",
        "return all(map(is_refusal, error.errors))", "return any(map(is_refusal, error.errors))",
        SPENDING, "a_fallback_of_ones_own",
    ),
    Fault(
        "E", "what a tool's model has said is not known", "_agent/tool_request.py",
        "        arrived.append(piece)\n", "",
        SPENDING, "a_tools_model_is_not_asked_again_once",
    ),
    Fault(
        "E", "a tool is not told that its model was not asked", "_agent/tool_request.py",
        "        raise answer\n    reserved",
        "        raise RuntimeError(str(answer)) from answer\n    reserved",
        SPENDING, "a_tool_is_told_by_which_limit",
    ),
    Fault(
        "E", "a delay that ends with the time is begun", "_agent/request.py",
        "(delay_seconds or 0.0) >= clock.seconds_left",
        "(delay_seconds or 0.0) > clock.seconds_left",
        "tests/agent/test_agent.py", "a_wait_that_does_not_fit",
    ),
    Fault(
        "E", "one attempt is no policy", "_agent/retry_policy.py",
        "if self.max_attempts < 1:", "if self.max_attempts <= 1:",
        "tests/agent/test_retry.py", "one_attempt_is_a_policy",
    ),
    Fault(
        "E", "a run took less than its time", "_pool/run_outcome.py",
        "slot.scope.deadline + seconds", "slot.scope.deadline - seconds",
        "tests/pool/test_pool_ends.py", "a_tool_builder_that_hangs_meets",
    ),
    Fault(
        "E", "a budget does not know what it is a part of", "_budget/budget.py",
        "        self._parent = parent\n", "        self._parent = None\n",
        "tests/budget/test_budget.py", "a_budget_says_what_it_is_a_part_of",
    ),
    Fault(
        "E", "what could not come back is waited for", "_budget/account.py",
        "max(amounts[kind], 1) > limit", "max(amounts[kind], 0) > limit",
        "tests/budget/test_budget.py", "nobody_waits_for_what_could_not_come_back",
    ),
    Fault(
        "E", "a refusal says what is used in place of what is set aside", "_budget/account.py",
        "_shown(kind, self.reserved[kind])", "_shown(kind, used)",
        "tests/budget/test_budget.py", "a_refusal_says_what_is_used",
    ),
    Fault(
        "E", "a join of no agent is no checkpoint", "_pool/fan_in.py",
        "        else:\n            await trio.lowlevel.cancel_shielded_checkpoint()\n"
        "        outcomes =",
        "        outcomes =",
        "tests/pool/test_fan_in.py", "a_join_of_nobody_lets_others_go_on",
    ),
    Fault(
        "E", "a message that is handed over takes a place", "_messaging/inbox.py",
        "        messages.append(message)\n        if self._readers.sleepers:\n"
        "            self._handed += self._readers.unpark(1)\n",
        "        messages.append(message)\n        if self._readers.sleepers:\n"
        "            self._readers.unpark(1)\n",
        "tests/messaging/test_inbox.py", "a_message_wakes_one_reader",
    ),
    Fault(
        "E", "who goes back to a gate waits behind all", "drivers/_gate.py",
        "        self._again.append(waiting)\n",
        "        self._queue.push(waiting, PLAIN)\n",
        "tests/drivers/test_gate.py", "let_in_and_without_a_slot",
    ),
    Fault(
        "E", "the last agent of a pool never was", "_messaging/post_office.py",
        "0 <= agent_id <= self._highest_id:", "0 <= agent_id < self._highest_id:",
        "tests/messaging/test_router.py", "each_refusal_is_its_own_error",
    ),
    Fault(
        "E", "a drained group is in any order", "_scheduling/fair_queue.py",
        "in sorted(self._ranked, key=lambda ranked: ranked[:2]):", "in self._ranked:",
        "tests/scheduling/test_fair_queue.py", "drained_it_gives_back",
    ),
    Fault(
        "E", "pauses grow past a minute", "drivers/_throttle.py",
        "MAX_PAUSE_SECONDS: Final = 60.0", "MAX_PAUSE_SECONDS: Final = 61.0",
        "tests/drivers/test_throttle.py", "pauses_without_a_time",
    ),
    Fault(
        "E", "agents end while a join counts them", "_pool/fan_in.py",
        "            self._joins.append(join)\n",
        "            await trio.lowlevel.checkpoint()\n            self._joins.append(join)\n",
        "tests/pool/test_fan_in.py", "an_agent_may_end_while_a_join_begins",
    ),
    Fault(
        "E", "an outcome is lost where its join is cancelled", "_pool/fan_in.py",
        "        if outcome is None or self._pace.is_due():\n"
        "            await trio.lowlevel.cancel_shielded_checkpoint()\n",
        "        await trio.lowlevel.checkpoint()\n",
        "tests/pool/test_fan_in.py", "an_outcome_is_given_out_once",
    ),
    Fault(
        "E", "a reply is lost where its question is cancelled", "_messaging/post_office.py",
        "        if question.answer is None:\n            raise AgentGoneError(",
        "        await trio.lowlevel.checkpoint()\n"
        "        if question.answer is None:\n            raise AgentGoneError(",
        "tests/messaging/test_inner_cancel.py", "a_reply_that_was_accepted",
    ),
)  # fmt: skip
