"""What a node and its program do at moments that are too short to be met by chance."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from types import ModuleType

import pytest

from agentpool import AgentManifest, cluster
from agentpool._block_errors import is_cancellation
from agentpool.cluster import NodeState, open_cluster
from agentpool.cluster._far_context import Questions
from agentpool.cluster._local_nodes import LocalSource
from agentpool.cluster._node_loop import NodeHost, end_this_process
from agentpool.cluster._node_messages import Begin, Done, Order, Prepare
from agentpool.cluster._portable import pack, unpack
from tests.cluster.conftest import MODEL
from tests.cluster.test_edges import terms
from tests.drivers.wire.test_image_tokens import image


def test_a_loop_that_has_just_ended_takes_nothing() -> None:
    """Between its end and the moment at which that is known, and before it has begun."""
    host = NodeHost("n", terms(), ray="", environ={})
    assert host.hello().faults == ()
    host.stop()
    host._thread.join(30)
    host._over.clear()
    assert not host.push(b"")
    host._token = None
    host._cancel_all()
    host.stop()
    assert not host.push(b"")


def test_a_model_that_is_open_is_not_opened_again() -> None:
    """Though its program did not hear the first time that it is."""
    host = NodeHost("n", terms(), ray="", environ={})
    assert host.hello().faults == ()
    for call in (1, 2):
        begin: Order = Begin(call, Prepare(1, AgentManifest()), None)
        assert host.push(pack([begin], _same))
        news = host.poll(call - 1, 30.0)
        assert news is not None
        (done,) = unpack(news)
        assert isinstance(done, Done)
        assert done.error is None
    host.stop()
    host._thread.join(30)


def _same(item: Order, error: Exception) -> Order:
    raise AssertionError(item, error)


def test_an_answer_that_nobody_waits_for_is_dropped() -> None:
    """The tool has gone on."""
    questions = Questions()
    questions.answered(7, "late", None)
    assert not questions._open


def test_a_group_with_another_error_is_no_cancellation() -> None:
    """It has to be told."""
    assert not is_cancellation(BaseExceptionGroup("some", [ValueError("no")]))


def test_the_end_of_a_lease_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without another step: with a code of its own."""
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    end_this_process()
    assert codes == [75]


async def test_a_driver_says_what_its_nodes_said() -> None:
    """Nothing is known before; the same manifest has the same one."""
    manifest = AgentManifest()
    async with open_cluster(MODEL, address="local:1") as nodes:
        assert nodes.driver_of(manifest).inputs is None
    async with open_cluster(MODEL, address="local:1", manifests=[manifest]) as nodes:
        driver = nodes.driver_of(manifest)
        assert nodes.driver_of(AgentManifest()) is driver
        assert driver.max_output_tokens is None


async def test_a_driver_counts_attachments_as_its_nodes_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider's own way, once a node was asked; and the provider's limits."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-0")
    manifest = AgentManifest.parse(
        'privacy = "Standard"\n[model]\nprovider = "anthropic"\nremote_model = "claude-opus-5"'
    )
    photo = image(256, 256)
    gpt = AgentManifest.parse(
        'privacy = "Standard"\n[model]\nprovider = "openai"\nremote_model = "gpt-5"'
    )
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0")
    async with open_cluster(address="local:1") as nodes:
        driver = nodes.driver_of(manifest)
        assert driver.attachment_tokens(photo) == photo.tokens
        assert (driver.most_image_bytes, driver.most_image_pixels) == (None, None)
        assert nodes.driver_of(gpt).most_input_tokens is None
    async with open_cluster(address="local:1", manifests=[manifest, gpt]) as nodes:
        assert nodes.driver_of(gpt).most_input_tokens == 272_000
        driver = nodes.driver_of(manifest)
        assert driver.attachment_tokens(photo) == 180 < photo.tokens
        assert driver.most_image_pixels == 8_000
        assert driver.most_image_bytes


async def test_any_other_address_goes_through_the_door(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what Ray is to ship."""
    seen: list[object] = []

    @asynccontextmanager
    async def connected(
        address: str, runtime_env: Mapping[str, object]
    ) -> AsyncGenerator[LocalSource, None]:
        seen.append((address, dict(runtime_env)))
        yield LocalSource(1)

    door = ModuleType("agentpool.cluster._ray")
    door.connected = connected  # type: ignore[attr-defined]  # a stand-in, as Ray is an extra
    monkeypatch.setitem(sys.modules, "agentpool.cluster._ray", door)
    monkeypatch.setattr(cluster, "_ray", door, raising=False)
    async with open_cluster(MODEL, address="first:6379", runtime_env={"pip": ["x"]}) as nodes:
        assert [one.state for one in nodes.nodes()] == [NodeState.WORKING]
    assert seen == [("first:6379", {"pip": ["x"]})]
