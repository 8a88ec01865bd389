"""The main loop of a node: it takes orders, does the work, and ends when its program is gone.

Rules:

1. Trio runs in its own thread. Calls from other threads only bring bytes, or wait for bytes.
2. Orders are carried out in the order in which they were given, so work that was cancelled before
   it began never begins.
3. For every piece of work that began, exactly one `Done` is sent, when the work has ended
   completely.
4. The lease follows the rules in ``_lease``.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time  # noqa: TID251  # threads look at the lease that have no trio
from collections.abc import Callable, Mapping
from typing import Final, assert_never, cast, final

import trio

from agentpool._block_errors import is_cancellation
from agentpool._version import __version__
from agentpool.cluster._errors import NodeLostError
from agentpool.cluster._far_context import Caller
from agentpool.cluster._lease import Lease, Phase
from agentpool.cluster._mailbox import Mailbox
from agentpool.cluster._node_checks import Here, Terms, faults
from agentpool.cluster._node_messages import Begin, CloseKit, Done, End, Greeting, Order, Reply
from agentpool.cluster._node_work import Bench
from agentpool.cluster._portable import portable, unpack
from agentpool.observe._redact import secrets_of_environment, without_keys

_now: Final = time.monotonic
"""The lease's clock, which threads without trio can read as well."""


@final
class _Fence(trio.abc.Instrument):
    """Stops all tasks from running once the lease has ended."""

    def __init__(self, lease: Lease, end: Callable[[], None]) -> None:
        self._lease = lease
        self._end = end

    def before_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002  # as in trio
        """Stop the task if the lease has ended."""
        if self._lease.phase(_now()) is Phase.END:
            self._end()


