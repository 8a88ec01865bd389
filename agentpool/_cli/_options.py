"""The options that commands share."""

from __future__ import annotations

import argparse
import ipaddress
import math
from typing import Final

from agentpool import UsageError, session_pool_name
from agentpool._cli._command import BUDGET_FILE, SESSIONS_FILE, Address, Options
from agentpool._cli._override import Override
from agentpool._cli._parser import Words
from agentpool.drivers import PROVIDERS

# So that a local model is kept busy and a person can still follow who does what.
DEFAULT_MAX_CONCURRENT: Final = 3

SCRIPT_PREFIX: Final = "script:"
"""The beginning of ``--driver`` when a file answers instead of a model."""

_LAST_PORT: Final = 65_535


def add_session(parser: argparse.ArgumentParser, help_text: str) -> None:
    """Add the argument for the name of a session."""
    parser.add_argument("--session", type=_session, metavar="NAME", help=help_text)


def add_options(
    parser: argparse.ArgumentParser, *, results: bool = True, lines: bool = True
) -> None:
    """Add the options shared by all commands that run agents.

    Args:
        parser: The command's parser.
        results: Whether the command prints results and can record them.
        lines: Whether the results can be lines of JSON.
    """
    _add_model(parser)
    _add_limits(parser)
    _add_files(parser)
    if results:
        _add_results(parser, lines=lines)
    kept = "results, errors and why agents were stopped" if results else "errors"
    parser.add_argument("--quiet", action="store_true", help=f"say nothing but {kept}")


def _add_model(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--max-concurrent", type=count, default=DEFAULT_MAX_CONCURRENT, metavar="N",
        help="agents that run at the same time (%(default)s)")  # fmt: skip
    add("--model", metavar="PATH|PROVIDER/NAME|NAME",
        help="a GGUF file, a provider's model such as openai/gpt-5, or another model of the "
        "manifest's provider, in place of the manifest's")  # fmt: skip
    add("--driver", type=_driver, metavar="KIND",
        help="local: a model on this machine; a provider such as openai, gemini or ollama: a "
        "model there, or of openai and anthropic at OPENAI_BASE_URL and ANTHROPIC_BASE_URL; "
        "script:FILE: answers from a file, to try things out")  # fmt: skip
    add("--max-tokens", type=count, metavar="N",
        help="the most tokens of one answer, in place of the manifest's; raised once if an answer "
        "was cut in its thoughts, before its first word")  # fmt: skip
    add("--system", type=text, metavar="TEXT",
        help="the system prompt, in place of the manifest's")  # fmt: skip
    add("--seed", type=_whole, metavar="N",
        help="the seed of the model's dice, in place of the manifest's; providers that have "
        "none ignore or refuse it")  # fmt: skip


def _add_limits(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--max-total-tokens", type=count, metavar="N",
        help="the most tokens of all agents together, questions and answers")  # fmt: skip
    add("--max-cost", type=_dollars, metavar="USD",
        help="the most US dollars of all agents together")  # fmt: skip
    add("--max-requests", type=count, metavar="N",
        help="the most requests of all agents together, retries included")  # fmt: skip
    add("--per", choices=("hour", "day", "month"), metavar="hour|day|month",
        help="apply these three limits to each hour, day or month, which begin in UTC, for all "
        f"commands with the same --journal, or with {BUDGET_FILE} in this folder")  # fmt: skip
    add("--rpm", type=count, metavar="N",
        help="the most requests to one provider in a minute; the others wait")  # fmt: skip
    add("--tpm", type=count, metavar="N",
        help="the most tokens of these, questions and answers")  # fmt: skip
    add("--deadline", type=seconds, metavar="SECONDS",
        help="stop an agent that runs longer than this")  # fmt: skip


def _add_files(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--memory", type=file_name, metavar="FILE",
        help="keep what agents remember in this file; created if it is missing")  # fmt: skip
    add("--memory-scope", metavar="NAME",
        help="let all agents, of later runs too, share what they remember under this name; "
        "otherwise each recalls its own alone")  # fmt: skip
    add("--trace", type=file_name, metavar="FILE",
        help="write what happens to this file, for agentpool show; it is replaced")  # fmt: skip
    add("--trace-content", choices=("full", "cut", "none"), default="full",
        metavar="full|cut|none",
        help="how much of what is said is in the trace (%(default)s)")  # fmt: skip
    add("--live", nargs="?", const=("127.0.0.1", 0), type=address, metavar="HOST:PORT",
        help="serve a page there, on this machine alone, to watch the agents, to end them and to "
        "approve calls; without an address on a port that is free")  # fmt: skip
    add("--report", type=file_name, metavar="FILE.html",
        help="make a page of what happened that opens in any browser")  # fmt: skip


def _add_results(parser: argparse.ArgumentParser, *, lines: bool) -> None:
    add = parser.add_argument
    add("--journal", type=file_name, metavar="FILE",
        help="keep in this file what was answered and done, so that the same command goes on "
        "where it was killed; created if it is missing")  # fmt: skip
    add("--approve", choices=("ask", "always", "never", "later"), default="ask",
        metavar="ask|always|never|later",
        help="what to do with calls that must be approved: ask at the terminal, or let all "
        "of them run, or none, or keep the questions in the journal, for agentpool approve "
        "(%(default)s)")  # fmt: skip
    if lines:
        add("--schema", metavar="FILE",
            help="a JSON Schema of an object that each answer must have; it is asked for again "
            "where it does not fit, and then fails")  # fmt: skip
        add("--json", action="store_true",
            help="print one JSON object per agent and a summary, a line each")  # fmt: skip


