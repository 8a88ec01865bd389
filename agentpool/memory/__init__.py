"""Where an agent keeps what it learns."""

from agentpool._public import publish as _publish
from agentpool.abc import Fragment as Fragment
from agentpool.abc import Memory as Memory
from agentpool.abc import MemoryHit as MemoryHit
from agentpool.abc import MemoryQuery as MemoryQuery
from agentpool.memory._in_memory import InMemoryMemory as InMemoryMemory
from agentpool.memory._in_memory import InMemoryStatistics as InMemoryStatistics

_publish(__name__, globals())
