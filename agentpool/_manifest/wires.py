"""Settings that the API of a model does not support, found before a request is sent.

Rules:

1. At OpenAI itself, the Responses API is used, unless the manifest says otherwise. If a setting
   exists only in Chat Completions, that is used instead, but never together with a reasoning
   effort, which newer models refuse there if they have tools.
2. A setting that an API never takes is refused in the manifest, not only in each request.
3. An option that is merged with agentpool's own fields must have the type that the API wants. An
   option of a different type could only be sent as nonsense, or left out silently.

Source: https://platform.openai.com/docs/api-reference/responses/create,
https://platform.claude.com/docs/en/api/messages and goose#11413 (2026-11).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal, TypeAlias, cast

from agentpool._errors import Fault
from agentpool._manifest.parts import shown
from agentpool._manifest.providers import Dialect

Api: TypeAlias = Literal["chat", "responses"]
"""The two interfaces of OpenAI. Other providers with OpenAI's wire format have only the first."""

Wire: TypeAlias = Literal["messages", "chat", "responses"]
"""How a model behind an API is asked."""

OPENAI_HOST: Final = "api.openai.com"

_TABLES: Final[Mapping[Wire, Sequence[str]]] = {
    "messages": ("thinking", "output_config", "cache_control"),
    "responses": ("reasoning", "text"),
    "chat": (),
}
"""The options that must be tables."""


def is_openai(host: str) -> bool:
    """Return whether *host* belongs to OpenAI."""
    return host == OPENAI_HOST or host.endswith(f".{OPENAI_HOST}")


def wire_of(dialect: Dialect, host: str, api: Api | None) -> Wire:
    """Return the wire format for *host*: the default one, or the one that *api* names."""
    if dialect == "anthropic":
        return "messages"
    return api or ("responses" if is_openai(host) else "chat")


def wants_effort(effort: str | None) -> bool:
    """Return whether that *effort* makes a model think."""
    return effort not in {None, "none"}


def setting_faults(
    wire: Wire, api: Api | None, said: Mapping[str, object], effort: str | None
) -> Iterator[Fault]:
    """Yield a fault for each setting that the API does not have.

    Args:
        wire: How the model is asked.
        api: The manifest's ``api``. ``None``: it says nothing.
        said: The values of ``seed``, ``stop`` and ``verbosity``.
        effort: The manifest's ``reasoning_effort``.
    """
    if wire == "messages":
        if api is not None:
            yield Fault("api", "means nothing to the Messages API; leave it out")
        for name in ("seed", "verbosity"):
            if said[name] is not None:
                yield Fault(name, "is not known to the Messages API; leave it out")
    elif wire == "responses" and (api is not None or wants_effort(effort)):
        why = "" if api is not None else ", which OpenAI requires for reasoning_effort with tools"
        for name in ("stop", "seed"):
            if said[name] not in (None, ()):
                text = f"is not known to the Responses API{why}; leave it out"
                yield Fault(name, f'{text}, or write api = "chat"')


def option_faults(wire: Wire, options: Mapping[str, object]) -> Iterator[Fault]:
    """Yield the faults of *options* whose types differ from the wire's fields."""
    for key in _TABLES[wire]:
        if key in options and not isinstance(options[key], Mapping):
            text = f"must be a table, got {shown(options[key])}; write [model.options.{key}]"
            yield Fault(f"options.{key}", text)
    if wire == "responses" and "include" in options and not _is_texts(options["include"]):
        text = f"must be a list of texts, got {shown(options['include'])}"
        yield Fault("options.include", text)


def _is_texts(value: object) -> bool:
    if isinstance(value, str) or not isinstance(value, Sequence):
        return False
    return all(isinstance(one, str) for one in cast("Sequence[object]", value))
