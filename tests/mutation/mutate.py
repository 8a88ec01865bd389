"""Breaks one line of a room at a time, and looks whether its tests notice.

``python -m tests.mutation.mutate`` takes a seeded sample from the pure and the concurrent
rooms, runs the tests of each room against a copy of the package with one mutant in it, and
prints those that no test noticed: of each mutant, the tests that run its line. ``nox -s
mutants`` does the same. Mutants that change nothing are in ``equivalent.py``, with the reason.

The tests are read once, and each mutant is tried in a fork of that process (``tries.py``). Rooms
as arguments limit it to those, ``--only "part of a line"`` to some lines. With ``--keep FOLDER``
a run that was stopped goes on: what was measured and which mutants were noticed is kept there, as
long as the rooms stay as they are.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from operator import itemgetter
from pathlib import Path
from typing import Final, TypeAlias

import msgspec
from coverage import CoverageData

from tests.mutation.mutant import ROOT, Mutant, sample
from tests.mutation.tries import Tried, Try, Work

ROOMS: Final[dict[str, tuple[str, ...]]] = {
    "_scheduling/fair_queue.py": ("tests/scheduling", "tests/pool"),
    "_scheduling/slot.py": ("tests/scheduling", "tests/pool"),
    "_messaging/inbox.py": ("tests/messaging",),
    "_messaging/post_office.py": (
        "tests/messaging", "tests/pool", "tests/journal", "tests/test_bad_input.py",
    ),
    "_pool/admission.py": (
        "tests/pool", "tests/scheduling", "tests/property/test_pool_search.py", "tests/observe",
    ),
    "_pool/deadlock.py": ("tests/pool",),
    "_pool/entrance.py": ("tests/pool", "tests/property/test_pool_search.py"),
    "_pool/fan_in.py": ("tests/pool",),
    "_pool/map.py": ("tests/pool", "tests/test_bad_input.py"),
    "_pool/nursery.py": ("tests/pool", "tests/agent", "tests/journal"),
    "_agent/retry_policy.py": ("tests/agent", "tests/test_bad_input.py"),
    "_agent/attempt.py": ("tests/agent", "tests/journal", "tests/drivers/test_thoughts.py"),
    "_agent/request.py": (
        "tests/agent", "tests/journal", "tests/budget", "tests/drivers/test_thoughts.py",
    ),
    "_budget/account.py": ("tests/budget", "tests/agent"),
    "_budget/budget.py": ("tests/budget", "tests/agent", "tests/build/test_manifest_pool.py"),
    "_loop/guard.py": ("tests/loop",),
    "drivers/_throttle.py": ("tests/drivers/test_throttle.py", "tests/drivers/test_gate.py"),
    "drivers/_gate.py": (
        "tests/drivers/test_gate.py", "tests/observe/test_events.py", "tests/test_bad_input.py",
        "tests/test_surface.py",
    ),
    "memory/_word_search.py": ("tests/memory",),
}  # fmt: skip
"""Each room, with the tests that should notice."""

LEAST: Final = 97
"""Percent of the sample that must be noticed."""

LEAST_OF_A_ROOM: Final = 92
"""Percent of the mutants of each room."""

MOST_SECONDS: Final = 60
"""Of tests for one mutant, the fastest first: those that are left out look at much else."""

Covering: TypeAlias = dict[tuple[str, int], dict[str, float]]
"""The tests that run a line of a room, with their seconds."""


def copy_package(folder: Path) -> dict[str, str]:
    """Copy the package into *folder*; return the environment in which the copy is tested."""
    copied = folder / "agentpool"
    shutil.rmtree(copied, ignore_errors=True)
    shutil.copytree(ROOT / "agentpool", copied, ignore=shutil.ignore_patterns("__pycache__"))
    path = f"{folder}{os.pathsep}{ROOT}"
    # Safe: or the processes that tests start would find the package in their folder first.
    safe = {"PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return {**os.environ, "PYTHONPATH": path, **safe}


def pytest(*arguments: str) -> list[str]:
    """Return the command that tests what is on the path."""
    # -P: or the package in the current folder would be found first.
    return [sys.executable, "-P", *arguments, "-q", "-p", "no:cacheprovider"]


class Measured(msgspec.Struct, frozen=True):
    """What the tests of one file run."""

    digest: str
    """Of the file and of all rooms."""
    seconds: dict[str, float]
    """What each test takes."""
    tests: dict[str, dict[int, list[str]]]
    """Those that run a line of a room."""


def find_covering(rooms: Iterable[str], folder: Path, kept: Path) -> Covering:
    """Run the tests of *rooms* once; return which of them run which lines, the fastest first.

    Tests that *kept* knows are not run again, unless their file or a room has changed.
    """
    known: dict[str, Measured] = {}
    if kept.exists():
        known = msgspec.json.decode(kept.read_bytes(), type=dict[str, Measured])
    sources = b"".join((ROOT / "agentpool" / room).read_bytes() for room in ROOMS)
    files = {
        str(file.relative_to(ROOT)): hashlib.sha256(file.read_bytes() + sources).hexdigest()
        for room in rooms
        for path in ROOMS[room]
        for file in ([ROOT / path] if path.endswith(".py") else (ROOT / path).rglob("test_*.py"))
    }
    new = {file: digest for file, digest in files.items()
           if file not in known or known[file].digest != digest}  # fmt: skip
    if new:
        known |= measure(new, folder)
        kept.write_bytes(msgspec.json.encode(known))
    covering: Covering = {}
    for file in files:
        for room, lines in known[file].tests.items():
            for line, tests in lines.items():
                for test in tests:
                    covering.setdefault((room, line), {})[test] = known[file].seconds[test]
    return covering


def measure(files: Mapping[str, str], folder: Path) -> dict[str, Measured]:
    """Run the tests of *files*, and return what each file's tests run of all rooms."""
    env = copy_package(folder)
    seconds, data = folder / "seconds.json", folder / "coverage"
    env["AGENTPOOL_TEST_SECONDS"] = str(seconds)
    include = ",".join(str(folder / "agentpool" / room) for room in ROOMS)
    begin = ("-m", "coverage", "run", f"--data-file={data}", f"--include={include}", "--rcfile=")
    command = pytest(*begin, "-m", "pytest", "-p", "tests.mutation.covering")
    done = subprocess.run([*command, *sorted(files)], cwd=ROOT, env=env, check=False)
    if done.returncode:
        sys.exit("the tests fail without a mutant")
    took = msgspec.json.decode(seconds.read_bytes(), type=dict[str, float])
    measured = CoverageData(str(data))
    measured.read()
    found = {file: Measured(digest, {}, {}) for file, digest in files.items()}
    for test, several in took.items():
        found[test.partition("::")[0]].seconds[test] = several
    for room in ROOMS:
        by_line = measured.contexts_by_lineno(str(folder / "agentpool" / room))
        # For lines that run when the room is loaded: whatever runs anything of it.
        by_line[0] = list({test for tests in by_line.values() for test in tests})
        for line, tests in by_line.items():
            for test in took.keys() & set(tests):
                lines = found[test.partition("::")[0]].tests.setdefault(room, {})
                lines.setdefault(line, []).append(test)
    return found


