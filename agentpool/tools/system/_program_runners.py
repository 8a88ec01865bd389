"""Knows the programs that run other programs: granting one of them means granting all.

A list of names is never complete. So several forms of a name are looked up: without the folder,
without the version, without the part that distinguishes variants, and without the letter with which
the names of a second set of GNU programs begin.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

CARRIERS: Final = frozenset({
    "aa-exec", "abduco", "ack", "ag", "ansible", "ant", "apk", "apt", "apt-get", "aptitude",
    "ar", "arch", "aria2c", "as", "ash", "at", "awk", "bash", "batch", "bazel", "bmake",
    "bpython", "brew", "bun", "bundle", "busctl", "busybox", "bwrap", "byobu", "bzr", "c++",
    "cabal", "caffeinate", "capsh", "cargo", "cc", "cgexec", "choom", "chpst", "chroot", "chrt",
    "clang", "clang++", "clisp", "cmake", "cmd", "conda", "convert", "coverage", "cpan", "cpio",
    "cpp", "crontab", "crun", "cscript", "csh", "ctest", "cvs", "daemon", "daemonize", "dash",
    "dbclient", "dbus-run-session", "dbus-send", "dc", "deb-systemd-invoke", "debconf", "deno",
    "dnf", "doas", "docker", "dotnet", "dpkg", "dpkg-architecture", "dtach", "dumb-init",
    "eatmydata", "ed", "editor", "elixir", "elvish", "emacs", "entr", "env", "erb", "erl", "ex",
    "expect", "fakechroot", "fakeroot", "faketime", "fd", "fdfind", "file-rename", "firejail",
    "fish", "flatpak", "flock", "foreman", "fossil", "ftp", "g++", "gawk", "gcc", "gdb", "gem",
    "gh", "ghc", "git-lfs", "glab", "gmake", "gnuplot", "go", "gpg", "gradle", "groovy", "gs",
    "guile", "guix", "gvim", "helm", "hg", "honcho", "hush", "hyperfine", "i386", "i486",
    "i586", "i686", "iex", "info", "install", "ionice", "ipython", "irb", "java", "jj",
    "jshell", "julia", "jupyter", "just", "kotlin", "ksh", "kubectl", "latex", "launchctl",
    "lazygit", "ld", "ld-linux", "ld-musl", "ld.so", "ld64", "ldd", "less", "lftp", "linux32",
    "linux64", "lldb", "logrotate", "logsave", "ltrace", "lua", "luajit", "lualatex",
    "lxc-execute", "m4", "machinectl", "magick", "mail", "mailx", "make", "man", "mariadb",
    "mawk", "meson", "mksh", "mongo", "mongosh", "mono", "more", "mosh", "most", "mount",
    "msgfilter", "mutt", "mvn", "mysql", "nano", "nawk", "nc", "ncat", "neomutt", "nerdctl",
    "newgrp", "nice", "ninja", "nix", "nix-shell", "nmap", "node", "nodejs", "nohup", "nox",
    "npm", "npx", "nsenter", "nu", "numactl", "nvim", "ocaml", "octave", "openssl",
    "original-awk", "osascript", "pacman", "pager", "parallel", "pdflatex", "pdftex", "perf",
    "perl", "php", "php-cgi", "phpdbg", "pico", "pinfo", "pip", "pipx", "pkexec", "pnpm",
    "podman", "poetry", "posh", "powershell", "ppc32", "pre-commit", "prename", "prlimit",
    "proot", "prove", "psql", "pwsh", "pypy", "pytest", "python", "pythonw", "r", "rake",
    "rbash", "rc", "red", "rename", "rksh", "rlwrap", "rpm", "rscript", "rsh", "rsync", "ruby",
    "run-mailcap", "run-parts", "run0", "runc", "runghc", "runsv", "runuser", "rust-script",
    "rview", "rvim", "rzsh", "s390", "sbcl", "sbt", "scala", "scp", "screen", "script", "scsh",
    "sed", "see", "sensible-editor", "sensible-pager", "setarch", "setpriv", "setsid", "sftp",
    "sg", "sh", "slogin", "snap", "socat", "softlimit", "split", "sqlite", "sqlite3", "ssh",
    "ssh-agent", "sshpass", "stack", "start-stop-daemon", "stdbuf", "strace", "su", "sudo",
    "sudoedit", "supervisord", "svn", "systemd-inhibit", "systemd-nspawn", "systemd-run",
    "task", "taskset", "tclsh", "tcpdump", "tcsh", "telnet", "terraform", "tex", "tig", "time",
    "timeout", "tini", "tmux", "tox", "toybox", "ts-node", "tsx", "uname26", "unbuffer",
    "unshare", "uv", "uvx", "vagrant", "valgrind", "vi", "view", "vigr", "vim", "vimdiff",
    "vipw", "visudo", "watch", "wget", "wish", "wsl", "x86_64", "xargs", "xdg-open", "xelatex",
    "xonsh", "xvfb-run", "yarn", "yash", "yum", "zsh",
})  # fmt: skip
"""Programs that can run any other program through their usual arguments, commands or files."""

# A version at the end of a name: python3.11, perl5.36.0, gcc-12.
_VERSION: Final = re.compile(r"[-.0-9]+\Z")

_VARIANT: Final = re.compile(r"-(?:dbg|gtk|nox|static|tiny)\Z")


def carriers(names: Iterable[str]) -> tuple[str, ...]:
    """Return the *names* that run other programs: granting one means granting ``*``."""
    return tuple(name for name in names if not CARRIERS.isdisjoint(_forms(name)))


def known_as(name: str) -> tuple[str, ...]:
    """Return the names of the program *name*, with and without a version."""
    base = name.replace("\\", "/").rpartition("/")[2].lower().removesuffix(".exe")
    for linker in ("ld-linux", "ld-musl"):
        if base.startswith(linker):
            return (linker,)
    first = base.partition(".")[0]  # vim.basic
    return tuple(dict.fromkeys((base, first, _VERSION.sub("", base), _VERSION.sub("", first))))


def _forms(name: str) -> set[str]:
    """Return every name under which a carrier that is installed as *name* may be known."""
    plain = {_VARIANT.sub("", form) for form in known_as(name)}  # python3-dbg
    forms = {*known_as(name), *plain, *(_VERSION.sub("", form) for form in plain)}
    return forms | {form.removeprefix("g") for form in forms}
