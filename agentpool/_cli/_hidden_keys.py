"""Keeps keys out of everything that a command prints: errors, warnings and output of libraries.

Rules:

1. Standard error never shows a key, whether the command, a library or the log writes to it.
2. Errors on standard output show no keys. Answers of models belong to the user, and are not
   changed.
3. Three kinds of text count as keys: the value of a variable that a manifest of this command names,
   the value of a variable whose name looks like that of a key, and a text that looks like a key of
   a well-known service.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Final, TextIO, cast, final

from agentpool import AgentManifest, PoolPlan
from agentpool._cli._screen import write_out
from agentpool.observe._redact import known_secrets, without_keys

_named: Final = set[str]()
"""The keys that this command's manifests name. It is not a context variable, since other threads
write as well."""


def hide_keys_of(manifests: Iterable[AgentManifest]) -> None:
    """Hide the keys that *manifests* name, from now until the command ends."""
    _named.update(PoolPlan(manifests=tuple(manifests)).secrets)


def hide_keys(text: str) -> str:
    """Return *text* without any key."""
    return without_keys(text, (*tuple(_named), *known_secrets()))


def write_told(text: str) -> None:
    """Write findings of a command to standard output, without keys."""
    write_out(sys.stdout, hide_keys(text))


@contextmanager
def keys_hidden() -> Generator[None]:
    """Remove keys from everything that is written to standard error inside the block.

    The error that ends the program is written inside the block as well. Python would write this
    error only after the block.
    """
    stream = sys.stderr
    # It has all that is asked of a text stream, by way of the one below it.
    sys.stderr = cast("TextIO", _CleanStream(stream))
    try:
        yield
    except BaseException:  # noqa: BLE001  # Python would write it, with its keys
        sys.stderr.write(traceback.format_exc())
        raise SystemExit(1) from None  # noqa: ASYNC104  # no task of trio is here
    finally:
        sys.stderr = stream
        _named.clear()


@final
class _CleanStream:
    """A text stream that leaves out keys."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write *text* without keys."""
        self._stream.write(hide_keys(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write *lines* without keys."""
        self.write("".join(lines))

    def __getattr__(self, name: str) -> object:
        """Return the attribute of the stream below."""
        return cast("object", getattr(self._stream, name))
