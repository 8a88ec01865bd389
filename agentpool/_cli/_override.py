"""Options of the command line that replace settings of a manifest.

The options never bypass the manifest's privacy: the changed manifest is checked like any other.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from typing import Final, final
from urllib.parse import urlsplit

import attrs

from agentpool import AgentManifest, ManifestError, ModelConfig, UsageError
from agentpool._errors import Fault
from agentpool.drivers import PROVIDERS, find_facts

BASE_URL_ENVS: Final[Mapping[str, str]] = {
    "openai": "OPENAI_BASE_URL",
    "anthropic": "ANTHROPIC_BASE_URL",
}
"""The variables that name the server for ``--driver`` if the manifest names no server. Other
clients of these interfaces use the same variables."""


THE_OPTIONS: Final = "the options"
"""The name, in errors, of a manifest that is made only from options."""


@final
@attrs.frozen(kw_only=True)
class Override:
    """The settings that replace those of a manifest."""

    model: str | None = None
    """A GGUF file, or a provider's name for a model. ``None``: the manifest's model."""
    driver: str | None = None
    """``local``, or a provider's name. ``None``: as the manifest's model needs."""
    max_tokens: int | None = None
    """The most tokens of one answer. ``None``: the manifest's number, here as below."""
    system_prompt: str | None = None
    """The system prompt."""
    seed: int | None = None
    """The seed of the model's dice."""

    def apply(
        self, manifest: AgentManifest, *, source: str, environ: Mapping[str, str]
    ) -> AgentManifest:
        """Return *manifest* with these settings.

        Args:
            manifest: The manifest from the file.
            source: Its name in errors.
            environ: The environment, for the address of a server.

        Raises:
            UsageError: If the options contradict each other.
            ManifestError: If the manifest does not allow the result.
        """
        try:
            model = self._model(manifest.model, environ)
            # How both are asked is said once, for both.
            fallback = model.fallback and self._asked(model.fallback)
            model = attrs.evolve(self._asked(model), fallback=fallback)
            return attrs.evolve(manifest, model=model)
        except ManifestError as error:
            by = "" if source == THE_OPTIONS else ", changed by options"
            raise ManifestError(error.faults, source=f"{source}{by}") from error

    def _asked(self, model: ModelConfig) -> ModelConfig:
        if self.max_tokens is not None:
            model = attrs.evolve(model, max_tokens=self.max_tokens)
        if self.system_prompt is not None:
            model = attrs.evolve(model, system_prompt=self.system_prompt)
        if self.seed is not None:
            model = attrs.evolve(model, seed=self.seed)
        return model

    def _model(self, model: ModelConfig, environ: Mapping[str, str]) -> ModelConfig:
        if self.driver is None and self.model is None:
            return model
        # Whoever names a model wants that one, and not the fallback or the price of another.
        model = attrs.evolve(model, price=None, fallback=None, patience_seconds=None, inputs=None)
        if self.driver is not None and self.driver in PROVIDERS:
            there = _remote(model, self.driver, self.model, environ)
            if self.model is not None and there.base_url is None:
                _refuse_two_providers(self.driver, self.model)
            return there
        if self.driver == "local":
            return _local(model, self.model)
        assert self.model is not None  # noqa: S101  # or the first test would have held
        if self.model.endswith(".gguf") or os.path.isfile(self.model):  # noqa: PTH113  # a word, not yet a path
            return _local(model, self.model)
        provider, slash, name = self.model.partition("/")
        # Some providers serve models of others under names such as theirs.
        is_name = model.remote_model is not None and "/" in model.remote_model
        if slash and name and provider in PROVIDERS and not is_name:
            return _remote(model, provider, name, environ)
        if model.remote_model is not None:
            return attrs.evolve(model, remote_model=self.model)
        raise no_such_model(self.model)


