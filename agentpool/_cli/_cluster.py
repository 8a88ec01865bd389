"""``agentpool cluster status``, and the drivers of a command with models on nodes."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from agentpool import AgentManifest, PrivacyError, PrivacyTier
from agentpool import cluster as clusters
from agentpool._cli._command import ClusterCommand, ClusterOptions
from agentpool._cli._hidden_keys import write_told
from agentpool._cli._report import ExitCode
from agentpool.abc import Driver, DriverFactory
from agentpool.drivers import GatedDriver, ProviderGates
from agentpool.tools import printable

if TYPE_CHECKING:
    from agentpool.cluster import NodeStatus


def look_at_cluster(command: ClusterCommand) -> int:
    """Run *command* and return the exit code.

    Raises:
        ClusterError: If there is no Ray, or no cluster answers.
    """

    async def main() -> tuple[NodeStatus, ...]:
        async with clusters.open_cluster(address=command.address, every_node=False) as cluster:
            return cluster.nodes()

    nodes = trio.run(main)
    lines = map(_object, nodes) if command.json else _lines(nodes)
    write_told("".join(f"{line}\n" for line in lines))
    can_work = all(node.state is clusters.NodeState.WORKING for node in nodes)
    return ExitCode.COMPLETED if can_work else ExitCode.FAILED


def _object(node: NodeStatus) -> str:
    return json.dumps({
        "type": "node", "name": node.name, "state": node.state.value, "load": node.load,
        "labels": dict(node.labels), "reason": node.reason or None,
    })  # fmt: skip


def _lines(nodes: Sequence[NodeStatus]) -> Iterator[str]:
    wide = max(len(printable(node.name)) for node in nodes)
    for node in nodes:
        said = node.reason or _labels(node.labels)
        yield f"{printable(node.name):{wide}}  {node.state.value:8}  {printable(said)}".rstrip()


def _labels(labels: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in labels.items() if name != "name")


@asynccontextmanager
async def open_cluster_drivers(
    manifests: Sequence[AgentManifest], options: ClusterOptions, gates: ProviderGates | None
) -> AsyncGenerator[DriverFactory]:
    """Open the models of *manifests* on every node, and yield drivers that ask them.

    Args:
        manifests: The manifests of all agents that will run.
        options: The cluster.
        gates: The gates for requests to providers, in this process. ``None``: there are none.

    Raises:
        PrivacyError: If the data of a manifest may not go to the nodes. The error says what to
            write.
        ClusterError: If there is no Ray, or no cluster answers.
        NodeCheckError: If something is missing on a node, or the node cannot open a model.
    """
    _check_privacy(manifests, options)
    async with clusters.open_cluster(
        options.driver,
        address=options.address,
        manifests=manifests,
        lease_seconds=options.lease_seconds,
        privacy=options.privacy,
    ) as cluster:

        def choose(manifest: AgentManifest) -> Driver:
            driver, place = cluster.driver_of(manifest), manifest.model.place
            if gates is None or place is None:
                return driver
            # Requests of a fallback pass the same gate, so neither place gets more than is said.
            gate = gates.gate(place.dialect, place.base_url, place.api_key_env)
            return GatedDriver(driver, gate)

        yield choose


def _check_privacy(manifests: Sequence[AgentManifest], options: ClusterOptions) -> None:
    """Raise if the privacy of a manifest forbids a cluster, before anything is started."""
    if options.privacy is PrivacyTier.SOVEREIGN or (
        options.privacy is None and options.address.startswith("local:")
    ):
        return
    for manifest in manifests:
        if manifest.privacy is PrivacyTier.SOVEREIGN:
            raise PrivacyError(
                f"manifest {manifest.name!r} is Sovereign, so its data stays on this machine, but "
                'the nodes are other machines; write privacy = "Private" into the manifest, '
                "or add --cluster-privacy sovereign if every node is as trusted as this machine"
            )
