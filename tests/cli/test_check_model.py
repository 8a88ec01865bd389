"""What ``agentpool check`` knows of a model, and what it doubts before anything is sent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.cli_runner import Desk, make_desk


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    """Return a folder with manifests, and the command line in it."""
    return make_desk(tmp_path, capsys, monkeypatch)


def warnings_of(desk: Desk, model: str) -> list[str]:
    """Return the warnings for a manifest with *model*."""
    desk.write(a_toml=f'privacy = "Standard"\n[model]\n{model}')
    done = desk.call("check", "a.toml")
    assert done.code == 0, done.err
    return [line.removeprefix("agentpool: warning: a.toml ") for line in done.err.splitlines()]


REFUSED = [
    (
        ("openai", "gpt-5", 'api = "chat"\nreasoning_effort = "low"'),
        "reasoning_effort together with tools",
    ),
    (("moonshot", "kimi-k2.6", "temperature = 0.5"), "model.temperature: Kimi K2.5 and later"),
    (("moonshot", "kimi-k2.6", "top_p = 0.5"), "model.top_p: Kimi K2.5 and later accept only"),
    (
        ("deepseek", "deepseek-reasoner", 'options = {tool_choice = "required"}'),
        "model.options.tool_choice: deepseek-reasoner cannot be forced to call tools",
    ),
    (
        (
            "anthropic",
            "claude-opus-4-7",
            'options = {thinking = {type = "enabled", budget_tokens = 2000}}',
        ),
        "model.options.thinking: claude-opus-4-7 takes no budget",
    ),
    (
        ("anthropic", "claude-opus-4-7", "options = {top_k = 5}"),
        "model.options.top_k: claude-opus-4-7 takes none",
    ),
    (
        ("anthropic", "claude-opus-4-5", 'temperature = 0.3\nreasoning_effort = "high"'),
        "model.temperature: claude-opus-4-5 accepts none while it thinks",
    ),
    (
        (
            "anthropic",
            "claude-opus-4-7",
            'reasoning_effort = "high"\noptions = {tool_choice = {type = "any"}}',
        ),
        "model.options.tool_choice: claude-opus-4-7 cannot be forced to call tools",
    ),
    (("openai", "gpt-5", "options = {temprature = 1}"), "did you mean 'temperature', which is"),
    (("openai", "gpt-5", 'options = {servce_tier = "flex"}'), "did you mean 'service_tier'?"),
    (("", "", "options = {repeat_penalti = 1.1}"), "did you mean 'repeat_penalty'?"),
]

GOOD = [
    ("openai", "gpt-5", 'reasoning_effort = "low"'),
    (
        "anthropic",
        "claude-opus-4-5",
        'options = {thinking = {type = "enabled", budget_tokens = 2000}}',
    ),
    ("anthropic", "claude-opus-4-7", 'reasoning_effort = "high"'),
    ("deepseek", "deepseek-reasoner", 'options = {tool_choice = "auto"}'),
    ("openai", "gpt-5", 'options = {service_tier = "flex", my_own_field = 1}'),
    ("openai", "m", 'base_url = "https://gw.example/v1"\napi_key_env = "MISTRAL_API_KEY"'),
    ("mistral", "mistral-large-latest", 'api_key_env = "MINE"'),
    ("", "", "options = {my_own_field = 1}"),
]


def manifest_of(model: tuple[str, str, str]) -> str:
    """Return the lines of a model: its provider, its name, and more."""
    provider, name, more = model
    return f'provider = "{provider}"\nremote_model = "{name}"\n{more}' if provider else more


@pytest.mark.parametrize(("model", "says"), REFUSED)
def test_it_warns_of_what_a_provider_refuses(
    desk: Desk, model: tuple[str, str, str], says: str
) -> None:
    """The first request would fail, or what was misspelt would do nothing."""
    (warning,) = warnings_of(desk, manifest_of(model))
    assert says in warning


@pytest.mark.parametrize("model", GOOD)
def test_it_warns_of_nothing_else(desk: Desk, model: tuple[str, str, str]) -> None:
    """What is right, or unknown, is left alone."""
    assert warnings_of(desk, manifest_of(model)) == []


@pytest.mark.parametrize(
    ("provider", "name", "home"),
    [
        ("deepseek", "gpt-5", "openai"),
        ("deepseek", "claude-opus-4-5", "anthropic"),
        ("anthropic", "gpt-5", "openai"),
        ("openai", "deepseek-chat", "deepseek"),
    ],
)
def test_a_model_of_another_provider_is_seen(
    desk: Desk, provider: str, name: str, home: str
) -> None:
    """Whoever changes the provider alone is told whose model it is."""
    (warning,) = warnings_of(desk, f'provider = "{provider}"\nremote_model = "{name}"')
    assert warning.startswith(f"model.remote_model: nothing is published about {name!r} at api.")
    assert f", but {home} has it; it has " in warning


def test_a_key_of_another_provider_is_seen(desk: Desk) -> None:
    """It would be sent to somebody who should not have it."""
    (warning,) = warnings_of(
        desk,
        'provider = "deepseek"\nremote_model = "deepseek-chat"\napi_key_env = "MY_OPENAI_KEY"',
    )
    assert warning == (
        "model.api_key_env: $MY_OPENAI_KEY sounds like the key of openai, and is sent to "
        "api.deepseek.com; name another variable"
    )


def test_it_says_whether_the_key_is_there(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """And who says how large the window is."""
    desk.write(a_toml='privacy = "Standard"\n[model]\nremote_model = "gpt-5"')
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    out = desk.call("check", "a.toml").out
    assert "  sends    $OPENAI_API_KEY to api.openai.com (not set in this environment)\n" in out
    assert "  window   400,000 tokens, as published; no limit for one answer\n" in out
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-nobody")
    assert "$OPENAI_API_KEY to api.openai.com\n" in desk.call("check", "a.toml").out
    desk.write(b_toml='privacy = "Standard"\n[model]\nremote_model = "m"')
    assert "  window   unknown; context_window sets it; " in desk.call("check", "b.toml").out


def test_its_json_has_models_keys_and_facts(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """For programs, with the fallback; never a key itself."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-nobody")
    desk.write(
        a_toml='privacy = "Standard"\n[model]\nremote_model = "gpt-5"\n[model.fallback]\n'
        'base_url = "http://127.0.0.1:8080/v1"\nremote_model = "m"'
    )
    done = desk.call("check", "--json", "a.toml")
    first, second = json.loads(done.out)["models"]
    assert (first["name"], first["at"]) == ("gpt-5", "https://api.openai.com/v1")
    assert first["key"] == {"variable": "OPENAI_API_KEY", "set": True}
    assert first["facts"]["context_window"] == 400_000
    assert first["facts"]["inputs"] == ["image", "text"]
    assert first["facts"]["price"]["input_usd_per_million"] == 1.25
    assert second == {"name": "m", "at": "http://127.0.0.1:8080/v1", "key": None, "facts": None}
    assert "sk-of-nobody" not in done.out


def test_its_json_says_of_a_local_model_that_it_is_nowhere_else(desk: Desk) -> None:
    """It has no address, and so no key: a program must not take that for a missing one."""
    desk.write(a_toml='privacy = "Sovereign"\n[model]\nmodel_path = "small.gguf"')
    (only,) = json.loads(desk.call("check", "--json", "a.toml").out)["models"]
    assert (only["at"], only["key"], only["facts"]) == (None, None, None)


@pytest.mark.parametrize(
    ("provider", "name"), [("openai", "ft:gpt-4o:me::1"), ("openrouter", "openai/gpt-5:floor")]
)
def test_a_name_with_a_tag_is_no_wrong_one(desk: Desk, provider: str, name: str) -> None:
    """A model that was trained there is in no table, nor is each way to choose one."""
    text = f'privacy = "Standard"\n[model]\nprovider = "{provider}"\nremote_model = "{name}"'
    desk.write(a_toml=text)
    assert "nothing is published" not in desk.call("check", "a.toml").err
