"""PoolMachine and what it stands on: a pool in a guest run, moved on step by step."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import trio
from hypothesis import Phase, settings
from hypothesis.stateful import rule, run_state_machine_as_test

from agentpool import PoolError, UsageError
from agentpool._install import as_installed
from agentpool.abc import Event
from agentpool.observe import AgentParked, AgentSpawned, AgentStarted
from agentpool.testing import HangError, PoolMachine
from agentpool.testing import _guest as guest_room
from agentpool.testing._guest import GuestRun
from agentpool.testing._machine import ACTIONS, MAX_PLANNED, OCCASIONS, REACTIONS
from agentpool.testing._puppet import BoundWatch
from agentpool.testing._simulation.orders import order_of
from agentpool.testing._simulation.quiescent import agents_of
from tests.support.scenarios import crew, member

QUICK = settings(
    max_examples=500,
    stateful_step_count=12,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
)


# --- the machine finds what is planted


class Thief(PoolMachine):
    """Somebody takes a message out of an inbox, and nobody ever reads it."""

    @rule()
    def steal(self) -> None:
        """Take everybody's post."""
        post = self.pool._agents.router
        self.run.call(lambda: [post.receive_many_nowait(one) for one in post.live_ids()])


class Counterfeiter(PoolMachine):
    """A number is used up, and no agent has it."""

    @rule()
    def waste(self) -> None:
        """Waste an id."""
        agents_of(self.pool).last_id += 1


class Amnesiac(PoolMachine):
    """An agent is taken out of the running ones, and goes on."""

    @rule()
    def forget(self) -> None:
        """Forget an agent."""
        agents = agents_of(self.pool)
        if agents.running:
            agents.running.popitem()


@pytest.mark.parametrize(
    ("machine", "text"),
    [
        (Thief, "was delivered 0 times"),
        (Counterfeiter, r"ids must rise by 1|have ended"),
        (Amnesiac, "have ended|does not end"),
    ],
)
def test_a_planted_fault_is_found(machine: type[PoolMachine], text: str) -> None:
    """A message that vanishes, a number without an agent, an agent that nobody knows."""
    with pytest.raises((AssertionError, BaseExceptionGroup), match=text):  # noqa: ASYNC401  # also plain assertions
        run_state_machine_as_test(machine, settings=settings(QUICK, max_examples=300))


def test_a_machine_can_be_driven_by_hand() -> None:
    """What Hypothesis does by chance, a test can do on purpose."""
    machine = PoolMachine()
    machine.fan_out_nowait(2)
    machine.call_tools(0, [2], "ask_agent")
    machine.send_nowait(machine.handles[1])
    machine.answer(0, "yes")
    machine.join_next()
    machine.cancel(machine.handles[0])
    machine.statistics_agree()
    assert machine.given_next
    machine.teardown()


def test_what_a_machine_does_is_checked() -> None:
    """A nap in a tool, post for the owner, and an error beside the rules."""
    machine = PoolMachine()
    machine.fan_out_nowait(2)
    machine.nap(0)
    machine.jump(2.0)
    machine.call_tools(0, [0, 0], "send_message")
    machine.receive()
    machine.senders_keep_their_order()
    assert len(machine.received) == 2
    (fault,) = machine._unexpected(PoolError("failed", [ValueError("x")], (9,)))
    assert "raised at the exit" in str(fault)

    async def broken() -> None:
        await trio.lowlevel.checkpoint()
        raise UsageError("beside the rules")

    machine.start("broken", broken)
    with pytest.raises(UsageError, match="beside the rules"):
        machine.nothing_failed()
    machine.failures.clear()
    machine.teardown()


