"""Sees that no driver sends what the official client of its wire could not send.

Every request of every test is looked at, whatever the test is about.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import pytest

from agentpool.drivers._http import HttpClient

APIS: Final[Mapping[str, str]] = {
    "/chat/completions": "chat",
    "/responses": "responses",
    "/messages": "messages",
}
"""The wire of each path."""

CHECKED: Final[Counter[str]] = Counter()
"""How many requests of each wire were looked at."""


def watch_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test if a driver sends what the official client of its wire could not.

    `pytest.fail` raises no Exception, so no door can map it to an error of ours.
    """
    post = HttpClient.post_stream

    def watched(self: HttpClient, path: str, content: bytes, **more: Any) -> Any:  # noqa: ANN401  # as what it stands for
        api = APIS.get(path)
        if api is not None and content:
            CHECKED[api] += 1
            if why := fault_of(api, content):
                pytest.fail(f"no client of {api} would send this: {why}", pytrace=False)
        return post(self, path, content, **more)

    monkeypatch.setattr(HttpClient, "post_stream", watched)


def fault_of(api: str, content: bytes) -> str:
    """Return what is wrong with a request. Empty: nothing."""
    # Here: to load the types of both clients takes a second, and most tests send nothing.
    from pydantic import ValidationError

    from tests.support.sdk_types import check_request

    try:
        check_request(api, json.loads(content))
    except ValidationError as error:
        return str(error)
    return ""
