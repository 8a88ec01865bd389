"""A tool that asks a model one question, at the agent's expense."""

from __future__ import annotations

from typing import Annotated, Final, final

import attrs
from msgspec import Meta

from agentpool._checks import expect_arguments
from agentpool._errors import ToolError
from agentpool._manifest.capability import Capability, CapabilityKind
from agentpool._messages import CompletionRequest, UserMessage
from agentpool._numbers import plain_number
from agentpool.abc import Driver, Tool, ToolContext
from agentpool.tools._function import tool

TOOL_SECONDS: Final = 300.0
"""The time for one call: a local model takes minutes for a long answer."""

MAX_PROMPT_CHARS: Final = 100_000
"""The most characters of a prompt: about 25,000 tokens, the whole window of most small models."""


def inference_tools(driver: Driver, *, max_tokens: int | None = None) -> tuple[Tool, ...]:
    """Return the tool ``inference``, which asks *driver* one question without history.

    Args:
        driver: The driver to ask: the agent's own driver, or another driver of the same privacy
            tier.
        max_tokens: The most tokens of an answer. The manifest's limit applies as well. ``None``:
            only the manifest's limit applies.
    """
    expect_arguments(inference_tools, locals())
    grant = Capability(CapabilityKind.INFERENCE)
    mind = _Mind(driver, plain_number(max_tokens))
    return (tool(capability=grant, timeout_seconds=TOOL_SECONDS)(mind.inference),)


@final
@attrs.frozen(eq=False)
class _Mind:
    _driver: Driver
    _max_tokens: int | None

    async def inference(
        self,
        context: ToolContext,
        prompt: Annotated[str, Meta(min_length=1, max_length=MAX_PROMPT_CHARS)],
        system_prompt: str = "",
    ) -> str:
        """Ask a model one question. It knows nothing else: say all that it needs.

        Args:
            context: The call.
            prompt: The question.
            system_prompt: How it should answer.
        """
        model = context.agent.manifest.model
        limits = [one for one in (self._max_tokens, model.max_tokens) if one is not None]
        request = CompletionRequest(
            (UserMessage(prompt),),
            system_prompt,
            max_tokens=min(limits, default=None),
            temperature=model.temperature,
            model=model.remote_model,
            top_p=model.top_p,
            stop=model.stop,
            seed=model.seed,
            reasoning_effort=model.reasoning_effort,
            verbosity=model.verbosity,
        )
        completion = await context.agent.complete(self._driver, request)
        if not completion.text.strip():
            raise ToolError("the model gave an empty answer; ask it in other words")
        return completion.text
