"""The pytest plugin: the kit as fixtures, whose seeds can be set from the command line.

Loaded by its entry point. It imports the kit only for a test that asks for a fixture.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from agentpool.testing._simulate import Exploration
    from agentpool.testing._sweep import CancelReport

KIT: Final = "agentpool.testing"

SCHEDULES: Final = 100
"""As many as take a second or two: a test that wants more says so."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options with which a failure is seen again, or looked for longer."""
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
        help=f"how many orders the fixture explore tries; {SCHEDULES} if not given",
    )


@pytest.fixture
def simulate(request: pytest.FixtureRequest) -> Callable[..., object]:
    """Give ``agentpool.testing.simulate``, with the seed of ``--agentpool-seed``."""
    kit = importlib.import_module(KIT)
    return partial(kit.simulate, seed=_seed(request))


@pytest.fixture
def explore(request: pytest.FixtureRequest) -> Callable[..., Exploration]:
    """Give ``agentpool.testing.explore``, with seed and schedules as on the command line."""
    kit = importlib.import_module(KIT)
    schedules = int(request.config.getoption("--agentpool-schedules") or SCHEDULES)
    return partial(kit.explore, seed=_seed(request), schedules=schedules)


@pytest.fixture
def cancel_everywhere(request: pytest.FixtureRequest) -> Callable[..., CancelReport]:
    """Give ``agentpool.testing.cancel_everywhere``, with the seed of the command line."""
    kit = importlib.import_module(KIT)
    return partial(kit.cancel_everywhere, seed=_seed(request))


def _seed(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--agentpool-seed") or 0)
