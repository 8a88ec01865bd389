"""A model on this machine: llama.cpp in a child process, asked over HTTP.

It runs in a process because llama.cpp holds the interpreter's lock while it loads, may crash, and
must never outlive its driver. It is asked over HTTP because every other model is, and because
closing a connection stops a running answer.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, final

import attrs
import msgspec
import trio

from agentpool._base import Unique
from agentpool._checks import expect_arguments
from agentpool._child_process import end_group, ending
from agentpool._environ import LIBRARIES, build_environ
from agentpool._errors import DriverError, NetworkError, ProtocolError, UsageError
from agentpool._manifest.capability import PrivacyTier
from agentpool._messages import Completion, CompletionRequest, Json, Usage, answer_tokens
from agentpool._opening import opening
from agentpool._surrogates import request_without_halves
from agentpool.abc import Driver, OnDelta
from agentpool.drivers import _local_child
from agentpool.drivers._hosted import Exchange, check_options, stream_completion
from agentpool.drivers._http import HttpClient, open_http
from agentpool.drivers._local_child import ChildConfig, ChildReport
from agentpool.drivers._local_weights import check_engine, check_weights, find_packaged_weights
from agentpool.drivers.wire._attachments import check_attachments
from agentpool.drivers.wire._chat_answer import ChatAccumulator
from agentpool.drivers.wire._chat_request import ChatOptions, encode_request
from agentpool.drivers.wire._failure import shown
from agentpool.drivers.wire._local_chat import read_answer, shape_prompt

# The window that SmolLM2 was trained with; four slots of it take 340 MB.
DEFAULT_CONTEXT_WINDOW: Final = 8192

# The packaged model calls tools for ever if it may; larger ones see when they are done.
_PACKAGED_TOOL_ROUNDS: Final = 1

# After SIGTERM llama.cpp is gone in 0.03 s; if it hangs, it is killed.
_GRACE_SECONDS: Final = 1.0

# The kernel closes a dying process's sockets first; the rest takes milliseconds.
_DYING_SECONDS: Final = 0.2

# Which parts of the machine llama.cpp computes on, besides what any child needs.
_COMPUTING: Final = LIBRARIES | {
    "CUDA_VISIBLE_DEVICES", "GGML_VK_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES",
    "OMP_NUM_THREADS", "ROCR_VISIBLE_DEVICES",
}  # fmt: skip

# What a person needs of llama.cpp's log; the rest is dropped before it fills a disk.
_SHOWN_LOG_BYTES: Final = 2000
_MAX_LOG_BYTES: Final = 256 * 1024

# A line of its log has the seconds, a letter for how grave it is, and the words.
_ERROR_LINE: Final = re.compile(r"^[\d.]+ E (.*)$", re.MULTILINE)

_MAX_REPORT_BYTES: Final = 4096


@final
@attrs.define(eq=False, repr=False)
class _Child:
    """The child process with its log."""

    _process: trio.Process
    _stdin: trio.abc.SendStream
    _stdout: trio.abc.ReceiveStream
    _log: BinaryIO

    def died_text(self, *, errors_alone: bool = False) -> str | None:
        """Describe how the process ended, with its last output. ``None``: it still runs."""
        code = self._process.poll()
        if code is None:
            return None
        output = self._tail(errors_alone=errors_alone)
        return f"the local model's process ended ({ending(code)}); its last output: {output!r}"

    async def wait_died(self) -> str | None:
        """Describe how the process ended, if it ends within a moment. ``None``: it still runs."""
        # Its connections break a moment before the system says that it has ended.
        with trio.move_on_after(_DYING_SECONDS):
            await self._process.wait()
        return self.died_text()

    def trim_log(self) -> None:
        """Empty the log if it has grown large. Parent and child share its file position."""
        if os.fstat(self._log.fileno()).st_size > _MAX_LOG_BYTES:
            self._log.truncate(0)
            self._log.seek(0)

    async def wait_ready(self, config: ChildConfig) -> ChildReport:
        """Tell the child which model to serve, and wait until it serves it."""
        line = b""
        with contextlib.suppress(trio.BrokenResourceError):
            await self._stdin.send_all(msgspec.json.encode(config) + b"\n")
            while not line.endswith(b"\n") and len(line) < _MAX_REPORT_BYTES:
                piece = await self._stdout.receive_some()
                if not piece:
                    break
                line += piece
        with contextlib.suppress(msgspec.DecodeError):
            return msgspec.json.decode(line, type=ChildReport)  # noqa: ASYNC910  # it came over a pipe
        with trio.move_on_after(_GRACE_SECONDS):
            await self._process.wait()
        why = (
            self.died_text(errors_alone=True) or f"it says {shown(line.decode(errors='replace'))!r}"
        )
        msg = f"the model {config.model_path!r} could not be loaded: {why}"
        raise DriverError(msg)

    async def stop(self) -> None:
        """End the process, by force if necessary."""
        with trio.CancelScope(shield=True):
            await end_group(self._process, _GRACE_SECONDS)
            await trio.aclose_forcefully(self._stdin)
            await trio.aclose_forcefully(self._stdout)

    def _tail(self, *, errors_alone: bool) -> str:
        size = os.fstat(self._log.fileno()).st_size
        self._log.seek(max(0, size - _SHOWN_LOG_BYTES))
        text = self._log.read(_SHOWN_LOG_BYTES).decode(errors="replace")
        # While it loads, an error is why it ended; the rest is chatter. It says some twice.
        if errors_alone:
            text = "\n".join(dict.fromkeys(_ERROR_LINE.findall(text))) or text
        return " ".join(text.split()) or "nothing"


@final
@attrs.frozen(kw_only=True)
class LocalSettings:
    """The arguments that a driver was opened with, and what the server reports."""

    model_path: Path
    """The file with the weights."""
    context_window: int
    """The most tokens of one request and its answer, as the server reports it."""
    seed: int | None
    """The seed for random choices. ``None``: a new one each time."""
    tool_rounds: int | None
    """How many rounds of calls it gets before it must answer in words. ``None``: no limit."""
    options: Mapping[str, Json]
    """Other fields of each request's body."""


