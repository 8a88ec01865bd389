"""Keys that a program gives to a driver are in no trace, whatever the environment has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentpool import PrivacyTier, SpawnConfig, open_pool
from agentpool._secrets import given_secrets, remember_secrets
from agentpool.drivers import open_openai
from agentpool.observe import TraceWriter, read_trace
from tests.support.fakes import manifest
from tests.support.http_servers import always, open_loopback, text_event, whole

KEY = "zk-9Xc8Vb7Nm6As5Df4Gh3Jk2Lq1We0Rt9Yu8Io7P"


def said(text: str) -> bytes:
    """Return an answer of a model, streamed in two pieces."""
    half = len(text) // 2
    events = text_event(text[:half]) + text_event(text[half:], "stop")
    return whole(events)


def quoted(text: str) -> str:
    """Return *text* as a URL may have it."""
    return "".join(f"%{ord(one):x}" for one in text)


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"api_key": KEY}, id="a key"),
        pytest.param({"api_key": lambda: KEY}, id="a function"),
        pytest.param({"headers": {"X-Extra": KEY}}, id="a header of any name"),
    ],
)
@pytest.mark.parametrize("says", [str, quoted])
async def test_a_key_given_in_code_is_not_in_the_trace(
    tmp_path: Path, given: dict[str, Any], says: Callable[[str], str]
) -> None:
    """The trace is opened before the driver, which gets its key later."""
    path = tmp_path / "a.trace"
    async with (
        open_loopback(always(said(f"you sent {says(KEY)} to me"))) as server,
        TraceWriter(path) as trace,
        open_openai("m", base_url=server.url, api="chat", **given) as driver,
        open_pool(driver, observers=[trace]) as pool,
    ):
        config = SpawnConfig(manifest(privacy=PrivacyTier.STANDARD), "hi")
        outcome = await (await pool.spawn(config)).wait()
        assert outcome.text == f"you sent {says(KEY)} to me"
    written = "".join(str(event) for event in read_trace(path).events)
    assert says(KEY) not in written
    assert "you sent [secret] to me" in written


def test_tokens_that_are_renewed_do_not_add_up() -> None:
    """The last of them are looked for, and each once."""
    before = given_secrets()
    remember_secrets(f"token number {at}" for at in range(200))
    remember_secrets(["token number 190", "short"])
    assert len(given_secrets()) == 64
    assert given_secrets()[-1] == "token number 190"
    assert "short" not in given_secrets()
    remember_secrets(before)
