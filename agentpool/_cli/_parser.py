"""The argument parser. It raises errors, each of which has the most likely correct word."""

from __future__ import annotations

import argparse
import difflib
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Final, Literal, Never

import attrs

from agentpool import ContextConfig, ModelConfig, ResourceQuota, UsageError
from agentpool._cli._command import Address, ApproveMode, Period
from agentpool.observe import Content

_WRONG_CHOICE: Final = re.compile(
    r"(?:argument )?(.*): invalid choice: '(.*)' \(choose from (.*)\)"
)
"""The text of argparse for a word that is not one of the known words."""

_MISSING: Final = "the following arguments are required: "
"""How argparse begins to say which words are missing."""

_KEYS: Final[Mapping[str, str]] = {
    field.name: table
    for table, kind in (
        ("context", ContextConfig),
        ("resources", ResourceQuota),
        ("model", ModelConfig),
    )
    for field in attrs.fields(kind)
}
"""Keys of a manifest that users may try as options, each with the table to which it belongs."""


class Words(argparse.Namespace):
    """The result of argparse, with types."""

    command_words: str
    words: list[str]
    attach: list[str]
    manifest: str | None
    manifests: list[str]
    each: list[list[str]]
    prompt: str | None
    reduce: str | None
    reduce_prompt: str | None
    json: bool
    quiet: bool
    max_concurrent: int
    model: str | None
    driver: str | None
    deadline: float | None
    http: Address | None
    max_tokens: int | None
    system: str | None
    seed: int | None
    schema: str | None
    max_cost: float | None
    max_total_tokens: int | None
    max_requests: int | None
    per: Period | None
    model_file: bool
    memory: str | None
    memory_scope: str | None
    action: Literal["list", "search", "delete", "show", "resume", "prune"]
    file: str
    scope: str | None
    limit: int
    rpm: int | None
    tpm: int | None
    approve: ApproveMode
    trace: str | None
    trace_content: Content
    live: Address | None
    report: str | None
    journal: str | None
    session: str | None
    workers: int | None
    lease: float | None
    cluster: str | None
    cluster_driver: str | None
    cluster_privacy: Literal["private", "sovereign"] | None
    address: str
    reason: str
    pool: str | None
    html: str | None
    agent: int | None
    follow: bool
    format: Literal["text", "chrome"]
    diff: str | None
    folder: str
    name: str
    parts: str | None
    no_ask: bool
    shell: str


ONLY_THE_PARSER: Final[Sequence[str]] = ("",)
"""The arguments with which a command does nothing but hand out its parser."""


class ParserAsked(Exception):  # noqa: N818  # nothing is wrong
    """Carries the parser of a command to the code that needs it."""

    def __init__(self, parser: Parser) -> None:
        """Carry *parser*."""
        super().__init__("only the parser was asked for")
        self.parser = parser


class Parser(argparse.ArgumentParser):
    """An argparse parser that raises errors instead of printing them and exiting."""

    def __init__(self, command: str, words: str, description: str, epilog: str) -> None:
        """Make the parser of one command, followed by *words*."""
        prog = f"agentpool {command}".rstrip()
        super().__init__(
            prog=prog,
            usage=f"{prog} {words}",
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def read(self, argv: Sequence[str]) -> Words:
        """Parse *argv*. Options may stand anywhere among the other words."""
        if argv is ONLY_THE_PARSER:
            raise ParserAsked(self)
        self.refuse_unknown_options(argv)
        found, rest = self.parse_known_intermixed_args(argv, namespace=Words())
        for word in rest:
            self._refuse(word)
        found.command_words = self.prog
        return found

    def refuse_unknown_options(self, argv: Sequence[str]) -> None:
        """Refuse a misspelt option before argparse asks for its value."""
        for word in itertools.takewhile("--".__ne__, argv):
            name = word.partition("=")[0]
            is_option = name.startswith("--") and " " not in word
            if is_option and name not in self._option_string_actions:
                self._refuse(word)

    def _refuse(self, word: str) -> None:
        name = word.partition("=")[0]
        options = [option for option in self._option_string_actions if option != "-h"]
        begun = [one for one in options if name.startswith("--") and one.startswith(name)]
        table = _KEYS.get(name.removeprefix("--").replace("-", "_"))
        near = begun or difflib.get_close_matches(name, options, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        if name.startswith("--") and table is not None and not begun:
            key = name.removeprefix("--").replace("-", "_")
            hint = f"; it is a key of the manifest: [{table}] {key} = ..."
        what = "there is no option" if name.startswith("-") else "too many words:"
        self.error(f"{what} {word!r}{hint}")

    def error(self, message: str) -> Never:
        if (wrong := _WRONG_CHOICE.fullmatch(message)) is not None:
            what, word, choices = wrong.groups()
            near = difflib.get_close_matches(word, known := re.findall(r"[\w-]+", choices), n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it must be one of {', '.join(known)}"
            message = f"{what}: there is no {word!r}; {hint}"
        if message.startswith(_MISSING):
            for one in self._actions:
                if one.choices is not None and one.metavar is None and not one.option_strings:
                    words = f"{one.dest} (one of {', '.join(one.choices)})"
                    message = message.replace(one.dest, words, 1)
        raise UsageError(f"{message}; see {self.prog} --help")
