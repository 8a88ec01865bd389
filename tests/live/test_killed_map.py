"""A map with the packaged model, killed ten times. Run by ``nox -s live``."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trio

from agentpool.drivers import open_local

pytestmark = pytest.mark.live

EXAMPLES = Path(__file__).parents[2] / "examples"

KILLS = 10

Record = Callable[[str, object], None]


class Counting(ThreadingHTTPServer):
    """Counts the requests to a model, by what they ask, and hands them on to it."""

    def __init__(self, model: str, key: str) -> None:
        """Stand in front of the server at *model*, which wants *key*."""
        super().__init__(("127.0.0.1", 0), Handler)
        self.model, self.key = model, key
        self.asked = Counter[str]()
        self.seconds: list[float] = []
        self.arrival = threading.Semaphore(0)


class Handler(BaseHTTPRequestHandler):
    """One request."""

    def do_POST(self) -> None:
        """Count it, and answer as the model does."""
        counting = self.server
        assert isinstance(counting, Counting)
        body = self.rfile.read(int(self.headers["content-length"]))
        counting.asked[json.dumps(json.loads(body)["messages"])] += 1
        counting.arrival.release()
        began = time.monotonic()
        headers = {"content-type": "application/json", "authorization": counting.key}
        with closing(http.client.HTTPConnection(counting.model)) as model:
            model.request("POST", self.path, body, headers)
            answer = model.getresponse()
            content = answer.read()
        counting.seconds.append(time.monotonic() - began)
        try:
            self.send_response(answer.status)
            self.send_header("content-type", answer.headers["content-type"])
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except OSError:
            return  # who asked was killed

    def log_message(self, *_: object) -> None:
        """Say nothing."""


async def test_a_map_that_is_killed_ten_times_asks_once_more_per_kill(
    tmp_path: Path, record_testsuite_property: Record
) -> None:
    """Every text is answered once, and the editor once, whenever it was killed."""
    async with open_local() as model:
        client = model._client
        address = str(client._base_url).removeprefix("http://").rstrip("/")
        server = Counting(address.removesuffix("/v1"), client._headers["authorization"])
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            await trio.to_thread.run_sync(
                kill_and_go_on, server, tmp_path, record_testsuite_property
            )
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def kill_and_go_on(server: Counting, folder: Path, record: Record) -> None:
    """Run the command, kill it, and run it again, until it is done."""
    texts = sorted(f"texts/{path.name}" for path in (EXAMPLES / "texts").glob("*.txt"))
    words = (
        "map", "reader.toml", "--each", *texts, "--reduce", "editor.toml",
        "--journal", str(folder / "j.db"), "--max-concurrent", "1", "--json",
        "--model", "openai/local",
    )  # fmt: skip
    url = f"http://127.0.0.1:{server.server_port}/v1"
    env = {**os.environ, "OPENAI_BASE_URL": url, "OPENAI_API_KEY": "k"}
    dice = random.Random(17)  # noqa: S311  # no secret

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "agentpool", *words], cwd=EXAMPLES, env=env,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    for _ in range(KILLS):
        process = start()
        assert server.arrival.acquire(timeout=120)
        # Mostly while the model writes, sometimes while its answer is kept or the next leaves.
        time.sleep(dice.uniform(0, 1.3 * statistics.fmean(server.seconds or [1.0])))
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        while server.arrival.acquire(blocking=False):
            pass
    out, err = start().communicate(timeout=600)
    *outcomes, summary = map(json.loads, out.decode().splitlines())
    assert summary["exit_code"] == 0, err
    assert sorted(one["input"] for one in outcomes[:-1]) == texts
    assert all(one["text"] for one in outcomes)
    # Nine answers, and at most one request that no answer came back to for each kill.
    assert len(server.asked) == len(texts) + 1
    assert server.asked.total() <= len(texts) + 1 + KILLS
    requests = server.asked.total()
    repeats = requests - len(server.asked)
    counts = f"{KILLS} kills, {requests} requests, {repeats} repeats, {len(outcomes)} answers"
    record("killed map", counts)
    print(counts)  # noqa: T201  # read by whoever runs it with -s
    before = server.asked.total()
    again, _ = start().communicate(timeout=600)
    assert server.asked.total() == before
    texts_of = [json.loads(line).get("text") for line in again.decode().splitlines()]
    assert sorted(texts_of[:-1]) == sorted(one["text"] for one in outcomes)
