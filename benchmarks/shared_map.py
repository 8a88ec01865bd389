"""Kills and freezes the processes of a shared map, many times, and counts what goes wrong.

    python benchmarks/shared_map.py --times 20 --load 2

Promised is one outcome for each input, that no request is made a second time but those that were
in flight at a kill or a freeze, that none is while the first may still be running and its lease
is not over, and that no process is left.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support.counting_model import counting_model
from tests.support.shared_maps import PATIENCE, SharedMap, end_all, is_stopped, send

LEASE_SECONDS: Final = 5.0
INPUTS: Final = 30
ANSWER_SECONDS: Final = 0.8

Process: TypeAlias = "subprocess.Popen[str]"


def kill_workers(shared: SharedMap, rng: random.Random) -> tuple[int, list[Process]]:
    """Kill three workers, one after the other."""
    command = shared.start()
    for _ in range(3):
        pids = shared.wait_for_workers(1)
        time.sleep(rng.uniform(0, 1.0))
        send(rng.choice(pids), signal.SIGKILL)
    return 3, [command]


def freeze_worker(shared: SharedMap, rng: random.Random) -> tuple[int, list[Process]]:
    """Stop a worker until its lease is over and others have its inputs; then wake it up."""
    command = shared.start()
    pids = shared.wait_for_workers(shared.workers)
    shared.model.wait_for(4)
    time.sleep(rng.uniform(0, 0.5))
    frozen = rng.choice(pids)
    send(frozen, signal.SIGSTOP)
    time.sleep(LEASE_SECONDS + rng.uniform(0.5, 3))
    send(frozen, signal.SIGCONT)
    return 1, [command]


def kill_command(shared: SharedMap, rng: random.Random) -> tuple[int, list[Process]]:
    """Kill the command, once with a worker stopped; then run it again."""
    for with_a_stop in (False, True):
        command = shared.start()
        pids = shared.wait_for_workers(shared.workers)
        shared.model.wait_for(len(shared.model.asked) + 2)
        time.sleep(rng.uniform(0, 0.5))
        if with_a_stop:
            send(pids[0], signal.SIGSTOP)
            while not is_stopped(pids[0]):
                time.sleep(0.01)
        command.kill()
        command.communicate()
        if left := shared.left_over():
            raise AssertionError(f"processes {left} are left without their command")
    return 2 * shared.workers, [shared.start()]


def all_at_once(shared: SharedMap, rng: random.Random) -> tuple[int, list[Process]]:
    """Two commands; one is killed, a worker of the other too, and a third is stopped."""
    first, second = shared.start(), shared.start()
    pids = shared.wait_for_workers(shared.workers + 1)
    shared.model.wait_for(6)
    rng.shuffle(pids)
    send(pids[0], signal.SIGSTOP)
    send(pids[1], signal.SIGKILL)
    time.sleep(rng.uniform(0, 0.5))
    first.kill()
    first.communicate()
    time.sleep(LEASE_SECONDS + rng.uniform(0, 2))
    send(pids[0], signal.SIGCONT)
    return 2 + shared.workers, [second]


SCENARIOS: Final[dict[str, Callable[[SharedMap, random.Random], tuple[int, list[Process]]]]] = {
    "kill -9 of three workers": kill_workers,
    "a worker stopped past its lease, then awake": freeze_worker,
    "kill -9 of the command, twice, then again": kill_command,
    "all of it beside a second command": all_at_once,
}


def run_one(name: str, seed: int) -> tuple[list[str], int]:
    """Run a scenario, and return what did not hold and how many requests were repeated."""
    rng = random.Random(f"{name} {seed}")  # noqa: S311  # no secret
    with tempfile.TemporaryDirectory() as folder, counting_model(ANSWER_SECONDS) as model:
        shared = SharedMap(Path(folder), model, INPUTS, LEASE_SECONDS)
        processes: list[Process] = []
        try:
            most, processes = SCENARIOS[name](shared, rng)
            faults = list[str]()
            for process in processes:
                _, err = process.communicate(timeout=3 * PATIENCE)
                if process.returncode:
                    faults.append(f"exit code {process.returncode}: {err}")
            in_flight = most * -(-shared.max_concurrent // shared.workers)
            faults += shared.faults_after(in_flight)
            counts = model.counts()
            return faults, sum(counts.values()) - len(counts)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            return [repr(error)], 0
        finally:
            end_all(shared, *processes)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--load", type=int, default=2, help="busy processes beside it")
    parser.add_argument("--only", default="")
    found = parser.parse_args()
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(found.load)]
    try:
        for name in SCENARIOS:
            if found.only not in name:
                continue
            bad, repeated = list[str](), list[int]()
            began = time.monotonic()
            for seed in range(found.times):
                faults, again = run_one(name, seed)
                repeated.append(again)
                print(f"{seed}: {again} repeated, {faults}", file=sys.stderr, flush=True)
                bad += [f"  seed {seed}: {fault}" for fault in faults]
            seconds = (time.monotonic() - began) / found.times
            print(
                f"{name}: {found.times} runs of {INPUTS} inputs, {len(bad)} faults, repeated "
                f"requests {min(repeated)} to {max(repeated)} (sum {sum(repeated)}), "
                f"{seconds:.1f} s a run",
                *bad, sep="\n", flush=True,
            )  # fmt: skip
    finally:
        for process in busy:
            process.kill()


if __name__ == "__main__":
    main()
