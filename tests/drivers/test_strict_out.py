"""What goes out is what servers take, whatever models and manifests say."""

from __future__ import annotations

import json
from typing import Any, Final

import attrs
import httpx
import pytest

from agentpool import (
    AgentManifest,
    AgentOutcome,
    AgentStatus,
    ManifestError,
    ModelConfig,
    PrivacyTier,
    SpawnConfig,
    open_pool,
)
from agentpool.drivers import open_driver
from agentpool.testing import FakeTurn, strict_fake
from agentpool.testing._strict import StrictName
from agentpool.tools import ToolRegistry
from tests.drivers.test_strict import ENVIRON, add, manifest_of

MADE_UP: Final = ("functions.add", " add ", "add numbers", "add" * 30, "addé", "...", "")


async def run_with(
    manifest: AgentManifest,
    transport: httpx.AsyncBaseTransport,
    **config: Any,  # noqa: ANN401  # as they are named
) -> AgentOutcome:
    """Run one agent of *manifest* with a tool."""
    async with (
        open_driver(manifest.model, environ=ENVIRON, transport=transport) as driver,
        open_pool(driver, tools=ToolRegistry([add])) as pool,
    ):
        return await (await pool.spawn(SpawnConfig(manifest, "Add.", **config))).wait()


@pytest.mark.parametrize("made_up", MADE_UP[:-1])
@pytest.mark.parametrize(
    "name", ["openai", "openai-chat", "anthropic", "deepseek", "groq", "mistral", "moonshot"]
)
async def test_a_name_that_the_model_made_up_ends_no_run(name: StrictName, made_up: str) -> None:
    """It is told that there is no such tool; the call goes back under a name that is taken."""
    fake = strict_fake(name, [FakeTurn(calls=[(made_up, {"a": 1})]), FakeTurn(text="Done.")])
    outcome = await run_with(manifest_of(name), fake)
    assert fake.refusals == ()
    assert (outcome.status, outcome.text) == (AgentStatus.COMPLETED, "Done."), outcome.error
    assert outcome.messages[1].tool_calls[0].name == made_up  # type: ignore[union-attr]


@attrs.frozen
class Node:
    """A part of a tree."""

    name: str
    children: tuple[Node, ...] = ()


@attrs.frozen
class Tree:
    """A tree."""

    root: Node


