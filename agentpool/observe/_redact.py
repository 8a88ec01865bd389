"""Removes API keys from written text, in every encoding they may have.

Rules:

1. A key can be in a prompt, a tool's result, an error or the arguments of a call. There, the key
   can be unchanged, part of a URL, in JSON inside JSON, or in base64 after other text.
2. Only texts and names that the format does not define are changed. So every line stays readable,
   even if a key happens to equal a word of the format, such as ``completed``.
3. A batch of lines without any key is searched once, and not parsed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Container, Iterable, Mapping
from functools import lru_cache
from itertools import takewhile
from typing import Final, final
from urllib.parse import quote, quote_plus

import msgspec

from agentpool._base import Live
from agentpool._checks import expect_arguments
from agentpool._errors import UsageError
from agentpool._messages import Json
from agentpool._secrets import (
    REDACTED,
    SHORTEST_SECRET_CHARS,
    given_secrets,
    long_enough,
    redacted,
    without_key_shapes,
)
from agentpool.observe._escaped_key import EscapedKey, WrappedKey, base64_of, unescaped

_BEGINNING: Final = 24
"""How many characters at the beginning of base64 show the type of a file."""

_RUN: Final = "run_id"
"""The name of the only field whose text agentpool makes but is not a word of the format."""

_NESTED: Final = 5
"""How many levels of JSON inside JSON are searched for keys."""

_NAME_ENDS: Final = (
    "APIKEY", "API_KEY", "CREDENTIALS", "PASSPHRASE", "PASSWD", "PASSWORD", "SECRET", "TOKEN",
    "_PASS", "_PAT", "_PWD",
)  # fmt: skip
"""The ends of the names of environment variables with keys."""

_PLAIN_WORDS: Final = re.compile("[a-z_-]{,15}")
"""Matches values such as that of ``SORT_KEY``. A short value in lower case is not an API key."""

_PERCENT: Final = re.compile("%[0-9A-F]{2}")


def secrets_of_environment(environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return the values of the variables in *environ* whose names look like those of API keys.

    These are names, in upper or lower case, that end in ``APIKEY``, ``API_KEY``, ``CREDENTIALS``,
    ``PASSPHRASE``, ``PASSWD``, ``PASSWORD``, ``SECRET``, ``TOKEN``, ``_PASS``, ``_PAT`` or
    ``_PWD``; also those that end in ``KEY``, unless the value is a word of up to 15 lower-case
    letters. Values of fewer than 8 characters are left out.

    Args:
        environ: The environment. ``None``: the environment of this process.
    """
    expect_arguments(secrets_of_environment, locals())
    variables = os.environ if environ is None else environ
    return tuple(
        value
        for name, value in variables.items()
        if len(value) >= SHORTEST_SECRET_CHARS and _is_key(name.upper(), value)
    )


def known_secrets() -> tuple[str, ...]:
    """Return the secrets of the environment, and the keys that drivers and servers were given."""
    return (*secrets_of_environment(), *given_secrets())


def _is_key(name: str, value: str) -> bool:
    if name.endswith(_NAME_ENDS):
        return True
    return name.endswith("KEY") and _PLAIN_WORDS.fullmatch(value) is None


def forms_of(secret: str) -> tuple[str, ...]:
    """Return all encoded forms of *secret*, longest first."""
    data = secret.encode("utf-8", "surrogatepass")
    forms = {secret, quote(data, safe=""), quote_plus(data), quote(data), data.hex()}
    forms |= {_PERCENT.sub(lambda code: code[0].lower(), form) for form in forms}
    # Within JSON, within the text of JSON that is in JSON, and so on: calls have arguments
    # that hold documents.
    escaped = {secret}
    for _ in range(_NESTED):
        escaped |= {
            json.dumps(text, ensure_ascii=e)[1:-1] for text in escaped for e in (True, False)
        }
    forms |= escaped
    forms |= set(base64_of(data))
    return long_enough(forms)


