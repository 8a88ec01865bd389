"""The model of a manifest: which one answers, its settings, and its price.

Rules, in addition to those of the other parts:

1. A model is on this machine or behind an API; settings for the other kind are refused.
2. A fallback only says which model it is. The settings of requests are written once, for both.
3. A price must cover all tokens or be left out: half a price would be a wrong one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from operator import attrgetter
from typing import Final, Literal, TypeAlias, cast, final, get_args

import attrs

from agentpool._base import Value
from agentpool._checks import expect_fields, plain_fields
from agentpool._errors import Fault
from agentpool._manifest.parts import (
    control_trouble,
    inputs_faults,
    raise_if_any,
    seconds_faults,
    shown,
    url_faults,
    variable_faults,
)
from agentpool._manifest.providers import PROVIDERS, Place, Provider, find_place
from agentpool._manifest.request_settings import (
    Asking,
    asking_faults,
    options_faults,
    plain_json,
    thinking_budget,
)
from agentpool._manifest.wires import Api, option_faults, setting_faults, wire_of
from agentpool._messages import Json, Usage
from agentpool._numbers import is_number

OnCut: TypeAlias = Literal["stop", "continue"]
"""What to do after an answer that was cut at ``max_tokens``."""

MaxTokensField: TypeAlias = Literal["max_tokens", "max_completion_tokens"]
"""The name of the answer's limit in Chat Completions: the older or the newer one."""

TOKENS_OF_A_PRICE: Final = 1_000_000
"""The number of tokens that prices refer to, as on the providers' pages."""