@final
@attrs.define(eq=False, repr=False)
class LocalDriver(Unique, Driver):
    """A model on this machine. Opened by ``open_local``."""

    _client: HttpClient
    _child: _Child
    _slots: trio.CapacityLimiter
    _settings: LocalSettings
    _requests: int = attrs.field(init=False, default=0)

    def _repr_words(self) -> str:
        return repr(self.model_path.name)

    @property
    def model_path(self) -> Path:
        """The file with the weights."""
        return self._settings.model_path

    @property
    def context_window(self) -> int:
        """The window of one request, as the server reports it."""
        return self._settings.context_window

    @property
    def max_output_tokens(self) -> int:
        """The whole window: a local model may write until it is full."""
        return self._settings.context_window

    @property
    def inputs(self) -> frozenset[str]:
        """Empty: it reads text only."""
        return frozenset()

    @property
    def privacy(self) -> PrivacyTier:
        """Sovereign: nothing leaves this machine."""
        return PrivacyTier.SOVEREIGN

    def price(self, usage: Usage, *, model: str | None = None) -> float | None:  # noqa: ARG002  # free at any size
        """Return 0.0: a local model only costs time."""
        return 0.0

    async def complete(
        self, request: CompletionRequest, *, on_delta: OnDelta | None = None
    ) -> Completion:
        """Ask the model, after waiting for one of its parallel slots.

        If tools may be called, the text comes in one piece at the end, since the answer could also
        be a call.

        Raises:
            BadRequestError: If it has images or documents.
            ContextOverflowError: If the request does not fit the window.
            NetworkError: If the model's process died. The error has its last output.
            DriverError: For any other failure, as a different subclass.

        Cancellation:
            The model stops, and its slot becomes free.
        """
        check_attachments(request, self.inputs)
        self._requests += 1
        call_id = f"local-{self._requests}"
        prompt = shape_prompt(request, tool_rounds=self._settings.tool_rounds)
        form = prompt.response_format
        options = ChatOptions(
            model=self._settings.model_path.name,
            response_format=form,
            seed=self._settings.seed,
            # Work that is reused was done in other batches, with other rounding.
            cache_prompt=None if self._settings.seed is None else False,
            extra=self._settings.options,
        )
        # Without a limit a small model may write until its window is full.
        most = answer_tokens(request.max_tokens, self._settings.context_window)
        asked = msgspec.structs.replace(prompt.request, max_tokens=most)
        try:
            body = encode_request(asked, options)
        except UnicodeEncodeError:
            body = encode_request(request_without_halves(asked), options)
        begin_answer = partial(ChatAccumulator, call_id_prefix=call_id)
        async with self._slots:
            self._child.trim_log()
            exchange = Exchange(path="/chat/completions", body=body, begin_answer=begin_answer)
            completion = await self._stream(exchange, None if form else on_delta)
        if form is None:
            return completion
        completion = read_answer(completion, call_id=call_id)
        if on_delta is not None and completion.text:
            on_delta(completion.text)
        return completion

    async def _stream(self, exchange: Exchange, on_delta: OnDelta | None) -> Completion:
        try:
            return await stream_completion(self._client, exchange, on_delta=on_delta)
        except NetworkError as exc:
            failure = exc
        died = await self._child.wait_died()
        if died is None:
            raise failure
        raise NetworkError(died, retryable=False) from failure


