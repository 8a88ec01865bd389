"""Measure journals beside no journal, plain sqlite3 and LangGraph's SqliteSaver, in one run.

    python benchmarks/journals.py
    python benchmarks/journals.py --turns 10 100 1000 --rounds 5 --chart docs/explanation

Each turn is a request to a model that answers at once and a tool call. Plain sqlite3 writes
the same two transactions of two rows each, and no more. LangGraph's saver keeps the same
messages in a graph of a model and a tool; without ``langgraph-checkpoint-sqlite`` it is left
out. All take turns, so that a slow moment is slow for all, and the quickest of the rounds
counts: CPU time of the process, threads included. Bytes are those of the file when it is closed.
"""

from __future__ import annotations

import contextlib
import operator
import sqlite3
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Final, TypedDict

import attrs
import trio
from agents import PLENTY, CallingDriver, NullDriver
from chart import Chart, Line, page
from meter import Parser, a_folder, at_least

from agentpool import AgentManifest, ResourceQuota, SpawnConfig, open_pool
from agentpool.journal import open_journal
from agentpool.journal._sqlite import Durability
from agentpool.tools import ToolRegistry, tool

SEEN: Final = "seen " * 40
"""What the tool says."""

MANIFEST: Final = AgentManifest(
    capabilities=(), resources=ResourceQuota(max_iterations=PLENTY, max_tool_calls=PLENTY)
)


@tool
def noop(x: int) -> str:  # noqa: ARG001  # each call has another
    """Look at something."""
    return SEEN


async def run_agent(turns: int, path: Path | None, durability: Durability | None) -> None:
    """Run one agent, with a journal if there is a path."""
    driver, tools = CallingDriver(turns), ToolRegistry([noop])
    async with contextlib.AsyncExitStack() as stack:
        journal = None
        if path is not None:
            journal = await stack.enter_async_context(open_journal(path, durability=durability))
        pool = await stack.enter_async_context(
            open_pool(driver, tools=tools, name="p", journal=journal, resume=journal is not None)
        )
        handle = await pool.spawn(SpawnConfig(MANIFEST, "go", key="k" if journal else None))
        assert (await handle.wait()).iterations == turns


def cut(path: Path) -> None:
    """Forget how the run ended, as a kill before its last answer does."""
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("DELETE FROM records WHERE kind = 'ended'")
        file.execute("DELETE FROM records WHERE id = (SELECT MAX(id) FROM records)")
        file.commit()


async def resume(path: Path) -> None:
    """Go on with a run that was cut, whose model has one answer left to give."""
    async with (
        open_journal(path) as journal,
        open_pool(
            NullDriver(), tools=ToolRegistry([noop]), name="p", journal=journal, resume=True
        ) as pool,
    ):
        await (await pool.spawn(SpawnConfig(MANIFEST, "go", key="k"))).wait()