HOUR_FACTOR: Final = 2
"""Anthropic's price of a token cached for an hour, relative to a sent one. Source:
https://platform.claude.com/docs/en/about-claude/pricing (2026-11)."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class TokenPrice(Value):
    """The price of a model, in US dollars per million tokens.

    >>> TokenPrice(input_usd_per_million=3, output_usd_per_million=15)(Usage(1000, 100))
    0.0045
    """

    input_usd_per_million: float
    """The price of sent tokens."""
    output_usd_per_million: float
    """The price of written tokens, including reasoning."""
    cached_usd_per_million: float | None = None
    """The price of sent tokens that come from the provider's cache. ``None``: the price of all
    other sent tokens."""
    cache_write_usd_per_million: float | None = None
    """The price of sent tokens that are written to the cache. ``None``: the price of all other sent
    tokens."""
    cache_write_hour_usd_per_million: float | None = None
    """The price of tokens cached for an hour. ``None``: twice ``input_usd_per_million``."""

    def __attrs_post_init__(self) -> None:
        """Refuse negative and infinite prices."""
        raise_if_any([*_price_faults(self)], "TokenPrice")
        plain_fields(self)

    def __call__(self, usage: Usage, model: str | None = None) -> float:  # noqa: ARG002  # one price for one model
        """Return the cost of *usage* in US dollars."""
        plain = self.input_usd_per_million
        cached, kept = self.cached_usd_per_million, self.cache_write_usd_per_million
        fresh = usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens
        sent = fresh * plain
        sent += usage.cached_tokens * (plain if cached is None else cached)
        hour, hour_tokens = self.cache_write_hour_usd_per_million, usage.cache_write_hour_tokens
        sent += (usage.cache_write_tokens - hour_tokens) * (plain if kept is None else kept)
        sent += hour_tokens * (HOUR_FACTOR * plain if hour is None else hour)
        return (sent + usage.output_tokens * self.output_usd_per_million) / TOKENS_OF_A_PRICE


# What a file may have wrong as well is a fault of the manifest, with its path.
_CHECKED: Final = frozenset(
    {"provider", "max_tokens", "temperature", "top_p", "stop", "seed", "context_window",
     "patience_seconds", "api", "max_tokens_field", "on_cut", "inputs"}
)  # fmt: skip


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class ModelConfig(Value):
    """Which model answers, and with which settings."""

    model_path: str | None = None
    """A GGUF file on this machine. ``None``: the packaged one, or ``model_repo``."""
    model_repo: str | None = None
    """A repository of GGUF files, such as ``owner/name``. ``None``: no repository."""
    model_quantization: str | None = None
    """Which file of ``model_repo``, such as ``q4_k_m``. ``None``: the usual one."""
    remote_model: str | None = None
    """The provider's name of a model behind an API. ``None``: a local model."""
    provider: str | Provider = "openai"
    """The provider of ``remote_model``: a name such as ``anthropic`` or ``ollama``, or one of
    your own. It sets the address, the wire format and the variable with the key."""
    base_url: str | None = None
    """The address of the server of ``remote_model``. ``None``: the provider's own."""
    private_host: bool = False
    """Whether the place at ``base_url`` is your own: its tier is `PRIVATE`, not `STANDARD`."""
    api_key_env: str | None = None
    """The environment variable with the key. ``None``: the provider's usual one."""
    max_tokens: int | None = None
    """The most tokens of one answer, including thoughts. Less than the window, since the query
    needs room. ``None``: as many as the model may write."""
    temperature: float | None = None
    """0.0 is the likeliest word each time; 2.0 is the upper end. ``None``: the model's own
    temperature; newer models refuse any other."""
    top_p: float | None = None
    """The share of likely words to choose from. ``None``: the model's own."""
    stop: tuple[str, ...] = ()
    """Texts at which the model stops writing."""
    seed: int | None = None
    """The seed for random choices, if the provider supports one. ``None``: a new one each
    time."""
    reasoning_effort: str | None = None
    """How much to think, in the provider's words: ``none``, ``low``, ``high``, … ``None``: as much
    as the model does by itself."""
    verbosity: str | None = None
    """How much to write: ``low``, ``medium``, ``high``. OpenAI's. ``None``: not sent."""
    system_prompt: str = "You are a helpful assistant."
    """The system prompt of the model. Empty: no system prompt."""
    on_cut: OnCut = "stop"
    """What to do after an answer that was cut at ``max_tokens``: ``"stop"`` ends the run with the
    text so far, ``"continue"`` asks for the rest."""
    context_window: int | None = None
    """Tokens of request and answer together. ``None``: as the driver says."""
    inputs: tuple[str, ...] | None = None
    """What the model reads besides text: ``image``, ``pdf``. ``None``: what is published about
    it."""
    fallback: ModelConfig | None = None
    """Which model answers when this one fails. It is asked with the same settings. ``None``: no
    other model."""
    price: TokenPrice | None = None
    """The price of the model. ``None``: the price that the driver knows. A fallback has its own
    price."""
    patience_seconds: float | None = None
    """How many seconds this model may be silent before the fallback is asked. ``None``: no
    limit."""
    api: Api | None = None
    """Which of OpenAI's interfaces to use. ``None``: Responses at OpenAI itself, Chat
    Completions elsewhere."""
    max_tokens_field: MaxTokensField | None = None
    """The name for ``max_tokens`` in Chat Completions at ``base_url``. ``None``: the newer name
    at OpenAI and its known hosts, the older one elsewhere."""
    cache: bool = True
    """Whether Anthropic may cache what is sent, so that the next request costs less."""
    options: Mapping[str, object] = attrs.field(factory=dict[str, object], hash=False)
    """Other fields of the request's body, as the provider names them."""

    def __attrs_post_init__(self) -> None:
        """Refuse settings that are wrong or contradict each other."""
        values = _values(self)
        if tuple(map(type, values)) == _USUAL_TYPES and values == _USUAL:
            return  # as in most manifests of a model on this machine
        expect_fields(self, but=_CHECKED)
        raise_if_any([*_model_faults(self)], "ModelConfig")
        object.__setattr__(self, "options", plain_json(cast("Json", self.options)))

    @property
    def words(self) -> str:
        """The name of the model, or its file, for people."""
        name = self.remote_model or self.model_path or self.model_repo
        return str(name or "the packaged model")

    @property
    def place(self) -> Place | None:
        """The server of the model, and the key that is sent there. ``None``: it has no API."""
        if self.remote_model is None:
            return None
        return find_place(self.provider, self.base_url, self.api_key_env)


_DEFAULTS: Final[Mapping[str, object]] = {
    field.name: field.default for field in attrs.fields(ModelConfig)
}

# The factory of the options makes an empty dict.
_USUAL: Final = tuple(
    [dict[str, object]() if name == "options" else one for name, one in _DEFAULTS.items()]
)
_USUAL_TYPES: Final = tuple(map(type, _USUAL))
_values: Final = attrgetter(*_DEFAULTS)


_SAID_ONCE: Final = (*Asking.__struct_fields__, "system_prompt", "on_cut")
"""The settings that are written once, for a model and its fallback."""


_REMOTE_ALONE: Final = (
    *("provider", "base_url", "api_key_env", "price", "api", "max_tokens_field", "inputs"),
)
"""The settings that only a model behind an API has."""


