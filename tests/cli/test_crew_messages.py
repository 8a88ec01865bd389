"""What a command and its workers say to each other, line by line."""

from __future__ import annotations

import trio
import trio.testing

from agentpool._cli._worker_messages import LineReader
from agentpool.testing import simulate


def test_lines_come_whole_until_the_other_end_is_closed() -> None:
    """However they are cut on their way. What has no end is no line."""

    async def main() -> None:
        send, receive = trio.testing.memory_stream_one_way_pair()
        lines = LineReader(receive)
        for piece in (b"a", b"b\nc", b"\nd"):
            await send.send_all(piece)
        assert [await lines.next_line(), await lines.next_line()] == [b"ab", b"c"]
        await send.aclose()
        assert await lines.next_line() is None

    simulate(main)


def test_a_pipe_that_breaks_is_an_end() -> None:
    """Its process is gone, however that was."""

    async def main() -> None:
        _, receive = trio.testing.memory_stream_one_way_pair()

        async def broken() -> None:
            await trio.lowlevel.checkpoint()
            raise trio.BrokenResourceError

        receive.receive_some_hook = broken
        assert await LineReader(receive).next_line() is None

    simulate(main)