def tests_of(mutant: Mutant, covering: Covering) -> list[tuple[str, float]]:
    """Return the tests that run the line, the fastest first, with their seconds."""
    found = covering.get((mutant.room, mutant.line)) or covering.get((mutant.room, 0), {})
    tests = sorted(found.items(), key=itemgetter(1, 0))
    whole = accumulate(seconds for _, seconds in tests)
    return [test for test, so_far in zip(tests, whole, strict=True) if so_far <= MOST_SECONDS]


def try_all(
    drawn: Sequence[Mutant], covering: Covering, folder: Path, jobs: int
) -> Iterator[tuple[Mutant, str | None]]:
    """Yield each mutant when it was tried, with the test that noticed it."""
    env = copy_package(folder)
    ours, theirs = os.pipe()
    tries = [Try(one.room, one.index, tests_of(one, covering)) for one in drawn]
    work = folder / "work.json"
    work.write_bytes(msgspec.json.encode(Work(tries, jobs, theirs)))
    env |= {"AGENTPOOL_MUTANTS": str(work), "PYTEST_DEBUG_TEMPROOT": str(folder)}
    command = pytest("-m", "pytest", "-p", "tests.mutation.tries")
    files = sorted({test.partition("::")[0] for one in tries for test, _ in one.tests})
    log = folder / "log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [*command, *files], cwd=ROOT, env=env, stdout=output, stderr=output, pass_fds=[theirs]
        ) as server,
        open(ours, "rb") as answers,  # noqa: PTH123  # no path: a pipe
    ):
        os.close(theirs)
        alone: list[Mutant] = []
        for line in answers:
            tried = msgspec.json.decode(line, type=Tried)
            if tried.nth == len(drawn):
                if tried.by is not None:
                    sys.exit(f"{tried.by} is red without a mutant, after those that are faster")
            elif tried.was_swapped:
                yield drawn[tried.nth], tried.by
            else:
                alone.append(drawn[tried.nth])
    if server.returncode:
        sys.exit(log.read_text())
    for mutant in alone:
        noticed = is_noticed(mutant, tests_of(mutant, covering), folder)
        yield mutant, "a process of its own" if noticed else None


