"""``--journal`` and ``agentpool runs``: a killed command goes on where it ended."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import signal
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
import trio

from agentpool._cli._map import keys_of
from agentpool.journal import JournalRecord, RecordKind, open_journal
from agentpool.observe import Trace, read_trace
from tests.support.cli_runner import Desk, make_desk

MAP = ("map", "reader.toml", "--each", "a.txt", "b.txt", "--journal", "j.db")

# Answers that give away which request they are the answer to.
SLOW = '[[answers]]\nwhen="You edit."\ntext="All fine."\n' + "".join(
    f'[[answers]]\nwhen="text {number:02}"\ntext="note {number:02}"\nseconds=0.15\n'
    for number in range(20)
)


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    """Return a folder with manifests and texts, and the command line in it."""
    desk = make_desk(tmp_path, capsys, monkeypatch)
    desk.write(a_txt="one", b_txt="two", silent_toml='[[answers]]\nerror="asked"')
    return desk


def unasked(desk: Desk, *words: str) -> tuple[int, str, str]:
    """Run a command with a model that has no answer to anything."""
    done = desk.call(*words, "--driver", "script:silent.toml")
    return done.code, done.out, done.err


def errors(text: str) -> list[str]:
    """Return the lines of *text* that say what is wrong."""
    assert "Traceback" not in text
    return [line for line in text.splitlines() if line.startswith("agentpool: error: ")]


def requests(trace: Trace) -> int:
    """Return how many answers came in a process."""
    return sum(type(event).__name__ == "CompletionReceived" for event in trace.events)


# --- a second run


def test_a_second_run_prints_the_same_without_a_request(desk: Desk) -> None:
    """Notes and the editor's answer come from the journal."""
    words = (*MAP, "--reduce", "editor.toml")
    first = desk.scripted(*words)
    assert first.code == 0
    assert unasked(desk, *words)[:2] == (0, first.out)


def test_the_summary_counts_this_run_alone(desk: Desk) -> None:
    """Whoever reads it wants to know what was asked now, and what the journal had."""
    assert "2 completed in " in desk.scripted(*MAP).err
    again = desk.scripted(*MAP).err.splitlines()[-1]
    assert re.fullmatch(
        r"agentpool: 2 completed \(2 from the journal\) in .* s, 0 tokens written .*", again
    )
    desk.write(c_txt="three")
    more = (*MAP[:5], "c.txt", *MAP[5:])
    assert "3 completed (2 from the journal) in " in (done := desk.scripted(*more)).err
    assert ", 3 tokens written (" in done.err
    assert desk.scripted(*more, "--json").lines[-1]["from_journal"] == 3


def test_an_input_that_is_new_is_asked_and_the_editor_again(desk: Desk) -> None:
    """The editor's old answer is about other notes."""
    words = ("map", "reader.toml", "--journal", "j.db", "--reduce", "editor.toml", "--each")
    assert desk.scripted(*words, "a.txt").code == 0
    desk.write(
        script_toml='[[answers]]\nwhen="b.txt:"\ntext="Both."\n[[answers]]\nwhen="two"\ntext="2"'
    )
    done = desk.scripted(*words, "a.txt", "b.txt")
    assert (done.code, done.out) == (
        0,
        "## a.txt\n\nA note.\n\n## b.txt\n\n2\n\n## editor\n\nBoth.\n\n",
    )


def test_the_same_file_twice_is_one_agent(desk: Desk) -> None:
    """Whatever its name begins with, and however its path is written."""
    desk.write(**{"#_txt": "three"})
    words = ("map", "reader.toml", "--journal", "j.db", "--each", "a.txt", "#.txt", "./a.txt")
    first = desk.scripted(*words)
    assert (first.code, first.out.count("A note.")) == (0, 2)
    assert "warning: --each names 'a.txt' more than once; it is asked once\n" in first.err
    assert unasked(desk, *words)[:2] == (0, first.out)
    shown = desk.call("runs", "show", "j.db", "--json").lines
    assert [line["key"] for line in shown] == ["a.txt", "./#.txt"]


def test_names_that_are_the_same_as_text_have_two_keys() -> None:
    """Not every name of a file is text, and a journal keeps text alone."""
    assert keys_of([os.fsdecode(b"\xff"), "\\xff"]) == ["\\xff", "\\xff (2)"]


