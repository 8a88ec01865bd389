"""Knows which settings of a repository run no programs, and finds repositories in a folder.

Rules:

1. A repository's own settings lie in the agent's folder, where other granted programs write, and
   can come from an unpacked archive. So git does not run where such settings may run a program. The
   user's own settings lie elsewhere and are not checked.
2. A setting is harmless only if it is listed here. With every release, git gets new settings that
   run programs, and some of these have names of the user's choice, so no list of harmful settings
   would be complete.
3. Settings that include another file are not listed as harmless, since git reads that file again
   while it works.
4. Settings that git's environment overrides are harmless, too: hooks, editors, pagers and watchers
   of the file system.

Finding repositories blocks, and runs in threads.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from agentpool._errors import ToolError
from agentpool.tools.system._entries import entries_below
from agentpool.tools.system._links_before_programs import is_below
from agentpool.tools.system._program_runners import known_as
from agentpool.tools.system._repository_folder import (
    check_name,
    is_inside_another,
    own_folder,
    repositories_inside,
)

MAX_REPOSITORIES: Final = 100
"""The most repositories below one folder to check: each takes some milliseconds."""

_TOO_MUCH: Final = "what the configurations of repositories in it run; use a smaller folder"

_ANY: Final = frozenset({"*"})

_HARMLESS: Final[Mapping[str, frozenset[str]]] = {
    "advice": _ANY, "am": _ANY, "apply": _ANY, "author": _ANY, "blame": _ANY,
    "checkout": _ANY, "clean": _ANY, "color": _ANY, "column": _ANY, "commit": _ANY,
    "committer": _ANY, "extensions": _ANY, "feature": _ANY, "fetch": _ANY, "fsck": _ANY,
    "gitflow": _ANY, "github": _ANY, "gitlab": _ANY, "gui": _ANY, "i18n": _ANY,
    "index": _ANY, "log": _ANY, "notes": _ANY,
    "pack": _ANY, "pretty": _ANY, "pull": _ANY, "push": _ANY, "rerere": _ANY,
    "revert": _ANY, "safe": _ANY, "sparse": _ANY, "stash": _ANY, "status": _ANY, "tag": _ANY,
    "transfer": _ANY, "user": _ANY, "versionsort": _ANY,
    "vscode": _ANY,
    "core": frozenset({
        "abbrev", "attributesfile", "autocrlf", "bare", "bigfilethreshold", "checkstat",
        "commentchar", "commentstring", "commitgraph", "compression", "deltabasecachelimit",
        "editor", "eol", "excludesfile", "filemode", "fscache", "fsync", "fsyncmethod",
        "fsyncobjectfiles", "hidedotfiles", "hookspath", "ignorecase", "logallrefupdates",
        "longpaths", "loosecompression", "multipackindex", "notesref", "packedgitlimit",
        "packedgitwindowsize", "pager", "precomposeunicode", "preloadindex", "protecthfs",
        "protectntfs", "quotepath", "repositoryformatversion", "safecrlf",
        "sharedrepository", "sparsecheckout", "sparsecheckoutcone", "splitindex", "symlinks",
        "trustctime", "untrackedcache", "warnambiguousrefs", "whitespace",
    }),
    "diff": frozenset({
        "algorithm", "autorefreshindex", "binary", "colormoved", "colormovedws", "context",
        "dirstat",
        "guitool", "ignoresubmodules", "indentheuristic", "interhunkcontext", "mnemonicprefix",
        "noprefix", "orderfile", "relative", "renamelimit", "renames", "statgraphwidth",
        "submodule", "suppressblankempty", "tool", "wordregex", "xfuncname",
    }),
    "format": frozenset({"pretty", "signoff", "subjectprefix"}),
    "gc": frozenset({
        "aggressivedepth", "aggressivewindow", "auto", "autodetach", "autopacklimit",
        "cruftpacks", "logexpiry", "packrefs", "pruneexpire", "reflogexpire",
        "reflogexpireunreachable", "worktreepruneexpire", "writecommitgraph",
    }),
    "gpg": frozenset({"format", "mintrustlevel"}),
    "grep": frozenset({
        "column", "extendedregexp", "fallbacktonoindex", "fullname", "linenumber",
        "patterntype", "threads",
    }),
    "http": frozenset({
        "extraheader", "lowspeedlimit", "lowspeedtime", "postbuffer", "useragent", "version",
    }),
    "init": frozenset({"defaultbranch"}),
    "lfs": frozenset({"access", "locksverify", "repositoryformatversion"}),
    "maintenance": frozenset({"auto", "autodetach", "strategy"}),
    "merge": frozenset({
        "autostash", "branchdesc", "conflictstyle", "defaulttoupstream", "directoryrenames",
        "ff", "guitool", "log", "name", "renamelimit", "renames", "renormalize", "stat",
        "suppressdest", "tool", "verbosity", "verifysignatures",
    }),
    "mergetool": frozenset({"keepbackup", "prompt"}),
    "protocol": frozenset({"version"}),
    "rebase": frozenset({
        "abbreviatecommands", "autosquash", "autostash", "backend", "forkpoint", "maxlabellength",
        "missingcommitscheck", "rebasemerges", "reschedulefailedexec", "stat", "updaterefs",
    }),
    "remote": frozenset({
        "fetch", "gh-resolved", "mirror", "partialclonefilter", "promisor", "prune",
        "prunetags", "push", "pushdefault", "pushurl", "skipdefaultupdate", "skipfetchall",
        "tagopt", "url",
    }),
    "submodule": frozenset({
        "active", "branch", "fetchrecursesubmodules", "ignore", "recurse", "shallow", "url",
    }),
}  # fmt: skip
"""The names of harmless settings, by section. A section with *_ANY* is harmless under every
name."""

_ITS_OWN: Final = frozenset({"local", "worktree"})
"""Git's name for a repository's own settings."""

_OF_A_FILE: Final = frozenset({"command"})
"""Git's name for the settings in a file that is passed to git."""

