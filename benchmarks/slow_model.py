"""A model on loopback that takes 50 ms, in a process of its own.

It prints its port and serves until its standard input ends. It reads no more of HTTP than
its callers write: one request at a time on a connection, with its length.
"""

from __future__ import annotations

import sys

import trio
from meter import Parser

THINKS_SECONDS = 0.05
"""From the end of a request to the beginning of its answer."""

WORDS = ("The", " quick", " brown", " fox", " jumps")
CHUNK = '{"id":"c","object":"chat.completion.chunk","model":"m","choices":[%s]%s}'
CHOICE = '{"index":0,"delta":{"content":"%s"},"finish_reason":null}'
LAST = '{"index":0,"delta":{},"finish_reason":"stop"}'
USAGE = ',"usage":{"prompt_tokens":120,"completion_tokens":5}'

DATA = [
    *(CHUNK % (CHOICE % word, "") for word in WORDS),
    CHUNK % (LAST, ""),
    CHUNK % ("", USAGE),
    "[DONE]",
]
"""The events of an answer: five words, why it ended, what it cost."""


def chunked(text: str) -> bytes:
    """Return *text* as one piece of a body."""
    return f"{len(text):x}\r\n{text}\r\n".encode()


ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    + b"".join(chunked(f"data: {data}\n\n") for data in DATA)
    + b"0\r\n\r\n"
)


def is_whole(request: bytes) -> bool:
    """Return whether *request* has arrived with its body."""
    head, end, body = request.partition(b"\r\n\r\n")
    _, _, after = head.lower().partition(b"content-length: ")
    return bool(end) and len(body) >= int(after.split(b"\r\n", 1)[0])


async def serve(stream: trio.SocketStream) -> None:
    """Answer one request after the other."""
    request = b""
    try:
        while data := await stream.receive_some():
            request += data
            if is_whole(request):
                request = b""
                await trio.sleep(THINKS_SECONDS)
                await stream.send_all(ANSWER)
    except trio.BrokenResourceError:
        pass  # whoever asked has gone
    finally:
        stream.socket.close()


async def main() -> None:
    """Serve until nobody wants it any more."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=4096)
    print(listener.socket.getsockname()[1], flush=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        await trio.to_thread.run_sync(sys.stdin.read)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    Parser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    trio.run(main)
