"""Hypothesis strategies for every public value, for scripts and for plans of faults."""

from agentpool._public import publish as _publish
from agentpool.testing._scripts import answers as answers
from agentpool.testing._scripts import events as events
from agentpool.testing._scripts import fault_plans as fault_plans
from agentpool.testing._scripts import faults as faults
from agentpool.testing._scripts import scripts as scripts
from agentpool.testing._spending import budget_statistics as budget_statistics
from agentpool.testing._spending import budgets as budgets
from agentpool.testing._spending import usage_limits as usage_limits
from agentpool.testing._strategies import agent_ids as agent_ids
from agentpool.testing._strategies import agent_messages as agent_messages
from agentpool.testing._strategies import calls_of_one_answer as calls_of_one_answer
from agentpool.testing._strategies import capabilities as capabilities
from agentpool.testing._strategies import completions as completions
from agentpool.testing._strategies import driver_errors as driver_errors
from agentpool.testing._strategies import fragments as fragments
from agentpool.testing._strategies import histories as histories
from agentpool.testing._strategies import manifests as manifests
from agentpool.testing._strategies import memory_queries as memory_queries
from agentpool.testing._strategies import models as models
from agentpool.testing._strategies import names as names
from agentpool.testing._strategies import outcomes as outcomes
from agentpool.testing._strategies import queries as queries
from agentpool.testing._strategies import resources as resources
from agentpool.testing._strategies import spawn_configs as spawn_configs
from agentpool.testing._strategies import tool_arguments as tool_arguments
from agentpool.testing._strategies import tool_calls as tool_calls
from agentpool.testing._strategies import usages as usages

_publish(globals())
