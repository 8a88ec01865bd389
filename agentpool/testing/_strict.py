"""Fake servers that are as strict as the real ones.

A client that completes a loop of tool calls with a fake server also completes it with the real
server. Each fake is an ``httpx`` transport, so that a driver believes that it talks to the
provider. For any other client, a fake can be served over HTTP on this machine.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from typing import Final, Literal, TypeAlias, final

import attrs
import httpx
import msgspec
import trio

from agentpool._base import Shown
from agentpool._checks import expect_arguments
from agentpool._errors import UsageError
from agentpool._opening import opening
from agentpool.testing import _strict_form_rules as form
from agentpool.testing import _strict_more_rules as more
from agentpool.testing import _strict_rules as rules
from agentpool.testing._loopback import (
    EVENT_STREAM,
    HttpAsked,
    HttpReply,
    json_reply,
    open_loopback_server,
)
from agentpool.testing._strict_answers import CHAT, MESSAGES, Answering, FakeTurn, Ways, Writing
from agentpool.testing._strict_asked import Fields, StrictAsked, fields, text
from agentpool.testing._strict_responses import RESPONSES

_Refusal: TypeAlias = Callable[[str], object]

_CHAT_FIELDS: Final = (
    *("model", "messages", "tools", "tool_choice", "stream", "temperature", "top_p", "stop"),
    *("response_format", "parallel_tool_calls", "reasoning_effort", "n", "metadata"),
)
_OPENAI_FIELDS: Final = (
    *(*_CHAT_FIELDS, "stream_options", "max_completion_tokens", "max_tokens", "seed"),
    *("verbosity", "service_tier", "store", "user", "prompt_cache_key"),
)
_MISTRAL_FIELDS: Final = (*_CHAT_FIELDS, "max_tokens", "random_seed", "safe_prompt")
_MESSAGES_FIELDS: Final = (
    *("model", "messages", "system", "tools", "tool_choice", "stream", "max_tokens", "thinking"),
    *("temperature", "top_p", "top_k", "stop_sequences", "output_config", "metadata"),
    *("service_tier", "cache_control"),
)
_RESPONSES_FIELDS: Final = (
    *("model", "input", "instructions", "tools", "tool_choice", "stream", "store", "include"),
    *("max_output_tokens", "reasoning", "text", "temperature", "top_p", "metadata"),
    *("parallel_tool_calls", "previous_response_id", "service_tier", "truncation"),
)
_MESSAGE_FIELDS: Final = ("role", "content", "name", "tool_calls", "tool_call_id")

MESSAGES_BYTES: Final = 32_000_000
"""The largest request to Anthropic: https://platform.claude.com/docs/en/api/overview (2026-11)."""

_EVERY_CHAT: Final = (
    *(form.known_roles, rules.results_follow_calls, rules.unique_ids, rules.system_first),
)
_LOCAL: Final = (*_EVERY_CHAT, rules.content_key, rules.arguments_are_objects)


def _openai_error(why: str) -> object:
    code = why if why.startswith("invalid_") else None
    return {"error": {"message": why, "type": "invalid_request_error", "code": code}}


def _plain_error(why: str) -> object:
    return {"object": "error", "message": why, "type": "invalid_request_error", "code": 400}


def _google_error(why: str) -> object:
    return [{"error": {"code": 400, "message": why, "status": "INVALID_ARGUMENT"}}]


def _anthropic_error(why: str) -> object:
    return {"type": "error", "error": {"type": "invalid_request_error", "message": why}}


@final
@attrs.frozen(kw_only=True)
class _Kind:
    """One kind of server: its path, its answers, and what it refuses."""

    path: str
    rules: Sequence[rules.Rule]
    answers: Answering = CHAT
    ways: Ways = Ways()  # noqa: RUF009  # frozen
    refusal: _Refusal = _openai_error
    most_bytes: int | None = None
    """The most bytes of a request's body."""


StrictName: TypeAlias = Literal[
    "openai", "openai-chat", "anthropic", "gemini", "deepseek", "groq", "mistral", "moonshot",
    "vllm", "ollama", "llamacpp",
]  # fmt: skip
"""The servers for which there is a strict fake."""

