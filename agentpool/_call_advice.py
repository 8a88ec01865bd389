"""Advice for calls with wrong arguments and for names that do not exist."""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Final

FACES: Final = ("abc", "drivers", "tools", "memory", "observe", "journal", "live", "testing")
"""The public modules below ``agentpool`` that need no extra."""

_ALSO: Final[Mapping[str, str]] = {
    "cost": "cost_usd",
    "dollars": "cost_usd",
    "usd": "cost_usd",
    "max_dollars": "max_cost_usd",
    "requests": "request_limit",
    "tool_calls": "tool_calls_limit",
    "tokens": "total_tokens_limit",
    "max_requests": "request_limit",
    "model": "remote_model",
    "name": "remote_model",
    "retries": "max_attempts",
    "prompt": "system_prompt",
}
"""Wrong names that users may try for an argument, each with a right one."""

_FIRST: Final[Mapping[str, str]] = {"ModelConfig": "remote_model"}
"""The argument in the example, for classes where it is not the first one."""


def call_advice(
    name: str, function: Callable[..., object], given: Sequence[object], named: Mapping[str, object]
) -> str | None:
    """Return what is wrong with the arguments of ``function(*given, **named)``.

    ``None``: the arguments are right, so the error came from inside the function.

    Args:
        name: The name of the function, or of the class whose ``__init__`` it is.
        function: The function. A method has ``self`` among its parameters.
        given: The positional arguments, including *self*.
        named: The keyword arguments.
    """
    signature = inspect.signature(function)
    try:
        signature.bind(*given, **named)
    except TypeError as error:
        reason = str(error).replace("keyword-only ", "")  # Python 3.13 has it, others not
    else:
        return None
    parameters = [one for one in signature.parameters.values() if one.name != "self"]
    known = [one.name for one in parameters]
    call = f"{name}()"
    if parameters[0].annotation == "SpawnConfig" and function.__name__ != "__init__":
        return f"{call} takes one SpawnConfig; write {name}(SpawnConfig(manifest, query))"
    for given_name in named:
        if given_name not in known:
            near = difflib.get_close_matches(given_name, known, n=1)
            meant = _ALSO.get(given_name, "")
            hint = f"did you mean {meant}?" if meant in known else _known(known)
            return f"{call} takes no {given_name!r}; {f'did you mean {near[0]}?' if near else hint}"
    count = len(given) - (len(known) < len(signature.parameters))
    if count and all(one.kind is one.KEYWORD_ONLY for one in parameters):
        example = f"{name}({_FIRST.get(name, known[0])}=...)"
        reason = f"takes its arguments by name, got {count} without a name; write {example}"
        return f"{call} {reason}, or another: {_known(known)}"
    return f"{call}: {reason}; {_known(known)}"


def _known(names: Sequence[str]) -> str:
    return f"it takes {', '.join(names)}"


def home_of(face: str, name: str) -> str:
    """Return advice on which module has the *name* that *face* lacks. Empty: no module has it."""
    if name.startswith("_") or f"{face}.{name}" in sys.modules or find_spec(f"{face}.{name}"):
        return ""  # a module is found without us, and asks here first
    for other in ("agentpool", *(f"agentpool.{one}" for one in FACES)):
        if other != face and name in import_module(other).__all__:
            return f"; it is {other}.{name}"
    return ""
