"""Words on the command line, and the help about them."""

import re
import shlex
from pathlib import Path

import pytest

from agentpool import UsageError
from agentpool._cli._arguments import parse
from agentpool._cli._command import CheckCommand, MapCommand, RunCommand
from agentpool._cli._report import ExitCode
from agentpool.drivers import PROVIDERS
from tests.support.cli_runner import Desk, make_desk


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    """Return a folder with manifests, and the command line in it."""
    monkeypatch.setenv("COLUMNS", "80")
    return make_desk(tmp_path, capsys, monkeypatch)


def test_the_last_word_of_run_is_the_query() -> None:
    """Options may stand between."""
    command = parse(["run", "a.toml", "--json", "b.toml", "Why?", "--max-concurrent", "2"])
    assert isinstance(command, RunCommand)
    assert (command.manifests, command.query) == (("a.toml", "b.toml"), "Why?")
    assert (command.options.json, command.options.max_concurrent) == (True, 2)


def test_a_query_may_begin_with_a_dash() -> None:
    """After two of them, or with a space in it."""
    for words in (["--", "-x"], ["-5 + 3"]):
        command = parse(["run", "a.toml", *words])
        assert isinstance(command, RunCommand)
        assert command.query == words[-1]


@pytest.mark.parametrize("option", ["--prompt", "--reduce-prompt"])
def test_a_prompt_is_text(option: str) -> None:
    """Python hands on bytes that are not UTF-8 as characters that cannot be sent."""
    with pytest.raises(UsageError, match=rf"{option}: must be UTF-8, got '\\udcff'"):
        parse(["map", "r", "--each", "a", "--reduce", "e", option, "\udcff"])


def test_map_takes_files_until_the_next_option() -> None:
    """Each portion is a source of its own."""
    words = ["map", "r", "--each", "a", "b", "--reduce", "e", "--each", "c", "--prompt", "p"]
    command = parse([*words, "--reduce-prompt", "q"])
    assert isinstance(command, MapCommand)
    assert (command.manifest, command.sources) == ("r", (("a", "b"), ("c",)))
    assert (command.reduce, command.prompt, command.reduce_prompt) == ("e", "p", "q")


def test_a_script_is_a_driver_of_its_own() -> None:
    """It answers for every model, so --model says nothing beside it."""
    command = parse(["run", "a", "q", "--driver", "script:s.toml", "--model", "m"])
    assert isinstance(command, RunCommand)
    options = command.options
    assert (options.script, options.override.driver, options.override.model) == (
        "s.toml", None, None,
    )  # fmt: skip


def test_a_seed_is_a_whole_number() -> None:
    """Zero is one."""
    command = parse(["run", "a.toml", "q", "--seed", "0"])
    assert isinstance(command, RunCommand)
    assert command.options.override.seed == 0


def test_check_has_its_own_options() -> None:
    """It runs nothing, so it needs few."""
    command = parse(["check", "a", "b", "--model-file"])
    assert command == CheckCommand(manifests=("a", "b"), model_file=True, json=False)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "a command is missing, one of run, chat, map, check"),
        ("rnu a b", "there is no command 'rnu'; did you mean 'run'?"),
        ("xyz", "there is no command 'xyz'; it must be one of run, chat, map, check"),
        ("foo --help", "there is no command 'foo'; it must be one of run, chat, map, check"),
        ("live --help", "there is no command 'live'; it must be one of run, chat, map, check"),
        ("-x", "there is no option '-x'; see agentpool --help"),
        ("runs", "required: action (one of list, show, resume, prune), FILE; see agentpool runs"),
        ("memory", "required: action (one of list, search, delete), FILE, WORDS|ID; see agentpo"),
        ("run", "required: [MANIFEST...] QUERY; see agentpool run --help"),
        ("run a.toml", "the query is missing, got only 'a.toml'; see agentpool run --help"),
        ("run a q --frob", "there is no option '--frob'; see"),
        ("run a q --modle x", "there is no option '--modle'; did you mean --model?"),
        ("run a q --reprot=x", "there is no option '--reprot=x'; did you mean --report?"),
        ("--verison", "there is no option '--verison'; did you mean --version?; see agentpool -"),
        ("--frob run a q", "there is no option '--frob'; see agentpool --help"),
        ("map r --eech a", "there is no option '--eech'; did you mean --each?"),
        ("run a q --temperature 0.1", "no option '--temperature'; it is a key of the manifest: "),
        ("run a q --context-window=9", "key of the manifest: [model] context_window = ..."),
        ("runs shwo j.db", "action: there is no 'shwo'; did you mean 'show'?"),
        ("runs frob j.db", "action: there is no 'frob'; it must be one of list, show, resume"),
        ("init --with tests", "--with: there is no 'tests'; did you mean 'test'?"),
        ("run a q --per yaer", "--per: there is no 'yaer'; it must be one of hour, day, month"),
        ("run a q --approve alway", "--approve: there is no 'alway'; did you mean 'always'?"),
        ("completion bsh", "there is no 'bsh'; did you mean 'bash'?"),
        ("memory lst m.db", "there is no 'lst'; did you mean 'list'?"),
        ("show a b", "too many words: 'b'; see agentpool show --help"),
        ("run a q --seed -1", "must be a whole number >= 0, got '-1'"),
        ("run a q --max-concurrent 0", "must be a whole number >= 1, got '0'"),
        ("run a q --max-tokens many", "must be a whole number >= 1, got 'many'"),
        ("run a q --max-total-tokens 0", "must be a whole number >= 1, got '0'"),
        ("run a q --max-requests -1", "must be a whole number >= 1, got '-1'"),
        ("run a q --rpm 0", "must be a whole number >= 1, got '0'"),
        ("run a q --tpm 1.5", "must be a whole number >= 1, got '1.5'"),
        ("run a q --max-cost nan", "must be a number of US dollars > 0, got 'nan'"),
        ("run a q --deadline nan", "must be a number of seconds > 0, got 'nan'"),
        ("run a q --deadline soon", "must be a number of seconds > 0, got 'soon'"),
        (
            "run a q --driver remote",
            f"must be local, {', '.join(PROVIDERS)} or script:FILE, got 'remote'",
        ),
        (
            "run a q --driver script:",
            f"must be local, {', '.join(PROVIDERS)} or script:FILE, got 'script:'",
        ),
        ("map r", "required: --each"),
        ("map r --each", "--each: expected at least one argument"),
        ("map --each a b", "MANIFEST is missing, as --each took 'a', 'b'; put the manifest first"),
        ("run reader.tml", "the query is missing, got only 'reader.tml'"),
        ("run a q --max-conc 2", "there is no option '--max-conc'; did you mean --max-concurrent?"),
        ("map r --each a --reduce-prompt p", "has no effect without --reduce"),
        ("check", "required: MANIFEST"),
    ],
)
def test_a_wrong_line_says_what_is_wrong_with_it(line: str, says: str) -> None:
    """With the value, and where to look it up."""
    with pytest.raises(UsageError, match=re.escape(says)) as caught:
        parse(line.split())
    assert "--help" in str(caught.value)


