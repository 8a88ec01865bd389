"""Parses a model's command, and decides whether it may run.

Rules:

1. There is no shell. Words are split as a shell would split them, quotes included. Unquoted signs
   that only a shell understands (for a second command, a pipe, a redirection, a substitution) are
   refused, so that no part of a command seems to have run when it did not.
2. A program must be named as it was granted: by its bare name, or by its full path. ``*`` allows
   every name on the ``PATH`` and every full path.
3. Granting a program grants everything that it can do. Some programs are usually granted for
   reading only. Unless the grant is ``*``, such a program may not get arguments with which it runs
   other programs, deletes files, or writes elsewhere. A program with its own commands, such as git,
   may only run commands known to do none of this. Only known options may come before the command,
   since an unknown option could take a value, and hide the command. This closes the known doors; it
   is not a sandbox.
4. A program that exists to run others (``env``, ``sh``, ``xargs``, ``python``) cannot be
   granted in part: its grant is worth as much as ``*``, and the check of a manifest says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, final

import attrs

from agentpool._errors import ToolError
from agentpool._manifest.capability import ANYTHING
from agentpool.tools.system._program_runners import known_as

MAX_COMMAND_CHARS: Final = 32_000
"""The longest command: every system accepts it, and no real command is longer."""

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
    """The arguments with which one program can exceed its grant."""

    anywhere: tuple[str, ...] = ()
    """Refused options. A long option also matches when it is abbreviated or has a value. A short
    option also matches in a cluster. Anything else, such as ``-exec``, only matches exactly."""
    has_commands: bool = False
    """Whether the first word that is not an option is a command of the program, as with git. If it
    is, only the options of `leading` and the commands of `commands` are allowed."""
    leading: frozenset[str] = frozenset()
    """The only options allowed before the command, in exactly this spelling."""
    with_value: frozenset[str] = frozenset()
    """The leading options whose value is the next word. The value is a folder, which must be below
    the current one."""
    commands: frozenset[str] = frozenset()
    """The only allowed commands."""
    long: frozenset[str] = frozenset()
    """The only allowed long options, written out. Empty: all long options are allowed."""
    of_command: Mapping[str, tuple[str, ...]] = {}
    """Options that are refused for one command only."""
    bare_cluster: bool = False
    """Whether the first word is a cluster of short options even without a dash."""
    writing: tuple[str, ...] = ()
    """Options that make the program write to the paths in its arguments. With such an option, no
    argument may lead out of the folder. ``*``: the program always writes."""
    writing_commands: frozenset[str] = frozenset()
    """Commands that write to the paths in their arguments."""
    moving_commands: frozenset[str] = frozenset()
    """Commands that move files to the paths in their arguments, even through links."""
    naming_commands: frozenset[str] = frozenset()
    """Commands that write to files whose names they choose themselves."""
    writes_by_name: bool = False
    """Whether the program may write to names that are stored in an archive, or through links to its
    files."""
    only_lists: re.Pattern[str] | None = None
    """Matches the first word if that word makes the program only list an archive."""
    colon_is_host: bool = False
    """Whether ``host:path`` makes the program connect to another machine."""


_ALWAYS: Final = ("*",)

_DOORS: Final[Mapping[str, _Doors]] = {
    "find": _Doors(
        anywhere=(
            "-exec", "-execdir", "-ok", "-okdir", "-delete",
            "-fprint", "-fprint0", "-fprintf", "-fls",
        ),
    ),
    "fd": _Doors(anywhere=("-x", "-X", "--exec", "--exec-batch")),
    "git": _Doors(
        has_commands=True,
        leading=frozenset({
            "-C", "-P", "-p", "-v", "-h", "--no-pager", "--paginate", "--version", "--help",
            "--no-replace-objects", "--no-optional-locks", "--no-lazy-fetch", "--no-advice",
            "--literal-pathspecs", "--glob-pathspecs", "--noglob-pathspecs",
            "--icase-pathspecs", "--html-path", "--man-path", "--info-path",
        }),
        with_value=frozenset({"-C"}),
        anywhere=(
            "--upload-pack", "--receive-pack", "--exec", "--ext-diff", "--textconv",
            "--open-files-in-pager", "-O", "--output", "--output-directory", "--template",
            "--config", "--extcmd", "--unsafe-paths", "--separate-git-dir", "--index-output",
            "--build-fake-ancestor", "--strategy",
        ),
        # Left out: what runs other programs (bisect, difftool, filter-branch, hook,
        # merge-index, rebase, submodule, ...), makes or writes repositories, archives and
        # files elsewhere (bundle, clone, fast-export, init, worktree, ...), changes the
        # configuration (config, maintenance), and every name that is an alias.
        commands=frozenset({
            "add", "am", "annotate", "apply", "archive", "blame", "branch", "cat-file",
            "check-attr", "check-ignore", "check-mailmap", "check-ref-format", "checkout",
            "checkout-index", "cherry", "cherry-pick", "clean", "commit", "commit-tree",
            "count-objects", "describe", "diff", "diff-files", "diff-index", "diff-tree",
            "fetch", "for-each-ref", "format-patch", "fsck", "gc", "grep", "hash-object",
            "help", "log", "ls-files", "ls-remote", "ls-tree", "merge", "merge-base",
            "merge-tree", "mv", "name-rev", "notes", "patch-id", "prune", "pull", "push",
            "range-diff", "read-tree", "reflog", "remote", "reset", "restore", "rev-list",
            "rev-parse", "revert", "rm", "shortlog", "show", "show-branch", "show-ref",
            "sparse-checkout", "stage", "stash", "status", "switch", "symbolic-ref", "tag",
            "update-index", "update-ref", "var", "verify-commit", "verify-pack", "verify-tag",
            "version", "whatchanged", "write-tree",
        }),
        of_command={
            "archive": ("-o", "--remote"),
            "checkout-index": ("--prefix",),
            "format-patch": ("-o", "--suffix", "--numbered-files"),
            "pull": ("-s",),
            "help": ("-w", "--web"),
        },
        # A repository elsewhere on this disk, now or under a name that is kept for later.
        writing_commands=frozenset({"push", "remote"}),
        # It renames before it looks whether the new name is one that git may have.
        moving_commands=frozenset({"mv"}),
        naming_commands=frozenset({"format-patch"}),
    ),
    "rg": _Doors(anywhere=("--pre", "--hostname-bin")),
    "sort": _Doors(
        anywhere=("-o", "--output", "--compress-program", "-T", "--temporary-directory")
    ),
    "tar": _Doors(
        anywhere=(
            "-I", "--use-compress-program", "--to-command", "--checkpoint-action", "-F",
            "--info-script", "--new-volume-script", "--rsh-command", "--rmt-command",
            "--remove-files", "-C", "--directory", "-g", "--listed-incremental",
            "--index-file", "--volno-file", "-P", "--absolute-names", "--one-top-level",
            "--recursive-unlink", "--delete", "-h", "--dereference", "--overwrite",
        ),
        bare_cluster=True,
        writing=("-c", "-r", "-u", "-A", "--create", "--append", "--update", "--catenate",
                 "--concatenate"),
        colon_is_host=True,
        writes_by_name=True,
        # Each release has new ones, and some of them run programs: --set-mtime-command.
        long=frozenset({
            "--append", "--auto-compress", "--backup", "--bzip2", "--catenate", "--compare",
            "--concatenate", "--create", "--diff", "--exclude",
            "--exclude-from", "--exclude-vcs", "--extract", "--file", "--files-from",
            "--format", "--full-time", "--get", "--group", "--gunzip", "--gzip", "--help",
            "--ignore-case", "--keep-newer-files", "--keep-old-files", "--list", "--lzma",
            "--mode", "--mtime", "--no-auto-compress", "--no-recursion", "--no-same-owner",
            "--no-same-permissions", "--null", "--numeric-owner", "--one-file-system",
            "--owner", "--preserve-permissions", "--same-owner",
            "--same-permissions", "--skip-old-files", "--sort", "--sparse",
            "--strip-components", "--to-stdout", "--totals", "--touch", "--transform",
            "--ungzip", "--update", "--utc", "--verbose", "--verify", "--version",
            "--wildcards", "--xform", "--xz", "--zstd",
        }),
        only_lists=re.compile(r"-?t[vzjJ]*f?|--list"),
    ),
    # ":" lets an archive write to "..". "-l" can be taken back further on, so it is no promise.
    "unzip": _Doors(anywhere=("-d", "-:"), writes_by_name=True),
    "zip": _Doors(
        anywhere=(
            "-T", "--test", "--unzip-command", "-m", "--move", "-lf", "--logfile-path",
            "-O", "--output-file", "--out", "-b", "--temp-path",
        ),
        writing=_ALWAYS,
        writes_by_name=True,
    ),
}  # fmt: skip

_WHOLE: Final = frozenset({"--list"})
"""Options that are allowed although a refused option begins with them."""

_ALSO_CALLED: Final = {
    "fdfind": "fd", "gnutar": "tar", "bsdtar": "tar", "gtar": "tar", "ripgrep": "rg",
    "gfind": "find", "gsort": "sort",
}  # fmt: skip


@final
@attrs.frozen(kw_only=True)
class Programs:
    """The programs that an agent may run."""

    granted: tuple[str, ...]
    """The grants as they were written."""
    paths: Mapping[str, str]
    """The full path of each granted name and path that exists here."""

    @property
    def allows_all(self) -> bool:
        """Whether every program may run."""
        return ANYTHING in self.granted


def refused_argument(name: str, arguments: Sequence[str]) -> str | None:
    """Return the argument that would let the program *name* exceed its grant."""
    doors = _doors_of(name)
    if doors is None:
        return None
    closed = list(doors.anywhere)
    writes = doors.writing == _ALWAYS
    if doors.has_commands:
        refused, command = _command(arguments, doors)
        if refused is not None:
            return refused
        closed += doors.of_command.get(command or "", ())
        writes = command in doors.writing_commands
    for word, argument in _dashed(arguments, doors):
        if any(_means(word, door) for door in closed) or _is_unknown(word, doors):
            return argument
        writes = writes or any(_means(word, door) for door in doors.writing)
    for argument in arguments:
        if (writes and _leads_out(argument)) or (doors.colon_is_host and _is_remote(argument)):
            return argument
    return None


def writes_by_name(name: str, arguments: Sequence[str]) -> bool:
    """Return whether the program *name* may write to files not named in its arguments."""
    doors = _doors_of(name)
    if doors is not None and doors.has_commands:
        return _command(arguments, doors)[1] in doors.naming_commands
    if doors is None or not doors.writes_by_name:
        return False
    lists = doors.only_lists
    return lists is None or not arguments or lists.fullmatch(arguments[0]) is None


def moves_files(name: str, arguments: Sequence[str]) -> bool:
    """Return whether the program *name* moves files to the paths in its arguments."""
    doors = _doors_of(name)
    if doors is None or not doors.has_commands:
        return False
    return _command(arguments, doors)[1] in doors.moving_commands


def steps_of(name: str, arguments: Sequence[str]) -> tuple[str, ...]:
    """Return the folders that the program *name* changes into, step by step."""
    doors = _doors_of(name)
    steps: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if doors is None or not argument.startswith("-"):
            break
        if argument in doors.with_value:
            steps.append(next(rest, ""))
    return tuple(steps)


def _doors_of(name: str) -> _Doors | None:
    found = (_DOORS.get(_ALSO_CALLED.get(known, known)) for known in known_as(name))
    return next((one for one in found if one is not None), None)


def _command(arguments: Sequence[str], doors: _Doors) -> tuple[str | None, str | None]:
    """Return the command, and the refused word if the command or a word before it is refused."""
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("-"):
            return (None, argument) if argument in doors.commands else (argument, None)
        # An unknown one may have a value of its own, which would be taken for the command.
        if argument not in doors.leading:
            return argument, None
        # -C leads to another repository, whose configuration may run programs.
        if argument in doors.with_value and _leads_out(value := next(rest, "")):
            return value, None
    return None, None


def _dashed(arguments: Sequence[str], doors: _Doors) -> Iterator[tuple[str, str]]:
    """Yield each argument in the form of an option, and as written."""
    for index, argument in enumerate(arguments):
        is_bare = index == 0 and doors.bare_cluster and not argument.startswith("-")
        yield (f"-{argument}" if is_bare else argument), argument


def _means(argument: str, door: str) -> bool:
    """Return whether *argument* is the option *door*, in any spelling."""
    if door.startswith("--"):
        name = argument.partition("=")[0]
        if name in _WHOLE:
            return False
        # "--" alone ends the options; "--exe" is read as the only option that it can be.
        return len(name) > len("--") and name.startswith("--") and door.startswith(name)
    if len(door) == len("-x"):
        is_cluster = argument.startswith("-") and not argument.startswith("--")
        return is_cluster and door[1] in argument
    return argument == door


def _is_unknown(argument: str, doors: _Doors) -> bool:
    """Return whether *argument* is an unknown long option."""
    name = argument.partition("=")[0]
    is_long = name.startswith("--") and len(name) > len("--")
    return bool(doors.long) and is_long and name not in doors.long


def _leads_out(argument: str) -> bool:
    """Return whether *argument*, or its value, is a path out of the folder."""
    value = argument.partition("=")[2] if argument.startswith("--") else argument
    # Where the value of a short option begins cannot be told: -czf/tmp/x.
    is_full = value.startswith("/") or (value.startswith("-") and "/" in value)
    is_full = is_full or value.lower().startswith("file:")
    return is_full or any(part.endswith("..") for part in value.split("/"))


def _is_remote(argument: str) -> bool:
    """Return whether *argument* may name a file on another machine, as ``host:path``."""
    return ":" in argument.partition("/")[0]


# --- words


def split_command(text: str) -> tuple[str, ...]:
    """Return the words of *text*, as a shell would split them.

    Raises:
        ToolError: If *text* has a sign that only a shell understands, or an open quote.
    """
    if len(text) > MAX_COMMAND_CHARS:
        raise ToolError(
            f"the command has {len(text)} characters; no more than {MAX_COMMAND_CHARS} are taken; "
            "shorten it"
        )
    if "\0" in text:
        raise ToolError("the command must not contain NUL; leave it out")
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
    """Return why no word can begin at the position *at*."""
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
