"""An MCP server in a few lines, which does whatever a plan says, also what it must not.

Run as a script, with the plan as JSON on its command line. It is not written with the SDK:
it starts in a tenth of the time, and can send what no SDK would.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PLAN: dict[str, Any] = {}
CANCELLED: list[Any] = []

NAMES = (
    "args", "blocks", "cancelled", "child", "close", "deaf", "deed", "die", "env", "error", "fail",
    "hang", "huge", "line", "many", "nag", "noise", "odd", "pid", "quote",
    "think",
)  # fmt: skip
"""The tools that do something; a plan may have others, which say their name."""


def command(**plan: object) -> tuple[str, ...]:
    """Return the command that starts a server which follows *plan*."""
    # -S -E: nothing but the standard library, and in a moment.
    return (sys.executable, "-S", "-E", str(Path(__file__)), json.dumps(plan))


def send(message: object) -> None:
    """Write one message."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def text(*texts: str, **more: object) -> dict[str, object]:
    """Return a result made of *texts*."""
    return {"content": [{"type": "text", "text": one} for one in texts], **more}


def deed(arguments: dict[str, Any], meta: dict[str, Any]) -> dict[str, object] | None:
    """Note in the plan's file what is done. Step 1 has no end before there is the other file."""
    line = json.dumps([arguments, meta]).encode() + b"\n"
    with Path(PLAN["deeds"]).open("ab", buffering=0) as file:
        file.write(line)
    is_open = arguments["step"] != 1 or Path(PLAN["open"]).exists()
    return text(f"did {arguments['step']}") if is_open else None


def call(  # noqa: C901, PLR0911, PLR0912  # a table of what it can do
    number: object, name: str, arguments: dict[str, Any], meta: dict[str, Any]
) -> dict[str, object] | None:
    """Return what the call of a tool comes to. ``None``: no answer."""
    match name:
        case "args":
            return text(json.dumps(arguments))
        case "blocks":
            return {"content": arguments["blocks"], **arguments.get("more", {})}
        case "cancelled":
            return text(json.dumps(CANCELLED))
        case "child":
            # It has this one's standard output, and does not listen to SIGTERM.
            code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"  # noqa: E501
            started = subprocess.Popen([sys.executable, "-S", "-c", code])
            return text(str(started.pid))
        case "close":
            os.close(1)
            time.sleep(600)
        case "deaf":
            time.sleep(600)
        case "deed":
            return deed(arguments, meta)
        case "die":
            sys.stderr.write(f"out of {arguments.get('of', 'memory')}\n")
            sys.stderr.flush()
            os.kill(os.getpid(), arguments.get("signal", signal.SIGKILL))
        case "env":
            return text(json.dumps(dict(os.environ)))
        case "error":
            error = {"code": arguments.get("code", -32000), "message": "not\ntoday"}
            send({"jsonrpc": "2.0", "id": number, "error": error})
        case "fail":
            return text("no such city", isError=True)
        case "hang":
            pass
        case "huge":
            return text("é" * arguments["count"])
        case "line":
            sys.stdout.write('{"jsonrpc": "2.0", "x": "' + "x" * arguments["count"])
            sys.stdout.flush()
        case "noise":
            sys.stderr.write("n" * arguments["count"])
            sys.stderr.flush()
            return text("done")
        case "odd":
            return {"content": "five"}
        case "many":
            return text(*("a" for _ in range(arguments["count"])))
        case "nag":
            for nth in range(arguments["count"]):
                send({"jsonrpc": "2.0", "id": nth, "method": "ping"})
                if arguments.get("gives_up"):
                    params = {"requestId": nth}
                    send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})
            if arguments.get("gives_up"):
                return text("gave up")
            time.sleep(600)
        case "pid":
            return text(str(os.getpid()))
        case "quote":
            progress = {"progressToken": 1, "progress": os.environ["TOKEN"]}
            send({"jsonrpc": "2.0", "method": "notifications/progress", "params": progress})
            return text("quoted")
        case "think":
            time.sleep(arguments["seconds"])
            return text("thought")
        case _:
            return text(name)
    return None


def answer(message: dict[str, Any]) -> None:
    """Answer one message."""
    method, number = message.get("method"), message.get("id")
    parameters = message.get("params") or {}
    result: object = None
    match method:
        case "initialize":
            result = {
                "protocolVersion": "2025-06-18",
                "capabilities": PLAN.get("has", {"tools": {}}),
                "serverInfo": {"name": "stub", "version": "1"},
            }
        case "tools/list" if "list_error" in PLAN:
            error = {"code": -32601, "message": PLAN["list_error"]}
            send({"jsonrpc": "2.0", "id": number, "error": error})
        case "tools/list" if "list" in PLAN:
            result = PLAN["list"]
        case "tools/list":
            result = listing(parameters.get("cursor"))
        case "tools/call":
            given = parameters.get("arguments") or {}
            result = call(number, parameters["name"], given, parameters.get("_meta") or {})
        case "notifications/cancelled":
            CANCELLED.append(parameters["requestId"])
        case str() if number is not None:
            error = {"code": -32601, "message": f"no method {method}"}
            send({"jsonrpc": "2.0", "id": number, "error": error})
    if result is not None:
        send({"jsonrpc": "2.0", "id": number, "result": result})


def listing(cursor: str | None) -> dict[str, object]:
    """Return one page of tools."""
    given: Sequence[Any] = PLAN.get("tools", NAMES)
    if "tools_in" in PLAN:
        given = json.loads(Path(PLAN["tools_in"]).read_bytes())
    tools = [
        one if isinstance(one, dict) else {"name": one, "inputSchema": {"type": "object"}}
        for one in given
    ]
    size = PLAN.get("page", len(tools))
    start = int(cursor or 0)
    page: dict[str, object] = {"tools": tools[start : start + size]}
    if start + size < len(tools) or PLAN.get("endless"):
        page["nextCursor"] = str(start if PLAN.get("endless") else start + size)
    return page


def main() -> None:
    """Follow the plan."""
    PLAN.update(json.loads(sys.argv[1]))
    if PLAN.get("stubborn"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if pids := PLAN.get("pids"):
        with Path(pids).open("a", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")
    sys.stderr.write(PLAN.get("says", ""))
    sys.stderr.flush()
    match PLAN.get("start"):
        case "exit":
            sys.exit(3)
        case "silent":
            time.sleep(600)
        case "garbage":
            sys.stdout.write("Welcome!\n\n{}\n")
        case "no":
            for line in sys.stdin:
                error = {"code": -32602, "message": "go away"}
                send({"jsonrpc": "2.0", "id": json.loads(line)["id"], "error": error})
        case _:
            pass
    sys.stdout.write("\ufeff" if PLAN.get("mark") else "")
    for line in sys.stdin:
        answer(json.loads(line))
    if PLAN.get("stubborn"):
        time.sleep(600)


if __name__ == "__main__":
    main()
