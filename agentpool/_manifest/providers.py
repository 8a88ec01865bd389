"""Model providers by name: their addresses, wire formats, and variables with keys.

Rules:

1. The table never changes. To use a provider that is not in it, make your own `Provider`, or write
   its address in the manifest.
2. The address and the variable of the manifest take precedence.
3. A provider's own rules for its wire format are followed wherever its models are, even behind a
   gateway if the manifest names the provider.
4. The provider's usual key is sent to the provider's own host, over TLS, and nowhere else. Any
   other host gets only a key that the manifest names for it.

Addresses and variables are those of the providers' own pages and of models.dev (2026-11).
GitHub Models is not among them: it was closed on 30 July 2026
(https://docs.github.com/en/github-models).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, TypeAlias, final

import msgspec

from agentpool._manifest.parts import is_loopback_url
from agentpool._manifest.urls import place_of, split_url

Dialect: TypeAlias = Literal["openai", "anthropic"]
"""The wire formats: Chat Completions and its successor, or Messages."""

Rules: TypeAlias = Literal["deepseek", "gemini", "groq", "mistral", "moonshot"]
"""A set of rules for Chat Completions that differ from the common ones: which fields are refused,
which parts must be sent back, what fields are called."""


@final
class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """A company that serves models, or a kind of local server."""

    base_url: str
    """The address of its API, with the version."""
    api_key_env: str | None = None
    """The environment variable that usually has its key. ``None``: it needs no key."""
    dialect: Dialect = "openai"
    """The wire format that it speaks."""
    facts: str | None = None
    """Its name at models.dev, the source of facts about its models. ``None``: it is not listed
    there."""
    rules: Rules | None = None
    """The set of rules in addition to the wire format. ``None``: the set of its host, if there is
    one."""


def _hosted(
    base_url: str,
    api_key_env: str,
    facts: str,
    *,
    rules: Rules | None = None,
    dialect: Dialect = "openai",
) -> Provider:
    return Provider(
        base_url=base_url, api_key_env=api_key_env, dialect=dialect, facts=facts, rules=rules
    )


PROVIDERS: Final[Mapping[str, Provider]] = MappingProxyType(
    {
        "openai": _hosted("https://api.openai.com/v1", "OPENAI_API_KEY", "openai"),
        "anthropic": _hosted(
            "https://api.anthropic.com/v1", "ANTHROPIC_API_KEY", "anthropic", dialect="anthropic"
        ),
        "gemini": _hosted(
            "https://generativelanguage.googleapis.com/v1beta/openai",
            "GEMINI_API_KEY",
            "google",
            rules="gemini",
        ),
        "deepseek": _hosted(
            "https://api.deepseek.com/v1", "DEEPSEEK_API_KEY", "deepseek", rules="deepseek"
        ),
        "mistral": _hosted(
            "https://api.mistral.ai/v1", "MISTRAL_API_KEY", "mistral", rules="mistral"
        ),
        "openrouter": _hosted("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY", "openrouter"),
        "groq": _hosted("https://api.groq.com/openai/v1", "GROQ_API_KEY", "groq", rules="groq"),
        "together": _hosted("https://api.together.xyz/v1", "TOGETHER_API_KEY", "togetherai"),
        "xai": _hosted("https://api.x.ai/v1", "XAI_API_KEY", "xai"),
        "moonshot": _hosted(
            "https://api.moonshot.ai/v1", "MOONSHOT_API_KEY", "moonshotai", rules="moonshot"
        ),
        "fireworks": _hosted(
            "https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY", "fireworks-ai"
        ),
        "cerebras": _hosted("https://api.cerebras.ai/v1", "CEREBRAS_API_KEY", "cerebras"),
        "deepinfra": _hosted(
            "https://api.deepinfra.com/v1/openai", "DEEPINFRA_API_KEY", "deepinfra"
        ),
        "nvidia": _hosted("https://integrate.api.nvidia.com/v1", "NVIDIA_API_KEY", "nvidia"),
        "alibaba": _hosted(
            "https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "DASHSCOPE_API_KEY", "alibaba"
        ),
        "zai": _hosted("https://api.z.ai/api/paas/v4", "ZHIPU_API_KEY", "zai"),
        "huggingface": _hosted("https://router.huggingface.co/v1", "HF_TOKEN", "huggingface"),
        "ollama": Provider(base_url="http://127.0.0.1:11434/v1"),
        "vllm": Provider(base_url="http://127.0.0.1:8000/v1"),
        "llamacpp": Provider(base_url="http://127.0.0.1:8080/v1"),
        "lmstudio": Provider(base_url="http://127.0.0.1:1234/v1"),
        "sglang": Provider(base_url="http://127.0.0.1:30000/v1"),
    }
)
"""The providers by their word in a manifest."""


@final
class Place(msgspec.Struct, frozen=True, kw_only=True):
    """The address of a model's API."""

    dialect: Dialect
    """The wire format that it speaks."""
    rules: Rules | None
    """The set of rules. ``None``: the set of its host, if there is one."""
    facts: str | None
    """The provider's name at models.dev. ``None``: no facts are known."""
    base_url: str
    """The address of the API."""
    api_key_env: str | None
    """The variable with the key that is sent. ``None``: no key is sent."""

    @property
    def host(self) -> str:
        """The host, with its port if that is unusual; never a user name or password."""
        return place_of(self.base_url)

    @property
    def is_here(self) -> bool:
        """Whether it is this machine."""
        return is_loopback_url(self.base_url)

    @property
    def shows_key(self) -> bool:
        """Whether the key is sent unencrypted."""
        parts = split_url(self.base_url)
        is_plain = parts is not None and parts.scheme == "http"
        return self.api_key_env is not None and is_plain and not self.is_here


def find_place(named: str | Provider, base_url: str | None, api_key_env: str | None) -> Place:
    """Return where the models of a provider are served.

    Args:
        named: The provider, or its name in `PROVIDERS`.
        base_url: The manifest's setting. ``None``: at the provider itself.
        api_key_env: The manifest's setting. ``None``: the provider's variable, if its key may be
            sent there.
    """
    provider = named if isinstance(named, Provider) else PROVIDERS[named]
    url = base_url or provider.base_url
    is_home = _is_at(url, provider.base_url)
    return Place(
        dialect=provider.dialect,
        rules=provider.rules,
        facts=provider.facts if is_home else facts_name(url),
        base_url=url,
        api_key_env=api_key_env or (provider.api_key_env if is_home else None),
    )


def facts_name(base_url: str) -> str | None:
    """Return models.dev's name for the provider at *base_url*. ``None``: it has none."""
    homes = (one.facts for one in PROVIDERS.values() if _is_at(base_url, one.base_url))
    return next(homes, None)


def _is_at(url: str, home: str) -> bool:
    """Return whether *url* is at or below *home*, and at least as safe."""
    there, here = split_url(url), split_url(home)
    if there is None or here is None:
        return False
    if (there.scheme, there.port, "@" in there.netloc) != (here.scheme, here.port, False):
        return False
    host, own = there.hostname or "", here.hostname or ""
    return host == own or host.endswith(f".{own}")