@final
class Redactor(Live):
    """Removes keys from bytes."""

    _forms: tuple[bytes, ...]
    _plain: tuple[bytes, ...]
    """The keys as JSON writes them. Halves of these are removed as well."""
    _wrapped: tuple[WrappedKey, ...]
    _escaped: tuple[EscapedKey, ...]

    @classmethod
    def of(cls, secrets: Iterable[str]) -> Redactor:
        """Make a redactor for *secrets*.

        Raises:
            UsageError: If a secret is so short that it would be found in ordinary text.
        """
        known = tuple(secrets)
        for place, secret in enumerate(known, 1):
            if len(secret) < SHORTEST_SECRET_CHARS:
                raise UsageError(
                    f"secret {place} of {len(known)} has {len(secret)} characters; "
                    f"redacting fewer than {SHORTEST_SECRET_CHARS} would garble ordinary text; "
                    "leave this secret out, or write no texts to the file with content='none'"
                )
        forms = {form for secret in known for form in forms_of(secret)}
        plain = {one for key in known for one in (key, json.dumps(key)[1:-1])} & forms
        return cls(
            _as_bytes(forms),
            _as_bytes(plain),
            tuple(form for secret in known for form in WrappedKey.all_of(secret)),
            tuple(part for secret in known for part in EscapedKey.all_of(secret)),
        )

    def clean(self, data: bytes) -> bytes:
        """Return *data* without any key, and without half of any key.

        Tools, errors and web pages may cut a text before keys are removed, so that only the
        beginning or the end of a key is left.
        """
        for form in self._forms:
            if form in data:
                data = data.replace(form, REDACTED.encode())
        for wrapped in self._wrapped:
            data = _without(wrapped.pattern_for(data), data)
        if plain := unescaped(data):
            for part in self._escaped:
                data = _without(part.pattern_for(plain), data)
        for key in self._plain:
            half = max(SHORTEST_SECRET_CHARS, (len(key) + 1) // 2)
            if key[:half] in data:
                data = _without_begun(data, key, half)
            if key[-half:] in data:
                data = _without_begun(data[::-1], key[::-1], half, REDACTED[::-1].encode())[::-1]
        return data

    def clean_text(self, text: str) -> str:
        """Return *text* without any key, and without half of any key."""
        return self.clean(text.encode("utf-8", "replace")).decode("utf-8", "replace")

    def clean_lines(self, data: bytes, words: Container[str]) -> bytes:
        """Return lines of JSON without any key in their texts.

        Args:
            data: The lines, each with its newline.
            words: The names and values of the format, which are kept.
        """
        if self.clean(data) is data:
            return data
        lines = data.split(b"\n")
        return b"\n".join([self._clean_line(line, words) for line in lines])

    def _clean_line(self, line: bytes, words: Container[str]) -> bytes:
        if not line or self.clean(line) is line:
            return line
        try:
            return msgspec.json.encode(self._clean_json(msgspec.json.decode(line), words))
        except RecursionError:  # a value of a user's own that is nested hundreds of times
            return self.clean(line)

    def _clean_json(self, value: Json, words: Container[str]) -> Json:
        match value:
            case {"media_type": str(kind), "data": str(data)} if self.clean_text(data) != data:
                # Its beginning says what it was. Without the key it would be no file any more.
                return {"media_type": kind, "data": data[:_BEGINNING], "name": REDACTED}
            case dict():
                return {
                    self._clean_word(name, words): (
                        part if name == _RUN else self._clean_json(part, words)
                    )
                    for name, part in value.items()
                }
            case list():
                return [self._clean_json(part, words) for part in value]
            case str():
                return self._clean_word(value, words)
            case _:
                return value

    def _clean_word(self, text: str, words: Container[str]) -> str:
        if text in words:
            return text
        return self.clean(text.encode("utf-8", "surrogatepass")).decode("utf-8", "replace")

    def open_end(self, text: str) -> int:
        """Return how many characters at the end of *text* could be the beginning of a key.

        Write them only when the following text has come.
        """
        end = text[-self._longest :] if self._forms else ""
        data = end.encode("utf-8", "surrogatepass")
        for start in range(len(data)):
            rest = data[start:]
            if any(form.startswith(rest) for form in self._forms):
                return len(rest.decode("utf-8", "ignore"))
        return 0

    @property
    def _longest(self) -> int:
        return len(self._forms[0]) - 1


@lru_cache(maxsize=4)
def _redactor_of(known: tuple[str, ...]) -> Redactor:
    return Redactor.of(known)


def without_keys(text: str, secrets: Iterable[str]) -> str:
    """Return the text of an error without keys, for a person or another program to read.

    Args:
        text: The text. It may quote keys in any case and encoding.
        secrets: The known keys. Text that looks like a key of a well-known service is removed as
            well.
    """
    known = long_enough(secrets)
    data = text.encode("utf-8", "surrogatepass")
    cleaned = _redactor_of(known).clean(data)
    if cleaned is not data:
        text = cleaned.decode("utf-8", "replace")
    return without_key_shapes(redacted(text, known))


def _without(pattern: re.Pattern[bytes] | None, data: bytes) -> bytes:
    """Return *data* without the matches of *pattern*, or the same object if nothing matches."""
    if pattern is None:
        return data
    changed, count = pattern.subn(REDACTED.encode(), data)
    return changed if count else data


def _as_bytes(forms: Iterable[str]) -> tuple[bytes, ...]:
    """Return *forms* as bytes, as they appear in a file, longest first."""
    ordered = sorted(forms, key=len, reverse=True)
    return tuple(form.encode("utf-8", "surrogatepass") for form in ordered)


def _without_begun(data: bytes, key: bytes, half: int, instead: bytes = REDACTED.encode()) -> bytes:
    """Return *data* without beginnings of *key* that have at least *half* of its length."""
    first, *rest = data.split(key[:half])
    tail = key[half:]
    parts = [first]
    for part in rest:
        same = takewhile(lambda pair: pair[0] == pair[1], zip(part, tail, strict=False))
        parts.append(part[sum(1 for _ in same) :])
    return instead.join(parts)
