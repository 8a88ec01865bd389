"""A driver whose requests are answered by a node."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Mapping
from typing import Final, cast, final

import attrs
import trio

from agentpool._attachments import Attachment, highest_tokens
from agentpool._errors import UsageError
from agentpool._manifest.capability import PrivacyTier
from agentpool._manifest.manifest import AgentManifest
from agentpool._messages import Completion, CompletionRequest, Usage
from agentpool._scheduling.owner import as_bystander
from agentpool._scheduling.watcher import watcher_now
from agentpool.abc import OnDelta, OnSent, SendingDriver
from agentpool.cluster._errors import NodeCheckError, NodeLostError
from agentpool.cluster._node_link import Link
from agentpool.cluster._node_messages import Ask, DriverFacts, Prepare
from agentpool.cluster._node_work import MILLION
from agentpool.cluster._nodes import Nodes

LATE_SECONDS: Final = 10.0
"""The time for a node to stop opening a model."""


@final
@attrs.define(eq=False, repr=False)
class FarDriver(SendingDriver):
    """Asks the driver that a node opens for one manifest."""

    _nodes: Nodes
    _manifest: AgentManifest
    _labels: Mapping[str, str]
    number: int
    """The driver's number on all nodes."""
    _facts: DriverFacts | None = None
    """What the first node reported about the driver. ``None``: no node has been asked yet."""

    @property
    def context_window(self) -> int | None:
        """The window that a node reported. Until a node has done so, the manifest's window."""
        own = self._manifest.model.context_window
        return own if self._facts is None else self._facts.context_window

    @property
    def max_output_tokens(self) -> int | None:
        """The maximum tokens of one answer. ``None``: unknown, or no node has been asked yet."""
        return None if self._facts is None else self._facts.max_output_tokens

    @property
    def inputs(self) -> frozenset[str] | None:
        """The inputs besides text. ``None``: unknown, or no node has been asked yet."""
        return None if self._facts is None else self._facts.inputs

    @property
    def most_input_tokens(self) -> int | None:
        """The most tokens of a request. ``None``: unknown, or no node has been asked yet."""
        return None if self._facts is None else self._facts.most_input_tokens

    @property
    def most_image_bytes(self) -> int | None:
        """The largest accepted image. ``None``: unknown, or no node has been asked yet."""
        return None if self._facts is None else self._facts.most_image_bytes

    @property
    def most_image_pixels(self) -> int | None:
        """The longest accepted side of an image. ``None``: unknown, or no node was asked so far."""
        return None if self._facts is None else self._facts.most_image_pixels

    def attachment_tokens(self, attachment: Attachment) -> int:
        """Return the estimate of the node's driver, or the highest until a node has been asked."""
        count = highest_tokens if self._facts is None else self._facts.count
        return count(attachment)

    @property
    def privacy(self) -> PrivacyTier:
        """The privacy tier of the nodes, or the tier of their driver if that is less strict.

        Until a node has reported its driver's tier, the tier of the nodes is used. Each node also
        checks its own driver against the manifest.
        """
        nodes = self._nodes.privacy
        driver = nodes if self._facts is None else self._facts.privacy
        return driver if driver.allows(nodes) else nodes

    def price(self, usage: Usage, *, model: str | None = None) -> float | None:  # noqa: ARG002  # a node prices answers
        """Return an estimate of the cost of *usage*, for the reservation."""
        facts = self._facts
        if facts is None or facts.input_usd is None or facts.output_usd is None:
            return None
        dollars = facts.input_usd * usage.input_tokens + facts.output_usd * usage.output_tokens
        return dollars / MILLION

    async def complete(
        self,
        request: CompletionRequest,
        *,
        on_delta: OnDelta | None = None,
        on_sent: OnSent | None = None,
    ) -> Completion:
        """Have a node answer *request*.

        Raises:
            NodeLostError: If the node is lost before it answers, or no node works and no node can
                join.
            NodeCheckError: If the node cannot open the driver.
            DriverError: Whatever the driver raised.

        Cancellation:
            The request ends on the node and at the provider as well.
        """
        while True:  # noqa: ASYNC913  # each round asks a node
            link = self._nodes.choose(self._labels, self.number)
            if link is None:
                link = await self._nodes.wait_for_one(self._labels, self.number)
            if (watcher := watcher_now()) is not None:
                watcher.placed(link.node)
            try:
                if self.number not in link.models:
                    link.waiting += 1  # or all would seem to be nowhere, and go the same way
                    try:
                        await self.open_on(link)
                    finally:
                        link.waiting -= 1
                work = Ask(self.number, request, streams=on_delta is not None)
                return cast("Completion", await link.do(work, hear=on_delta, on_sent=on_sent))
            except NodeLostError as error:
                # One that was not asked is no attempt: another one is asked.
                if error.was_sent:
                    raise

    def fits(self, link: Link) -> bool:
        """Return whether a node has the labels that the work requires."""
        return self._labels.items() <= link.labels.items()

    def check_labels(self) -> None:
        """Raise if no node has the labels that its work must have.

        Raises:
            UsageError: If no node has them. The error names the manifest.
        """
        try:
            self._nodes.right_ones(self._labels)
        except UsageError as error:
            raise UsageError(f"manifest {self._manifest.name!r}: {error}") from None

    async def open_on(self, link: Link) -> None:
        """Open the driver on a node.

        Raises:
            NodeCheckError: If the node cannot open it.
            NodeLostError: If the node is lost during the attempt.
        """
        async with link.opening.setdefault(self.number, trio.Lock()):
            if self.number in link.models:
                return
            what, seconds = (
                f"the model of manifest {self._manifest.name!r}",
                self._nodes.model_seconds,
            )
            ended = trio.Event()
            with as_bystander():
                self._nodes.nursery.start_soon(_lose_if_stuck, link, ended, what, seconds)
            try:
                with trio.fail_after(seconds):
                    facts = await link.do(Prepare(self.number, self._manifest))
            except NodeLostError as error:
                error.add_note(f"it was to open {what}")
                raise
            except trio.TooSlowError as error:
                raise NodeCheckError(
                    f"node {link.node} did not open {what} within {seconds:g} seconds",
                    node=link.node,
                ) from error
            except Exception as error:  # a model may fail with anything
                raise NodeCheckError(
                    f"node {link.node} cannot open {what}: {type(error).__name__}: {error}",
                    node=link.node,
                ) from error
            finally:
                ended.set()
            self._facts = link.models[self.number] = cast("DriverFacts", facts)

    async def open_first(self, link: Link) -> None:
        """Open the driver on a node before it gets any work.

        Raises:
            NodeCheckError: If the node cannot open it, or is lost during the attempt.
        """
        try:
            await self.open_on(link)
        except NodeLostError as error:
            raise NodeCheckError(
                f"node {link.node} did not open the model of manifest {self._manifest.name!r}: "
                f"{error}",
                node=link.node,
            ) from error


