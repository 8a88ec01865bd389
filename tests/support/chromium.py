"""A real browser, steered over its own protocol."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, final

import attrs
import trio

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or "chromium"

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--remote-debugging-pipe",
)  # fmt: skip


@final
@attrs.define(eq=False)
class Chromium:
    """A browser that is steered over two pipes."""

    _write: trio.lowlevel.FdStream
    _read: trio.lowlevel.FdStream
    _data: bytes = b""
    _last: int = 0
    requests: list[str] = attrs.field(factory=list[str])
    """Addresses that its pages asked for."""
    complaints: list[str] = attrs.field(factory=list[str])
    """What its console said."""

    async def call(self, method: str, session: str = "", **params: object) -> dict[str, Any]:
        """Let it do something, and return what comes of it."""
        self._last += 1
        asked: dict[str, object] = {"id": self._last, "method": method, "params": params}
        if session:
            asked["sessionId"] = session
        await self._write.send_all(json.dumps(asked).encode() + b"\0")
        while True:
            while b"\0" not in self._data:
                self._data += await self._read.receive_some()
            line, _, self._data = self._data.partition(b"\0")
            said = json.loads(line)
            if said.get("id") == self._last:
                assert "error" not in said, said
                return dict(said["result"])
            self._note(said)

    def _note(self, said: dict[str, Any]) -> None:
        match said.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(said["params"]["request"]["url"])
            case "Log.entryAdded":
                self.complaints.append(said["params"]["entry"]["text"])
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(said["params"]))
            case _:
                pass

    async def open(self, url: str) -> Tab:
        """Open *url* in a tab, and wait until it can be used."""
        target = (await self.call("Target.createTarget", url="about:blank"))["targetId"]
        attached = await self.call("Target.attachToTarget", targetId=target, flatten=True)
        tab = Tab(self, attached["sessionId"])
        for domain in ("Network", "Runtime", "Log", "Page"):
            await self.call(f"{domain}.enable", tab.session)
        await self.call("Page.navigate", tab.session, url=url)
        await tab.until("document.querySelector('[data-ready]')")
        return tab


@final
@attrs.define(eq=False)
class Tab:
    """One page."""

    browser: Chromium
    session: str

    async def run(self, code: str) -> Any:  # noqa: ANN401  # whatever the page says
        """Return what *code* comes to in the page."""
        done = await self.browser.call(
            "Runtime.evaluate", self.session, expression=code, returnByValue=True
        )
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    async def until(self, code: str) -> None:
        """Wait until *code* is true in the page."""
        while not await self.run(f"Boolean({code})"):  # noqa: ASYNC110  # it is in the browser
            await trio.sleep(0.05)

    async def click(self, selector: str, times: int = 1) -> None:
        """Click on what *selector* names."""
        await self.until(f"document.querySelector({selector!r})")
        for _ in range(times):
            await self.run(f"document.querySelector({selector!r}).click()")


@asynccontextmanager
async def chromium(folder: Path) -> AsyncGenerator[Chromium]:
    """Start a browser with a profile of its own."""
    their_in, our_out = os.pipe()
    our_in, their_out = os.pipe()
    # It reads from 3 and writes to 4, so a shell puts them there.
    command = f'exec "$@" 3<&{their_in} 4>&{their_out}'
    process = subprocess.Popen(  # noqa: ASYNC220  # it is over when this block is
        ["/bin/bash", "-c", command, "-", CHROMIUM, *FLAGS,
         f"--user-data-dir={folder / 'profile'}"],
        pass_fds=(their_in, their_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(their_in)
    os.close(their_out)
    try:
        async with (
            trio.lowlevel.FdStream(our_out) as to,
            trio.lowlevel.FdStream(our_in) as from_,
        ):
            yield Chromium(to, from_)
    finally:
        process.terminate()
        process.wait(60)