def read_options(found: Words) -> Options:
    """Return the values of the options that ``add_options`` added.

    Raises:
        UsageError: If two options exclude each other.
    """
    if found.live is not None and found.quiet:
        raise UsageError(
            "--live prints where the page is, and --quiet prints nothing; use one of them"
        )
    if found.live is not None and not ipaddress.ip_address(found.live[0]).is_loopback:
        raise UsageError(
            f"--live must be a loopback address such as 127.0.0.1:{found.live[1]}, got "
            f"{found.live[0]!r}; anyone who can reach the page could cancel agents"
        )
    _check_period(found)
    journal = getattr(found, "journal", None) or (
        None if getattr(found, "session", None) is None else SESSIONS_FILE
    )
    if getattr(found, "approve", "never") == "later" and journal is None:
        raise UsageError("--approve later keeps questions in a journal; add --journal FILE")
    driver: str | None = found.driver
    script: str | None = None
    if driver is not None and driver.startswith(SCRIPT_PREFIX):
        script, driver = driver.removeprefix(SCRIPT_PREFIX), None
    # A script answers for every model, so --model has nothing left to say.
    model = found.model if script is None else None
    override = Override(
        model=model,
        driver=driver,
        max_tokens=found.max_tokens,
        system_prompt=found.system,
        seed=found.seed,
    )
    return Options(
        json=getattr(found, "json", False),
        quiet=found.quiet,
        max_concurrent=found.max_concurrent,
        override=override,
        script=script,
        deadline_seconds=found.deadline,
        max_cost_usd=found.max_cost,
        max_total_tokens=found.max_total_tokens,
        max_requests=found.max_requests,
        per=found.per,
        # Where results are for other programs, no person sits at a terminal.
        approve=getattr(found, "approve", "never"),
        memory=found.memory,
        memory_scope=found.memory_scope,
        requests_per_minute=found.rpm,
        tokens_per_minute=found.tpm,
        trace=found.trace,
        trace_content=found.trace_content,
        report=found.report,
        live=found.live,
        journal=journal,
        schema=getattr(found, "schema", None),
        command_words=found.command_words,
    )


def _check_period(found: Words) -> None:
    if found.per is not None and (found.max_cost, found.max_total_tokens, found.max_requests) == (
        None, None, None,
    ):  # fmt: skip
        raise UsageError(
            f"--per {found.per} needs a limit; add --max-cost, --max-total-tokens or --max-requests"
        )


def count(word: str) -> int:
    """Parse *word* as a number, for argparse."""
    if not (word.isascii() and word.isdigit() and word.strip("0")):
        raise argparse.ArgumentTypeError(f"must be a whole number >= 1, got {word!r}")
    return _int(word)


def _whole(word: str) -> int:
    if not (word.isascii() and word.isdigit()):
        raise argparse.ArgumentTypeError(f"must be a whole number >= 0, got {word!r}")
    return _int(word)


_MOST_DIGITS: Final = 18
"""The most digits of a number. Files and journals hold integers of 19 digits, but not all of
these."""


def _int(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise argparse.ArgumentTypeError(
            f"must have at most {_MOST_DIGITS} digits, got a number of {len(digits)}"
        )
    return int(digits)


def address(word: str) -> Address:
    """Parse *word* as an address and a port, for argparse."""
    host, _, port = word.rpartition(":")
    host = {"localhost": "127.0.0.1"}.get(host, host.removeprefix("[").removesuffix("]"))
    try:
        ipaddress.ip_address(host)
        number = int(port) if port.isascii() and port.isdigit() else -1
    except ValueError:
        number = -1
    if not 0 <= number <= _LAST_PORT:
        raise argparse.ArgumentTypeError(f"must be an address such as 127.0.0.1:8000, got {word!r}")
    return host, number


def is_text(word: str) -> bool:
    """Return whether *word* is valid Unicode; the system may pass other bytes."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def text(word: str) -> str:
    """Return *word* if it is valid Unicode, for argparse."""
    if not is_text(word):
        raise argparse.ArgumentTypeError(f"must be UTF-8, got {word!r}")
    return word


def file_name(word: str) -> str:
    """For argparse, return *word* unless it is empty or ``-``, which means standard output."""
    if not word:
        raise argparse.ArgumentTypeError("must be a file, got an empty name; leave the option out")
    if word == "-":
        raise argparse.ArgumentTypeError(
            "must be a file, got '-': only answers go to standard output; name a file, or write "
            "./- for a file of that name"
        )
    return word


def _session(word: str) -> str:
    try:
        session_pool_name(text(word))
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return word


def seconds(word: str) -> float:
    """Parse *word* as seconds, for argparse."""
    return _amount(word, "seconds")


def _dollars(word: str) -> float:
    return _amount(word, "US dollars")


def _amount(word: str, unit: str) -> float:
    try:
        amount = float(word)
    except ValueError:
        amount = math.nan
    if not 0 < amount < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of {unit} > 0, got {word!r}")
    return amount


def _driver(word: str) -> str:
    if word in {"local", *PROVIDERS} or word.removeprefix(SCRIPT_PREFIX) not in {word, ""}:
        return word
    kinds = ", ".join(("local", *PROVIDERS))
    raise argparse.ArgumentTypeError(f"must be {kinds} or script:FILE, got {word!r}")
