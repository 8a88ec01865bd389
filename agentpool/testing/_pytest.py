"""The pytest plugin: the testing kit as fixtures, with seeds from the command line.

pytest loads it through its entry point. It imports the kit only for a test that uses a fixture.
"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

import pytest

if TYPE_CHECKING:
    from agentpool.testing._simulation.explore import Exploration
    from agentpool.testing._simulation.sweep import CancelReport
    from agentpool.testing._simulation.systematic import Proof

KIT: Final = "agentpool.testing"

SCHEDULES: Final = 100
"""The default number of schedules, which take a second or two: a test can ask for more."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options to repeat a failure or to search longer."""
    group = parser.getgroup("agentpool")
    group.addoption(
        "--agentpool-seed",
        type=int,
        default=0,
        help="the (first) seed of the fixtures of agentpool.testing; 0 if not given",
    )
    group.addoption(
        "--agentpool-schedules",
        type=int,
        default=SCHEDULES,
        help=f"how many schedules the fixture explore tries; {SCHEDULES} if not given",
    )
    group.addoption(
        "--agentpool-orders",
        choices=("mix", "rounds"),
        default="mix",
        help="how the fixtures order tasks: mix (tasks may be late), or rounds, as trio does",
    )
    group.addoption(
        "--agentpool-jobs",
        type=int,
        default=1,
        help="how many processes the fixture explore uses; 1 if not given",
    )
    group.addoption(
        "--agentpool-replay",
        metavar="TOKEN",
        default="",
        help="let every fixture run what this token of a finding says, and nothing else",
    )


@pytest.fixture
def simulate(request: pytest.FixtureRequest) -> Callable[..., object]:
    """Provide ``agentpool.testing.simulate`` with the seed and orders of the command line."""
    return _tool(request, "simulate", orders=_text(request, "orders"))


@pytest.fixture
def explore(request: pytest.FixtureRequest) -> Callable[..., Exploration]:
    """Provide ``agentpool.testing.explore`` with the options of the command line."""
    return _tool(
        request,
        "explore",
        orders=_text(request, "orders"),
        schedules=_number(request, "schedules"),
        jobs=_number(request, "jobs"),
    )


@pytest.fixture
def explore_all(request: pytest.FixtureRequest) -> Callable[..., Proof]:
    """Provide ``agentpool.testing.explore_all`` with the seed of the command line."""
    return _tool(request, "explore_all")


@pytest.fixture
def cancel_everywhere(request: pytest.FixtureRequest) -> Callable[..., CancelReport]:
    """Provide ``agentpool.testing.cancel_everywhere`` with the command line's seed and orders."""
    return _tool(request, "cancel_everywhere", orders=_text(request, "orders"))


def _tool(request: pytest.FixtureRequest, name: str, **settings: object) -> Callable[..., Any]:
    kit = importlib.import_module(KIT)
    if token := _text(request, "replay"):
        return partial(_replay, kit.replay, token)
    return partial(getattr(kit, name), seed=_number(request, "seed"), **settings)


def _replay(
    replay: Callable[..., None],
    token: str,
    async_fn: Callable[..., Awaitable[object]],
    *args: object,
    **settings: object,
) -> None:
    """Return a function that replays a token in place of a search, without its settings."""
    wanted = {key: value for key, value in settings.items() if key in _OF_REPLAY}
    replay(async_fn, token, *args, **wanted)


_OF_REPLAY: Final = ("check", "may_raise", "max_steps")


def _number(request: pytest.FixtureRequest, name: str) -> int:
    return cast("int", request.config.getoption(f"--agentpool-{name}"))


def _text(request: pytest.FixtureRequest, name: str) -> str:
    return str(request.config.getoption(f"--agentpool-{name}"))
