"""From the line that a model wrote to a program and its arguments, or to a refusal.

Rules:

1. There is no shell. Words are split as a shell would, quotes and all; what only a shell
   can do (a second command, a pipe, a redirection, a substitution) is refused where it is
   not quoted, so that nobody takes a command for done that was not.
2. A program is named as it was granted: by its bare name, or by its full path. ``*`` allows
   every name on the path and every full path.
3. Whoever grants a program grants what it can do. Of some that are granted for looking
   around, the arguments with which they run other programs, delete or write elsewhere are
   refused, unless the grant is ``*``. That closes the doors that are known; it is no sandbox.
4. A program that exists to run others (``env``, ``sh``, ``xargs``, ``python``) cannot be
   granted in part: its grant is as good as ``*``, and is called so when it is checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, final

import attrs

from agentpool._errors import ToolError
from agentpool._manifest.capability import ANYTHING

MAX_COMMAND_CHARS: Final = 32_000
"""What every system takes, and longer than any that was meant."""

# A "$" that begins nothing is itself: the end of a line in a pattern, say.
_TOKEN: Final = re.compile(
    r"""
      (?P<blank> [ \t]+ )
    | (?P<single> '[^']*' )
    | (?P<double> "(?: [^"\\$] | \\. | \$(?![A-Za-z_({]) )*" )
    | (?P<escaped> \\. )
    | (?P<plain> (?: [^ \t'"\\;|&<>`\n\r$] | \$(?![A-Za-z_({]) )+ )
    """,
    re.VERBOSE | re.DOTALL,
)
_ANY_DOUBLE: Final = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_IN_QUOTES: Final = re.compile(r'\\(["\\$`])')


@final
@attrs.frozen(kw_only=True)
class _Doors:
    """The arguments of one program that lead out of what it was granted for."""

    anywhere: tuple[str, ...] = ()
    """Options. Long ones are also meant when cut short or given a value, short ones also
    in a cluster; anything else, as ``-exec``, is meant as it is."""
    leading: tuple[str, ...] = ()
    """Options that do it only before the program's own command."""
    commands: tuple[str, ...] = ()
    """The program's own commands that do it."""
    with_value: tuple[str, ...] = ()
    """Options before the command whose value is the next word."""
    bare_cluster: bool = False
    """Whether the first word is a cluster of short options also without its dash."""


_DOORS: Final[Mapping[str, _Doors]] = {
    "find": _Doors(
        anywhere=(
            "-exec", "-execdir", "-ok", "-okdir", "-delete",
            "-fprint", "-fprint0", "-fprintf", "-fls",
        ),
    ),
    "fd": _Doors(anywhere=("-x", "-X", "--exec", "--exec-batch")),
    "fdfind": _Doors(anywhere=("-x", "-X", "--exec", "--exec-batch")),
    "git": _Doors(
        leading=("-c", "--config-env", "--exec-path", "--git-dir", "--work-tree", "--namespace"),
        anywhere=(
            "--upload-pack", "--receive-pack", "--exec", "--ext-diff", "--textconv",
            "--open-files-in-pager", "-O", "--output", "--template", "--config", "--extcmd",
        ),
        commands=(
            "bisect", "citool", "clone", "config", "credential", "daemon", "difftool",
            "filter-branch", "gui", "hook", "instaweb", "mergetool", "rebase", "send-email",
            "submodule", "web--browse",
        ),
        with_value=("-C",),
    ),
    "rg": _Doors(anywhere=("--pre", "--hostname-bin")),
    "sort": _Doors(anywhere=("-o", "--output", "--compress-program")),
    "tar": _Doors(
        anywhere=(
            "-I", "--use-compress-program", "--to-command", "--checkpoint-action", "-F",
            "--info-script", "--new-volume-script", "--rsh-command", "--rmt-command",
            "--remove-files",
        ),
        bare_cluster=True,
    ),
    "zip": _Doors(anywhere=("-T", "--test", "--unzip-command", "-m", "--move")),
}  # fmt: skip

CARRIERS: Final = frozenset({
    "ash", "awk", "bash", "bun", "busybox", "cmake", "csh", "dash", "deno", "doas", "docker",
    "ed", "emacs", "env", "ex", "expect", "fish", "flock", "gawk", "gdb", "ionice", "ksh",
    "less", "lua", "make", "man", "mawk", "more", "nano", "nice", "node", "nohup", "npm", "npx",
    "parallel", "perl", "php", "pip", "podman", "pwsh", "python", "python3", "rsync", "ruby",
    "script", "sed", "setsid", "sh", "ssh", "stdbuf", "strace", "su", "sudo", "systemd-run",
    "taskset", "tcsh", "time", "timeout", "tmux", "unshare", "uv", "uvx", "vi", "vim", "watch",
    "xargs", "zsh",
})  # fmt: skip
"""Programs that run what they are told to, by their usual arguments or commands."""


@final
@attrs.frozen(kw_only=True)
class Programs:
    """The programs that an agent may run."""

    granted: tuple[str, ...]
    """The grants as they were written."""
    paths: Mapping[str, str]
    """The full path of each name and path that is granted, without those that are not here."""

    @property
    def allows_all(self) -> bool:
        """Whether every program may run."""
        return ANYTHING in self.granted


def carriers(names: Iterable[str]) -> tuple[str, ...]:
    """Return those of *names* that run other programs, and are as good as ``*``."""
    return tuple(name for name in names if _basename(name) in CARRIERS)


def closed_door(name: str, arguments: Sequence[str]) -> str | None:
    """Return the argument with which the program *name* would leave what it is for."""
    doors = _DOORS.get(_basename(name))
    if doors is None:
        return None
    leading, command = _leading(arguments, doors)
    if command in doors.commands:
        return command
    for argument in leading:
        if any(_means(argument, door) for door in doors.leading):
            return argument
    for index, argument in enumerate(arguments):
        clustered = index == 0 and doors.bare_cluster and not argument.startswith("-")
        word = f"-{argument}" if clustered else argument
        if any(_means(word, door) for door in doors.anywhere):
            return argument
    return None


def _leading(arguments: Sequence[str], doors: _Doors) -> tuple[list[str], str | None]:
    """Return the options before the program's own command, and the command."""
    leading: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("-"):
            return leading, argument
        leading.append(argument)
        if argument in doors.with_value:
            next(rest, None)
    return leading, None


def _means(argument: str, door: str) -> bool:
    """Whether *argument* is the option *door*, in any of the ways to write it."""
    if door.startswith("--"):
        name = argument.partition("=")[0]
        # "--" alone ends the options; "--exe" is read as the only option that it can be.
        return len(name) > len("--") and name.startswith("--") and door.startswith(name)
    if len(door) == len("-x"):
        is_cluster = argument.startswith("-") and not argument.startswith("--")
        return is_cluster and door[1] in argument
    return argument == door


def _basename(name: str) -> str:
    base = name.replace("\\", "/").rpartition("/")[2]
    return base.lower().removesuffix(".exe")


# --- words


def split_command(text: str) -> tuple[str, ...]:
    """Return the words of *text*, as a shell would split them.

    Raises:
        ToolError: If it holds what only a shell could do, or a quote without its end.
    """
    if len(text) > MAX_COMMAND_CHARS:
        raise ToolError(
            f"the command has {len(text)} characters; no more than {MAX_COMMAND_CHARS} are taken"
        )
    if "\0" in text:
        raise ToolError("the command must not contain NUL")
    words = tuple(_words(text.strip()))
    if not words:
        raise ToolError("the command is empty; write a program and its arguments")
    return words


def _words(text: str) -> Iterator[str]:
    word: str | None = None
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise _wrong(text, at)
        at = found.end()
        token = found[0]
        match found.lastgroup:
            case "blank":
                assert word is not None  # noqa: S101  # a command does not begin with one
                yield word
                word = None
                continue
            case "double":
                token = _IN_QUOTES.sub(r"\1", token[1:-1])
            case "single":
                token = token[1:-1]
            case "escaped":
                token = token[1:]
            case _:
                pass
        word = (word or "") + token
    if word is not None:
        yield word


def _wrong(text: str, at: int) -> ToolError:
    """Say why no word goes on at *at*."""
    sign = text[at]
    if sign == "\\":
        return ToolError("the command ends with a backslash; write it in single quotes")
    if sign in {"'", '"'}:
        if sign == "'" or _ANY_DOUBLE.match(text, at) is None:
            return ToolError(f"the command has a {sign} without its end; close it")
        sign = "$"
    return ToolError(
        f"{sign!r} has no meaning here, for there is no shell: run one program at a time; "
        "if it is part of an argument, write it in single quotes"
    )