class Messages:
    """Anthropic's server, by what it says of the form and of the limit; it keeps the requests."""

    def __init__(self, answer: str) -> None:
        """Answer every request with *answer*."""
        self.bodies: list[dict[str, Any]] = []
        self._answer = answer
        self.transport = httpx.MockTransport(self._reply)

    def _reply(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        self.bodies.append(body)
        form = body.get("output_config", {}).get("format", {})
        if "#/$defs/Node" in json.dumps(form.get("schema", {}).get("$defs", {})):
            words = "output_config.format.schema: Circular reference detected in schema definitions"
            error = {"type": "invalid_request_error", "message": words}
            return httpx.Response(400, json={"type": "error", "error": error})
        return httpx.Response(
            200,
            json={
                "id": "m", "type": "message", "role": "assistant", "model": "m",
                "content": [{"type": "text", "text": self._answer}],
                "stop_reason": "end_turn", "usage": {"input_tokens": 1, "output_tokens": 1},
            },
        )  # fmt: skip


async def test_a_form_that_has_itself_in_it_is_told_to_claude() -> None:
    """Its API refuses one: https://platform.claude.com/docs (structured outputs, 2026-11)."""
    server = Messages('{"root": {"name": "x", "children": [{"name": "y"}]}}')
    outcome = await run_with(manifest_of("anthropic"), server.transport, output_type=Tree)
    assert outcome.value == Tree(Node("x", (Node("y"),))), outcome.error
    (body,) = server.bodies
    assert "output_config" not in body
    assert "JSON of this schema" in json.dumps(body["system"])


@pytest.mark.parametrize("model", ["qwen3-8b", "claude-opus-4-5"])
@pytest.mark.parametrize("thinking", [0, 3000])
async def test_an_answer_is_not_larger_than_the_window_that_the_manifest_says(
    model: str, thinking: int
) -> None:
    """Whether the model is known or not."""
    text = f"""
        privacy = "Standard"
        [model]
        provider = "anthropic"
        remote_model = "{model}"
        context_window = 8000
    """
    if thinking:
        text += f'options = {{thinking = {{type = "enabled", budget_tokens = {thinking}}}}}'
    server = Messages("fine")
    outcome = await run_with(AgentManifest.parse(text), server.transport)
    assert outcome.text == "fine", outcome.error
    assert thinking < server.bodies[0]["max_tokens"] < 8000


async def test_the_last_event_may_have_the_prompt_and_the_answer_in_it_again() -> None:
    """OpenAI's has both: 1.1 MB sent, and as much written in a language of other letters."""
    answer = "你好世界" * 45_000
    prompt = "word " * 220_000

    def reply(request: httpx.Request) -> httpx.Response:
        said = {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": answer}],
        }
        response = {
            "id": "r", "status": "completed", "output": [said],
            "instructions": json.loads(request.content)["instructions"],
        }  # fmt: skip
        event = json.dumps({"type": "response.completed", "response": response})
        headers = {"content-type": "text/event-stream"}
        return httpx.Response(200, headers=headers, text=f"data: {event}\n\n")

    model = ModelConfig(provider="openai", remote_model="m", system_prompt=prompt)
    manifest = AgentManifest(privacy=PrivacyTier.STANDARD, model=model)
    outcome = await run_with(manifest, httpx.MockTransport(reply))
    assert outcome.text == answer, outcome.error


@pytest.mark.parametrize(
    ("most", "words", "is_sent"),
    [
        (16_000, 130_000, True),
        (120_000, 130_000, True),
        (120_000, 138_000, False),
        (None, 130_000, True),
        (None, 138_000, False),
    ],
)
async def test_the_room_for_a_query_is_what_the_model_reads(
    most: int | None, words: int, *, is_sent: bool
) -> None:
    """GPT-5 reads 272,000 tokens and writes 128,000 of its window of 400,000."""
    model = ModelConfig(provider="openai", remote_model="gpt-5", max_tokens=most, system_prompt="")
    manifest = AgentManifest(privacy=PrivacyTier.STANDARD, model=model)
    fake = strict_fake("openai", [FakeTurn(text="Yes.")])
    async with (
        open_driver(manifest.model, environ=ENVIRON, transport=fake) as driver,
        open_pool(driver) as pool,
    ):
        query = "word " * words  # two tokens each, as we count
        outcome = await (await pool.spawn(SpawnConfig(manifest, query))).wait()
    assert len(fake.requests) == is_sent
    assert outcome.text == "Yes." if is_sent else "room for" in str(outcome.error)


@pytest.mark.parametrize("blank", ["", " ", "\n\t"])
async def test_a_blank_system_prompt_is_not_sent_to_claude(blank: str) -> None:
    """Its API refuses a text of white space alone."""
    model = ModelConfig(provider="anthropic", remote_model="m", system_prompt=blank)
    manifest = AgentManifest(privacy=PrivacyTier.STANDARD, model=model)
    fake = strict_fake("anthropic", [FakeTurn(text="Yes.")])
    outcome = await run_with(manifest, fake)
    assert (outcome.text, fake.refusals) == ("Yes.", ()), outcome.error
    assert "system" not in fake.requests[0]


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_an_interface_of_openai_means_nothing_at_anthropic(api: str) -> None:
    """It would be ignored."""
    text = f'[model]\nprovider = "anthropic"\nremote_model = "m"\napi = "{api}"'
    with pytest.raises(ManifestError, match=r"model\.api: means nothing to the Messages API"):
        AgentManifest.parse(f'privacy = "Standard"\n{text}')


@pytest.mark.parametrize("name", ["openai", "anthropic", "mistral", "deepseek"])
async def test_a_type_may_have_itself_in_it_at_the_top(name: StrictName) -> None:
    """It is an object like any other; it was refused as if it were none."""
    fake = strict_fake(name, [FakeTurn(text='{"name": "x", "children": [{"name": "y"}]}')])
    outcome = await run_with(manifest_of(name), fake, output_type=Node)
    assert fake.refusals == ()
    assert outcome.value == Node("x", (Node("y"),)), outcome.error
