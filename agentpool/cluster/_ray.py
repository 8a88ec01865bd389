"""The only module that imports Ray: it finds nodes and connects to them.

Ray places the actors, connects to them and notices when they die. Ray repeats nothing
(``max_restarts=0``, ``max_task_retries=0``), since the work of a lost node may have been done.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# Ray says little of its types.

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Final, cast, final

import outcome
import trio

from agentpool._manifest.capability import PrivacyTier
from agentpool.cluster._errors import ClusterError
from agentpool.cluster._node_checks import Terms
from agentpool.cluster._node_link import Wire
from agentpool.cluster._node_loop import NodeHost, end_this_process
from agentpool.cluster._node_messages import Greeting
from agentpool.cluster._source import FoundNode, Source

# No user asked for reports to Ray's makers. Before the import, which reads it.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

_ray: Final[Any] = ray
"""Ray without types. Ray's own types cover tasks, but few of the options of actors."""

VERSION: Final[str] = ray.__version__

_KNOCK_SECONDS: Final = 5.0


@final
class HostActor:
    """The Ray actor of one node. Each group of methods runs in a separate thread."""

    def __init__(self, node: str, terms: Terms) -> None:
        self._host = NodeHost(
            node, terms, ray=ray.__version__, environ=os.environ, end_process=end_this_process
        )

    def hello(self) -> Greeting:
        """Return what is missing on this node, and its tools."""
        return self._host.hello()

    def push(self, batch: bytes) -> bool:
        """Take orders."""
        return self._host.push(batch)

    def poll(self, heard: int, seconds: float) -> bytes | None:
        """Return the news. If there is no news, wait for it."""
        return self._host.poll(heard, seconds)


async def fetch(ref: Any) -> Any:  # noqa: ANN401  # whatever the method returned
    """Wait for a Ray reference.

    Cancellation:
        The call goes on, but its result is dropped.
    """
    token = trio.lowlevel.current_trio_token()
    task = trio.lowlevel.current_task()
    waits = True

    def arrived(future: Any) -> None:  # noqa: ANN401  # called in a thread of Ray's
        def wake() -> None:
            nonlocal waits
            if waits:
                waits = False
                trio.lowlevel.reschedule(task, outcome.capture(future.result))

        try:
            token.run_sync_soon(wake)
        except trio.RunFinishedError:
            return

    def abort(_: object) -> trio.lowlevel.Abort:
        nonlocal waits
        waits = False
        return trio.lowlevel.Abort.SUCCEEDED

    ref.future().add_done_callback(arrived)
    return await trio.lowlevel.wait_task_rescheduled(abort)


@final
class RayWire(Wire):
    """Reaches the actor of a node."""

    __slots__ = ("_actor",)

    def __init__(self, actor: Any) -> None:  # noqa: ANN401  # Ray makes its class when it runs
        self._actor = actor

    async def hello(self) -> Greeting:
        """Return what the node reports about itself."""
        return cast("Greeting", await fetch(self._actor.hello.remote()))

    async def push(self, batch: bytes) -> bool:
        """Pass orders to the node."""
        return cast("bool", await fetch(self._actor.push.remote(batch)))

    async def poll(self, heard: int, seconds: float) -> bytes | None:
        """Return the node's news. If there is no news, wait for it."""
        return cast("bytes | None", await fetch(self._actor.poll.remote(heard, seconds)))

    def kill(self) -> None:
        """End the actor's process."""
        ray.kill(self._actor, no_restart=True)


@final
class RaySource(Source):
    """The nodes of a Ray cluster."""

    __slots__ = ("_runtime_env",)

    def __init__(self, runtime_env: Mapping[str, object]) -> None:
        self._runtime_env = dict(runtime_env)

    @property
    def privacy(self) -> PrivacyTier:
        """Private: data goes to other machines."""
        return PrivacyTier.PRIVATE

    @property
    def ray(self) -> str:
        """The local version of Ray."""
        return VERSION

    async def look(self) -> list[FoundNode]:
        """Return the nodes that are alive."""
        try:
            nodes = await trio.to_thread.run_sync(ray.nodes, abandon_on_cancel=True)
        except Exception as error:
            raise ClusterError(f"Ray does not report its nodes: {error}") from error
        return [_found(node) for node in nodes if node["Alive"]]

    async def start(self, node: FoundNode, terms: Terms) -> Wire:
        """Start the actor of a node."""
        await trio.lowlevel.checkpoint()
        make = _ray.remote(
            num_cpus=0, max_restarts=0, max_task_retries=0,
            concurrency_groups={"orders": 1, "news": 1},
        )(_grouped())  # fmt: skip
        there = NodeAffinitySchedulingStrategy(node.key, soft=False)
        terms_there = {"scheduling_strategy": there, "runtime_env": self._runtime_env}
        return RayWire(make.options(**terms_there).remote(node.name, terms))


def _grouped() -> type[HostActor]:
    """Return the actor's class with each method assigned to its group of threads."""
    ray.method(concurrency_group="orders")(HostActor.push)
    ray.method(concurrency_group="news")(HostActor.poll)
    return HostActor


def _found(node: Mapping[str, Any]) -> FoundNode:
    labels = dict(node.get("Labels") or {})
    address = str(node["NodeManagerAddress"])
    name = labels.get("name") or f"{node['NodeManagerHostname']}-{str(node['NodeID'])[:6]}"
    labels |= {"name": name, "address": address}
    return FoundNode(str(node["NodeID"]), name, labels)


async def _knock(address: str) -> None:
    """Raise if nothing listens at *address*. Ray would try for a minute, and then end the process.

    Raises:
        ClusterError: If nothing listens.
    """
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()):
        await trio.lowlevel.checkpoint()
        return  # Ray looks for it
    try:
        with trio.fail_after(_KNOCK_SECONDS):
            stream = await trio.open_tcp_stream(host, int(port))
    except (OSError, trio.TooSlowError) as error:
        raise ClusterError(f"nothing answers at {address!r}; start a Ray head there") from error
    await stream.aclose()


@contextmanager
def _quiet() -> Generator[None, None, None]:
    """Keep Ray from warning that it is used outside the main thread."""
    logger = logging.getLogger("ray._private.worker")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _in_a_line(error: Exception) -> str:
    return " ".join(str(error).split())


@asynccontextmanager
async def connected(
    address: str, runtime_env: Mapping[str, object]
) -> AsyncGenerator[RaySource, None]:
    """Connect to a Ray cluster while the block runs.

    Raises:
        ClusterError: If no cluster answers, or the cluster has a different token, Ray or Python.
    """
    await _knock(address)
    ours = not ray.is_initialized()
    if ours:
        join = partial(
            _ray.init, address=address, log_to_driver=False, configure_logging=False,
        )  # fmt: skip
        try:
            with _quiet():
                await trio.to_thread.run_sync(join)
        except ConnectionError as error:
            where = "on this machine" if address == "auto" else f"at {address!r}"
            raise ClusterError(
                f"no Ray cluster {where} can be joined ({_in_a_line(error)}); start one with "
                "ray start --head, or give the address of its head, HOST:PORT; RAY_AUTH_MODE and "
                "RAY_AUTH_TOKEN must be those of its nodes"
            ) from error
        except Exception as error:
            raise ClusterError(
                f"no Ray cluster at {address!r} can be joined: {type(error).__name__}: "
                f"{_in_a_line(error)}"
            ) from error
    try:
        yield RaySource(runtime_env)
    finally:
        if ours:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(ray.shutdown)
