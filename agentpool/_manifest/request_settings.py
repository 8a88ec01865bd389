"""The settings for requests to a model: sampling, answer length, and provider options.

Rules:

1. Nothing is sent that was not asked for: each setting is ``None``, or empty, by default. Newer
   models refuse any sampling parameter, even one that names their own default.
2. Options are for fields that have no setting here. They go into the body as they are. A
   field that is written by the wire itself is refused, with the setting to use instead.
3. A number that no provider accepts is refused here. If some accept it, the provider decides.

Source: https://platform.openai.com/docs/api-reference/chat/create,
https://platform.openai.com/docs/api-reference/responses/create and
https://platform.claude.com/docs/en/api/messages (2026-11).
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, cast, final

import msgspec

from agentpool._checks import plain_text
from agentpool._errors import Fault
from agentpool._manifest.parts import count_faults, shown
from agentpool._messages import Json
from agentpool._numbers import is_number, is_whole, plain_number

MAX_TEMPERATURE: Final = 2.0
"""OpenAI's upper limit; Anthropic itself refuses more than 1.0."""

MAX_STOPS: Final = 16
"""A limit above that of any provider; OpenAI takes four stop texts."""

OWN_FIELDS: Final[Mapping[str, str]] = {
    "model": "write model.remote_model",
    "messages": "it is the conversation",
    "input": "it is the conversation",
    "instructions": "write model.system_prompt",
    "system": "write model.system_prompt",
    "tools": "grant capabilities",
    "stream": "answers are always streamed",
    "stream_options": "answers are always streamed",
    "max_tokens": "write model.max_tokens",
    "max_completion_tokens": "write model.max_tokens",
    "max_output_tokens": "write model.max_tokens",
    "temperature": "write model.temperature",
    "top_p": "write model.top_p",
    "stop": "write model.stop",
    "stop_sequences": "write model.stop",
    "seed": "write model.seed",
    "reasoning_effort": "write model.reasoning_effort",
    "verbosity": "write model.verbosity",
    "response_format": "spawn the agent with output_type",
    "n": "one answer is read",
    "store": "nothing is stored at the provider",
    "previous_response_id": "the conversation is sent whole",
    "conversation": "the conversation is sent whole",
    "background": "answers are always streamed",
}
"""The fields that agentpool itself writes, and what to do instead of setting them in options."""

OWN_INNER_FIELDS: Final[Mapping[tuple[str, str], str]] = {
    ("reasoning", "effort"): "write model.reasoning_effort",
    ("text", "format"): "spawn the agent with output_type",
    ("text", "verbosity"): "write model.verbosity",
    ("output_config", "effort"): "write model.reasoning_effort",
    ("output_config", "format"): "spawn the agent with output_type",
}
"""The reserved fields of objects whose other fields may be set in options."""


@final
class Asking(msgspec.Struct, frozen=True, kw_only=True):
    """The settings in this module, as `ModelConfig` takes them."""

    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    stop: tuple[str, ...]
    seed: int | None
    reasoning_effort: str | None
    verbosity: str | None


def asking_faults(asking: Asking, window: int | None) -> Iterator[Fault]:
    """Yield the faults of *asking*, for a window of *window* tokens."""
    max_tokens = asking.max_tokens
    if max_tokens is not None:
        yield from count_faults("max_tokens", max_tokens)
    for name, value, most in (
        ("temperature", asking.temperature, MAX_TEMPERATURE),
        ("top_p", asking.top_p, 1.0),
    ):
        if value is not None and not (is_number(value) and 0 <= value <= most):
            yield Fault(name, f"must be in [0.0, {most}], got {shown(value)}")
    seed = cast("object", asking.seed)
    if seed is not None and not is_whole(seed):
        yield Fault("seed", f"must be an integer, got {shown(seed)}")
    yield from _stop_faults(asking.stop)
    for name, word in (
        ("reasoning_effort", asking.reasoning_effort),
        ("verbosity", asking.verbosity),
    ):
        if word is not None and not word.strip():
            yield Fault(name, f"must not be empty, got {word!r}; leave it out")
    if window is not None:
        yield from _room_faults(max_tokens, window)


def _stop_faults(stop: object) -> Iterator[Fault]:
    texts = cast("tuple[object, ...]", stop) if isinstance(stop, tuple) else None
    if texts is None or not all(isinstance(one, str) and one for one in texts):
        yield Fault("stop", f"must be texts, none of them empty, got {stop!r}")
    elif len(texts) > MAX_STOPS:
        yield Fault("stop", f"must be at most {MAX_STOPS} texts, got {len(texts)}")


def _room_faults(max_tokens: int | None, window: int) -> Iterator[Fault]:
    wrong = tuple(count_faults("context_window", window))
    yield from wrong
    if not wrong and is_number(max_tokens) and window <= cast("int", max_tokens):
        # The answer's room is taken from the window: nothing would be left of it for the
        # question.
        text = f"must be less than context_window ({window}), got "
        text += f"{max_tokens}; the question needs room as well"
        yield Fault("max_tokens", text)


def options_faults(options: Mapping[str, object]) -> Iterator[Fault]:
    """Yield the faults of *options*: reserved fields, and values that are not JSON."""
    for key, value in options.items():
        if key in OWN_FIELDS:
            yield Fault(f"options.{key}", f"is written by agentpool; {OWN_FIELDS[key]}")
        elif not _is_json(value):
            yield Fault(f"options.{key}", f"must be JSON, got {shown(value)}")
        elif isinstance(value, Mapping):
            for inner in cast("Mapping[str, object]", value):
                if (key, inner) in OWN_INNER_FIELDS:
                    text = f"is written by agentpool; {OWN_INNER_FIELDS[key, inner]}"
                    yield Fault(f"options.{key}.{inner}", text)


def thinking_budget(options: Mapping[str, object]) -> int:
    """Return the tokens that ``thinking`` in *options* allows for thoughts. 0: not set."""
    thinking = options.get("thinking")
    is_table = isinstance(thinking, Mapping)
    known: Mapping[str, object] = cast("Mapping[str, object]", thinking) if is_table else {}
    budget = known.get("budget_tokens")
    return budget if isinstance(budget, int) else 0


def _is_json(value: object) -> bool:
    match value:
        case None | str():
            return True
        case bool() | int() | float():
            return is_number(value) or isinstance(value, bool)
        case Mapping():
            items = cast("Mapping[object, object]", value)
            return all(isinstance(key, str) and _is_json(one) for key, one in items.items())
        case Sequence() if not isinstance(value, bytes | bytearray):
            return all(map(_is_json, cast("Sequence[object]", value)))
        case _:  # dates and times, which TOML has
            return False


def plain_json(value: Json) -> Json:
    """Return JSON with plain texts and numbers. If all of it is plain, it is the same object."""
    match value:
        case str():
            return plain_text(value)
        case Mapping():
            table = {plain_text(key): plain_json(one) for key, one in value.items()}
            return value if all(table.get(key) is one for key, one in value.items()) else table
        case Sequence():
            items = [plain_json(one) for one in value]
            return value if all(map(operator.is_, items, value)) else items
        case _:
            return plain_number(value)
