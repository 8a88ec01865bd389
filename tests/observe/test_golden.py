"""Traces that earlier versions wrote are read for ever, and are shown as they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentpool.observe import event_from_json, event_to_json, read_trace
from agentpool.testing._check_observer import every_event
from tests.support.cli_runner import Desk, make_desk

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    """Return a folder in which commands run."""
    return make_desk(tmp_path, capsys, monkeypatch)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("format-*.trace")), ids=lambda path: path.name)
def test_a_trace_of_each_format_is_read(path: Path) -> None:
    """Every event, and nothing that is unknown or damaged; a field never changes its meaning."""
    trace = read_trace(path)
    assert trace.problems == ()
    assert trace.statistics is not None
    lines = path.read_bytes().splitlines()[1:-1]
    assert [event_to_json(event_from_json(line)) for line in lines] == lines
    assert [event.sequence for event in trace.events] == list(range(1, len(lines) + 1))


def test_this_version_writes_what_it_wrote() -> None:
    """Each kind of event in the words of the file; a kind that is new has a file of its own."""
    lines = {line for path in GOLDEN.glob("*.trace") for line in path.read_bytes().splitlines()}
    events = [event_from_json(event_to_json(event)) for event in every_event()]
    assert [event for event in events if event_to_json(event) not in lines] == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("format-1.trace", "--diff", "other.trace", "--json"), "difference.json"),
        (("format-1.trace", "--format", "chrome"), "chrome.json"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_it_is_shown_as_it_was(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], told: str
) -> None:
    """What programs read stays as it is."""
    monkeypatch.chdir(GOLDEN)
    assert desk.call("show", *words).out == (GOLDEN / told).read_text(encoding="utf-8")