@final
class NodeHost:
    """Does the work of one program on one node."""

    def __init__(
        self,
        node: str,
        terms: Terms,
        *,
        ray: str,
        environ: Mapping[str, str],
        end_process: Callable[[], None] | None = None,
    ) -> None:
        """Start the node's loop.

        Args:
            node: The node's name.
            terms: What the program requires.
            ray: The version of Ray on this node. Empty: Ray is not used.
            environ: The environment with the API keys.
            end_process: Ends the whole process immediately when the lease has ended. ``None``: the
                node is a thread, so only its loop ends.
        """
        self.node = node
        self._terms = terms
        self._ray = ray
        self._environ = environ
        self._end_process = end_process or self.stop
        self._lease = Lease(terms.lease_seconds)
        self._said, self._said_at = 0, 0.0
        self._mailbox = Mailbox(node)
        self._calls: dict[int, Caller] = {}
        self._ready = threading.Event()
        self._greeted = threading.Event()
        self._over = threading.Event()
        self._greeting = Greeting((f"node {node} did not begin",), None)
        self._token: trio.lowlevel.TrioToken | None = None
        self._scope = trio.CancelScope()
        self._thread = threading.Thread(target=self._run, name=f"node {node}", daemon=True)
        self._thread.start()
        self._watch = threading.Thread(target=self._keep_lease, name="lease", daemon=True)
        self._watch.start()

    # --- called from outside, by threads

    def hello(self) -> Greeting:
        """Once the loop runs, return what is missing on this node, and its tools."""
        self._ready.wait()
        self._lease.begin(_now())
        self._said_at = self._lease.renewed_at
        self._greeted.set()
        return self._greeting

    def push(self, batch: bytes) -> bool:
        """Take orders. Return whether they will be carried out."""
        if self._token is None or self._over.is_set():
            return False
        try:
            self._token.run_sync_soon(self._take, batch)
        except trio.RunFinishedError:
            return False
        return True

    def poll(self, heard: int, seconds: float) -> bytes | None:
        """Return the news, waiting at most *seconds*. ``None``: the node has ended.

        Args:
            heard: How many answers to ``poll`` the program has received.
            seconds: How long to wait.
        """
        said_at = self._said_at if heard == self._said else self._lease.renewed_at
        self._lease.renew(said_at, _now())
        news = self._mailbox.take(seconds)
        self._said, self._said_at = heard + 1, _now()
        return news

    def stop(self) -> None:
        """End all work and the loop, without waiting for their end."""
        self._close()
        if self._token is not None:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._scope.cancel)

    def _close(self) -> None:
        """Wake all threads that wait for the loop."""
        self._over.set()
        self._greeted.set()
        self._mailbox.close()

    # --- the lease

    def _keep_lease(self) -> None:
        """Cancel all work when the lease nears its end. End the process when the lease is over."""
        self._greeted.wait(self._terms.start_seconds)
        self._lease.begin(_now())
        for phase, act in ((Phase.CANCEL, self._cancel_all), (Phase.END, self._end_process)):
            while (seconds := self._lease.seconds_to(phase, _now())) > 0:
                if self._over.wait(seconds):
                    return
            act()

    def _cancel_all(self) -> None:
        if self._token is not None:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._end_calls)

    def _end_calls(self) -> None:
        for caller in self._calls.values():
            caller.scope.cancel()

    # --- the loop

    def _run(self) -> None:
        try:
            trio.run(self._main, instruments=[_Fence(self._lease, self._end_process)])
        finally:
            self._close()
            self._ready.set()

    async def _main(self) -> None:
        with self._scope:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                here = Here(
                    agentpool=__version__,
                    python=(sys.version_info.major, sys.version_info.minor),
                    ray=self._ray,
                )
                self._bench = Bench(self.node, nursery, self._terms)
                self._bench.key_names.update(self._terms.keys)
                wrong = (
                    *faults(self._terms, here, self._environ), *self._bench.look_for_names(),
                )  # fmt: skip
                wrong = tuple(map(self._hide, wrong))
                self._greeting = Greeting(wrong, None if wrong else self._bench.shared_tools())
                self._token = trio.lowlevel.current_trio_token()
                self._ready.set()
                await trio.sleep_forever()

    def _hide(self, text: str) -> str:
        """Return *text* without this node's API keys."""
        named = (self._environ.get(name, "") for name in self._bench.key_names)
        return without_keys(text, (*named, *secrets_of_environment(self._environ)))

    def _take(self, batch: bytes) -> None:
        for order in cast("list[Order]", unpack(batch)):
            match order:
                case Begin(call=call):
                    self._begin(order)
                case End(call=call):
                    if (caller := self._calls.get(call)) is not None:
                        caller.scope.cancel()
                case Reply(question=question):
                    self._bench.questions.answered(question, order.value, order.error)
                case CloseKit(kit=kit):
                    self._bench.close_kit(kit)
                case _:
                    assert_never(order)

    def _begin(self, begin: Begin) -> None:
        if self._lease.phase(_now()) is not Phase.WORK:
            late = NodeLostError(f"node {self.node} is about to end", node=self.node)
            self._mailbox.put(Done(begin.call, None, late))
            return
        deadline = None if begin.seconds_left is None else trio.current_time() + begin.seconds_left
        caller = Caller(begin.call, self._mailbox.put)
        if deadline is not None:
            caller.scope.deadline = deadline
        self._calls[begin.call] = caller
        self._nursery.start_soon(self._serve, begin, caller, name=type(begin.work).__name__)

    async def _serve(self, begin: Begin, caller: Caller) -> None:  # noqa: ASYNC910  # the work waits
        done = Done(begin.call, None, None, was_cancelled=True)
        caller.task = trio.lowlevel.current_task()
        try:
            with caller.scope:
                value = await self._bench.serve(begin.work, caller)
                done = Done(begin.call, value, None)
        except BaseException as error:  # noqa: ASYNC103  # SystemExit as well: one outcome for each; a cancellation is raised again
            if is_cancellation(error):
                raise
            done = Done(begin.call, None, portable(error, self.node, self._hide))
        finally:
            self._calls.pop(begin.call, None)
            self._mailbox.put(done)


def end_this_process() -> None:
    """End the process immediately, because the lease is over and no task may go on."""
    os._exit(75)
