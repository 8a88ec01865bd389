"""Prove things about your agents: under every order, at every cancellation, in no time.

``simulate`` runs a scenario on a clock that jumps, ``explore`` under many orders of its
tasks, ``cancel_everywhere`` with a cancellation at each of its points. What they find comes
with a seed that shows it again.
"""

from agentpool.testing._findings import CancelPointError as CancelPointError
from agentpool.testing._findings import HangError as HangError
from agentpool.testing._findings import LeakError as LeakError
from agentpool.testing._findings import ScheduleError as ScheduleError
from agentpool.testing._log import EventLog as EventLog
from agentpool.testing._quiescent import assert_quiescent as assert_quiescent
from agentpool.testing._simulate import Exploration as Exploration
from agentpool.testing._simulate import explore as explore
from agentpool.testing._simulate import simulate as simulate
from agentpool.testing._sweep import CancelReport as CancelReport
from agentpool.testing._sweep import cancel_everywhere as cancel_everywhere
