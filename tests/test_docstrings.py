"""The examples in docstrings say what happens."""

import ast
import doctest
import enum
import importlib
import inspect
import pkgutil
import pydoc
import re
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import attrs
import msgspec
import pytest

import agentpool
from agentpool import abc, drivers, journal, live, memory, observe, testing, tools
from agentpool._field_docs import with_fields

ROOMS = [
    "agentpool",
    *sorted(
        info.name
        for info in pkgutil.walk_packages(agentpool.__path__, "agentpool.")
        # Importing the one runs the command line; the other needs Ray, and has no examples.
        if not info.name.endswith(("__main__", "cluster._ray"))
    ),
]


@pytest.mark.parametrize("room", ROOMS)
def test_doctests(room: str) -> None:
    """Each example in the docstrings of *room* prints what it says."""
    module = importlib.import_module(room)
    assert module.__file__ is not None
    defined = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    source = ast.parse(Path(module.__file__).read_text())
    names = [node.name for node in source.body if isinstance(node, defined)]
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    examples = doctest.DocTestParser().get_doctest(
        module.__doc__ or "", dict(vars(module)), room, module.__file__, 0
    )
    runner.run(examples)
    for name in names:
        # module=False: public classes say that they are from the face that shows
        # them, and by that doctest would take them for somebody else's.
        found = finder.find(getattr(module, name), name, module=False, globs=dict(vars(module)))
        for test in found:
            runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


MAIN = [
    agentpool.AgentHandle,
    agentpool.AgentManifest,
    agentpool.AgentOutcome,
    agentpool.AgentPool,
    agentpool.Budget,
    agentpool.MessageRouter,
    agentpool.RestartPolicy,
    agentpool.SpawnConfig,
    drivers.FallbackDriver,
    drivers.RequestGate,
    observe.EventReader,
    tools.ToolRegistry,
]


@pytest.mark.parametrize("kind", MAIN, ids=lambda kind: kind.__name__)
def test_a_main_class_shows_how_it_is_used(kind: type) -> None:
    """With what a user would write, from public names alone; ``test_doctests`` runs it."""
    examples = doctest.DocTestParser().get_examples(inspect.getdoc(kind) or "")
    assert examples, f"{kind.__name__} has no example"
    source = "".join(example.source for example in examples)
    assert not re.search(r"agentpool\.\w*\._|agentpool\._", source)


FACES = [agentpool, abc, drivers, journal, live, memory, observe, testing, tools]


@pytest.mark.parametrize("face", FACES, ids=lambda face: face.__name__)
def test_help_says_what_each_field_means(face: ModuleType) -> None:
    """The text below a field is for readers of the source; ``help`` and notebooks show it too."""
    silent = list[str]()
    for name in face.__all__:
        kind = getattr(face, name)
        if not isinstance(kind, type) or not kind.__module__.startswith("agentpool"):
            continue
        fields: Iterable[str] = ()
        if attrs.has(kind):
            fields = (field.name for field in attrs.fields(kind) if field.init)
        elif issubclass(kind, msgspec.Struct):
            fields = kind.__struct_fields__
        elif issubclass(kind, enum.Enum):
            fields = kind.__members__
        shown = inspect.getdoc(kind) or ""
        silent += [
            f"{name}.{field}"
            for field in fields
            if not field.startswith("_") and f"\n    {field}: " not in shown
        ]
    assert silent == []


def in_one_line(text: str) -> str:
    """Return *text* without spaces, line ends and the bars of ``help``."""
    return "".join(text.replace("|", " ").split())


def test_help_shows_fields_of_errors_and_of_bases() -> None:
    """What they are set to in ``__init__``, and what a base says; once, and in order."""
    shown = pydoc.plain(pydoc.render_doc(agentpool.LimitExceededError))
    assert "kind: The exceeded limit, in the words of ``StopReason``" in shown
    events = inspect.getdoc(observe.TextDelta) or ""
    assert events.index("    sequence: ") < events.index("    text: ")
    config = pydoc.plain(pydoc.render_doc(agentpool.SpawnConfig))
    assert "weight: How many agents of its group are let in at each turn of the group." in config
    # CPython 3.13 puts each argument on a line of its own.
    signature = "SpawnConfig(manifest: 'AgentManifest', query: 'str', *, name: 'str | None' = None"
    assert in_one_line(signature) in in_one_line(config)
    assert "agentpool._manifest" not in config
    outcome = pydoc.plain(pydoc.render_doc(agentpool.AgentOutcome))
    assert "agent_id: The agent's number." in outcome
    assert "ask_first" not in (inspect.getdoc(agentpool.AgentPool) or "")


def test_help_of_a_pool_comes_to_its_first_sentence() -> None:
    """The default of one argument was a list of sixty marks, in front of everything else."""
    assert len(str(inspect.signature(agentpool.open_pool))) < 900


def test_help_without_the_source_is_the_docstring() -> None:
    """A program that was packed may leave it out."""
    packed = type("Packed", (), {"__module__": "agentpool.packed", "__doc__": "Words."})
    assert with_fields(packed, "Words.") == "Words."


# What a native reader has to translate: nobody in particular as the one who does something.
SIGNS = re.compile(
    r"^(Take note|Have it|Have who|Whose)|\b(nobody|somebody|anybody|whoever)\b"
    r"|(?<!there )\bis none\b|\b(of|in|at) (which there|whose)\b|^What (became|came) of\b",
    re.IGNORECASE,
)


def test_first_lines_are_plain() -> None:
    """A first line says what the thing does, in words that need no second reading."""
    package = Path(agentpool.__file__).parent
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    odd = list[str]()
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            first = (
                (ast.get_docstring(node) or "").split("\n")[0] if isinstance(node, kinds) else ""
            )
            if SIGNS.search(first):
                odd.append(f"{path.relative_to(package)}: {first}")
    assert odd == []


def test_the_glossary_is_in_order_and_has_no_dead_words() -> None:
    """Each word once, in a full sentence, and used by the package or its other pages."""
    package, docs = Path(agentpool.__file__).parent, Path(__file__).parent.parent / "docs"
    page = docs / "explanation" / "glossary.md"
    entries = re.findall(r"^([a-z ]+)\n: (.+)$", page.read_text(), re.MULTILINE)
    words = [word for word, _ in entries]
    assert words == sorted(set(words))
    assert [word for word, meaning in entries if not meaning.endswith(".")] == []
    others = [path for path in docs.rglob("*.md") if path != page]
    text = " ".join(path.read_text().lower() for path in (*others, *package.rglob("*.py")))
    assert [word for word in words if not re.search(rf"\b{word}(s|es)?\b", text)] == []
    seams = [name for name, kind in vars(abc).items() if inspect.isabstract(kind)]
    nouns = {_noun(name) for name in (*seams, *(kind.__name__ for kind in MAIN))}
    assert nouns - {"context"} - set(words) == set()
    assert {"agent", "pool", "slot", "claim", "reservation", "branch", "lent"} <= set(words)


def _noun(name: str) -> str:
    """Return the last word of a class's name: ``pool`` of ``AgentPool``."""
    return str(re.findall(r"[A-Z][a-z]+", name)[-1]).lower()