async def test_a_bound_that_is_broken_is_seen() -> None:
    """More agents with a slot than there are slots, at the moment when one begins."""
    watch = BoundWatch()
    started = AgentStarted(1, 0.0, 2, "b")
    watch.on_event(started)  # not open yet
    async with crew(max_concurrent=2) as pool:
        watch.pool = pool
        await pool.fan_out([member("a hear"), member("b hear")])
        watch.on_event(started)
        assert watch.faults == []
        pool.max_concurrent = 1
        watch.on_event(started)
        pool.abort_all()
    assert watch.faults == [f"2 agents run with 1 slots at {started}"]


# --- the guest


def test_a_guest_stands_still_between_two_steps() -> None:
    """Time passes only when it is told to."""
    ticks: list[float] = []

    async def clockwork() -> None:
        for _ in range(3):
            await trio.sleep(1)
            ticks.append(trio.current_time())

    guest = GuestRun(clockwork)
    guest.settle()
    assert ticks == []
    guest.jump(1.5)
    assert ticks == [1.5]
    assert guest.call(lambda: len(ticks)) == 1
    guest.finish()
    assert ticks == [1.5, 2.5, 3.5]


def test_what_a_guest_does_may_fail() -> None:
    """An error of a step is the step's own, and the run goes on."""
    guest = GuestRun(trio.sleep_forever)

    def fail() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        guest.call(fail)
    with pytest.raises(UsageError, match="waits for something"):
        guest.run(trio.sleep_forever)
    assert guest.call(trio.current_time) == 0.0
    with pytest.raises(UsageError, match="has ended"):
        guest.call(_cancel_everything)


def _cancel_everything() -> None:
    task = trio.lowlevel.current_task()
    assert task.parent_nursery is not None
    task.parent_nursery.cancel_scope.cancel()


def test_a_guest_that_breaks_says_with_what() -> None:
    """An error of the first task comes out at the next step, or at the end."""

    async def broken() -> None:
        await trio.sleep(1)
        raise ValueError("broken")

    guest = GuestRun(broken)
    guest.settle()
    with pytest.RaisesGroup(ValueError):
        guest.jump(1)


def test_a_guest_that_does_not_end_is_a_hang() -> None:
    """It says who waits; and the run is over all the same, or there could be no other."""
    guest = GuestRun(trio.sleep_forever)
    guest.settle()
    with pytest.raises(HangError, match="no deadline is left") as caught:
        guest.finish()
    assert "sleep_forever" in caught.value.waiting[0]
    GuestRun(trio.lowlevel.checkpoint).finish()


def test_a_guest_that_is_deaf_is_thrown_out() -> None:
    """Under a shield a cancellation changes nothing, and the run must end all the same."""

    async def deaf() -> None:
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:  # noqa: ASYNC112  # what is described is such a task
                nursery.start_soon(trio.sleep_forever, name="deaf")

    guest = GuestRun(deaf)
    guest.settle()
    with pytest.raises(HangError, match="deaf"):
        guest.finish()
    GuestRun(trio.lowlevel.checkpoint).finish()


