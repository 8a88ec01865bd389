"""A disk that is full: no file grows over some bytes."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator

import pytest


@pytest.fixture
def small_files() -> Iterator[int]:
    """Let no file grow over so many bytes while the test runs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = 6_000
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    yield size
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, before)