def _model_faults(model: ModelConfig) -> Iterator[Fault]:
    local, remote = model.model_path or model.model_repo, model.remote_model
    names = ("model_path", "model_repo", "model_quantization", "remote_model")
    for name in names:
        value: str | None = getattr(model, name)
        if value is not None and not value.strip():
            yield Fault(name, f"must not be empty, got {value!r}; leave it out")
    if model.model_path is not None and (trouble := control_trouble(model.model_path)):
        yield Fault("model_path", trouble)
    if model.model_path is not None and model.model_repo is not None:
        yield Fault("model_repo", "model_repo and model_path are mutually exclusive")
    if remote is not None and local is not None:
        text = "cannot be combined with model_path or model_repo; keep one of them"
        yield Fault("remote_model", text)
    if model.model_quantization is not None and model.model_repo is None:
        yield Fault("model_quantization", "means nothing without model_repo")
    yield from _remote_faults(model)
    yield from _fallback_faults(model)
    if model.on_cut not in get_args(OnCut):
        words = ", ".join(map(repr, get_args(OnCut)))
        yield Fault("on_cut", f"must be one of {words}, got {shown(model.on_cut)}")
    asking = Asking(
        max_tokens=model.max_tokens,
        temperature=model.temperature,
        top_p=model.top_p,
        stop=model.stop,
        seed=model.seed,
        reasoning_effort=model.reasoning_effort,
        verbosity=model.verbosity,
    )
    yield from asking_faults(asking, model.context_window)
    yield from options_faults(model.options)
    yield from inputs_faults(model.inputs)
    yield from _wire_faults(model, model)
    budget = thinking_budget(model.options)
    # Of a wrong type it has its own fault.
    if isinstance(model.max_tokens, int) and 0 < model.max_tokens <= budget:
        text = f"must be more than options.thinking.budget_tokens ({budget}), got "
        text += f"{model.max_tokens}; thoughts are a part of the answer"
        yield Fault("max_tokens", text)


def _wire_faults(model: ModelConfig, asked: ModelConfig) -> Iterator[Fault]:
    """Yield the settings in *asked* that the API of *model* does not support."""
    provider = model.provider
    if model.remote_model is None or (isinstance(provider, str) and provider not in PROVIDERS):
        return
    place = find_place(provider, model.base_url, model.api_key_env)
    wire = wire_of(place.dialect, place.host, model.api)
    said = {"seed": asked.seed, "stop": asked.stop, "verbosity": asked.verbosity}
    yield from setting_faults(wire, model.api, said, asked.reasoning_effort)
    if model is asked:
        yield from option_faults(wire, model.options)


def _fallback_faults(model: ModelConfig) -> Iterator[Fault]:
    seconds, fallback = model.patience_seconds, model.fallback
    if seconds is not None:
        yield from seconds_faults("patience_seconds", seconds)
        if fallback is None:
            yield Fault("patience_seconds", "means nothing without a fallback")
    if fallback is None:
        return
    if fallback.fallback is not None:
        yield Fault("fallback.fallback", "is not allowed; a fallback cannot have another fallback")
    for name in _SAID_ONCE:
        value: object = getattr(fallback, name)
        if value not in (getattr(model, name), _DEFAULTS[name]):
            text = f"is set in [model] and counts for the fallback too, got {shown(value)}; drop it"
            yield Fault(f"fallback.{name}", text)
    for fault in _wire_faults(fallback, model):
        yield Fault(f"fallback.{fault.path}", fault.text)


def _remote_faults(model: ModelConfig) -> Iterator[Fault]:
    if isinstance(model.provider, str) and model.provider not in PROVIDERS:
        words = ", ".join(repr(word) for word in PROVIDERS)
        yield Fault("provider", f"must be one of {words}, got {model.provider!r}")
    if model.remote_model is None:
        for name in _REMOTE_ALONE:
            if getattr(model, name) != _DEFAULTS[name]:
                yield Fault(name, "means nothing without remote_model")
    if model.base_url is not None:
        yield from url_faults("base_url", model.base_url)
    elif model.private_host:
        yield Fault("private_host", "means nothing without base_url: no provider's host is yours")
    if model.api_key_env is not None:
        yield from variable_faults("api_key_env", (model.api_key_env,))


def _price_faults(price: TokenPrice) -> Iterator[Fault]:
    for field in attrs.fields(TokenPrice):
        usd: float | None = getattr(price, field.name)
        if usd is None and field.default is None:
            continue
        if usd is None or not (is_number(usd) and 0 <= usd < math.inf):
            yield Fault(field.name, f"must be a finite number >= 0, got {shown(usd)}")