_KINDS: Final[Mapping[str, _Kind]] = {
    "openai": _Kind(
        path="/responses",
        answers=RESPONSES,
        rules=(
            *(rules.known_fields(*_RESPONSES_FIELDS), rules.no_sampling, more.stateless),
            *(rules.unique_ids, rules.id_form(r".{1,64}", "1 to 64 characters")),
            *(more.reasoning_with_calls, more.encrypted_back, more.outputs_match),
            *(rules.strict_schemas, form.legal_names, form.known_items),
        ),
    ),
    "openai-chat": _Kind(
        path="/chat/completions",
        rules=(
            *(rules.known_fields(*_OPENAI_FIELDS), rules.no_sampling, rules.newer_limit),
            *(rules.no_effort_with_tools, rules.strict_schemas, *_EVERY_CHAT),
            *(rules.id_form(r".{1,40}", "1 to 40 characters"), form.legal_names),
            *(form.images_of_users, form.no_stop, form.no_stream_options),
        ),
    ),
    "anthropic": _Kind(
        path="/messages",
        answers=MESSAGES,
        ways=Ways(id_form="toolu_{}"),
        refusal=_anthropic_error,
        most_bytes=MESSAGES_BYTES,
        rules=(
            *(more.has_version, more.has_limit, rules.no_sampling, more.user_first),
            *(rules.unique_ids, rules.id_form(r"[a-zA-Z0-9_-]+", "letters, digits, _ and -")),
            *(more.results_next, more.thoughts_signed, more.thoughts_first, more.few_marks),
            *(more.adaptive_alone, rules.no_forced_tools, rules.legal_keys),
            *(rules.known_fields(*_MESSAGES_FIELDS), more.user_last, form.legal_names),
            *(form.unique_tools, form.known_blocks),
        ),
    ),
    "gemini": _Kind(
        path="/chat/completions",
        ways=Ways(thoughts="signature"),
        refusal=_google_error,
        rules=(*_EVERY_CHAT, rules.signatures_back, rules.no_older_form_with_tools),
    ),
    "deepseek": _Kind(
        path="/chat/completions",
        ways=Ways(thoughts="reasoning_content"),
        rules=(
            *(*_EVERY_CHAT, rules.reasoning_back, rules.no_schemas, rules.no_images),
            *(rules.no_forced_tools, form.legal_names),
        ),
    ),
    "groq": _Kind(
        path="/chat/completions",
        ways=Ways(thoughts="reasoning"),
        rules=(
            *(*_EVERY_CHAT, rules.no_form_with_tools, form.legal_names),
            rules.known_message_fields(*_MESSAGE_FIELDS, "reasoning"),
        ),
    ),
    "mistral": _Kind(
        path="/chat/completions",
        ways=Ways(id_form="a{:08}", thoughts="content"),
        refusal=_plain_error,
        rules=(
            *(rules.known_fields(*_MISTRAL_FIELDS), rules.known_message_fields(*_MESSAGE_FIELDS)),
            *(rules.no_user_after_tool, rules.no_empty_answer, *_EVERY_CHAT, form.legal_names),
            *(form.images_of_users, form.answer_not_last),
            rules.id_form(r"[a-zA-Z0-9]{9}", "a-z, A-Z, 0-9, with a length of 9"),
        ),
    ),
    "moonshot": _Kind(
        path="/chat/completions",
        ways=Ways(thoughts="reasoning_content"),
        rules=(
            *(*_EVERY_CHAT, rules.no_sampling, rules.reasoning_beside_calls),
            *(rules.no_empty_answer, rules.no_forced_tools, form.legal_names),
        ),
    ),
    "vllm": _Kind(
        path="/chat/completions", refusal=_plain_error, rules=(*_LOCAL, form.no_stream_options)
    ),
    "ollama": _Kind(path="/chat/completions", ways=Ways(shares_index=True), rules=_LOCAL),
    "llamacpp": _Kind(path="/chat/completions", rules=(*_LOCAL, rules.no_images)),
}


