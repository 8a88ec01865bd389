"""One reading of a URL."""

from __future__ import annotations

import pytest

from agentpool._manifest.providers import find_place
from agentpool._manifest.urls import place_of, split_url
from agentpool.drivers import PROVIDERS


@pytest.mark.parametrize(
    "text",
    [
        "http://good.example\\@evil.example/",
        "http://good.example /",
        "http://good.example\t/",
        "http://good.example:0/",
        "http://good.example:99999/",
        "http://good.example:x/",
        "http://[::1",
        "http://name[::1]/",
        "http://[::1]name/",
    ],
)
def test_what_two_could_read_in_two_ways_is_no_url(text: str) -> None:
    """Neither a manifest, nor a tool, nor a name in a message has a host of it."""
    assert split_url(text) is None
    assert place_of(text) == ""


def test_a_place_has_no_password() -> None:
    """It is shown to people."""
    assert place_of("http://me:secret@[::1]:8080/v1?key=k") == "[::1]:8080"
    assert place_of("https://api.example.org") == "api.example.org"


def test_what_is_no_url_is_at_no_provider() -> None:
    """So no provider's key goes there."""
    place = find_place("openai", "http://[::1", None)
    assert (place.host, place.api_key_env, place.shows_key) == ("", None, False)
    assert PROVIDERS["openai"].api_key_env is not None
