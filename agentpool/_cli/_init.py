"""``agentpool init``: writes a first manifest, program, test and CI job.

Rules:

1. No file is replaced. If one is there, nothing is written.
2. The written files run without changes.
3. Questions are asked only on a terminal, and only about choices that no option makes.
"""

from __future__ import annotations

import importlib.util
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Final

from agentpool import AgentManifest, UsageError
from agentpool import _install as install
from agentpool._cli._command import InitCommand
from agentpool._cli._override import no_such_model
from agentpool._cli._report import ExitCode
from agentpool._cli._screen import write_out
from agentpool.drivers import PROVIDERS

_FOLDER: Final = resources.files("agentpool._cli") / "starter"

_FILES: Final[Mapping[str, str]] = {
    "agent.toml": "manifest",
    "main.py": "program",
    "test_agent.py": "test",
    "pytest.ini": "test",
    "noxfile.py": "ci",
    ".github/workflows/agents.yml": "ci",
}
"""Each file, with the part to which it belongs."""

_QUESTIONS: Final[Mapping[str, str]] = {
    "program": "a program that runs the agent (main.py)",
    "test": "a test of the program that asks no model (test_agent.py)",
    "ci": "a noxfile and a CI job that run the test",
}
"""The question for each part except the manifest, in order. Each part needs those before it."""


_SMALL: Final = "max_tokens = 200\ntemperature = 0.0"
"""The settings for a model on this machine. Without them, a small model does not stop."""


def begin(command: InitCommand) -> int:
    """Run *command* and return the exit code.

    Raises:
        UsageError: If a file exists already, or cannot be written.
        ManifestError: If the options make an invalid manifest.
    """
    folder = Path(command.folder)
    if not folder.is_dir() and (folder.exists() or folder.suffix == ".toml"):
        raise UsageError(
            f"init writes into a folder, got the file {command.folder!r}; name a folder"
        )
    parts = _asked() if command.parts is None else command.parts
    values = {"name": json.dumps(command.name)[1:-1], **_model(command.model)}
    texts = {
        name: Template((_FOLDER / f"{Path(name).name}.txt").read_text("utf-8")).substitute(values)
        for name, part in _FILES.items()
        if part in ("manifest", *parts)
    }
    AgentManifest.parse(texts["agent.toml"], source="the manifest of these options")
    if there := [name for name in texts if (folder / name).exists()]:
        raise UsageError(
            f"{str(folder / there[0])!r} exists already, so nothing was written; move it, or "
            "choose another folder"
        )
    for name, text in texts.items():
        _write(folder / name, text)
    _tell(folder, list(texts), as_json=command.json)
    return ExitCode.COMPLETED


def _asked() -> tuple[str, ...]:
    """Return the parts that the person chooses at the terminal; all parts without a terminal."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return tuple(_QUESTIONS)
    wanted: list[str] = []
    for part, words in _QUESTIONS.items():
        sys.stderr.write(f"Write {words}? [Y/n] ")
        sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:  # the end of input: the rest is not asked
            return tuple(_QUESTIONS)
        if line.strip().casefold() in {"n", "no"}:
            break  # what follows needs it
        wanted.append(part)
    return tuple(wanted)


def _model(named: str | None) -> dict[str, str]:
    """Return the settings of the model, and the privacy tier."""
    if named is None:
        hint = '# The packaged small model. Another: provider = "openai" and remote_model = "NAME"'
        keys = f'{hint}, or model_path = "FILE.gguf"\n{_SMALL}'
        return {"model": keys, "privacy": "Sovereign"}
    provider, slash, name = named.partition("/")
    if slash and provider in PROVIDERS:
        is_here = PROVIDERS[provider].api_key_env is None
        keys = f"provider = {json.dumps(provider)}\nremote_model = {json.dumps(name)}"
        return {"model": keys, "privacy": "Sovereign" if is_here else "Standard"}
    if named.endswith(".gguf"):
        keys = f"model_path = {json.dumps(named)}\n{_SMALL}"
        return {"model": keys, "privacy": "Sovereign"}
    raise no_such_model(named)


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise UsageError(
            f"{str(path)!r} cannot be written: {error.strerror}; choose another folder"
        ) from error


def _about_workflow(folder: Path) -> list[str]:
    """Say where to put a CI job for a folder below the root of its repository."""
    root = next((one for one in folder.parents if (one / ".git").exists()), None)
    if root is None or (folder / ".git").exists():
        return []
    place = folder.relative_to(root)
    return [
        f"          GitHub reads jobs in {root / '.github/workflows'} alone: move agents.yml",
        f"          there, and add `working-directory: {place}` to its last step",
    ]


def _about_nox(place: str) -> list[str]:
    """Say how to run the noxfile, and where it installs agentpool from."""
    origin = install.place()
    if origin is None:
        return [f"in CI:    {place}python -m nox"]
    return [
        f"in CI:    {place}AGENTPOOL={shlex.quote(origin)} python -m nox",
        "          (without AGENTPOOL=..., once trio-agentpool is on PyPI)",
    ]


def _tell(folder: Path, names: Sequence[str], *, as_json: bool) -> None:
    if as_json:
        write_out(sys.stdout, json.dumps({"type": "init", "files": list(names)}) + "\n")
        return
    lines = [f"wrote {folder / name}" for name in names]
    place = "" if folder == Path() else f"cd {shlex.quote(str(folder))} && "
    if "test_agent.py" in names:
        missing = importlib.util.find_spec("pytest") is None
        first = "python -m pip install pytest && " if missing else ""
        lines.append(f"test it:  {place}{first}python -m pytest")
        lines.append("          what to put into it: docs/how-to/test-an-answer.md of agentpool")
    if "noxfile.py" in names:
        lines += _about_nox(place)
        lines += _about_workflow(folder.resolve())
    if "main.py" in names:
        lines.append(f"run it:   {place}python main.py FILE...")
    else:
        lines.append(f'run it:   agentpool run {shlex.quote(str(folder / "agent.toml"))} "Why?"')
    write_out(sys.stdout, "".join(f"{line}\n" for line in lines))
