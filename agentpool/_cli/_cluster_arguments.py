"""The grammar of ``agentpool cluster``, and of ``agentpool map … --cluster``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Final

from agentpool import PrivacyTier
from agentpool._cli._command import ClusterCommand, ClusterOptions
from agentpool._cli._options import SCRIPT_PREFIX
from agentpool._cli._parser import Parser, Words

CLUSTER_LEASE_SECONDS: Final = 10.0
"""How long a node works without a message from the command, unless the command line says
otherwise."""

_EXAMPLES = """\
ADDRESS is HOST:PORT, or auto: the cluster that this machine is part of. Each node is started as
for a map, and says what it lacks.

examples:
  agentpool cluster status
  agentpool cluster status first-machine:6379 --json
  agentpool cluster status local:2

exit codes:
  0    every node can work
  1    a node cannot
  2    the command is wrong, Ray is not installed, or no cluster answers
  5    the output could not be written
  130  interrupted, or the output is no longer read
"""


def parse_cluster(argv: Sequence[str]) -> ClusterCommand:
    """Parse the arguments of ``agentpool cluster``.

    Raises:
        UsageError: If the arguments are not valid.
    """
    parser = Parser(
        "cluster",
        "status [ADDRESS] [options]",
        "Say which nodes a cluster has, and whether each can work.",
        _EXAMPLES,
    )
    parser.add_argument("action", choices=("status",), metavar="status", help="what to do")
    parser.add_argument(
        "address", nargs="?", default="auto", type=_address, metavar="ADDRESS", help="where (auto)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per node")
    found = parser.read(argv)
    return ClusterCommand(action="status", address=found.address, json=found.json)


def add_cluster(parser: Parser) -> None:
    """Add the options of ``agentpool map`` for a cluster."""
    add = parser.add_argument
    add("--cluster", type=_address, metavar="auto|HOST:PORT|local:N",
        help="have the nodes of a Ray cluster answer: the one of this machine, the one there, or "
        "N threads of this process, to try it; each opens the manifests' models, and tools run "
        "here")  # fmt: skip
    add("--cluster-driver", type=_path, metavar="MODULE:NAME",
        help="with --cluster: what nodes import and ask in place of manifests' models")  # fmt: skip
    add("--cluster-privacy", choices=("private", "sovereign"), metavar="private|sovereign",
        help="with --cluster: the strictest privacy whose data may go to its nodes; they are other "
        "machines, and so private, unless you say that they are as good as this one")  # fmt: skip


def read_cluster(parser: Parser, found: Words) -> ClusterOptions | None:
    """Return the options for a cluster. ``None``: no cluster is used.

    Raises:
        UsageError: If other options exclude it.
    """
    if found.cluster is None:
        for option in ("--cluster-driver", "--cluster-privacy"):
            if getattr(found, option[2:].replace("-", "_")) is not None:
                parser.error(f"{option} has no effect without --cluster; add --cluster ADDRESS")
        return None
    if found.workers is not None:
        parser.error(
            "--workers are processes of this machine, but --cluster uses other machines; use one "
            "of them"
        )
    if found.driver is not None and found.driver.startswith(SCRIPT_PREFIX):
        parser.error(
            f"--driver {found.driver} answers here, but with --cluster nodes answer; leave one "
            "out, or name what nodes import: --cluster-driver MODULE:NAME"
        )
    word = found.cluster_privacy
    return ClusterOptions(
        address=found.cluster,
        driver=found.cluster_driver,
        privacy=None if word is None else PrivacyTier[word.upper()],
        lease_seconds=found.lease or CLUSTER_LEASE_SECONDS,
    )


def _address(word: str) -> str:
    kind, colon, rest = word.rpartition(":")
    least = 1 if kind == "local" else 0
    is_place = bool(kind and colon) and rest.isascii() and rest.isdigit() and int(rest) >= least
    if word == "auto" or is_place:
        return word
    raise argparse.ArgumentTypeError(
        f"must be auto, HOST:PORT or local:N with N >= 1, got {word!r}"
    )


def _path(word: str) -> str:
    module, _, name = word.partition(":")
    if all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
        return word
    raise argparse.ArgumentTypeError(
        f"must be an import path such as my_package.models:open_model, got {word!r}"
    )
