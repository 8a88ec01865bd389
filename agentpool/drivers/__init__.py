"""Drivers: what answers a completion request.

``open_driver`` makes one from a manifest's ``[model]``; ``open_local`` and ``open_openai``
make one by hand; ``ScriptedDriver`` and ``FunctionDriver`` are for tests.
"""

from agentpool.drivers._scripted import FunctionDriver as FunctionDriver
from agentpool.drivers._scripted import ScriptedDriver as ScriptedDriver
from agentpool.drivers._scripted import call as call
from agentpool.drivers._scripted import calls as calls
from agentpool.drivers._scripted import say as say
