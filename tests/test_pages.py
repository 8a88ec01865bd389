"""The blocks and the links of README.md, docs/ and examples/: each is run, read or named here.

Python blocks are run by Sybil (see conftest.py at the root). Of the others:

- ``console``: the lines that call ``agentpool`` are parsed as the command line parses them.
- ``json`` and ``toml``: are read.
- ``eval-rst`` and ``toctree``: are built by ``nox -s docs``, where a warning is an error.
"""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import agentpool
from agentpool import ModelConfig, drivers
from agentpool._cli._arguments import parse
from agentpool.abc import Driver
from agentpool.drivers import FunctionDriver
from agentpool.tools import tool

ROOT = Path(__file__).parents[1]

PAGES = sorted(
    path
    for path in (
        *ROOT.glob("*.md"), *(ROOT / "examples").glob("*.md"), *(ROOT / "docs").rglob("*.md")
    )
    if "news" not in path.parts and "_build" not in path.parts
)  # fmt: skip

NOT_RUN = {
    "python3": "makes an environment",
    "python": "installs, or runs nox or an example: `nox -s start`, `nox -s demo`, tests/examples",
    "pip": "installs",
    "phoenix": "a program of others",
    "ray": "a program of others",
    "export": "sets a variable",
    "ssh": "needs another machine",
    "curl": "asks a page that runs: tests/cli/test_live_curl.py does it",
    "cd": "goes to a folder",
    "mkdir": "prepares files",
    "for": "prepares files",
    "printf": "prepares files",
    "echo": "prepares files",
    "kill": "kills what the page has started; tests/cli/test_journal.py does it",
}
"""The commands of console blocks that no test parses, and why."""

LANGUAGES = {"python", "console", "json", "toml", "text", "{eval-rst}", "{toctree}"}
"""What a block may be. ``text`` is a drawing, or what a program prints."""


def blocks(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the language and the text of each block of a page."""
    for found in re.finditer(
        r"^```(?P<kind>\S*)\n(?P<text>.*?)^```$", path.read_text("utf-8"), re.MULTILINE | re.DOTALL
    ):
        yield found["kind"], found["text"]


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each command of a console block, without where its output goes."""
    is_session = any(line.startswith("$ ") for line in text.splitlines())
    for line in text.splitlines():
        if is_session and not line.startswith("$ "):
            continue  # what was printed
        words = shlex.split(line.removeprefix("$ "), comments=True)
        while "|" in words:
            words = words[words.index("|") + 1 :]
        ends = [words.index(mark) for mark in ("<", ">", "&&") if mark in words]
        yield words[: min(ends, default=len(words))]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_block_is_right(path: Path) -> None:
    """Or stands in the list of those that are not run, with the reason."""
    for kind, text in blocks(path):
        assert kind in LANGUAGES, f"{path}: a block of {kind!r} is neither run nor read"
        if kind == "json":
            json.loads(text)
        elif kind == "toml":
            tomllib.loads(text)
        elif kind == "console":
            for words in commands(text):
                if words[0] == "agentpool":
                    parse(words[1:])
                else:
                    assert words[0] in NOT_RUN, f"{path}: {shlex.join(words)}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_decorator_named_in_a_sentence_works(path: Path) -> None:
    """No block runs these: `@tool(...)` between words is written by hand."""

    def blocking() -> str:
        """Do nothing."""
        return ""

    async def waiting() -> str:  # noqa: ASYNC124  # called like its neighbours
        """Do nothing."""
        return ""

    prose = re.sub(r"^```.*?^```$", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for call in re.findall(r"`@tool(\([^`]*\))`", prose):
        if "..." in call:
            continue
        decorate = eval(f"tool{call}", {"tool": tool, **vars(agentpool)})  # noqa: S307  # our own
        assert decorate(blocking if "in_thread" in call else waiting).definition.name


def test_python_blocks_are_where_they_are_run() -> None:
    """Sybil looks at README.md and docs/ alone."""
    for path in PAGES:
        if path.parent != ROOT / "docs" and ROOT / "docs" not in path.parents:
            kinds = {kind for kind, _ in blocks(path)}
            assert path.name == "README.md" or "python" not in kinds
    assert "python" not in {kind for kind, _ in blocks(ROOT / "examples" / "README.md")}


def anchors(path: Path) -> set[str]:
    """Return the names of a page's headings, as links write them."""
    prose = re.sub(r"^```.*?^```$", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_link_of_a_page_is_dead(path: Path) -> None:
    """Of those inside the repository: files and headings."""
    prose = re.sub(r"^```.*?^```$", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose)):
        if "://" in target:
            assert target.startswith("https://"), target
            continue
        name, _, anchor = target.partition("#")
        there = (path.parent / name).resolve() if name else path
        assert there.exists(), f"{path}: {target}"
        if anchor:
            assert anchor in anchors(there), f"{path}: {target}"


def test_the_readme_has_no_dead_link_on_pypi() -> None:
    """There are no files beside it there; what is done about it is in pyproject.toml."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    hook = settings["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    text = (ROOT / "README.md").read_text("utf-8")
    for one in hook["substitutions"]:
        text = re.sub(one["pattern"], one["replacement"], text)
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)]*)\)", prose)
    assert links
    assert [link for link in links if not link.startswith("https://")] == []
    assert "More about installing (`docs/how-to/install.md`)" in text


def test_no_block_is_left_out() -> None:
    """Every Python block is run: none is marked to be skipped, or passed off as text."""
    for path in PAGES:
        assert "skip: " not in re.sub(r"`[^`\n]*`", "", path.read_text("utf-8")), path
        for kind, text in blocks(path):
            assert kind != "text" or not re.search(r"^(import|from) \w", text, re.MULTILINE), path


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_has_words(path: Path) -> None:
    """GitHub and PyPI show nothing of ``[](page.md)``; Sphinx alone would put the title there."""
    assert "[](" not in path.read_text("utf-8")


PROGRAM = re.compile(
    r"^## In your program\n\n```python\n(.*?)^```\n\n```text\n(.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


def test_the_program_of_the_readme_prints_its_answers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those below it; with a model in place of the script, after what the page says to change."""
    readme = (ROOT / "README.md").read_text("utf-8")
    found = PROGRAM.search(readme)
    assert found is not None
    program, printed = found.groups()
    exec(program, {})  # noqa: S102  # as somebody pastes it
    assert capsys.readouterr().out == printed

    @asynccontextmanager
    async def open_model(_: ModelConfig) -> AsyncGenerator[Driver]:
        yield FunctionDriver(lambda request: f"A model read {len(request.messages)} message.")

    monkeypatch.setattr(drivers, "open_driver", open_model)
    new = re.search(r"^    (async with open_driver\(.*:)$", readme, re.MULTILINE)
    assert new is not None
    lines = program.replace("ScriptedDriver\n", "open_driver\n").splitlines(keepends=True)
    kept = [line for line in lines if "driver = ScriptedDriver(" not in line]
    changed = re.sub(r"async with open_pool.*:", new[1], "".join(kept))
    exec(changed, {})  # noqa: S102  # the same
    assert capsys.readouterr().out.count("completed: A model read 1 message.") == 2
