"""Reads TOML tables so that every fault is noted and no key is ignored.

Rules:

1. Each key is read with its expected type. A value of a different type is a fault; reading goes on
   with the default, so that one run reports all faults.
2. An unknown key is a fault. If it has a place elsewhere in the file, the
   fault says where: TOML gives a key below ``[[table]]`` to that table, whatever the
   author meant. Otherwise the fault names the nearest key that exists.
3. ``true`` is not an integer, and an integer is a number.
4. One path gets one fault: a value that could not be read is not checked any further.

This module knows nothing of manifests: its caller says which keys there are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import Any, Final, ParamSpec, Self, TypeVar, cast, final, get_args

import msgspec

from agentpool._base import Live
from agentpool._errors import Fault, ManifestError
from agentpool._manifest.parts import shown

D = TypeVar("D")
P = ParamSpec("P")
T = TypeVar("T")

MAX_GUESSES: Final = 100
"""The number of faults in one file after which no corrections are suggested: a guess takes a
thousand times longer than reading a key, and that many faults are not typing errors."""

MAX_KEY_PARTS: Final = 100
"""The limit for a dotted key. Python's parser takes time proportional to the square of the number
of parts."""

# Each run once, and what was taken is not given back: else looking would take as long.
_PART: Final = r"""(?:[A-Za-z0-9_-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')"""
_LONG_KEY: Final = rf"(?<![A-Za-z0-9_-]){_PART}(?:[ \t]*+\.[ \t]*+{_PART}){{{MAX_KEY_PARTS}}}"

MAX_INTEGER: Final = 2**63 - 1
"""The largest integer that TOML guarantees. Python's reader accepts larger ones, which cannot
always be written out."""

AT_THE_TOP: Final = "at the top of the file, before the first [table]"
"""The name of the file's top level in faults."""


@final
class TomlTable(Live):
    """One table of a file. Ask for its keys, then close it."""

    path: str
    """The table's path, such as ``capabilities[1]``. Empty for the whole file."""
    values: Mapping[str, object]
    """The values in the table."""
    faults: list[Fault]
    """The faults so far, shared by all tables of one file."""
    _asked: set[str] = msgspec.field(default_factory=set[str])

    @classmethod
    def parse(cls, text: str, *, source: str) -> Self:
        """Parse a whole file.

        Raises:
            ManifestError: If *text* is not TOML. Names the line.
        """
        import tomllib  # noqa: PLC0415  # a pool of manifests made in code needs none

        if re.search(_LONG_KEY, text):
            fault = Fault("", f"has a key of more than {MAX_KEY_PARTS} parts; write tables")
            raise ManifestError([fault], source=source)
        try:
            values: Mapping[str, object] = tomllib.loads(text)
        except RecursionError:
            fault = Fault("", "is nested too deeply to be read")
            raise ManifestError([fault], source=source) from None
        except ValueError as exc:  # TOMLDecodeError, or an integer of 5,000 digits
            fault = Fault("", f"is not valid TOML: {exc}{_advice(exc)}")
            raise ManifestError([fault], source=source) from exc
        return cls("", values, [])

    def path_of(self, key: str) -> str:
        """Return the path of *key*, quoted where TOML would quote it."""
        bare = key.isascii() and key.replace("_", "a").replace("-", "a").isalnum()
        name = key if bare else f'"{key}"'
        return f"{self.path}.{name}" if self.path else name

    def fault(self, key: str, text: str) -> None:
        """Note that *key* is wrong."""
        self.faults.append(Fault(self.path_of(key), text))

    def require(self, key: str, hint: str) -> None:
        """Note a fault if *key* is missing. *hint* says what to write."""
        if key not in self.values:
            self.fault(key, f"is missing; {hint}")

    def text(self, key: str, default: D) -> str | D:
        """Return the string at *key*, or *default*."""
        value = self._take(key)
        if isinstance(value, str):
            return value
        self._refuse(key, value, "a string")
        return default

    def integer(self, key: str, default: D) -> int | D:
        """Return the integer at *key*, or *default*."""
        value = self._take(key)
        if isinstance(value, int) and not isinstance(value, bool):
            if abs(value) <= MAX_INTEGER:
                return value
            self.fault(key, f"is too large, got {shown(value)}")
            return default
        self._refuse(key, value, "an integer")
        return default

    def number(self, key: str, default: D) -> float | D:
        """Return the number at *key*, or *default*."""
        value = self._take(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            try:
                return float(value)
            except OverflowError:
                self.fault(key, f"is too large, got {shown(value)}")
                return default
        self._refuse(key, value, "a number")
        return default

    def flag(self, key: str, *, default: bool) -> bool:
        """Return the boolean at *key*, or *default*."""
        value = self._take(key)
        if isinstance(value, bool):
            return value
        self._refuse(key, value, "true or false")
        return default

    def choice(
        self,
        key: str,
        choices: Mapping[str, T],
        default: T,
        *,
        hints: Mapping[str, str] | None = None,
    ) -> T:
        """Return the value in *choices* for the word at *key*, or *default*.

        *hints* says what to write instead of words that are known to be wrong.
        """
        value = self._take(key)
        hint = ""
        if isinstance(value, str):
            if value in choices:
                return choices[value]
            hint = (hints or {}).get(value, "") or _nearest(value, choices)
        words = ", ".join(repr(word) for word in choices)
        self._refuse(key, value, f"one of {words}", hint)
        return default

    def texts(self, key: str) -> tuple[str, ...]:
        """Return the array of strings at *key*. Empty: the key is missing."""
        value = self._take(key)
        items = _as_array(value)
        texts = tuple(item for item in items or () if isinstance(item, str))
        if items is None or len(texts) < len(items):
            self._refuse(key, value, "an array of strings")
            return ()
        return texts

    def table(self, key: str) -> TomlTable:
        """Return the table at *key*, or an empty one."""
        value = self._take(key)
        if not isinstance(value, dict):
            self._refuse(key, value, "a table", f"; write [{self.path_of(key)}]")
            value = {}
        values = cast("dict[str, object]", value)
        return TomlTable(self.path_of(key), values, self.faults)

    def tables(self, key: str) -> tuple[TomlTable | None, ...] | None:
        """Return the array of tables at *key*.

        Returns ``None`` if there is no array. An entry that is not a table becomes ``None``, so
        that the others keep their numbers.
        """
        value = self._take(key)
        path = self.path_of(key)
        items = _as_array(value)
        if items is None:
            self._refuse(key, value, "an array of tables", f"; write [[{path}]]")
            return None
        tables: list[TomlTable | None] = []
        for index, item in enumerate(items):
            where = f"{path}[{index}]"
            if isinstance(item, dict):
                values = cast("dict[str, object]", item)
                tables.append(TomlTable(where, values, self.faults))
            else:
                text = f"must be a table, got {shown(item)}; write [[{path}]]"
                self.faults.append(Fault(where, text))
                tables.append(None)
        return tuple(tables)

    def close(self, homes: Mapping[str, str], *, also: Sequence[str] = ()) -> None:
        """Note a fault for every key that was never read and is not in *also*.

        Args:
            homes: Keys that belong elsewhere in the file, each with its place, for advice.
            also: Keys that are allowed here, even though they were not read.
        """
        known = [*self._asked, *also]
        for key in self.values:
            if key in known:
                continue
            if key in homes:
                self.fault(key, f"unknown key here; it belongs {homes[key]}")
                continue
            if len(self.faults) >= MAX_GUESSES:
                self.fault(key, "unknown key")
                continue
            here = f"; known here: {', '.join(sorted(known))}"
            self.fault(key, "unknown key" + (_nearest(key, known) or here))

    def build(self, make: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Return what *make* builds, or note the faults that it raises.

        Faults from *make* have paths inside this table. If a path already has a fault, that one is
        kept: *make* then only saw a default.
        """
        try:
            return make(*args, **kwargs)
        except ManifestError as error:
            # The last ones: a table is read and built before the next one is.
            ours = takewhile(lambda fault: fault.path.startswith(self.path), reversed(self.faults))
            noted = {fault.path for fault in ours}
            placed = (Fault(f"{self.path}.{fault.path}", fault.text) for fault in error.faults)
            self.faults.extend(fault for fault in placed if fault.path not in noted)
            return None

    def _take(self, key: str) -> object:
        self._asked.add(key)
        return self.values.get(key)

    def _refuse(self, key: str, value: object, wanted: str, hint: str = "") -> None:
        # None is how _take says "not there": TOML has no null.
        if value is not None:
            self.fault(key, f"must be {wanted}, got {shown(value)}{hint}")


def words_of(literal: object) -> dict[str, Any]:
    """Return the words of a ``Literal``, each as its own value, for `TomlTable.choice`."""
    return {word: word for word in get_args(literal)}


def _advice(error: ValueError) -> str:
    """Return advice about a text without quotes, or a backslash, as in Windows paths."""
    text = str(error).lower()
    if "hex value" in text or "escape" in text:
        return "; write a path with backslashes in single quotes: 'C:\\Users\\me'"
    if "invalid value" in text:
        return '; put a text into quotes: name = "reader"'
    return ""


def _as_array(value: object) -> list[object] | None:
    return cast("list[object]", value) if isinstance(value, list) else None


def _nearest(word: str, words: Sequence[str] | Mapping[str, object]) -> str:
    """Return a hint with the most similar word; empty if no word is similar."""
    import difflib  # noqa: PLC0415  # for those who slipped

    # Without case: 'standard' for 'Standard' is the likeliest slip of all.
    by_lower = {known.lower(): known for known in sorted(words)}
    near = difflib.get_close_matches(word.lower(), by_lower, n=1)
    return f"; did you mean {by_lower[near[0]]!r}?" if near else ""