def is_noticed(mutant: Mutant, tests: Sequence[tuple[str, float]], folder: Path) -> bool:
    """Return whether one of *tests* fails with *mutant* in a copy of the package."""
    env = copy_package(folder)
    (folder / "agentpool" / mutant.room).write_text(mutant.source)
    for begin, end in ((0, 60), (60, None)):
        some = tests[begin:end]
        if not some:
            break
        longest = 300 + 20 * sum(seconds for _, seconds in some)
        command = [*pytest("-m", "pytest", "-x"), *(test for test, _ in some)]
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=env, capture_output=True, timeout=longest, check=False
            )
        except subprocess.TimeoutExpired:
            return True  # it hangs, and somebody would see that
        if done.returncode:
            return True
    return False


def report(drawn: Sequence[Mutant], unnoticed: Sequence[Mutant]) -> tuple[str, bool]:
    """Return what was found, for people, and whether it is enough."""
    lines: list[str] = []
    enough = True
    for room in dict.fromkeys(mutant.room for mutant in drawn):
        count = sum(mutant.room == room for mutant in drawn)
        missed = sum(mutant.room == room for mutant in unnoticed)
        share = 100 * (count - missed) / count
        enough = enough and share >= LEAST_OF_A_ROOM
        lines.append(f"{share:6.1f} %  {count - missed:4} of {count:4}  {room}")
    share = 100 * (len(drawn) - len(unnoticed)) / len(drawn)
    enough = enough and share >= LEAST
    lines.append(f"{share:6.1f} %  {len(drawn) - len(unnoticed):4} of {len(drawn):4}  in all")
    lines += [f"not noticed: {one.room}:{one.line} {one.what}: {one.text}" for one in unnoticed]
    return "\n".join(lines), enough


def main() -> None:
    """Try a sample, print what was not noticed, and exit with 1 if that is too much."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=260, help="how many mutants")
    parser.add_argument("--seed", type=int, default=0, help="which of them")
    parser.add_argument("--only", default="", help="those of lines with this text")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time")
    parser.add_argument("--keep", type=Path, help="a folder for what is known, to go on with")
    parser.add_argument("--report", type=Path, help="a file for the report")
    parser.add_argument("rooms", nargs="*", default=list(ROOMS), help="which rooms")
    wanted = parser.parse_args()
    drawn = sample(wanted.count, wanted.seed, wanted.rooms)
    drawn = [mutant for mutant in drawn if wanted.only in mutant.text]
    unnoticed: list[Mutant] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kept = wanted.keep or folder
        kept.mkdir(exist_ok=True)
        covering = find_covering(wanted.rooms, folder, kept / "measured.json")
        with (kept / "noticed").open("a+") as noticed:
            noticed.seek(0)
            known = set(noticed.read().split())
            left = [mutant for mutant in drawn if mutant.digest not in known]
            tried = try_all(left, covering, folder, wanted.jobs)
            for nth, (mutant, by) in enumerate(tried, len(drawn) - len(left) + 1):
                if by is None:
                    unnoticed.append(mutant)
                else:
                    print(mutant.digest, file=noticed, flush=True)
                word = "NOT NOTICED" if by is None else f"noticed by {by}"
                print(f"{nth}/{len(drawn)} {mutant.room}:{mutant.line} {mutant.what}: {word}", flush=True)  # noqa: E501, T201  # fmt: skip
    text, enough = report(drawn, unnoticed)
    print(text)  # noqa: T201  # what it is for
    if wanted.report is not None:
        wanted.report.write_text(f"{text}\n")
    sys.exit(not enough)


if __name__ == "__main__":
    main()
