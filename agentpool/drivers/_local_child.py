"""The child process of a local model: it serves llama.cpp until its parent ends.

It runs as a script, so that it starts without importing the package: it only needs msgspec and
llama.cpp, and should take little memory beside the model. It reads one line of JSON from its input,
loads the model, writes one line of JSON with its address to its output, and serves until its input
ends.

Its input is a pipe whose other end only the parent holds, so the input ends when the parent ends,
in whatever way. A thread watches for that on every system. On Linux the kernel does, too: it sends
SIGIO when the pipe ends, which ends the process without Python's help. This is needed because
llama.cpp holds the interpreter's lock while it loads, so that no thread can run. (PR_SET_PDEATHSIG
would not do: it watches the thread that started the child, and trio starts processes from a thread
that ends when it has been idle for a while.)
"""

from __future__ import annotations

import contextlib
import importlib
import os
import select
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

# So that whoever reads the log can tell the parent's end from a crash.
PARENT_ENDED: Final = 0


class ChildConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The parent's settings, sent through a pipe because others can read command lines."""

    model_path: str
    """The GGUF file."""
    api_key: str
    """The key that every request must have."""
    context_window: int
    """Tokens per slot."""
    parallel: int
    """The number of slots: requests that run at the same time."""
    threads: int
    """The number of computing threads."""


class ChildReport(msgspec.Struct, frozen=True):
    """The child's report to the parent when it is ready."""

    address: str
    """The base URL of its server: ``http://127.0.0.1:43210``."""


class Pipes(msgspec.Struct, frozen=True, kw_only=True):
    """The pipes between parent and child."""

    input_fd: int = 0
    """The pipe with the configuration. It ends when the parent ends."""
    output_fd: int = 1
    """The pipe for the report."""
    log_fd: int = 2
    """The file for all other output."""


class Server(Protocol):
    """The part of llama.cpp's server that is used here."""

    @property
    def listening_address(self) -> str:
        """The base URL of the server."""
        ...


def serve(
    build_server: Callable[[ChildConfig], Server],
    *,
    pipes: Pipes,
    arm: Callable[[int], bool],
    leave: Callable[[int], object],
) -> None:
    """Serve until the parent closes the pipe.

    Args:
        build_server: Loads the model and listens. It may take long, and hold the interpreter's
            lock.
        pipes: The pipes to the parent.
        arm: Makes the kernel watch the input, if it can.
        leave: Ends the process immediately: nothing here needs cleaning up.
    """
    # llama.cpp may print what it likes: only the report goes to the parent's pipe.
    report_fd = os.dup(pipes.output_fd)
    os.dup2(pipes.log_fd, pipes.output_fd)
    config = msgspec.json.decode(_read_line(pipes.input_fd), type=ChildConfig)
    if arm(pipes.input_fd) and _has_ended(pipes.input_fd):
        leave(PARENT_ENDED)
    watcher = threading.Thread(target=_watch, args=(pipes.input_fd, leave), daemon=True)
    watcher.start()
    server = build_server(config)
    report = msgspec.json.encode(ChildReport(server.listening_address))
    with contextlib.suppress(OSError):  # the parent is gone, and soon so are we
        os.write(report_fd, report + b"\n")
    os.close(report_fd)
    watcher.join()


def arm_kernel(fd: int) -> bool:
    """Let the kernel end this process when the other end of the pipe *fd* is closed.

    Return whether this kernel can do that. Bytes that arrive later would end the process as well.
    """
    if sys.platform != "linux":
        return False
    import fcntl  # noqa: PLC0415  # not on every platform

    signal.signal(signal.SIGIO, signal.SIG_DFL)  # a parent that ignores it hands that on
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_ASYNC)
    return True


def _watch(fd: int, leave: Callable[[int], object]) -> None:
    with contextlib.suppress(OSError):
        os.read(fd, 1)
    leave(PARENT_ENDED)


def _has_ended(fd: int) -> bool:
    # An end that came before the kernel was armed sends no signal any more.
    readable, _, _ = select.select([fd], [], [], 0)
    return bool(readable)


def _read_line(fd: int) -> bytes:
    line = bytearray()
    while not line.endswith(b"\n"):
        piece = os.read(fd, 1)
        if not piece:
            break
        line += piece
    return bytes(line)


def build_llama_server(config: ChildConfig) -> Server:
    """Load the model with llama.cpp and listen on a free port of this machine."""
    # Not an import statement: it has no types, and a checker may not have it at all.
    llama = importlib.import_module("xllamacpp")
    params = llama.CommonParams()
    params.model.path = config.model_path
    params.model_alias = {Path(config.model_path).name}
    # 0: the system picks a port that is free, and the server says which.
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [config.api_key]
    params.n_parallel = config.parallel
    params.n_ctx = config.context_window * config.parallel
    params.cpuparams.n_threads = config.threads
    params.cpuparams_batch.n_threads = config.threads
    params.endpoint_slots = True
    params.endpoint_props = True
    params.ui = False
    server: Server = llama.Server(params)
    return server


if __name__ == "__main__":
    serve(build_llama_server, pipes=Pipes(), arm=arm_kernel, leave=os._exit)
