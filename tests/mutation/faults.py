"""The faults that were found from outside, put back one at a time.

``python -m tests.mutation.faults`` breaks a copy of the package in the way in which each of them
was broken, runs the test that was written for it, and prints which of them is red. It exits with
1 if one is green. ``D1 L3`` limits it to those rows. With ``--table`` it lists faults and tests,
and runs nothing.
``nox -s mutants`` does it before the sample.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.mutation.attacks import ATTACKS
from tests.mutation.fault import Fault
from tests.mutation.lost import LOST
from tests.mutation.mutant import ROOT
from tests.mutation.mutate import copy_package, pytest
from tests.mutation.unnoticed import UNNOTICED

FAULTS: Final = (
    Fault(
        "D1", "a full inbox wakes too few senders", "_messaging/inbox.py",
        "            self._handed = 0\n",
        "            if self._handed:\n"
        "                self._handed = 0\n"
        "                return taken\n",
        "tests/messaging/test_many_senders.py",
        "no_sender_waits_beside_an_inbox_with_room",
    ),
    Fault(
        "D2", "and they look like a deadlock", "_messaging/inbox.py",
        "            self._handed = 0\n",
        "            if self._handed:\n"
        "                self._handed = 0\n"
        "                return taken\n",
        "tests/messaging/test_many_senders.py",
        "senders_to_a_reader_are_no_deadlock",
    ),
    Fault(
        "D3", "a map's wait ends by itself", "_pool/map.py",
        "wait = Wait.any_of(group.keys(), what, self._may_be_fed, self._fed_by)",
        "wait = Wait.other(what)",
        "tests/pool/test_every_wait.py",
        "a_circle_through_any_wait_is_named and _by_map",
    ),
    Fault(
        "D4, A13", "nobody sees that the owner waits for a message", "_messaging/inbox.py",
        "parked(Wait.message(), self._readers, pool_owner)",
        "parked(Wait.message(), self._readers)",
        "tests/pool/test_every_wait.py",
        "an_owner_who_waits_where_nobody_can_go_on and receive_many",
    ),
    Fault(
        "D5", "each wait has all agents looked at", "_pool/deadlock.py",
        "        if first is not None and book.has_awaited and self._seems_to_close(first):\n",
        "        for _ in self._running:\n            pass\n"
        "        if first is not None and book.has_awaited and self._seems_to_close(first):\n",
        "tests/pool/test_every_wait.py",
        "a_circle_costs_what_its_size_does",
    ),
    Fault(
        "D6", "a map that was left starts an agent", "_pool/entrance.py",
        "                    await trio.lowlevel.checkpoint_if_cancelled()\n"
        "                finally:",
        "                    pass\n                finally:",
        "tests/pool/test_late_spawns.py",
        "a_query_whose_place_comes_too_late_is_no_agent",
    ),
    Fault(
        "D7", "observers are told within a batch", "_pool/nursery.py",
        "        with self.hub:\n            return list(map(self.accept,",
        "        if True:\n            return list(map(self.accept,",
        "tests/pool/test_acting_observers.py",
        "a_batch_leaves_no_more_waiting_than_may_wait",
    ),
    Fault(
        "D8", "an observer closes the pool within a batch", "_pool/nursery.py",
        "        with self.hub:\n            return list(map(self.accept,",
        "        if True:\n            return list(map(self.accept,",
        "tests/pool/test_acting_observers.py",
        "a_batch_is_accepted_as_a_whole",
    ),
    Fault(
        "D9", "observers are told before the fan-in", "_pool/nursery.py",
        "        with hub:\n            record.end(outcome)",
        "        if True:\n            record.end(outcome)",
        "tests/pool/test_acting_observers.py",
        "outcomes_come_in_the_order_of_the_ends",
    ),
    Fault(
        "D10", "an event is told within the telling of another", "observe/_hub.py",
        "        self._deciding = _TELLING\n", "        self._deciding = 0\n",
        "tests/pool/test_acting_observers.py",
        "everyone_sees_events_in_the_order_in_which_they_happened",
    ),
    Fault(
        "D11", "a pool that has ended takes a map", "_pool/pool.py",
        "        (agents := self._agents).entrance.check_open()\n",
        "        agents = self._agents\n",
        "tests/pool/test_late_spawns.py",
        "a_map_of_a_closed_pool_is_refused",
    ),
    Fault(
        "A4, D12", "the pool knows its own agents alone", "_pool/fan_in.py",
        "self.active.get(agent_id) or self.owned.get(agent_id) or",
        "self.active.get(agent_id) or",
        "tests/pool/test_kept_outcomes.py",
        "the_pool_knows_every_agent",
    ),
    Fault(
        "D13", "one error of two agents is the first one's", "_errors/pool.py",
        "left = iter(self.by_agent.items())",
        "left = tuple(self.by_agent.items())",
        "tests/test_errors.py",
        "agents_that_failed_with_one_error_are_all_there",
    ),
    Fault(
        "D13", "the error of a block is lost behind a cancellation", "_block_errors.py",
        "    if rest is not None:\n",
        "    if rest is None:\n        raise outside\n    if rest is not None:\n",
        "tests/test_block_errors.py",
        "an_error_of_a_block_comes_out_as_itself",
    ),
    Fault(
        "D14", "a pool that was closed takes children", "_pool/nursery.py",
        "        self.entrance.check_open()\n        origin: Origin[Caretaker] = self.by_owner",
        "        origin: Origin[Caretaker] = self.by_owner",
        "tests/pool/test_late_spawns.py",
        "a_pool_that_was_closed_takes_no_children_either",
    ),
    Fault(
        "D15", "what ends the program waits for a slot", "_scheduling/slot.py",
        "slot.task is None or ends_the_program(error):",
        "slot.task is None:",
        "tests/pool/test_late_spawns.py",
        "what_ends_the_program_waits_for_no_slot",
    ),
    Fault(
        "D16", "a child without time is a fault of the code", "_pool/agent_context.py",
        "        await trio.lowlevel.checkpoint_if_cancelled()\n"
        "        deadline = trio.current_effective_deadline()\n"
        "        seconds_left = deadline - trio.current_time()\n"
        "        if seconds_left <= 0:",
        "        deadline = trio.current_effective_deadline()\n"
        "        seconds_left = deadline - trio.current_time()\n"
        "        if seconds_left is None:",
        "tests/pool/test_late_spawns.py",
        "a_child_without_time_is_cancelled_and_no_ones_fault",
    ),
    Fault(
        "D17", "a reply to whoever gave up is lost", "_messaging/question.py",
        "self.lot is None or bool(self.lot)",
        "True",
        "tests/messaging/test_inner_cancel.py",
        "a_reply_that_was_accepted_is_returned_or_read_or_a_dead_letter",
    ),
    Fault(
        "D18", "one task of several is watched", "_pool/deadlock.py",
        "        for task in workers:\n"
        "            self._workers.watch(task, slot.agent_id, waiters)\n",
        "        for task in workers[:1]:\n"
        "            self._workers.watch(task, slot.agent_id, waiters)\n",
        "tests/pool/test_every_wait.py",
        "the_same_seed_is_the_same_run_whatever_the_addresses",
    ),
    Fault(
        "D4", "one task of the owner is looked at", "_scheduling/slot.py",
        "        if task not in owner.waits_for(asker_id):\n",
        "        if task is owner.task:\n",
        "tests/pool/test_owner_tasks.py",
        "a_reader_beside_a_join",
    ),
    Fault(
        "D4", "a task of the owner that goes on is not looked at again", "_scheduling/owner.py",
        "        if waits or not by_owner:\n",
        "        if not (waits or not by_owner):\n",
        "tests/pool/test_owner_tasks.py",
        "two_tasks_of_an_owner",
    ),
    Fault(
        "D1", "senders that wait are woken together", "_messaging/inbox.py",
        "self.turns.unpark(1)",
        "self.turns.unpark(self.capacity - taken)",
        "tests/messaging/test_order_of_senders.py",
        "senders_who_wait_at_once",
    ),
    Fault(
        "D1", "who does not wait takes the place of one who does", "_messaging/inbox.py",
        "self.capacity or self._promised or self.turns.sleepers\n",
        "self.capacity\n",
        "tests/messaging/test_order_of_senders.py",
        "who_does_not_wait_overtakes",
    ),
    Fault(
        "D1", "calls that write begin in any order", "_agent/tool_calls.py",
        "tool.capability.kind is CapabilityKind.MESSAGE\n",
        "tool.capability.kind is None\n",
        "tests/agent/test_call_order.py",
        "five_messages_of_one_answer",
    ),
    Fault(
        "D3", "the default limit of tools hides a circle", "_agent/tool_calls.py",
        "    if guard == inf:\n",
        "    if guard == guard:\n",
        "tests/pool/test_guarded_waits.py",
        "the_default_limit_of_tools",
    ),
    Fault(
        "D11", "what an ended agent left behind acts for the owner", "_pool/caller.py",
        'if slot.task is None:\n            raise UsageError(\n                f"agent ',
        'if slot.agent_id < 0:\n            raise UsageError(\n                f"agent ',
        "tests/pool/test_after_the_end.py",
        "a_task_that_an_ended_agent_left_behind",
    ),
    Fault(
        "D8", "an observer is refused as the bystander that tells it", "_pool/caller.py",
        "        if self._hub.listening and self._hub.is_telling:\n",
        "        if not self._hub:\n",
        "tests/pool/test_owner_tasks.py", "an_observer_acts_for_the_pool",
    ),
    Fault(
        "A5", "what failed is not asked again", "_pool/map.py",
        "query.tries < self._retries",
        "query.tries < 0",
        "tests/pool/test_retries.py",
        "a_query_is_asked_again_after_a_while",
    ),
    Fault(
        "A8", "no outcome is forgotten", "_pool/fan_in.py",
        "            self._drop(self._given_out.popleft())",
        "            self._given_out.popleft()",
        "tests/pool/test_kept_outcomes.py",
        "outcomes_that_were_given_out_are_forgotten_after_a_while",
    ),
    Fault(
        "A11", "children outlive their parent", "_pool/nursery.py",
        'self.cancel_agent(child, f"agent {agent_id}", "its parent has ended")',
        "pass",
        "tests/pool/test_families.py",
        "an_agent_that_ends_takes_its_children_along",
    ),
    Fault(
        "M5", "children multiply the requests", "_agent/agent.py",
        "requests=left_requests,",
        "requests=10**9,",
        "tests/pool/test_families.py",
        "children_do_not_multiply_the_limits",
    ),
    Fault(
        "B3", "a malformed tool costs its server", "tools/mcp/_repaired_messages.py",
        "if fault := _fault_of(known):",
        'if (fault := _fault_of(known)) == "none":',
        "tests/tools/mcp/test_servers.py",
        "one_malformed_tool_costs_that_tool_alone",
    ),
)  # fmt: skip

"""The guarantees, and what was found beside them."""

EVERY: Final = (*LOST, *FAULTS, *ATTACKS, *UNNOTICED)
"""In the order in which they are put back."""


def is_red(fault: Fault, folder: Path) -> bool:
    """Return whether the fault's tests fail when it is there again."""
    env = copy_package(folder)
    room = folder / "agentpool" / fault.room
    room.write_text(room.read_text().replace(fault.line, fault.broken))
    command = pytest("-m", "pytest", "-x", *fault.tests.split(), "-k", fault.chosen)
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, timeout=300, check=False
        )
    except subprocess.TimeoutExpired:
        return True  # it hangs, as it did
    return done.returncode == 1  # 5 would be: there is no such test


def table() -> str:
    """Return a Markdown table: each fault by its row, its test, and the room that is broken."""
    rows = ["| row | fault | test | room |", "|---|---|---|---|"]
    rows += [
        f"| {one.row} | {one.what} | `{one.tests} -k '{one.chosen}'` | `{one.room}` |"
        for one in EVERY
    ]
    return "\n".join(rows)


def main() -> None:
    """Put each back, and print whether its test is red; with ``--table`` only list them."""
    if "--table" in sys.argv[1:]:
        print(table())  # noqa: T201  # what it is for
        return
    green = 0
    with tempfile.TemporaryDirectory() as name:
        named = [fault for fault in EVERY if {*fault.row.split(", ")} & {*sys.argv[1:]}]
        for fault in named or EVERY:
            red = is_red(fault, Path(name))
            green += not red
            word = "red" if red else "GREEN"
            where = f"({fault.tests} -k {fault.chosen!r})"
            print(f"{word:6} {fault.row:8} {fault.what} {where}", flush=True)  # noqa: T201  # what it is for
    sys.exit(green > 0)


if __name__ == "__main__":
    main()
