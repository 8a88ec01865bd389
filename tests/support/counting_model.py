"""A model on loopback that takes its time and knows every request that came, however it ended."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Generator

import attrs

from tests.support.http_servers import DONE, USAGE, text_event, whole


@attrs.define(eq=False)
class Asked:
    """One request."""

    text: str
    """The input that it is about, such as ``text 03``."""
    began: float
    ended: float | None = None
    """When it was answered, or the other side was gone. ``None``: it is open."""


@attrs.define(eq=False)
class CountingModel:
    """The server, and what came to it."""

    url: str
    seconds: float
    """How long each answer takes."""
    more: str = ""
    """What comes after the answer to each input."""
    asked: list[Asked] = attrs.field(factory=list[Asked])

    def counts(self) -> Counter[str]:
        """Return how often each input was asked."""
        return Counter(one.text for one in self.asked)

    def wait_for(self, count: int, seconds: float = 180) -> None:
        """Wait until so many requests have come."""
        until = time.monotonic() + seconds
        while len(self.asked) < count:
            assert time.monotonic() < until, f"{len(self.asked)} requests"
            time.sleep(0.01)

    def twice_at_once(self, lease_seconds: float) -> list[str]:
        """Return the inputs that were asked again before the lease of the first was over."""
        found = list[str]()
        for number, one in enumerate(self.asked):
            for later in self.asked[number + 1 :]:
                is_open = one.ended is None or one.ended > later.began
                if one.text == later.text and is_open and later.began - one.began < lease_seconds:
                    found.append(f"{one.text} again after {later.began - one.began:.2f} s")
        return found

    def serve(self, line: socket.socket) -> None:
        """Answer the requests of one connection."""
        unread = b""
        with contextlib.suppress(OSError), line:
            while data := line.recv(65536):
                unread += data
                head, found, body = unread.partition(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head.lower())
                if not found or length is None or len(body) < int(length[1]):
                    continue
                unread = b""
                named = re.findall(rb"text \d+|You edit", body)
                name = b"You edit" if b"You edit" in named else named[0]
                one = Asked(name.decode(), time.monotonic())
                self.asked.append(one)
                # Whoever is gone before the answer has closed the connection.
                gone = select.select([line], [], [], self.seconds)[0]
                one.ended = time.monotonic()
                if gone:
                    return
                answer = (
                    text_event(f"note on {one.text}{self.more}")
                    + text_event("", "stop")
                    + USAGE
                    + DONE
                )
                line.sendall(whole(answer))


@contextlib.contextmanager
def counting_model(seconds: float) -> Generator[CountingModel]:
    """Serve a model that takes so many seconds for each answer."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        model = CountingModel(f"http://127.0.0.1:{server.getsockname()[1]}/v1", seconds)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    line, _ = server.accept()
                    threading.Thread(target=model.serve, args=(line,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield model
        server.shutdown(socket.SHUT_RDWR)
