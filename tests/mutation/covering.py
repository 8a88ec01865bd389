"""A plugin of pytest: writes down which lines each test runs, and how long it takes.

For the mutation run alone, which is started under coverage with ``-p tests.mutation.covering``.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import msgspec
import pytest
from coverage import Coverage

SECONDS: dict[str, float] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Give what runs from here on to this test."""
    measuring = Coverage.current()
    assert measuring is not None
    measuring.switch_context(item.nodeid)
    begin = sum(os.times()[:4])
    done = yield
    # Of the processor, with those it has started: another program takes none of it away.
    SECONDS[item.nodeid] = sum(os.times()[:4]) - begin
    measuring.switch_context("")
    return done


def pytest_sessionfinish() -> None:
    """Leave the times where the mutation run looks for them."""
    Path(os.environ["AGENTPOOL_TEST_SECONDS"]).write_bytes(msgspec.json.encode(SECONDS))
