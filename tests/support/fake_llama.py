"""A stand-in for llama.cpp, so that the local driver's child runs without a model.

`install` writes a module called ``xllamacpp`` into a folder and puts it where this process
and its children find it. What it does is written in the model file, after the magic bytes.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

SOURCE = """
import http.server, json, os, sys, threading

class _Bag:
    pass

class CommonParams:
    def __init__(self):
        self.model, self.cpuparams, self.cpuparams_batch = _Bag(), _Bag(), _Bag()

class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, kind, body):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        p = self.server.params
        assert self.headers["authorization"] == "Bearer " + p.api_keys[0]
        props = {"default_generation_settings": {"n_ctx": p.n_ctx // p.n_parallel}}
        if self.server.plan.get("bad_props"):
            return self.answer(500, "text/plain", b"no props today")
        self.answer(200, "application/json", json.dumps(props).encode())

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        plan = self.server.plan
        if plan.get("die"):
            sys.stderr.write("ggml: out of " + "memory\\n"); sys.stderr.flush()
            os._exit(9)
        if plan.get("refuse"):
            self.close_connection = True
            return
        sys.stderr.write("x" * plan.get("chatter", 0)); sys.stderr.flush()
        if "kept_in" in plan:
            with open(plan["kept_in"], "w") as file:
                json.dump(body, file)
        texts = plan.get("answers", ["Hello"])
        text = json.dumps(body) if plan.get("echo") else texts.pop(0)
        text = " ".join(sorted(os.environ)) if plan.get("tell_environ") else text
        reason = plan.get("reason", "stop")
        chunk = {"choices": [{"delta": {"content": text}, "finish_reason": reason}]}
        events = "data: %s\\n\\ndata: [DONE]\\n\\n" % json.dumps(chunk)
        self.answer(200, "text/event-stream", events.encode())

    def log_message(self, *args):
        pass

class Server:
    def __init__(self, params):
        with open(params.model.path, "rb") as file:
            plan = json.loads(file.read()[4:] or b"{}")
        print("loading", flush=True)
        if "log" in plan:
            sys.stderr.write(plan["log"]); sys.stderr.flush()
        if plan.get("fail"):
            raise RuntimeError("bad tensor")
        if plan.get("stubborn"):
            import signal
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if plan.get("exit"):
            os._exit(3)
        if plan.get("load_with_lock"):
            # As llama.cpp does it: no other Python thread runs meanwhile.
            import ctypes
            ctypes.PyDLL(None).usleep(int(plan["load_with_lock"] * 1e6))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        server.daemon_threads = True
        server.params, server.plan = params, plan
        self.listening_address = "http://127.0.0.1:%d" % server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
"""


def install(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Put the stand-in where it is found instead of the real one."""
    (folder / "xllamacpp.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))


def write_model(folder: Path, **plan: object) -> Path:
    """Write a model file that makes the stand-in follow *plan*."""
    path = folder / "model.gguf"
    path.write_bytes(b"GGUF" + json.dumps(plan).encode())
    return path
