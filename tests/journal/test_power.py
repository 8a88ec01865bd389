"""The power goes: what is not on the disk yet is gone, and what was promised is there.

A log is cut at each of its frames, which is all that a disk may have of it.
"""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import attrs
import pytest
import trio

from agentpool import AgentManifest, AgentStatus, SpawnConfig, open_pool
from agentpool.abc import CompletionRequest
from agentpool.drivers import FunctionDriver, ToolMessage, call
from agentpool.drivers._scripted import Answer
from agentpool.journal import RecordKind, open_journal
from agentpool.journal._sqlite import Durability
from agentpool.tools import ToolRegistry, tool

READER = AgentManifest(name="reader", capabilities=())

WAL_HEADER, FRAME_HEADER = 32, 24


@attrs.define
class World:
    """A machine whose power goes, and what was done in it."""

    folder: Path
    paid: list[int] = attrs.field(factory=list[int])
    """For each payment, the bytes of the log at that moment."""

    @property
    def file(self) -> Path:
        """The journal."""
        return self.folder / "j.db"

    @property
    def log(self) -> Path:
        """What was written last, beside it."""
        return self.folder / "j.db-wal"

    async def buy(self, durability: Durability | None, *, keep: Path | None = None) -> str:
        """Have an agent pay three times. *keep*: copy the files there as they are at the end."""

        @tool(on_unknown="rerun")
        async def pay(number: int) -> str:
            """Pay."""
            await trio.lowlevel.checkpoint()
            self.paid.append(self.log.stat().st_size)
            return f"paid {number}"

        def answer(request: CompletionRequest) -> Answer:
            done = sum(isinstance(one, ToolMessage) for one in request.messages)
            return call("pay", number=done) if done < 3 else "all is paid"

        async with (
            open_journal(self.file, durability=durability) as journal,
            open_pool(
                FunctionDriver(answer), name="shop", journal=journal, resume=True,
                tools=ToolRegistry([pay]),
            ) as pool,
        ):  # fmt: skip
            outcome = await (await pool.spawn(SpawnConfig(READER, "buy", key="b"))).wait()
            if keep is not None:
                shutil.copytree(self.folder, keep)
            assert outcome.status is AgentStatus.COMPLETED
            return outcome.text


def frames(log: Path) -> list[int]:
    """Return where each frame of a log ends, and where the first begins."""
    data = log.read_bytes()
    (page,) = struct.unpack(">I", data[8:12])
    return list(range(WAL_HEADER, len(data) + 1, FRAME_HEADER + page))


async def kept_calls(file: Path) -> tuple[int, int]:
    """Return how many payments had begun, and how many had ended, as the journal says."""
    async with open_journal(file) as journal:
        records = await journal.read("shop")
    begun = sum(one.kind is RecordKind.STARTED and bool(one.body) for one in records)
    # A payment is every other result, after the answer that asked for it.
    results = [one for one in records if one.kind is RecordKind.RESULT and one.digest]
    return begun, len(results)


@pytest.mark.parametrize("durability", ["power", "process"])
async def test_every_prefix_of_the_log_opens_and_goes_on(
    tmp_path: Path, durability: Durability
) -> None:
    """To the same end; and of what was on the disk before a deed, the journal knows the deed."""
    whole = World(tmp_path / "whole")
    whole.folder.mkdir()
    left = tmp_path / "left"
    assert await whole.buy(durability, keep=left) == "all is paid"
    ends = frames(left / "j.db-wal")
    assert len(ends) > 20
    for end in ends:
        world = World(tmp_path / f"cut at {end}")
        world.folder.mkdir()
        shutil.copy(left / "j.db", world.file)
        world.log.write_bytes((left / "j.db-wal").read_bytes()[:end])
        # Whoever paid had waited until so much was written, and with "power" on the disk.
        made = sum(size <= end for size in whole.paid)
        begun, ended = await kept_calls(world.file)
        assert begun >= made
        assert await world.buy(None) == "all is paid"
        # What has a result is not done again, and nothing is left out.
        assert ended + len(world.paid) == 3
        shutil.rmtree(world.folder)


async def test_power_waits_for_the_disk_at_each_deed_and_process_does_not(tmp_path: Path) -> None:
    """What the system was told to put on the disk, as it counts it."""
    seen: dict[Durability, list[str]] = {}
    durabilities: tuple[Durability, ...] = ("process", "power")
    for durability in durabilities:
        async with open_journal(tmp_path / durability, durability=durability) as journal:
            rows = await journal._database.read(lambda t: t.rows("PRAGMA synchronous"))
            seen[durability] = [str(value) for (value,) in rows]
    assert seen == {"process": ["0"], "power": ["2"]}  # OFF and FULL
