"""Drivers: what answers a completion request.

``open_driver`` makes one from a manifest's ``[model]``; ``open_local`` and ``open_openai``
make one by hand; ``ScriptedDriver`` and ``FunctionDriver`` are for tests.

Those that need httpx are imported when they are first asked for, so that a test with a
script does not wait for it.
"""

import importlib
from typing import TYPE_CHECKING

from agentpool.drivers._scripted import FunctionDriver as FunctionDriver
from agentpool.drivers._scripted import ScriptedDriver as ScriptedDriver
from agentpool.drivers._scripted import call as call
from agentpool.drivers._scripted import calls as calls
from agentpool.drivers._scripted import say as say

if TYPE_CHECKING:
    from agentpool.drivers._local import LocalDriver as LocalDriver
    from agentpool.drivers._local import open_local as open_local
    from agentpool.drivers._open import open_driver as open_driver
    from agentpool.drivers._openai import OpenAIDriver as OpenAIDriver
    from agentpool.drivers._openai import open_openai as open_openai

_HOMES = {
    "LocalDriver": "_local",
    "OpenAIDriver": "_openai",
    "open_driver": "_open",
    "open_local": "_local",
    "open_openai": "_openai",
}


def __getattr__(name: str) -> object:
    """Import the room in which *name* lives (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