def test_what_failed_is_told_again_in_the_same_words(desk: Desk) -> None:
    """An agent that failed has ended, and costs nothing again."""
    desk.write(b_txt="broken")
    first = desk.scripted(*MAP)
    assert first.code == 1
    code, out, err = unasked(desk, *MAP)
    assert (code, out, errors(err)) == (1, first.out, errors(first.err))
    assert errors(err) == ["agentpool: error: b.txt: BadRequestError: the model is out of order"]
    lines = desk.scripted(*MAP, "--json").lines
    assert {line["input"]: line["error"] for line in lines[:2]} == {
        "a.txt": None,
        "b.txt": {"type": "BadRequestError", "message": "the model is out of order"},
    }


def test_run_goes_on_as_well(desk: Desk) -> None:
    """With a key for each manifest; a map in the same file is another pool."""
    words = ("run", "reader.toml", "reader.toml", "Why?", "--journal", "j.db")
    first = desk.scripted(*words)
    assert (first.code, first.out.count("A note.")) == (0, 2)
    assert unasked(desk, *words)[:2] == (0, first.out)
    assert desk.scripted(*MAP).code == 0
    listed = desk.call("runs", "list", "j.db", "--json").lines
    assert [(line["pool"], line["agents"], line["ended"]) for line in listed] == [
        ("run", 2, 2), ("map", 2, 2),
    ]  # fmt: skip


PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d763f8cf"
    "c0000003010100c9fe92ef0000000049454e44ae426082"
)


def test_another_picture_is_another_question(desk: Desk) -> None:
    """The answer about the first one is not taken for it."""
    desk.write(p_png=PIXEL)
    words = ("run", "reader.toml", "What is it?", "--attach", "p.png", "--journal", "j.db")
    assert desk.scripted(*words).code == 0
    assert unasked(desk, *words)[:2] == (0, "A note.\n")
    desk.write(p_png=PIXEL + b"\0")
    assert unasked(desk, *words)[0] == 1


# --- kill -9


def asked_and_answered(path: Path) -> tuple[int, Counter[int]]:
    """Return how many requests left, and the answers that are kept of each agent.

    A row is on the disk before its request leaves, and the agents here call no tools.
    """
    with contextlib.closing(sqlite3.connect(path)) as file:
        (asked,) = file.execute("SELECT COUNT(*) FROM records WHERE kind = 'started'").fetchone()
        rows = file.execute(
            "SELECT agent FROM records AS r WHERE kind = 'result' AND EXISTS (SELECT 1 FROM "
            "records AS s WHERE s.kind = 'started' AND s.agent = r.agent AND s.place = r.place)"
        )
        return asked, Counter(agent for (agent,) in rows)


def test_a_killed_map_goes_on(desk: Desk) -> None:
    """Killed three times: each input is answered once, the editor once."""
    names = [f"{number:02}.txt" for number in range(20)]
    for number, name in enumerate(names):
        (desk.folder / name).write_text(f"text {number:02}", encoding="utf-8")
    # The last texts keep a process that is to be killed from ending first, on any machine.
    stuck = "".join(f'[[answers]]\nwhen="text {n}"\nseconds=3600\n' for n in range(15, 20))
    desk.write(slow_toml=SLOW, stuck_toml=stuck + SLOW)
    at_once = 3
    words = (
        "map", "reader.toml", "--each", *names, "--reduce", "editor.toml", "--journal", "j.db",
        "--max-concurrent", str(at_once), "--json",
    )  # fmt: skip
    for kill in range(3):
        process = desk.start(*words, "--driver", "script:stuck.toml")
        assert process.stdout is not None
        # Those of earlier runs come first, so each process gets three further.
        printed = 3 * (kill + 1)
        for _ in range(printed):
            assert process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        asked, answered = asked_and_answered(desk.folder / "j.db")
        # What was printed was kept, and whatever was asked twice was in flight.
        assert printed <= len(answered) < 21
        assert asked - len(answered) <= (kill + 1) * at_once
        (pool,) = desk.call("runs", "list", "j.db", "--json").lines
        assert (pool["owner"], pool["ended"] < pool["agents"]) == (None, True)
    done = desk.call(*words, "--driver", "script:slow.toml")
    *outcomes, editor, summary = done.lines
    assert (done.code, summary["exit_code"]) == (0, 0)
    answers = [(line["input"], line["text"]) for line in outcomes]
    assert sorted(answers) == [(name, f"note {name[:2]}") for name in names]
    assert editor["text"] == "All fine."
    asked, answered = asked_and_answered(desk.folder / "j.db")
    assert set(answered.values()) == {1}
    assert len(answered) == 21 <= asked <= 21 + 3 * at_once
    keys = Counter(line["key"] for line in desk.call("runs", "show", "j.db", "--json").lines)
    assert (len(keys), set(keys.values())) == (21, {1})
    assert unasked(desk, *words)[0] == 0
    assert asked_and_answered(desk.folder / "j.db") == (asked, answered)


