"""Memories: agents store fragments in them, and recall them later.

``InMemoryMemory`` is gone when the process ends; ``open_sqlite_memory`` opens a memory in a file;
``open_semantic_memory`` opens the same file and also searches it by meaning. SQLite and numpy are
loaded on first use.
"""

from typing import TYPE_CHECKING

from agentpool._errors import MemoryStoreError as MemoryStoreError
from agentpool._public import publish as _publish
from agentpool.abc import Fragment as Fragment
from agentpool.abc import Memory as Memory
from agentpool.abc import MemoryHit as MemoryHit
from agentpool.abc import MemoryQuery as MemoryQuery
from agentpool.memory._in_memory import InMemoryMemory as InMemoryMemory
from agentpool.memory._in_memory import InMemoryStatistics as InMemoryStatistics

if TYPE_CHECKING:
    from agentpool.memory._rows import ScopeSummary as ScopeSummary
    from agentpool.memory._semantic import SemanticMemory as SemanticMemory
    from agentpool.memory._semantic import open_semantic_memory as open_semantic_memory
    from agentpool.memory._sqlite import SqliteMemory as SqliteMemory
    from agentpool.memory._sqlite import open_sqlite_memory as open_sqlite_memory

# These need SQLite or numpy.
_publish(
    globals(),
    {
        "_rows": ("ScopeSummary",),
        "_semantic": ("SemanticMemory", "open_semantic_memory"),
        "_sqlite": ("SqliteMemory", "open_sqlite_memory"),
    },
)