def no_such_model(word: str) -> UsageError:
    """Return the error for the *word* after ``--model``, with a provider that has such a model."""
    example, hint = "openai/gpt-5", ""
    provider, slash, name = word.partition("/")
    if slash:
        near = difflib.get_close_matches(provider, PROVIDERS, n=1)
        if near and name:
            hint = f"; did you mean {near[0]}/{name}?"
        elif provider not in PROVIDERS:
            hint = f"; the providers are {', '.join(PROVIDERS)}"
    else:
        found = [f"{one}/{word}" for one in PROVIDERS if _is_published(one, word)]
        example = found[0] if found else example
    return UsageError(
        f"--model must be a GGUF file, or a provider and its model such as {example}, "
        f"got {word!r}{hint}"
    )


def _is_published(provider: str, name: str) -> bool:
    return bool(name) and find_facts(ModelConfig(remote_model=name, provider=provider)) is not None


def _refuse_two_providers(driver: str, word: str) -> None:
    """Raise if *word* names a model of another provider than *driver*."""
    provider, _, name = word.partition("/")
    if provider == driver or provider not in PROVIDERS:
        return
    # Some providers serve models of others under names such as theirs.
    if _is_published(provider, name) and not _is_published(driver, word):
        raise UsageError(
            f"--model {word} is served by {provider}, but --driver says {driver}; leave one of "
            "them out"
        )


def _remote(
    model: ModelConfig, provider: str, name: str | None, environ: Mapping[str, str]
) -> ModelConfig:
    """Return *model* as a model of *provider*.

    Without *name*, the manifest's name of the model stays.
    """
    name = name or model.remote_model
    if name is None:
        raise UsageError(
            f"--driver {provider} needs the name of a model, but the manifest has no "
            "remote_model; add --model NAME"
        )
    if model.remote_model is not None and model.provider == provider:
        same = attrs.evolve(model, remote_model=name)
        return same if model.base_url is not None else _at_usual_server(same, provider, environ)
    plain = attrs.evolve(_local(model, None), model_path=None, model_repo=None)
    plain = attrs.evolve(plain, model_quantization=None, remote_model=name, provider=provider)
    return _at_usual_server(plain, provider, environ)


def _at_usual_server(model: ModelConfig, provider: str, environ: Mapping[str, str]) -> ModelConfig:
    """Return *model* with the server that the environment names for *provider*, if it names one."""
    url = environ.get(BASE_URL_ENVS.get(provider, ""), "").rstrip("/")
    if not url:
        return model
    # Anthropic's own clients want it without the version, and ours with it.
    if provider == "anthropic" and not url.endswith("/v1"):
        url += "/v1"
    try:
        there = attrs.evolve(model, base_url=url)
    except ManifestError as error:
        faults = [Fault(BASE_URL_ENVS[provider], fault.text) for fault in error.faults]
        raise ManifestError(faults) from error
    variable = PROVIDERS[provider].api_key_env or ""
    # Whoever sets both means that key for that server. One on this machine wants none.
    is_meant = environ.get(variable, "").strip() and there.place and not there.place.is_here
    if model.api_key_env is None and is_meant:
        return attrs.evolve(there, api_key_env=variable)
    return there


def named_by_variable(text: str, environ: Mapping[str, str]) -> str:
    """Return the error *text* together with the variable that gave the server's address."""
    for variable in BASE_URL_ENVS.values():
        place = urlsplit(environ.get(variable, "")).netloc.rpartition("@")[2]
        if place and place in text:
            return f"{text} ({place} is what {variable} says)"
    return text


def _local(model: ModelConfig, path: str | None) -> ModelConfig:
    """Return *model* as a local model. Without *path*, use the manifest's or the packaged one."""
    own = attrs.evolve(
        model,
        remote_model=None,
        provider="openai",
        base_url=None,
        private_host=False,
        api_key_env=None,
        api=None,
        max_tokens_field=None,
        options={} if model.remote_model is not None else model.options,
    )
    if path is None:
        return own
    return attrs.evolve(own, model_path=path, model_repo=None, model_quantization=None)