def test_what_ctrl_c_ended_goes_on(desk: Desk) -> None:
    """An agent that the command's end cancelled has not ended for the journal."""
    desk.write(b_txt="endless", ended_toml='[[answers]]\nwhen="endless"\ntext="2"')
    process = desk.start(*MAP, "--driver", "script:script.toml", "--json")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["input"] == "a.txt"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    done = desk.call(*MAP, "--driver", "script:ended.toml")
    assert (done.code, done.out) == (0, "## a.txt\n\nA note.\n\n## b.txt\n\n2\n\n")


# --- bad input


@pytest.mark.parametrize("changed", ["reader_toml", "a_txt"])
def test_another_manifest_or_text_is_refused_before_it_is_asked(desk: Desk, changed: str) -> None:
    """And nothing else is begun, the editor neither."""
    assert desk.scripted(*MAP).code == 0
    content = (desk.folder / changed.replace("_", ".")).read_text(encoding="utf-8")
    desk.write(**{changed: content.replace("You read", "You look").replace("one", "won")})
    words = (*MAP, "--reduce", "editor.toml", "--trace", "j.trace")
    done = desk.scripted(*words)
    assert done.code == 2
    (line,) = errors(done.err)
    assert line == (
        "agentpool: error: a.txt: journal 'j.db' already has an input with this key, but with a "
        "different manifest or text; undo the change, or name another --journal file"
    )
    assert done.out == ""
    assert "cancelled" not in done.err
    assert requests(read_trace(desk.folder / "j.trace")) == 0
    assert "editor started" not in done.err


def test_another_query_is_refused(desk: Desk) -> None:
    """As another text is."""
    words = ("run", "reader.toml", "--journal", "j.db")
    assert desk.scripted(*words, "Why?").code == 0
    code, out, err = unasked(desk, *words, "Why not?")
    assert (code, out) == (2, "")
    assert [line[:40] for line in errors(err)] == ["agentpool: error: reader: journal 'j.db'"]


def test_a_pool_that_another_process_runs_is_left_to_it(desk: Desk) -> None:
    """Both would ask; the list says who it is."""
    desk.write(a_txt="endless")
    process = desk.start(*MAP, "--driver", "script:script.toml", "--json")
    assert process.stdout is not None
    assert process.stdout.readline()
    try:
        code, out, err = unasked(desk, *MAP)
        assert (code, out) == (2, "")
        (line,) = errors(err)
        assert f"pool 'map' of the journal is in use by process {process.pid} on " in line
        (pool,) = desk.call("runs", "list", "j.db", "--json").lines
        assert pool["owner"]["pid"] == process.pid
        listed = desk.call("runs", "list", "j.db").out
        assert f"map: 1 of 2 agents ended, {pool['bytes']:,} bytes, since " in listed
        assert f"; process {process.pid} on " in listed
        pruned = desk.call("runs", "prune", "j.db")
        assert pruned.code == 1
        assert pruned.out.startswith(
            f"map: left as it is: 1 of 2 agents ended; process {process.pid}"
        )
    finally:
        process.kill()
        process.communicate(timeout=60)