async def _lose_if_stuck(link: Link, ended: trio.Event, what: str, seconds: float) -> None:
    """Give up a node that neither opens a model in time nor stops trying: its thread may hang."""
    with trio.move_on_after(seconds + LATE_SECONDS):
        await ended.wait()
        return
    link.lose(f"it did not open {what} within {seconds:g} seconds, and does not stop trying")


@final
@attrs.define(eq=False, repr=False)
class FarDrivers:
    """Chooses the driver of an agent by its manifest."""

    _nodes: Nodes
    _labels: Callable[[AgentManifest], Mapping[str, str]] | None
    _known: dict[bytes, FarDriver] = attrs.field(factory=dict[bytes, FarDriver])
    _last: tuple[AgentManifest, FarDriver] | None = None

    def __call__(self, manifest: AgentManifest) -> FarDriver:
        """Return the driver for *manifest*: the same one for equal manifests."""
        if self._last is not None and self._last[0] is manifest:
            return self._last[1]
        labels = {} if self._labels is None else dict(self._labels(manifest))
        # Models that are open cost memory. Without a factory, the manifest names its model, and
        # only that counts.
        asked = manifest if self._nodes.terms.driver is not None else manifest.model
        key = pickle.dumps((asked, manifest.privacy, sorted(labels.items())))
        driver = self._known.get(key)
        if driver is None:
            driver = FarDriver(self._nodes, manifest, labels, next(self._nodes.numbers))
            self._known[key] = driver
        self._last = manifest, driver
        return driver

    async def open_everywhere(
        self, manifests: Iterable[AgentManifest], *, every_node: bool
    ) -> None:
        """Open the drivers of *manifests* on every node that may get their work, all in parallel.

        Args:
            manifests: The manifests of agents that will be spawned.
            every_node: Whether it is an error if a node cannot open a driver. ``False``: such a
                node gets no work.

        Nodes that join later also open these drivers before they get work.

        Raises:
            NodeCheckError: If a node cannot open a driver.
            UsageError: If no node has the labels that a manifest requires.
        """
        drivers = [self(manifest) for manifest in manifests]
        for driver in drivers:
            driver.check_labels()
        wrong: list[NodeCheckError] = []

        async def open_all(link: Link) -> None:  # noqa: ASYNC910  # a driver opened already needs no wait
            for driver in drivers:
                if driver.fits(link):
                    await driver.open_first(link)

        async def make_ready(link: Link) -> None:  # noqa: ASYNC910  # as above
            try:
                await self._nodes.make_ready(link, is_needed=every_node)
            except NodeCheckError as error:
                wrong.append(error)
                nursery.cancel_scope.cancel()

        self._nodes.prepare = open_all
        async with trio.open_nursery() as nursery:
            for link in tuple(self._nodes.in_order()):
                nursery.start_soon(make_ready, link)
        if wrong:
            raise wrong[0]
