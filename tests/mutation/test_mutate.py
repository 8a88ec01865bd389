"""The mutation run draws what it says, and every mutant is a program."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from agentpool.testing import _strict
from tests.mutation.equivalent import EQUIVALENT
from tests.mutation.fault import Fault
from tests.mutation.faults import EVERY, table
from tests.mutation.mutant import ROOT, break_node, mutants_of, sample
from tests.mutation.mutate import ROOMS
from tests.mutation.page import PAGE, page
from tests.mutation.promises import PROMISES
from tests.mutation.refusals import TABLE, Broken, faults
from tests.mutation.swap import functions_of, swap

SOURCE = '''
async def wait(n):
    """Wait."""
    if n < 1 and not n == 3:
        n += 2
        n = n - 1 + 2
        print(n)
    return n
'''


def test_each_way_to_break_a_line_is_there() -> None:
    """A comparison, a word, a sign, a number, a call, an await."""
    found = list(mutants_of("room", SOURCE))
    assert {mutant.what for mutant in found} == {
        "a comparison is turned around",
        "and is or, or is and",
        "a not is gone",
        "plus is minus",
        "minus is plus",
        "nothing is added or taken away",
        "a number is one more",
        "a call is gone",
        "there is one more await",
    }
    assert len({mutant.source for mutant in found}) == len(found)
    for mutant in found:
        compile(mutant.source, "room", "exec")


def test_a_sample_is_the_same_for_a_seed() -> None:
    """A mutant that was not noticed is found again, and each room has its share."""
    rooms = ("_pool/fan_in.py", "memory/_word_search.py")
    first = sample(10, 7, rooms)
    assert first == sample(10, 7, rooms) != sample(10, 8, rooms)
    assert [mutant.room for mutant in first].count("memory/_word_search.py") == 5


def test_another_line_moves_nothing_in_the_draw() -> None:
    """What somebody changes today leaves the sample of yesterday where it was."""
    before = {(one.what, one.text): one.rank(0) for one in mutants_of("room", SOURCE)}
    after = list(mutants_of("room", f"LEAST = 1\n{SOURCE}"))
    assert len(after) > len(before)
    assert before.items() <= {(one.what, one.text): one.rank(0) for one in after}.items()


def test_a_mutant_is_put_in_where_its_room_is_loaded(tmp_path: Path) -> None:
    """But for what ran when it was loaded: that has happened."""
    room, source = tmp_path / "room.py", "LEAST = 1\n\n\ndef twice(n):\n    return n + n\n"
    room.write_text(source)
    spec = importlib.util.spec_from_file_location("room", room)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    functions = functions_of(room)
    of_loading, of_the_function = mutants_of("room", source)
    assert not swap(functions, room, source, break_node(source, of_loading.index))
    assert (loaded.LEAST, loaded.twice(3)) == (1, 6)
    assert swap(functions, room, source, break_node(source, of_the_function.index))
    assert (loaded.LEAST, loaded.twice(3)) == (1, 0)


def test_rooms_and_their_tests_exist() -> None:
    """A room that was moved is noticed here."""
    for room, tests in ROOMS.items():
        assert (ROOT / "agentpool" / room).is_file(), room
        assert all((ROOT / path).exists() for path in tests), room


def test_each_equivalent_mutant_is_there() -> None:
    """A line that was changed is noticed here."""
    there = {
        (one.room, one.text, one.what)
        for room in ROOMS
        for one in mutants_of(room, (ROOT / "agentpool" / room).read_text())
    }
    assert not EQUIVALENT.keys() - there


@pytest.mark.parametrize(
    "fault",
    [*EVERY, *PROMISES],
    ids=[fault.what for fault in (*EVERY, *PROMISES)],
)
def test_each_fault_can_be_put_back(fault: Fault) -> None:
    """A line that was changed is noticed here, and so is a test that has gone."""
    source = (ROOT / "agentpool" / fault.room).read_text()
    assert source.count(fault.line) == 1
    compile(source.replace(fault.line, fault.broken), fault.room, "exec")
    assert f"def test_{fault.chosen.split()[0]}" in (ROOT / fault.tests).read_text()


@pytest.mark.parametrize(
    ("name", "broken"), [*faults([])], ids=lambda one: getattr(one, "rule", one)
)
def test_what_breaks_a_rule_is_where_it_says(name: str, broken: Broken) -> None:
    """A line that was moved is noticed here, and not by a rule that is seen green."""
    source = (ROOT / "agentpool" / broken.room).read_text()
    assert source.count(broken.line) == 1
    compile(source.replace(broken.line, broken.broken), broken.room, "exec")


def test_every_rule_of_every_fake_is_broken() -> None:
    """But the one that nothing of ours can break."""
    rules = {
        name: {rule.__qualname__.partition(".")[0] for rule in kind.rules}
        for name, kind in _strict._KINDS.items()
    }
    broken = {name: {one.rule for one in several} for name, several in TABLE.items()}
    assert broken == {**rules, "llamacpp": rules["llamacpp"] - {"no_images"}}


def test_the_table_has_a_row_for_every_fault() -> None:
    """In the order in which they are put back."""
    rows = table().splitlines()[2:]
    assert [row.split(" | ")[1] for row in rows] == [one.what for one in EVERY]


def test_every_finding_has_a_row() -> None:
    """Those of the wires among the public reports have theirs elsewhere."""
    known = {name for one in EVERY for name in one.row.split(", ")}
    wanted = {f"A{n}" for n in range(1, 17)} | {f"D{n}" for n in range(1, 19)}
    wanted |= {"B3", "B8", "B9", "B10", "B13", "C1", "E"}
    wanted |= {f"H{n}" for n in range(1, 7)} | {f"M{n}" for n in range(1, 16)}
    wanted |= {f"L{n}" for n in range(1, 23)}
    assert known - {"B7"} == wanted
    assert len({one.what for one in EVERY}) == len(EVERY)


def test_the_page_of_findings_is_up_to_date() -> None:
    """``python -m tests.mutation.page`` writes it."""
    assert PAGE.read_text() == page()