def test_a_journal_that_is_taken_over_ends_the_command_in_one_line(desk: Desk) -> None:
    """Its process slept too long, and another one went on."""
    desk.write(a_txt="endless", b_txt="text 01", slow_toml=SLOW.replace("0.15", "2"))
    desk.write(both_toml=SLOW.replace("0.15", "2") + '[[answers]]\ntext="1"\nseconds=3600')
    process = desk.start(*MAP, "--driver", "script:both.toml")
    assert process.stderr is not None
    while b"b.txt started" not in (line := process.stderr.readline()):
        assert line
    with contextlib.closing(sqlite3.connect(desk.folder / "j.db")) as file:
        file.execute("UPDATE pools SET fence = fence + 1")
        file.commit()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert len(errors(err.decode())) == 1
    assert "pool 'map'" in err.decode()


def newer(path: Path) -> None:
    """Make a journal of a later version."""
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA user_version = 99")


@pytest.mark.parametrize("words", [MAP, ("runs", "list", "j.db")])
def test_a_file_of_a_later_version_is_refused(desk: Desk, words: tuple[str, ...]) -> None:
    """In one line, and it stays as it was."""
    assert desk.scripted(*MAP).code == 0
    newer(desk.folder / "j.db")
    before = (desk.folder / "j.db").read_bytes()
    done = desk.call(*words) if words[0] == "runs" else desk.scripted(*words)
    assert (done.code, done.out, len(errors(done.err))) == (2, "", 1)
    assert "j.db" in done.err
    assert (desk.folder / "j.db").read_bytes() == before


@pytest.mark.parametrize("words", [MAP, ("runs", "list", "j.db"), ("runs", "prune", "j.db")])
def test_a_file_that_is_no_journal_is_refused(desk: Desk, words: tuple[str, ...]) -> None:
    """Also before a model is asked."""
    desk.write(j_db="this is a letter, and no journal " * 100)
    done = desk.call(*words) if words[0] == "runs" else desk.scripted(*words)
    assert (done.code, done.out, len(errors(done.err))) == (2, "", 1)
    assert "j.db" in done.err


def test_a_journal_in_a_folder_that_is_not_there_is_refused(desk: Desk) -> None:
    """Nothing can be written there."""
    words = ("map", "reader.toml", "--each", "a.txt", "--journal", "gone/j.db")
    code, out, err = unasked(desk, *words)
    assert (code, out, len(errors(err))) == (2, "", 1)


def may_write_only_what_it_may() -> None:
    """Take from root the right to write to every file."""
    drop_from_bounds, write_everything = 24, 1  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE
    ctypes.CDLL(None).prctl(drop_from_bounds, write_everything, 0, 0, 0)


def test_a_journal_that_may_only_be_read_is_refused_and_listed(desk: Desk) -> None:
    """Looking needs no more."""
    assert desk.scripted(*MAP).code == 0
    (desk.folder / "j.db").chmod(0o400)
    found = []
    for words in ((*MAP, "--driver", "script:script.toml"), ("runs", "list", "j.db")):
        process = desk.start(*words, preexec_fn=may_write_only_what_it_may)
        out, err = process.communicate(timeout=60)
        found.append((process.returncode, bool(out), len(errors(err.decode()))))
    assert found == [(2, False, 1), (0, True, 0)]


# --- agentpool runs


def test_runs_are_listed_shown_and_pruned(desk: Desk) -> None:
    """In words; what was answered outlives the pruning."""
    desk.write(b_txt=f"\n{'long ' * 40}\nsecond line")
    first = desk.scripted(*MAP)
    listed = desk.call("runs", "list", "j.db")
    assert (listed.code, listed.err) == (0, "")
    assert listed.out.startswith("map: 2 of 2 agents ended, ")
    assert listed.out.endswith(" UTC\n")
    shown = desk.call("runs", "show", "j.db", "map").out.splitlines()
    assert shown[0] == listed.out.strip()
    assert shown[1:] == [
        "      1  completed   a.txt: one",
        f"      2  completed   b.txt: {('long ' * 40)[:60]}…",
    ]
    pruned = desk.call("runs", "prune", "j.db", "--json")
    (line,) = pruned.lines
    assert (pruned.code, line["pool"], line["over"], line["records"] > 0) == (0, "map", True, True)
    again = desk.call("runs", "prune", "j.db", "map")
    assert (again.code, again.out) == (0, "map: 0 records forgotten\n")
    assert unasked(desk, *MAP)[:2] == (0, first.out)


