"""Pools that send requests and tool calls to several machines, with Ray (extra ``ray``)."""

from agentpool._public import publish as _publish
from agentpool.cluster._echo import open_echo as open_echo
from agentpool.cluster._errors import ClusterError as ClusterError
from agentpool.cluster._errors import NodeCheckError as NodeCheckError
from agentpool.cluster._errors import NodeLostError as NodeLostError
from agentpool.cluster._errors import RemoteError as RemoteError
from agentpool.cluster._node_status import NodeState as NodeState
from agentpool.cluster._node_status import NodeStatus as NodeStatus
from agentpool.cluster._open import Cluster as Cluster
from agentpool.cluster._open import PoolTerms as PoolTerms
from agentpool.cluster._open import open_cluster as open_cluster
from agentpool.cluster._open import open_cluster_pool as open_cluster_pool

_publish(globals())