@final
@attrs.define(eq=False, repr=False)
class StrictFake(Shown, httpx.AsyncBaseTransport):
    """A fake server that refuses what the real one refuses. Made by ``strict_fake``."""

    _kind: _Kind
    _turns: Sequence[FakeTurn]
    _bodies: list[Fields] = attrs.field(init=False, factory=list[Fields])
    _refusals: list[str] = attrs.field(init=False, factory=list[str])
    _issued: set[str] = attrs.field(init=False, factory=set[str])

    @property
    def requests(self) -> Sequence[Fields]:
        """The requests received, oldest first, including refused ones."""
        return tuple(self._bodies)

    @property
    def refusals(self) -> Sequence[str]:
        """The texts of its refusals."""
        return tuple(self._refusals)

    def forget(self) -> None:
        """Forget all signatures, as providers do after a while."""
        self._issued.clear()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer *request* as the server would."""
        body = await request.aread()
        reply = self._reply(request.url.path, dict(request.headers), body)
        return httpx.Response(
            reply.status, headers=dict(reply.headers), stream=_Pieces(reply.pieces)
        )

    async def serve(self, asked: HttpAsked) -> HttpReply:
        """Answer a request over HTTP."""
        await trio.lowlevel.checkpoint()  # an answer is at hand
        return self._reply(asked.path, asked.headers, asked.body)

    def _reply(self, path: str, headers: Mapping[str, str], content: bytes) -> HttpReply:
        if not path.partition("?")[0].endswith(self._kind.path):
            return self._refuse(404, f"there is nothing at {path}")
        most = self._kind.most_bytes
        if most is not None and len(content) > most:
            return self._refuse(413, "Request exceeds the maximum size")
        try:
            body = fields(msgspec.json.decode(content))
        except msgspec.DecodeError as exc:
            return self._refuse(400, f"the body is not JSON: {exc}")
        self._bodies.append(body)
        asked = StrictAsked(body, headers, frozenset(self._issued))
        for rule in self._kind.rules:
            why = rule(asked)
            if why is not None:
                return self._refuse(400, why)
        return self._answer(asked)

    def _answer(self, asked: StrictAsked) -> HttpReply:
        # One turn for each answer that the conversation has; the last one for ever.
        turn = self._turns[min(asked.turn, len(self._turns) - 1)]
        included = asked.body.get("include")
        writing = Writing(
            turn,
            self._kind.ways,
            text(asked.body.get("model")),
            len(self._bodies),
            has_usage="stream_options" in asked.body or self._kind is _KINDS["mistral"],
            is_encrypted=isinstance(included, list) and "reasoning.encrypted_content" in included,
        )
        if asked.body.get("stream") is True:
            pieces = list(self._kind.answers.stream(writing))
            reply = HttpReply(headers={"content-type": EVENT_STREAM}, pieces=pieces)
        else:
            reply = json_reply(200, self._kind.answers.whole(writing))
        self._issued.update(writing.issued)
        return reply

    def _refuse(self, status: int, why: str) -> HttpReply:
        self._refusals.append(why)
        return json_reply(status, self._kind.refusal(why))


@final
@attrs.define(eq=False)
class _Pieces(httpx.AsyncByteStream):
    """A body in pieces."""

    _pieces: Sequence[bytes]

    async def __aiter__(self) -> AsyncIterator[bytes]:  # noqa: ASYNC900, ASYNC911  # it holds nothing
        for piece in self._pieces:
            yield piece  # noqa: ASYNC911  # all of it is at hand


def strict_fake(name: StrictName, turns: Sequence[FakeTurn]) -> StrictFake:
    """Make a fake of the server *name*, to be passed as a driver's transport.

    Args:
        name: ``openai`` (Responses), ``openai-chat``, ``anthropic``, ``gemini``,
            ``deepseek``, ``groq``, ``mistral``, ``moonshot``, ``vllm``, ``ollama`` or
            ``llamacpp``.
        turns: The answers of its model. The first one is for a conversation without answers, the
            second for a conversation with one answer, and so on. The last one is for every longer
            conversation.

    Raises:
        UsageError: If there is no such fake, or *turns* is empty.
    """
    expect_arguments(strict_fake, locals())
    if not turns:
        raise UsageError("turns must not be empty: the fake would have nothing to answer")
    return StrictFake(_KINDS[name], turns)


@opening("url")
@contextlib.asynccontextmanager
async def open_strict_server(fake: StrictFake) -> AsyncGenerator[str]:
    """Serve *fake* over HTTP on this machine, and yield the base URL.

    Cancellation:
        Every connection is closed.
    """
    expect_arguments(open_strict_server, locals())
    async with open_loopback_server(fake.serve) as port:
        yield f"http://127.0.0.1:{port}/v1"
