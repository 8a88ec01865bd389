"""From a model's line to a program, or to a refusal."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentpool import ToolError
from agentpool.tools.system._command_rules import MAX_COMMAND_CHARS, refused_argument, split_command
from agentpool.tools.system._program_runners import carriers


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("ls", ("ls",)),
        ("  git log\t-n 3 \n", ("git", "log", "-n", "3")),
        ("echo 'a b' \"c d\"", ("echo", "a b", "c d")),
        ("echo a'b'\"c\"d", ("echo", "abcd")),
        ("echo ''", ("echo", "")),
        (r"echo a\ b \; \'", ("echo", "a b", ";", "'")),
        (r'echo "a\"b\\c\n\$d"', ("echo", r'a"b\c\n$d')),
        ("grep 'foo$' a", ("grep", "foo$", "a")),
        ("grep foo$ a", ("grep", "foo$", "a")),
        ("grep \"foo$\" '$HOME; `id`'", ("grep", "foo$", "$HOME; `id`")),
        ("git commit -m 'one\ntwo'", ("git", "commit", "-m", "one\ntwo")),
        ('git commit -m "Mend `x`; and (y)"', ("git", "commit", "-m", "Mend `x`; and (y)")),
        ("ls *.py ~ #x {a,b}", ("ls", "*.py", "~", "#x", "{a,b}")),
        ("echo é漢🙂", ("echo", "é漢🙂")),
    ],
)
def test_words_are_split_as_a_shell_would(command: str, words: tuple[str, ...]) -> None:
    """Quotes keep words together, and what is quoted is what it is."""
    assert split_command(command) == words


@pytest.mark.parametrize(
    ("command", "sign"),
    [
        ("ls\nid", r"'\\n'"),
        ("ls\r\nid", r"'\\r'"),
        ("ls & id", "'&'"),
        ("ls&id", "'&'"),
        ("ls && id", "'&'"),
        ("ls || id", r"'\|'"),
        ("ls | id", r"'\|'"),
        ("ls; id", "';'"),
        ("ls > out", "'>'"),
        ("ls 2>&1", "'>'"),
        ("ls < in", "'<'"),
        ("ls <(id)", "'<'"),
        ("ls `id`", "'`'"),
        ("ls $(id)", r"'\$'"),
        ("ls ${IFS}id", r"'\$'"),
        ("ls $HOME", r"'\$'"),
        ('ls "$(id)"', r"'\$'"),
        ('ls "a $HOME b"', r"'\$'"),
    ],
)
def test_what_only_a_shell_can_do_is_refused(command: str, sign: str) -> None:
    """In the original newline, ``&`` and redirections get through."""
    with pytest.raises(ToolError, match=f"^{sign} has no meaning here"):
        split_command(command)


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("", "is empty"),
        (" \n ", "is empty"),
        ("echo 'a", "a ' without its end"),
        ('echo "a', 'a " without its end'),
        ('echo "a\\', 'a " without its end'),
        ("echo a\\", "ends with a backslash"),
        ("echo \0", "must not contain NUL"),
        ("x" * (MAX_COMMAND_CHARS + 1), "no more than 32000 are taken"),
    ],
)
def test_a_line_that_is_no_command_is_refused(command: str, text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ToolError, match=text):
        split_command(command)


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6), min_size=1, max_size=5))  # fmt: skip  # noqa: E501
def test_what_is_quoted_comes_out_as_it_went_in(words: list[str]) -> None:
    """Whatever the words are made of."""
    command = shlex.join(words)
    assert split_command(command) == tuple(words)


@given(st.text(st.sampled_from("a \\'\"$;|&<>`\n({_"), max_size=12))
def test_what_is_split_here_is_split_so_by_a_shell(text: str) -> None:
    """Where we accept a line, so do others, and they find the same words."""
    try:
        words = split_command(text)
    except ToolError:
        return
    assert list(words) == shlex.split(text.strip())


@pytest.mark.parametrize(
    "command",
    [
        "find . -exec id {} +",
        "find . -execdir id {} +",
        "find . -name x -ok rm {} +",
        "find . -okdir rm {} +",
        "find / -delete",
        "find . -fprint /tmp/x",
        "find . -fprintf /tmp/x %p",
        "/usr/bin/find . -delete",
        "fd -x rm",
        "fd -Hx rm",
        "fdfind --exec=rm",
        "git -c core.fsmonitor=id status",
        "git --config-env=core.pager=X log",
        "git --exec-path=/tmp/x status",
        "git -C sub -c alias.x=!id x",
        "git -C /elsewhere status",
        "git -C .. status",
        "git -C a/../../b status",
        "git --no-pager -C sub -C /elsewhere log",
        "git grep -Oid x",
        "git grep --open-files-in-pager=id x",
        "git diff --ext-diff",
        "git diff --output=/tmp/x",
        "git diff --outp /tmp/x",
        "git ls-remote --upload-pack=id .",
        "git ls-remote --upload-pac id .",
        "git push --receive-pack=id",
        "git archive --exec=id",
        "git clone -c core.fsmonitor=id a b",
        "git config alias.x !id",
        "git -p config --global x y",
        "git rebase -x id HEAD",
        "git bisect run id",
        "git submodule foreach id",
        "git difftool -x id",
        "git --shallow-file x -c alias.x=!id x",
        "git --shallow-file x config alias.y !id",
        "git --attr-source HEAD -c alias.x=!id x",
        "git --bare status",
        "git --list-cmds=main -c alias.x=!id x",
        "git --super-prefix a/ config alias.y !id",
        "git -C . --unknown value -c alias.x=!id x",
        "git an-alias",
        "git merge-index id -a",
        "git for-each-repo --config=x status",
        "git archive -o /tmp/x HEAD",
        "git archive --output=/tmp/x HEAD",
        "git bundle create /tmp/x HEAD",
        "git checkout-index --prefix=/tmp/x -a",
        "git format-patch -o /tmp HEAD~1",
        "git format-patch --output-dir=/tmp HEAD~1",
        "git fast-export --export-marks=/tmp/x",
        "git init /tmp/x",
        "git worktree add /tmp/x",
        "git maintenance register",
        "git apply --unsafe-paths x.patch",
        "git read-tree --index-output=/tmp/x HEAD",
        "git format-patch -1 --suffix=/../../x",
        "git format-patch -1 --suff /../../x",
        "git cherry-pick --strategy=/x side",
        "git revert --strat /x HEAD",
        "git pull --rebase -s /x . side",
        "git push /tmp/x main",
        "git push ../x main",
        "git push --repo=/tmp/x main",
        "git push --repo /tmp/x",
        "git push file:///tmp/x main",
        "git push --repo=File:///tmp/x",
        "git -C sub push ../../x",
        "git remote add x /tmp/x",
        "git remote set-url --push origin ../x",
        "rg --pre id x",
        "rg --pre=id x",
        "sort -o /tmp/x a",
        "sort --compress-program=id a",
        "tar xf a.tar --to-command=id",
        "tar xf a.tar --checkpoint-action=exec=id",
        "tar -I id -xf a.tar",
        "tar xfI a.tar id",
        "tar xf a.tar --use-comp=id",
        "tar -cf /tmp/x a",
        "tar -czf/tmp/x a",
        "tar -cf ../x a",
        "tar --create --file=/tmp/x a",
        "tar rf /tmp/x a",
        "tar -xf a.tar -C /tmp",
        "tar -xf a.tar --dir=/tmp",
        "tar -cg /tmp/x -f a.tar b",
        "tar tf a.tar --index-file=/tmp/x",
        "tar cf a.tar --volno-file=/tmp/x b",
        "tar tf evil.example:/x",
        "tar xPf a.tar",
        "tar cf a.tar b --set-mtime-command=id",
        "tar xf a.tar --suffix=/../../x --backup",
        "tar xf a.tar --an-option-of-next-year",
        "bsdtar -xf a --cd /tmp",
        "bsdtar --use-compress-program id -xf a",
        "find4.9 . -delete",
        "sort -T /tmp a",
        "zip /tmp/x.zip b",
        "zip -r ../x.zip b",
        "zip -b/tmp x.zip b",
        "zip -O /tmp/x a.zip",
        "zip -T a.zip b",
        "unzip a.zip -d ../x",
        "unzip -od/tmp a.zip",
        "unzip -: a.zip",
        "zip a.zip b --unzip-command=id",
    ],
)
def test_doors_that_run_or_delete_are_closed(command: str) -> None:
    """The shipped example of the original grants ``find``, and with it everything."""
    name, *arguments = command.split()
    assert refused_argument(name, arguments) is not None


@pytest.mark.parametrize(
    "command",
    [
        "ls -la",
        "find . -name -x -type f -newer a",
        "git log -c -n 3 --oneline",
        "git switch -c new",
        "git -C sub status",
        "git",
        "git --version",
        "git diff -- --",
        "git commit -m config",
        "git log -- config",
        "git --no-pager -C config log -n 3",
        "git add submodule hook",
        "git -P show HEAD:config",
        "git format-patch -1",
        "git archive HEAD",
        "git help -a",
        "git merge -s ours -X theirs side",
        "git cherry-pick --strategy-option=theirs side",
        "git push origin HEAD:refs/heads/x",
        "git push --tags https://example.com/x.git main",
        "git remote add x git@example.com:x.git",
        "git remote -v",
        "git checkout -b new",
        "fd -e py",
        "rg -n x -g *.py",
        "sort -rn a",
        "tar tf a.tar",
        "tar -czf a.tgz b",
        "tar -xzf /data/a.tgz",
        "tar --list --file=../a.tar",
        "tar --extract --file a.tar --strip-components=1 -- a",
        "zip -r a.zip b/c",
        "unzip -o a.zip",
        "cat -exec",
    ],
)
def test_what_looks_around_is_let_through(command: str) -> None:
    """A door that is closed too far makes people grant a shell."""
    name, *arguments = command.split()
    assert refused_argument(name, arguments) is None


def test_programs_that_run_others_are_known() -> None:
    """Whoever checks a manifest is told that such a grant is as good as all."""
    names = ("git", "env", "/bin/bash", "xargs", "PYTHON3.exe", "ls")
    assert carriers(names) == ("env", "/bin/bash", "xargs", "PYTHON3.exe")


@pytest.mark.parametrize(
    "name",
    [
        "python3.11", "python3.13t", "perl5.36.0", "vim.basic", "vim.tiny", "view", "nawk",
        "rbash", "split", "scp", "wget", "ssh-agent", "setpriv", "chroot", "nsenter", "prlimit",
        "setarch", "linux64", "i386", "choom", "capsh", "runuser", "start-stop-daemon",
        "fakeroot", "install", "sqlite3", "dpkg-architecture", "debconf", "ld-linux-x86-64.so.2",
        "lua5.4", "ruby3.1", "node18", "php8.2", "pypy3.10", "/usr/bin/python3.12", "Bash.EXE",
        "nvim", "emacs-nox", "ginstall", "gtimeout", "zsh-static", "nodejs", "go1.22", "cargo",
        "gcc-12", "clang++-15", "java", "Rscript", "ipython3", "ld.so", "ld-musl-x86_64.so.1",
        "ld64.so.2", "i686", "busybox.static", "ncat", "socat", "hg", "gh", "dc", "m4", "psql",
        "apt-get", "entr", "ltrace", "bwrap", "PowerShell.exe", "fd", "fdfind", "ag", "rename",
        "erl", "iex", "ocaml", "lldb-15", "telnet", "mutt", "helm", "pdflatex", "gs", "magick",
        "python3-dbg", "ld", "mount", "dbus-send", "cvs", "info",
    ],
)  # fmt: skip
def test_a_carrier_is_known_by_every_name_that_it_has(name: str) -> None:
    """A version, a variant or a folder makes no other program of it."""
    assert carriers((name,)) == (name,)


@pytest.mark.parametrize("name", ["bzip2", "sha256sum", "cat", "b2sum", "jq", "7z", "gcat", "xz-5"])
def test_an_ordinary_program_is_no_carrier(name: str) -> None:
    """A number at the end of a name is only a version where there is such a program."""
    assert carriers((name,)) == ()
