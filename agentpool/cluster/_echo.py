"""A driver that repeats its input, for trying out a cluster."""

from __future__ import annotations

from agentpool._checks import expect_arguments
from agentpool._manifest.manifest import AgentManifest
from agentpool._messages import CompletionRequest, ToolMessage
from agentpool.drivers._scripted import FunctionDriver


def _repeat(request: CompletionRequest) -> str:
    last = request.messages[-1]
    return last.content if isinstance(last, ToolMessage) else last.text


def open_echo(manifest: AgentManifest) -> FunctionDriver:  # how a node calls it
    """Return a driver that repeats the last message.

    Pass ``driver="agentpool.cluster:open_echo"`` to try a cluster without a model.
    """
    expect_arguments(open_echo, locals())
    return FunctionDriver(_repeat)