def test_a_wrong_line_is_one_line_and_exit_code_2(desk: Desk) -> None:
    """And nothing on standard output."""
    done = desk.call("rnu")
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        "agentpool: error: there is no command 'rnu'; did you mean 'run'?; see agentpool --help\n"
    )


@pytest.mark.parametrize("command", ["", "run", "map", "check", "memory", "serve"])
def test_help_has_examples_and_exit_codes(desk: Desk, command: str) -> None:
    """An example says more than a list of options, and a script needs the codes."""
    done = desk.call(*command.split(), "--help")
    assert (done.code, done.err) == (0, "")
    examples = re.findall(rf"^  agentpool {command}.*$", done.out, re.MULTILINE)
    assert len(examples) >= 2
    # A server's agents fail one by one, and not the server; check and memory run none.
    codes = list(ExitCode) if command in {"", "run", "map"} else [0, 2, 130]
    assert ("every agent completed" in done.out) == (command in {"", "run", "map"})
    for code in codes:
        assert re.search(rf"^  {int(code)} +\S", done.out, re.MULTILINE)
    for example in examples:
        words = shlex.split(re.sub(" [<>] .*", "", example))
        if "--help" not in words:
            parse(words[1:])


def test_help_of_run_is_as_it_was_agreed(desk: Desk) -> None:
    """The whole text, so that a change of it is seen."""
    assert desk.call("run", "--help").out == (Path(__file__).parent / "run.txt").read_text()


def test_version_says_its_number(desk: Desk) -> None:
    """Or that there is none, in a source tree."""
    done = desk.call("--version")
    assert (done.code, done.err) == (0, "")
    assert re.fullmatch(r"agentpool (\d+\.\d+\S*|\(not installed\))\n", done.out)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["reader.toml", "hi", "there"], "agentpool run reader.toml 'hi there'"),
        (["Why,", "then?"], "agentpool run 'Why, then?'"),
        (["reader.toml", "it's", "me"], """agentpool run reader.toml 'it'"'"'s me'"""),
    ],
)
def test_a_query_without_quotes_is_told_to_have_some(
    desk: Desk, words: list[str], hint: str
) -> None:
    """Its words look like manifests to the command, and not to a person."""
    done = desk.scripted("run", *words)
    assert done.code == ExitCode.WRONG
    assert f"is not a manifest; put the query into quotes: {hint}\n" in done.err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["hi", "reader.toml"], "agentpool run reader.toml hi"),
        (["Why. Is it?", "reader.toml"], "agentpool run reader.toml 'Why. Is it?'"),
        (["Why", "so", "a.toml", "reader.toml"], "agentpool run a.toml reader.toml 'Why so'"),
    ],
)
def test_a_query_before_its_manifest_is_told_to_come_last(
    desk: Desk, words: list[str], hint: str
) -> None:
    """The manifest is no part of the question."""
    done = desk.scripted("run", *words)
    assert done.code == ExitCode.WRONG
    assert f"{words[0]!r} is not a manifest; the query comes last: {hint}\n" in done.err


def test_a_manifest_that_is_not_there_is_no_part_of_a_query(desk: Desk) -> None:
    """A word with a dot or a folder in it was meant to be a file."""
    for word in ("nosuch.toml", "agents/nosuch"):
        done = desk.scripted("run", "reader.toml", word, "Why?")
        assert f"{word}: cannot be read: No such file" in done.err


@pytest.mark.parametrize("word", ["*.md", "[ab].txt", "texts/?.txt"])
def test_a_pattern_that_matched_nothing_ends_before_a_model_is_loaded(
    desk: Desk, word: str
) -> None:
    """A shell hands it on as it stands."""
    desk.write(a_txt="a")
    done = desk.call("map", "reader.toml", "--each", "a.txt", word)
    assert (done.code, done.out) == (ExitCode.WRONG, "")
    assert f"--each {word}: no file matches this pattern" in done.err
    assert "loading" not in done.err
    (desk.folder / "[ab].txt").write_text("named so")
    if word == "[ab].txt":
        assert desk.scripted("map", "reader.toml", "--each", word).code == ExitCode.COMPLETED