@opening("driver")
@contextlib.asynccontextmanager
async def open_local(
    model_path: str | os.PathLike[str] | None = None,
    *,
    context_window: int = DEFAULT_CONTEXT_WINDOW,
    parallel: int = 4,
    threads: int = 1,
    seed: int | None = None,
    tool_rounds: int | None = None,
    options: Mapping[str, Json] | None = None,
) -> AsyncGenerator[LocalDriver]:
    """Load a model on this machine, and unload it at the end of the block.

    Args:
        model_path: A GGUF file. ``None``: the packaged model.
        context_window: The most tokens of one request and its answer together.
        parallel: The most parallel requests; each takes memory for a window. Other requests wait.
        threads: The number of computing threads; more threads than free cores make it slower.
        seed: The seed for random choices. With a seed, the same request gets the same answer if it
            runs alone, and no work is reused between requests. ``None``: a new one each time.
        tool_rounds: How often in a row the model may call tools before it must answer in words.
            ``None``: once for the packaged model, without a limit for others.
        options: Other fields of each request to llama.cpp, such as ``top_k``.

    Raises:
        UsageError: If llama.cpp is missing, or a number or an option is invalid.
        UnknownModelError: If there is no such model. The error says what to install.
        DriverError: If the model cannot be loaded. The error has the output of llama.cpp.

    Cancellation:
        The process has ended.
    """
    expect_arguments(open_local, locals())
    _check_numbers(context_window=context_window, parallel=parallel, threads=threads)
    if tool_rounds is not None:
        _check_numbers(tool_rounds=tool_rounds)
    check_options(options or {})
    named = None if model_path is None else check_weights(model_path)
    check_engine()
    if named is None:
        tool_rounds = _PACKAGED_TOOL_ROUNDS if tool_rounds is None else tool_rounds
    path = named or find_packaged_weights()
    config = ChildConfig(
        model_path=str(path),
        api_key=secrets.token_urlsafe(),
        context_window=context_window,
        parallel=parallel,
        threads=threads,
    )
    settings = LocalSettings(
        model_path=path,
        context_window=context_window,
        seed=seed,
        tool_rounds=tool_rounds,
        options=options or {},
    )
    async with _open_checked(config, settings) as driver:
        yield driver


@contextlib.asynccontextmanager
async def _open_checked(
    config: ChildConfig, settings: LocalSettings
) -> AsyncGenerator[LocalDriver]:
    async with _open_child() as child:
        report = await child.wait_ready(config)
        headers = {"authorization": f"Bearer {config.api_key}"}
        async with open_http(report.address, headers=headers) as client:
            # The server may give less than it was asked for, such as what the model knows.
            found = attrs.evolve(settings, context_window=await _read_window(client))
            yield LocalDriver(client, child, trio.CapacityLimiter(config.parallel), found)


def _check_numbers(**numbers: int) -> None:
    for name, value in numbers.items():
        if value < 1:
            raise UsageError(f"{name} must be >= 1, got {value!r}")


@contextlib.asynccontextmanager
async def _open_child() -> AsyncGenerator[_Child]:
    with tempfile.TemporaryFile() as log:
        process = await trio.lowlevel.open_process(
            # -P: a file of the user's that is called like one of ours is not imported.
            [sys.executable, "-P", _local_child.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # A file and no pipe: the child can go on writing while it is not read.
            stderr=log,
            # Ctrl-C is for the parent, which may want to finish what it has.
            start_new_session=True,
            env=build_environ(os.environ, also=_COMPUTING),
        )
        assert process.stdin is not None  # noqa: S101  # opened with pipes
        assert process.stdout is not None  # noqa: S101
        child = _Child(process, process.stdin, process.stdout, log)
        try:
            yield child
        finally:
            await child.stop()  # noqa: ASYNC102  # it has its own shield and bound


class _Slot(msgspec.Struct):
    n_ctx: int


class _Props(msgspec.Struct):
    default_generation_settings: _Slot


async def _read_window(client: HttpClient) -> int:
    status, body = await client.get("/props")
    try:
        return msgspec.json.decode(body, type=_Props).default_generation_settings.n_ctx
    except msgspec.DecodeError as exc:
        came = shown(body.decode(errors="replace"))
        msg = f"llama.cpp answered {status} to /props with {came!r}"
        raise ProtocolError(msg, status_code=status) from exc