def test_a_guest_that_says_nothing_is_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host does not wait for ever in real time either."""
    guest = GuestRun(trio.sleep_forever)
    guest.settle()
    monkeypatch.setattr(guest_room, "REAL_SECONDS", 0.01)
    with pytest.raises(HangError, match=r"nothing happened for 0\.01 real seconds"):
        guest._tick()
    monkeypatch.undo()
    with pytest.raises(HangError, match="no deadline is left"):
        guest.finish()


# --- what the kit needs, and what it does not


def python(code: str, folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Run *code* with this Python, in *folder*."""
    return subprocess.run(
        [sys.executable, *args, "-c", textwrap.dedent(code)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_kit_needs_neither_pytest_nor_hypothesis(tmp_path: Path) -> None:
    """Both are only for those who use them; who lacks Hypothesis is told."""
    done = python(
        """
        import sys
        sys.modules["pytest"] = sys.modules["hypothesis"] = None
        import agentpool.testing
        import trio
        agentpool.testing.simulate(trio.sleep, 1)
        assert "PoolMachine" in dir(agentpool.testing)
        for name in ("PoolMachine", "strategies"):
            try:
                getattr(agentpool.testing, name)
            except ImportError as error:
                print(error)
        try:
            agentpool.testing.nothing
        except AttributeError as error:
            print(error)
        """,
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    needs = as_installed(
        "PoolMachine and the strategies need Hypothesis; run: pip install 'trio-agentpool[testing]'"
        "; the rest of agentpool.testing works without it"
    )
    missing = "module 'agentpool.testing' has no attribute 'nothing'"
    assert done.stdout.splitlines() == [needs, needs, missing]


def test_the_plugin_loads_nothing_heavy(tmp_path: Path) -> None:
    """It is loaded in every test run of whoever has the package installed."""
    done = python(
        """
        import sys, pytest
        import agentpool.testing._pytest
        print(*sorted({"hypothesis", "httpx", "agentpool.testing._machine"} & set(sys.modules)))
        """,
        tmp_path,
    )
    assert done.stdout.split() == [], done.stderr


TESTS = """
    import trio

    def test_simulate(simulate):
        assert simulate(trio.sleep, 60) is None

    def test_cancel_everywhere(cancel_everywhere):
        assert cancel_everywhere(trio.sleep, 60).points == 2

    def test_explore(explore):
        report = explore(trio.sleep, 60)
        assert (report.schedules, report.steps) == (7, 35)

    def test_explore_all(explore_all):
        assert explore_all(trio.sleep, 60).runs == 1

    def test_explore_more(explore):
        assert explore(trio.sleep, 60, schedules=3).schedules == 3
"""


def test_the_fixtures_take_their_numbers_from_the_command_line(tmp_path: Path) -> None:
    """A nightly job looks longer, and a failure of it is seen again on a desk."""
    (tmp_path / "test_it.py").write_text(textwrap.dedent(TESTS))
    command = [
        *(sys.executable, "-m", "pytest", "-q", "-p", "agentpool.testing._pytest"),
        *("--agentpool-schedules=7", "--agentpool-seed=3", "test_it.py"),
    ]
    # Installed, the plugin is found by itself; named, it is found from a source tree too.
    env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert "5 passed" in done.stdout, done.stdout + done.stderr


REPLAYED = """
    import pytest, trio
    from agentpool.testing import cancel_everywhere as sweep

    async def scenario(word):
        with trio.CancelScope(shield=True):
            await trio.sleep(1)
        assert word != "given up"

    def check():
        raise ValueError("checked")

    def test_it(explore, explore_all, simulate, cancel_everywhere):
        for tool in (explore, explore_all, simulate, cancel_everywhere):
            with pytest.raises(ValueError, match="checked"):
                tool(scenario, "word", check=check)
"""


def test_a_token_takes_the_place_of_every_search(tmp_path: Path) -> None:
    """What was found in the night is run again, and nothing else."""
    (tmp_path / "test_it.py").write_text(textwrap.dedent(REPLAYED))
    options = ("--agentpool-replay=1_s0", "--agentpool-jobs=2", "--agentpool-orders=rounds")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "agentpool.testing._pytest", *options],
        cwd=tmp_path,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_things_happen_between_steps() -> None:
    """Every action, some steps after another, also when there is nobody to act on."""
    for seed in (0, 1):
        machine = PoolMachine()
        machine.choose_order(seed)
        for action in ACTIONS:
            machine.between_steps([(0, action, 0), (2, action, 1)])
        machine.fan_out_nowait(2)
        machine.between_steps([(3, action, 0) for action in reversed(ACTIONS)])
        machine.between_steps([(0, "spawn", 0)] * 9)
        machine.all_holds()
        assert machine.refusals["PoolFullError"] > 0
        machine.teardown()


def test_callers_of_a_machine_may_give_up() -> None:
    """Asking, reading and joining with a deadline: nobody waits when it has passed."""
    machine = PoolMachine()
    machine.fan_out_nowait(1)
    machine.ask(machine.handles[0], 0.5)
    machine.receive(0.5)
    machine.join_next(0.5)
    assert machine._busy == {"ask", "receive", "join_next"}
    machine.jump(0.5)
    assert machine._busy == set()
    machine.all_holds()
    machine.teardown()


def test_a_machine_joins_in_one_way_at_a_time() -> None:
    """What one join is given the other is not, and nobody could say whose it was."""
    for first, second in (("join_next", "join_all"), ("join_all", "join_next")):
        machine = PoolMachine()
        machine.fan_out_nowait(1)
        getattr(machine, first)()
        getattr(machine, second)()
        assert machine._busy == {first}
        machine.teardown()


def test_a_guest_takes_its_order_from_the_machine() -> None:
    """Another order, other runs; the same one, the same."""

    def order_of_three(seed: int) -> list[int]:
        order: list[int] = []
        run = GuestRun(trio.lowlevel.checkpoint)
        run.order.now = order_of(seed)

        async def step(number: int) -> None:
            for _ in range(2):
                await trio.lowlevel.checkpoint()
                order.append(number)

        async def job() -> None:
            async with trio.open_nursery() as nursery:
                for number in range(3):
                    nursery.start_soon(step, number)

        run.run(job)
        run.finish()
        return order

    found = [order_of_three(seed) for seed in range(12)]
    assert found == [order_of_three(seed) for seed in range(12)]
    assert len({tuple(order) for order in found}) > 6


def test_an_observer_acts_in_the_middle_of_what_it_hears_of() -> None:
    """Everything that it may do, at every kind of event, one thing for each event."""
    for kind in OCCASIONS:
        machine = PoolMachine()
        for action in REACTIONS:
            machine.react(kind, action, 1)
            assert len(machine.reactions) <= MAX_PLANNED
            machine.fan_out_nowait(2)
            machine.call_tools(0, [0], "send_message")
            machine.nap(1)
            machine.all_holds()
        machine.teardown()


def test_what_an_observer_does_is_done_once_and_found() -> None:
    """An agent more than was asked for, which a rule can be about after it was met."""
    machine = PoolMachine()
    machine.react(AgentSpawned, "spawn", 0)
    machine.fan_out_nowait(1)
    assert len(machine.handles) == 2
    assert machine.reactions == []
    machine.fan_out_nowait(1)
    assert len(machine.handles) == 3
    machine.spawn()
    machine.meet()
    assert machine._met == 4
    machine.all_holds()
    machine.teardown()


def test_an_observer_may_end_everything() -> None:
    """In the middle of a fan-out, all of which has its end then."""
    machine = PoolMachine()
    machine.react(AgentSpawned, "abort", 0)
    machine.fan_out_nowait(2)
    assert all(handle.has_ended for handle in machine.handles)
    machine.all_holds()
    machine.teardown()


def test_an_observer_speaks_for_the_owner_in_any_task() -> None:
    """It may send to the agent whose event it is, as the owner may."""
    machine = PoolMachine()
    machine.react(AgentParked, "send", 0)
    machine.fan_out_nowait(1)
    machine.call_tools(0, [0], "ask_agent")
    assert machine.refusals["UsageError"] == 0
    machine.all_holds()
    machine.teardown()


def test_an_observer_that_breaks_is_the_machines_own_fault() -> None:
    """The pool only counts it; a machine must not lose it."""

    class Broken(PoolMachine):
        """Raises when an agent is spawned."""

        def note_event(self, event: Event) -> None:
            """Raise."""
            assert not isinstance(event, AgentSpawned), "broken"

    machine = Broken()
    machine.fan_out_nowait(1)
    with pytest.raises(AssertionError, match="broken"):
        machine.nothing_failed()
    machine._actor.failures.clear()
    machine.teardown()