def plain(turns: int, path: Path) -> None:
    """Write what a journal writes, with nothing around it."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("PRAGMA synchronous = OFF")
        file.execute("CREATE TABLE records (id INTEGER PRIMARY KEY, pool, agent, kind, place, part,"
                     " digest, body)")  # fmt: skip
        file.execute("CREATE INDEX of_pool ON records (pool, id)")
        row = (1, 1, "started", 1, 0, "d" * 24, b"b" * 150)
        for _ in range(2 * turns):
            file.execute("BEGIN IMMEDIATE")
            file.executemany(
                "INSERT INTO records (pool, agent, kind, place, part, digest, body) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (row, row),
            )
            file.execute("COMMIT")


class State(TypedDict):
    """What a graph knows."""

    messages: Annotated[list[tuple[str, str]], operator.add]


def graph(turns: int, path: Path | None) -> None:
    """Run a graph of a model and a tool, with a saver if there is a path."""
    saver_class = import_module("langgraph.checkpoint.sqlite").SqliteSaver
    langgraph = import_module("langgraph.graph")

    def model(state: State) -> State:
        turn = len(state["messages"]) // 2 + 1
        text = "done" if turn == turns else f'call {turn} noop {{"x": {turn}}}'
        return {"messages": [("model", text)]}

    def look(_state: State) -> State:
        return {"messages": [("tool", SEEN)]}

    def after(state: State) -> str:
        return str(langgraph.END) if state["messages"][-1][1] == "done" else "look"

    builder = langgraph.StateGraph(State)
    builder.add_node("model", model)
    builder.add_node("look", look)
    builder.add_edge(langgraph.START, "model")
    builder.add_edge("look", "model")
    builder.add_conditional_edges("model", after)
    with contextlib.ExitStack() as stack:
        saver = None
        if path is not None:
            saver = stack.enter_context(saver_class.from_conn_string(str(path)))
        config = {"configurable": {"thread_id": "1"}, "recursion_limit": 3 * turns + 5}
        found = builder.compile(checkpointer=saver).invoke({"messages": [("user", "go")]}, config)
        assert len(found["messages"]) == 2 * turns


@attrs.define
class Way:
    """One way to run, and what it took at best."""

    name: str
    work: Callable[[int, Path], None]
    base: str | None
    """What its cost is told above. ``None``: it is told as it is."""
    colour: str = "#222222"
    cpu: dict[int, float] = attrs.field(factory=dict)
    bytes: dict[int, int] = attrs.field(factory=dict)
    resumed: dict[int, float] = attrs.field(factory=dict)

    def measure(self, turns: int, folder: Path) -> None:
        """Run once."""
        path = folder / f"{len(list(folder.iterdir()))}.db"
        began = time.process_time()
        self.work(turns, path)
        took = time.process_time() - began
        self.cpu[turns] = min(took, self.cpu.get(turns, took))
        if path.exists():
            self.bytes[turns] = path.stat().st_size
        if self.name.startswith("journal"):
            cut(path)
            began = time.process_time()
            trio.run(resume, path)
            took = time.process_time() - began
            self.resumed[turns] = min(took, self.resumed.get(turns, took))


def ways() -> list[Way]:
    """Return all ways that work here."""
    found = [
        Way("no journal", lambda turns, _: trio.run(run_agent, turns, None, None), None),
        Way("journal, process", lambda turns, path: trio.run(run_agent, turns, path, "process"),
            "no journal", "#1e8449"),
        Way("journal, power", lambda turns, path: trio.run(run_agent, turns, path, "power"),
            "no journal", "#2471a3"),
        Way("plain sqlite3", plain, None, "#7f8c8d"),
    ]  # fmt: skip
    with contextlib.suppress(ImportError):
        import_module("langgraph.checkpoint.sqlite")
        found += [
            Way("graph, no saver", lambda turns, _: graph(turns, None), None),
            Way("graph, SqliteSaver", graph, "graph, no saver", "#c0392b"),
        ]
    return found


def charts(found: Sequence[Way], turns: Sequence[int]) -> str:
    """Return the two charts: bytes, and CPU time of each turn."""
    kept = {way.name: way for way in found}
    sized = [way for way in found if way.bytes and way.name != "journal, power"]
    lines = [
        Line(name=way.name.replace(", process", ""), colour=way.colour,
             points=[(n, way.bytes[n]) for n in turns])
        for way in sized
    ]  # fmt: skip
    above = [
        Line(name=way.name, colour=way.colour,
             points=[(n, _above(way, kept, n)) for n in turns])
        for way in found if way.base is not None or way.name == "plain sqlite3"
    ]  # fmt: skip
    most = max(y for line in above for _, y in line.points)
    step = next(step for step in (100, 200, 500, 1000, 2000, 5000) if step * 6 >= most)
    return page([
        Chart(title="The file after so many turns", x_name="turns", y_name="bytes",
              x_ticks=[0, 200, 400, 600, 800, 1000], y_ticks=[10**n for n in range(3, 9)],
              lines=lines, logarithmic=True),
        Chart(title="CPU time of each turn, above that without a file", x_name="turns",
              y_name="microseconds", x_ticks=[0, 200, 400, 600, 800, 1000],
              y_ticks=[step * n for n in range(7)], lines=above),
    ])  # fmt: skip


def _above(way: Way, kept: dict[str, Way], turns: int) -> float:
    base = 0.0 if way.base is None else kept[way.base].cpu[turns]
    return (way.cpu[turns] - base) / turns * 1e6


def main() -> None:
    """Measure, print, and draw."""
    parser = Parser(description=(__doc__ or "").partition("\n\n")[0])
    many = at_least(1)
    parser.add_argument("--turns", type=many, nargs="+", default=[10, 100, 300, 1000],
                        help="the lengths of the runs; default: %(default)s")  # fmt: skip
    parser.add_argument("--rounds", type=many, default=3, help="default: %(default)s")
    parser.add_argument("--chart", type=a_folder, help="the folder for journals.svg")
    given = parser.parse_args()
    found = ways()
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(given.rounds):
            for turns in given.turns:
                for way in found:
                    way.measure(turns, Path(folder))
    kept = {way.name: way for way in found}
    print(f"{'':20} turns  us per turn  above none  file bytes  resumes in")
    for turns in given.turns:
        for way in found:
            above = "" if way.base is None else f"{_above(way, kept, turns):.0f}"
            size = f"{way.bytes[turns]:,}" if turns in way.bytes else ""
            again = f"{way.resumed[turns]:.3f} s" if turns in way.resumed else ""
            each = way.cpu[turns] / turns * 1e6
            print(f"{way.name:20} {turns:5} {each:12.0f} {above:>11} {size:>11} {again:>11}")
    if given.chart is not None:
        (given.chart / "journals.svg").write_text(charts(found, given.turns), encoding="utf-8")


if __name__ == "__main__":
    main()