_WORDS_ALONE: Final = {"core.fsmonitor": {"", "true", "false"}}
"""Settings that are harmless with these values."""


def reads_repositories(name: str) -> bool:
    """Return whether the program *name* obeys the settings of the repository around it."""
    return "git" in known_as(name)


def harmful_setting(listed: str, folder: str) -> str | None:
    """Return the first setting of a repository that may run a program or write elsewhere. Blocks.

    Args:
        listed: What ``git config --list -z --show-scope`` wrote in *folder*.
        folder: A folder of the repository.
    """
    scopes = _OF_A_FILE if is_inside_another(folder) else _ITS_OWN
    words = iter(listed.split("\0"))
    for scope, setting in zip(words, words, strict=False):
        if scope not in scopes:
            continue
        key, _, value = setting.partition("\n")
        is_own = key == "core.worktree" and _leads_back(folder, value)
        if not is_own and not _is_harmless(key, value):
            return key
    return None


def _leads_back(folder: str, worktree: str) -> bool:
    """Return whether the setting *worktree* points to the repository around *folder*."""
    places = (Path(folder), *Path(folder).parents)
    if inside := next((one for one in places if one.name.casefold() == ".git"), None):
        # Of a submodule: its work tree is somewhere in that of the repository around it.
        around = os.path.realpath(inside.parent)
        leads_to = os.path.realpath(Path(folder, worktree))
        return is_below(leads_to, around) and not is_below(leads_to, os.path.realpath(inside))
    place = next((one for one in places if (one / ".git").exists()), places[0])
    return os.path.realpath(own_folder(place) / worktree) == os.path.realpath(place)


def _is_harmless(key: str, value: str) -> bool:
    section, name = key.partition(".")[0], key.rpartition(".")[2]
    if key in _WORDS_ALONE:
        return value in _WORDS_ALONE[key]
    if section == "alias":
        # git looks for helpers by names with a dash: merge-NAME, remote-NAME, credential-NAME.
        return "-" not in key
    if section == "branch":
        return name != "mergeoptions"  # it has options for git, and editors write names of theirs
    if section == "submodule" and name == "update":
        return not value.startswith("!")
    known = _HARMLESS.get(section, frozenset())
    return known is _ANY or name in known


def repositories_below(folder: str) -> Iterator[str]:
    """Yield the folders below *folder* that may be repositories themselves. Blocks.

    Folders inside a repository's own folder come last.

    Raises:
        ToolError: If the folder has too many entries to check, or too many repositories, or if
            git could write through a link in a repository's own folder.
    """
    top = os.path.realpath(folder)
    found, inside = list[str](), list[str]()
    above = next((one for one in Path(top).parents if (one / ".git").exists()), None)
    if above is not None:
        check_name(str(own_folder(above)), str(above))
    for entry in entries_below(top, _TOO_MUCH, but=".git"):
        if entry.name.casefold() != ".git":
            continue
        place = Path(entry.path).parent
        if str(place) != top:
            found.append(str(place))
        inside += repositories_inside(str(own_folder(place)), top)
        if len(found) + len(inside) > MAX_REPOSITORIES:
            raise ToolError(
                f"the folder has more than {MAX_REPOSITORIES} repositories in it, too many to "
                f"check {_TOO_MUCH}"
            )
    yield from found
    yield from inside
