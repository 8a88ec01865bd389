"""How a model is asked: what may be said of it in a manifest, and what may not."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from agentpool import AgentManifest, ManifestError, ModelConfig

REMOTE = "privacy = 'Standard'\n[model]\nremote_model = 'm'\n"


def faults_of(text: str) -> dict[str, str]:
    """Return the faults of a manifest by their paths."""
    with pytest.raises(ManifestError) as caught:
        AgentManifest.parse(text)
    return {fault.path: fault.text for fault in caught.value.faults}


def test_everything_may_be_said() -> None:
    """Each setting, and fields that have none."""
    manifest = AgentManifest.parse(
        REMOTE
        + """
        max_tokens = 64000
        temperature = 1
        top_p = 0.9
        stop = ["END", "STOP"]
        seed = -7
        reasoning_effort = "xhigh"
        verbosity = "low"
        api = "chat"
        max_tokens_field = "max_completion_tokens"
        cache = false
        [model.options]
        service_tier = "flex"
        reasoning = { summary = "auto" }
        [model.fallback]
        remote_model = "n"
        api = "chat"
        [model.fallback.options]
        min_p = 0.1
        """
    )
    asked: dict[str, Any] = {
        "max_tokens": 64_000,
        "temperature": 1.0,
        "top_p": 0.9,
        "stop": ("END", "STOP"),
        "seed": -7,
        "reasoning_effort": "xhigh",
        "verbosity": "low",
    }
    model = ModelConfig(
        remote_model="m",
        api="chat",
        max_tokens_field="max_completion_tokens",
        cache=False,
        options={"service_tier": "flex", "reasoning": {"summary": "auto"}},
        fallback=ModelConfig(remote_model="n", api="chat", options={"min_p": 0.1}, **asked),
        **asked,
    )
    assert manifest.model == model
    assert hash(model) == hash(pickle.loads(pickle.dumps(model)))


@pytest.mark.parametrize(
    ("line", "path", "text"),
    [
        ("top_p = 1.5", "top_p", "must be in [0.0, 1.0], got 1.5"),
        ("stop = 'END'", "stop", "must be an array of strings, got 'END'"),
        ("stop = ['']", "stop", "must be texts, none of them empty, got ('',)"),
        ("stop = " + str(["x"] * 17), "stop", "must be at most 16 texts, got 17"),
        ("seed = 1.5", "seed", "must be an integer, got 1.5"),
        ("reasoning_effort = ' '", "reasoning_effort", "must not be empty, got ' '; leave it out"),
        ("verbosity = ''", "verbosity", "must not be empty, got ''; leave it out"),
        ("api = 'rest'", "api", "must be one of 'chat', 'responses', got 'rest'"),
        ("options = 1", "options", "must be a table, got 1; write [model.options]"),
        (
            "options = { max_tokens = 5 }",
            "options.max_tokens",
            "is written by agentpool; write model.max_tokens",
        ),
        (
            "options = { reasoning = { effort = 'low' } }",
            "options.reasoning.effort",
            "is written by agentpool; write model.reasoning_effort",
        ),
        ("options = { at = 2026-01-01 }", "options.at", "must be JSON, got "),
        ("options = { at = [{ a = 10:00:00 }] }", "options.at", "must be JSON, got an array"),
    ],
)
def test_each_slip_is_named(line: str, path: str, text: str) -> None:
    """With what to do about it."""
    faults = faults_of(REMOTE + line)
    assert list(faults) == [f"model.{path}"]
    assert faults[f"model.{path}"].startswith(text)


@pytest.mark.parametrize("line", ["api = 'chat'", "max_tokens_field = 'max_tokens'"])
def test_a_local_model_has_no_interface_to_choose(line: str) -> None:
    """It has one."""
    name = line.split(maxsplit=1)[0]
    assert faults_of(f"[model]\n{line}") == {f"model.{name}": "means nothing without remote_model"}


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ({"seed": True}, "seed: must be an integer, got true"),
        ({"stop": ["a"]}, r"stop: must be texts, none of them empty, got \['a'\]"),
        ({"options": {"x": object()}}, "options.x: must be JSON"),
        ({"options": {"x": {1: 2}}}, "options.x: must be JSON"),
    ],
)
def test_code_is_held_to_the_same(setting: dict[str, Any], text: str) -> None:
    """Type checkers are optional."""
    with pytest.raises(ManifestError, match=text):
        ModelConfig(**setting)


@pytest.mark.parametrize(("max_tokens", "is_refused"), [(4096, True), (4097, False)])
def test_thoughts_may_not_take_all_of_an_answer(max_tokens: int, *, is_refused: bool) -> None:
    """The provider refuses it with the first request."""
    options = {"thinking": {"type": "enabled", "budget_tokens": 4096}}
    model = {"remote_model": "m", "provider": "anthropic", "max_tokens": max_tokens}
    if not is_refused:
        ModelConfig(**model, options=options)  # type: ignore[arg-type]  # as they are
        return
    says = r"max_tokens: must be more than options\.thinking\.budget_tokens \(4096\), got 4096"
    with pytest.raises(ManifestError, match=says):
        ModelConfig(**model, options=options)  # type: ignore[arg-type]  # as they are


MESSAGES = "is not known to the Messages API; leave it out"
RESPONSES = (
    "is not known to the Responses API, which OpenAI requires for reasoning_effort with tools; "
    "leave it out, "
    'or write api = "chat"'
)
CLAUDE = {"remote_model": "c", "provider": "anthropic"}


@pytest.mark.parametrize(
    ("settings", "faults"),
    [
        ({**CLAUDE, "seed": 3}, {"seed": MESSAGES}),
        ({**CLAUDE, "verbosity": "low"}, {"verbosity": MESSAGES}),
        ({**CLAUDE, "stop": ("x",), "reasoning_effort": "low"}, {}),
        (
            {"remote_model": "m", "stop": ("x",), "seed": 0, "reasoning_effort": "high"},
            {"stop": RESPONSES, "seed": RESPONSES},
        ),
        ({"remote_model": "m", "stop": ("x",), "reasoning_effort": "none"}, {}),
        ({"remote_model": "m", "seed": 3}, {}),
        ({"remote_model": "m", "seed": 3, "reasoning_effort": "high", "api": "chat"}, {}),
        (
            {"remote_model": "m", "seed": 3, "api": "responses", "base_url": "https://x.example"},
            {"seed": 'is not known to the Responses API; leave it out, or write api = "chat"'},
        ),
        ({"remote_model": "m", "provider": "groq", "seed": 3, "reasoning_effort": "high"}, {}),
        ({"remote_model": "m", "provider": "nobody", "seed": 3}, {"provider": "must be one of "}),
        (
            {"remote_model": "m", "seed": 3, "fallback": ModelConfig(**CLAUDE)},  # type: ignore[arg-type]  # texts alone
            {"fallback.seed": MESSAGES},
        ),
        (
            {**CLAUDE, "options": {"thinking": "on", "output_config": True, "cache_control": 1}},
            {
                "options.thinking": "must be a table, got 'on'; write [model.options.thinking]",
                "options.output_config": "must be a table, got true; write [model.opt",
                "options.cache_control": "must be a table, got 1; write [model.options",
            },
        ),
        (
            {"remote_model": "m", "options": {"reasoning": "high", "text": 1, "include": "x"}},
            {
                "options.reasoning": "must be a table, got 'high'; write [model.options.reas",
                "options.text": "must be a table, got 1; write [model.options.text]",
                "options.include": "must be a list of texts, got 'x'",
            },
        ),
        (
            {"remote_model": "m", "options": {"include": ["x", 1]}},
            {"options.include": "must be a list of texts, got an array"},
        ),
        ({"remote_model": "m", "options": {"include": ["x"], "reasoning": {}, "text": {}}}, {}),
        ({"remote_model": "m", "provider": "zai", "options": {"reasoning": "high"}}, {}),
    ],
)
def test_what_the_wire_does_not_know_is_refused_at_once(
    settings: dict[str, Any], faults: dict[str, str]
) -> None:
    """And not with each request; nothing is left out in silence."""
    try:
        ModelConfig(**settings)
        found: dict[str, str] = {}
    except ManifestError as error:
        found = {fault.path: fault.text for fault in error.faults}
    assert {path: found[path][: len(text)] for path, text in faults.items()} == faults
    assert found.keys() == faults.keys()
