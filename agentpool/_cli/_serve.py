"""``agentpool serve``: offers agents to other programs over MCP.

Rules:

1. Standard output belongs to the messages; everything else goes to standard error.
2. The command ends when its client ends and so closes standard input. It also ends at a signal, and
   then ends the running agents.
3. Over HTTP, the command listens only on a loopback address of this machine. It asks for no
   password, so everyone who can reach that address can use its agents.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import sys
from collections import deque
from collections.abc import Sequence
from importlib import import_module, metadata
from typing import Final, final

import attrs
import trio

from agentpool import AgentManifest, AgentPoolError, AgentStatus, UsageError, as_bystander
from agentpool._cli._budget_file import BudgetFile
from agentpool._cli._command import Address, ServeCommand
from agentpool._cli._interrupt import Interruption, watch_signals
from agentpool._cli._manifests import load_all
from agentpool._cli._mcp_tools import ProgressDesk, build_offers
from agentpool._cli._pool import open_command_pool
from agentpool._cli._report import ExitCode, error_lines
from agentpool.abc import AgentId, Event, Observer
from agentpool.live import listen
from agentpool.observe import AgentFinished, AgentStarted, AgentWarned, RequestRetried
from agentpool.tools import printable

LAST_WORDS_SECONDS: Final = 10
"""The time for the last lines of the log. A machine under load needs more than a second."""

_MAX_LINES: Final = 1000
"""The most lines that wait to be written. Clients often do not read standard error."""

_SHOWN_BYTES: Final = 60
"""The most bytes shown of a line that is not a message."""


@final
@attrs.define(eq=False)
class ServeLog(Observer):
    """The lines on standard error while agents are offered."""

    quiet: bool
    _started: dict[AgentId, float] = attrs.field(factory=dict[AgentId, float])
    _lines: deque[str] = attrs.field(factory=lambda: deque[str](maxlen=_MAX_LINES))
    _news: trio.Event = attrs.field(factory=trio.Event)
    _ended: bool = False

    def on_event(self, event: Event) -> None:
        """Record *event*."""
        match event:
            case AgentStarted():
                self._started[event.agent_id] = event.at_seconds
                self.say(f"{event.agent_name} started")
            case AgentFinished(outcome=outcome):
                since = self._started.pop(event.agent_id, event.at_seconds)
                why = ""
                if outcome.error is not None and outcome.status is not AgentStatus.CANCELLED:
                    why = f": {type(outcome.error).__name__}"
                how = f"{outcome.status.value} after {event.at_seconds - since:.1f} s"
                self.say(f"{event.agent_name} {how}{why}")
            case RequestRetried():
                self.say(f"{event.agent_name} asks again in {event.delay_seconds:.1f} s")
            case AgentWarned(text=text):
                self.say(f"{event.agent_name}: {text}")
            case _:
                pass

    def say(self, text: str, *, notable: bool = False) -> None:
        """Queue a line to be written."""
        if notable or not self.quiet:
            self._lines.append(f"agentpool: {printable(text)}\n")
            self._news.set()

    async def warn(self, text: str) -> None:
        """Queue a warning."""
        await trio.lowlevel.checkpoint()
        self.say(f"warning: {text}")

    async def note(self, text: str) -> None:
        """Queue a line that must be written even with ``--quiet``."""
        await trio.lowlevel.checkpoint()
        self.say(text, notable=True)

    def garbage(self, line: bytes) -> None:
        """Report a received line that is not a message."""
        text = line[:_SHOWN_BYTES].decode(errors="replace")
        self.say(f"a line that is not an MCP message was ignored: {text!r}", notable=True)

    async def write(self) -> None:  # noqa: ASYNC910  # an ended log has nothing to wait for
        """Write lines as they come, until the log is ended and all are written.

        Cancellation:
            If the reader blocks, the rest of the lines may be lost.
        """
        while self._lines or not self._ended:
            await self._news.wait()
            self._news = trio.Event()
            text = "".join(self._lines)
            self._lines.clear()
            await trio.to_thread.run_sync(_write_err, text, abandon_on_cancel=True)

    def end(self) -> None:
        """Make :meth:`write` return when it has written all queued lines."""
        self._ended = True
        self._news.set()


def _write_err(text: str) -> None:
    # There is no place left to say that this cannot be written.
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(text)
        sys.stderr.flush()


def serve(command: ServeCommand) -> int:
    """Run *command* and return the exit code.

    Raises:
        UsageError: If a package that the command needs is not installed, or the address cannot be
            used.
        ManifestError: If a manifest is wrong.
    """
    manifests = load_all(command.manifests, command.options.override)
    try:
        import_module("agentpool._cli._mcp_server")
    except ImportError as exc:
        raise UsageError(
            f"serve needs the packages mcp and hypercorn ({exc}); "
            "run: pip install 'trio-agentpool[mcp]'"
        ) from exc
    listener = None if command.http is None else _listen(command.http)
    return trio.run(_main, command, manifests, listener)


def _listen(address: Address) -> socket.socket:
    host, port = address
    if not ipaddress.ip_address(host).is_loopback:
        raise UsageError(
            f"--http must be a loopback address such as 127.0.0.1:{port}, got "
            f"{host!r}; to reach it from elsewhere, put a proxy with a password in front of it"
        )
    return listen(host, port)


async def _main(
    command: ServeCommand, manifests: Sequence[AgentManifest], listener: socket.socket | None
) -> int:
    interruption = Interruption()
    log = ServeLog(command.options.quiet)
    async with trio.open_nursery() as nursery:
        with as_bystander():
            nursery.start_soon(log.write)
        code = await _serve_until_told(command, manifests, listener, log, interruption)
        if interruption.reason is not None:
            log.say(f"ended: {interruption.reason}")
            code = ExitCode.INTERRUPTED
        log.end()
        nursery.cancel_scope.deadline = trio.current_time() + LAST_WORDS_SECONDS
    return code


async def _serve_until_told(
    command: ServeCommand,
    manifests: Sequence[AgentManifest],
    listener: socket.socket | None,
    log: ServeLog,
    interruption: Interruption,
) -> ExitCode:
    code = ExitCode.COMPLETED
    async with trio.open_nursery() as nursery:
        await nursery.start(watch_signals, interruption)
        try:
            with interruption.scope:
                await _serve(command, manifests, listener, log)
        except AgentPoolError as error:
            code = ExitCode.WRONG
            for line in error_lines(error):
                log.say(line.removeprefix("agentpool: "), notable=True)
        nursery.cancel_scope.cancel()
    return code


async def _serve(
    command: ServeCommand,
    manifests: Sequence[AgentManifest],
    listener: socket.socket | None,
    log: ServeLog,
) -> None:
    from agentpool._cli import _mcp_server as door  # noqa: PLC0415  # the extra is optional

    options, offers, desk = command.options, build_offers(manifests), ProgressDesk()
    approvals = options.new_desk()
    async with open_command_pool(
        manifests,
        options,
        budget_file=BudgetFile(options),
        gates=options.new_gates(),
        observers=(log, desk),
        warn=log.warn,
        approve=None if approvals is None else approvals.ask,
        desk=approvals,
        say=log.note,
    ) as pool:
        offered = door.PoolServer(pool, offers, desk, options)
        server = offered.build(metadata.version("trio-agentpool"))
        words = f"serving {', '.join(offers)}"
        if listener is None:
            with door.claim_pipes() as (read_fd, write_fd):
                log.say(f"{words} over standard input and output")
                await door.serve_pipes(server, read_fd, write_fd, note=log.garbage)
        else:
            host, port, *_ = listener.getsockname()
            place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            log.say(f"{words} at http://{place}/mcp")
            await door.serve_http(server, listener, wait_end=trio.sleep_forever)