def test_who_looks_changes_nothing(desk: Desk) -> None:
    """Not one byte of the file."""
    assert desk.scripted(*MAP).code == 0
    before = (desk.folder / "j.db").read_bytes()
    assert desk.call("runs", "list", "j.db").code == desk.call("runs", "show", "j.db").code == 0
    assert (desk.folder / "j.db").read_bytes() == before


def keep(path: Path, *records: JournalRecord) -> None:
    """Write *records* into the journal *path*."""

    async def main() -> None:
        async with open_journal(path) as journal:
            if records:
                await journal.append(await journal.claim("pool"), records)

    trio.run(main)


def test_an_agent_that_has_not_ended_is_shown_as_that(desk: Desk) -> None:
    """And a record that is none is told."""
    accepted = JournalRecord(1, RecordKind.ACCEPTED, body=b'{"key":"a","query":"Why?"}')
    keep(desk.folder / "j.db", accepted)
    (line,) = desk.call("runs", "show", "j.db", "--json").lines
    assert line == {
        "type": "agent", "pool": "pool", "agent_id": 1, "status": "unfinished", "key": "a",
        "query": "Why?",
    }  # fmt: skip
    keep(desk.folder / "j.db", JournalRecord(2, RecordKind.ACCEPTED, body=b"{}"))
    done = desk.call("runs", "show", "j.db")
    assert (done.code, len(errors(done.err))) == (2, 1)
    assert "agent 2 of the journal cannot be read" in done.err


def test_an_empty_journal_has_no_runs(desk: Desk) -> None:
    """Which is said."""
    keep(desk.folder / "j.db")
    assert desk.call("runs", "list", "j.db").out == "no runs\n"
    done = desk.call("runs", "show", "j.db", "map")
    assert (done.code, errors(done.err)) == (
        2,
        ["agentpool: error: the journal has no pool 'map'; it has none"],
    )


def test_a_clock_that_went_back_is_told(desk: Desk) -> None:
    """Whoever lists the runs sees that the last write is to come."""
    keep(desk.folder / "j.db", JournalRecord(1, RecordKind.ACCEPTED, body=b"{}"))
    with closing(sqlite3.connect("j.db")) as file:
        file.execute("UPDATE pools SET renewed_at = renewed_at + 100000")
        file.commit()
    done = desk.call("runs", "list", "j.db")
    assert re.search(r"; its last write is (99,9|100,0)\d\d seconds ahead of the clock", done.out)


@pytest.mark.parametrize("action", ["list", "show", "prune"])
def test_an_empty_file_is_no_journal(desk: Desk, action: str) -> None:
    """It is told, and stays empty."""
    (desk.folder / "empty.db").touch()
    done = desk.call("runs", action, "empty.db")
    assert (done.code, done.out) == (2, "")
    assert "'empty.db' is not a journal: it is empty; name another" in done.err
    assert (desk.folder / "empty.db").stat().st_size == 0


def test_a_slip_in_the_name_makes_no_file(desk: Desk) -> None:
    """It is told."""
    done = desk.call("runs", "list", "k.db")
    assert (done.code, (desk.folder / "k.db").exists()) == (2, False)
    assert "there is no journal 'k.db'" in done.err


def test_list_takes_no_pool(desk: Desk) -> None:
    """Show does."""
    done = desk.call("runs", "list", "j.db", "map")
    assert (done.code, "did you mean show?" in done.err) == (2, True)


def test_a_file_whose_name_is_no_text_costs_no_other(desk: Desk) -> None:
    """It has its answer, and is not asked again. Workers cannot share it, and say so."""
    name = os.fsdecode(b"b\xff.txt")
    (desk.folder / name).write_text("hello")
    desk.write(a_txt="one", silent_toml='[[answers]]\nerror="asked"')
    words = ("map", "reader.toml", "--each", "a.txt", name, "--journal", "j.db", "--json")
    assert desk.scripted(*words).code == 0
    done = desk.call(*words, "--driver", "script:silent.toml")
    assert done.code == 0
    shared = desk.scripted(*words[:5], "--journal", "k.db", "--workers", "2")
    assert shared.code == 2
    assert "whose name is not UTF-8; rename it" in shared.err
