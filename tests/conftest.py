"""What all tests share: no network, Hypothesis profiles, the installed package."""

import gc
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

import agentpool
from agentpool._pool import admission
from tests.support import secret_watch
from tests.support.request_watch import CHECKED, watch_requests

# No deadline anywhere: a busy machine is not a bug. Derandomized where somebody
# waits for the answer: a change should fail for what it changed. The long profile
# is the one that looks for something new.
settings.register_profile("quick", deadline=None, derandomize=True, max_examples=100)
settings.register_profile(
    "long",
    deadline=None,
    max_examples=2_000,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or "quick")


def pytest_configure(config: pytest.Config) -> None:
    """See that no key is written by any test."""
    config.pluginmanager.register(secret_watch)


def pytest_sessionstart() -> None:
    """Stop if nox asked for the wheel and the tests would see something else."""
    # A shell that runs the tests in the background has Ctrl-C ignored, by them and by all
    # that they start; some of them are about Ctrl-C.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    found = Path(agentpool.__file__)
    if os.environ.get("AGENTPOOL_TESTS_WANT") == "wheel" and not (
        {"site-packages", "dist-packages"} & set(found.parts)
    ):
        pytest.exit(f"agentpool is imported from {found.parent}, not from the wheel", 3)


@pytest.fixture(scope="module", params=["one by one", "together"])
def slots_handed_on(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run a module's tests twice: with slots handed on as in small pools, and as in large ones."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "together":
            patch.setattr(admission, "MANY", 1)
        yield


LEFT_OUT = pytest.StashKey[int]()
"""How many tests need Ray and are not run."""


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Count the tests that need Ray."""
    for item in items:
        if item.get_closest_marker("cluster") is not None:
            item.config.stash[LEFT_OUT] = item.config.stash.get(LEFT_OUT, 0) + 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the count to the process that writes the summary, if this is another."""
    output: dict[str, object] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["left_out"] = session.config.stash.get(LEFT_OUT, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:  # noqa: ANN401  # of pytest-xdist, which has no types
    """Take the count of a process of tests; each of them leaves out the same."""
    node.config.stash[LEFT_OUT] = getattr(node, "workeroutput", {}).get("left_out", 0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which tests were left out that need Ray, and how many requests were looked at."""
    if CHECKED:
        counted = ", ".join(f"{number} of {api}" for api, number in sorted(CHECKED.items()))
        terminalreporter.write_line(f"requests that the official clients could send: {counted}")
    count = terminalreporter.config.stash.get(LEFT_OUT, 0)
    if count and "-m" not in sys.argv:
        terminalreporter.write_line(f"{count} tests need Ray and were left out: nox -s cluster")


def is_local(address: object) -> bool:
    """Return whether *address*, as given to a socket, stays on this machine."""
    if not isinstance(address, tuple):
        return True  # the path of a Unix socket
    host = str(address[0]).partition("%")[0]
    if host in {"", "localhost"}:
        return True
    try:
        found = ip_address(host)
    except ValueError:
        return False
    # The system takes 0.0.0.0 for this machine.
    return found.is_loopback or found.is_unspecified


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test that looks up or connects to anything but this machine.

    `pytest.fail` raises no Exception, so no door can map it to an error of ours
    and let the test pass.
    """
    connect, lookup = socket.socket.connect, socket.getaddrinfo

    def guarded_connect(self: socket.socket, address: Any) -> None:  # noqa: ANN401  # as in socket
        if not is_local(address):
            pytest.fail(f"a test connects to {address!r}", pytrace=False)
        connect(self, address)

    def guarded_lookup(host: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # as in socket
        name = host.decode() if isinstance(host, bytes) else host
        if not is_local((name or "",)):
            pytest.fail(f"a test looks up {name!r}", pytrace=False)
        return lookup(host, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_lookup)


@pytest.fixture(autouse=True)
def valid_requests(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test whose driver sends what the provider's own client could not.

    A test that sends such a thing on purpose says so: ``@pytest.mark.odd_request("why")``. So
    does whoever breaks our code on purpose, to see a fake refuse what it sends.
    """
    is_odd = request.node.get_closest_marker("odd_request") is not None
    if not (is_odd or "AGENTPOOL_TESTS_BREAK_REQUESTS" in os.environ):
        watch_requests(monkeypatch)


@pytest.fixture
def no_collection() -> Iterator[None]:
    """Keep the garbage collector out of a test that uses the stack up.

    What earlier tests left is finalized wherever a collection happens to fall, and errors
    of ours are looked at then (tests/support/secret_watch.py). Where the stack ends there is
    no room for that: Python warns, warnings are errors, and a test without a fault fails.
    """
    gc.collect()
    gc.disable()
    yield
    gc.enable()
