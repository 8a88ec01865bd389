"""The strict fakes answer the official clients, streamed and not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, get_args

import anthropic
import openai
import pytest

from agentpool.testing import FakeTurn, open_strict_server, strict_fake
from agentpool.testing._strict import StrictName

pytestmark = [
    # Their streams are generators that they do not close.
    pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:.*async_generator:pytest.PytestUnraisableExceptionWarning"),
]

ENCRYPTED: Final = "reasoning.encrypted_content"
FOR_ANSWERS: Final = frozenset({"parsed", "parsed_arguments"})
"""What OpenAI's client adds to what came."""


async def ask_chat(url: str, *, is_streamed: bool) -> tuple[str, str]:
    """Return the text and the model that OpenAI's client reads in Chat Completions."""
    asking: Any = {"model": "some-model", "messages": [{"role": "user", "content": "Hi"}]}
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        if not is_streamed:
            whole = await client.chat.completions.create(**asking)
            return whole.choices[0].message.content or "", whole.model
        stream = await client.chat.completions.create(stream=True, **asking)
        chunks = [chunk async for chunk in stream]
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    return "".join(texts), chunks[-1].model


async def ask_responses(url: str, *, is_streamed: bool) -> tuple[str, str]:
    """Return the text and the model that OpenAI's client reads in Responses.

    What came goes back as it came, as its guide has it, before the second question.
    """
    hi = {"role": "user", "content": "Hi"}
    said: Any = [hi]
    response: Any = None
    asking: Any = {"model": "some-model", "store": False, "include": [ENCRYPTED]}
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        for _ in range(2):
            if is_streamed:
                async with client.responses.stream(input=said, **asking) as stream:
                    response = await stream.get_final_response()
            else:
                response = await client.responses.create(input=said, **asking)
            said += [one.model_dump(exclude=FOR_ANSWERS) for one in response.output]
            said.append(hi)
    return response.output_text, response.model


async def ask_messages(url: str, *, is_streamed: bool) -> tuple[str, str]:
    """Return the text and the model that Anthropic's client reads."""
    asking: Any = {"model": "some-model", "max_tokens": 99}
    asking["messages"] = [{"role": "user", "content": "Hi"}]
    base = url.removesuffix("/v1")
    async with anthropic.AsyncAnthropic(base_url=base, api_key="none", max_retries=0) as client:
        if is_streamed:
            async with client.messages.stream(**asking) as stream:
                message: Any = await stream.get_final_message()
        else:
            message = await client.messages.create(**asking)
    return message.content[-1].text, message.model


ASK: Final[Mapping[str, Any]] = {"openai": ask_responses, "anthropic": ask_messages}
READ_BY_THEM: Final = [name for name in get_args(StrictName) if name != "mistral"]
"""Mistral's thoughts are pieces of its texts, and its client is another one."""


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize("name", READ_BY_THEM)
async def test_the_official_clients_read_its_answers(
    name: StrictName, *, is_streamed: bool
) -> None:
    """Whole, as they ask by default, or streamed; by the model that was asked for."""
    fake = strict_fake(name, [FakeTurn(text="Hello there")])
    async with open_strict_server(fake) as url:
        text, model = await ASK.get(name, ask_chat)(url, is_streamed=is_streamed)
    assert (text, model, fake.refusals) == ("Hello there", "some-model", ())
