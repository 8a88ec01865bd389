"""Test agents under every task order, at every cancellation point, without waiting.

``simulate`` runs a scenario on a clock that jumps. ``explore`` runs a scenario in many schedules of
its tasks. ``cancel_everywhere`` cancels a scenario at each point where a cancellation can come.
Every failure comes with a seed that repeats it. ``check_driver`` and the other checks test your own
implementation of an interface against its contract. ``open_recording`` records a provider's
answers, and ``open_replay`` replays them. ``PoolMachine`` and the strategies need Hypothesis.
"""

from typing import TYPE_CHECKING

from agentpool._errors import RecordingMissError as RecordingMissError
from agentpool._public import publish as _publish
from agentpool.testing._check_driver import check_driver as check_driver
from agentpool.testing._check_journal import check_journal as check_journal
from agentpool.testing._check_memory import check_memory as check_memory
from agentpool.testing._check_observer import check_observer as check_observer
from agentpool.testing._check_tool import check_tool as check_tool
from agentpool.testing._check_tool import lone_context as lone_context
from agentpool.testing._crash import CrashReport as CrashReport
from agentpool.testing._crash import crash_everywhere as crash_everywhere
from agentpool.testing._faulty import Answer as Answer
from agentpool.testing._faulty import CallWildly as CallWildly
from agentpool.testing._faulty import Fail as Fail
from agentpool.testing._faulty import Fault as Fault
from agentpool.testing._faulty import FaultyDriver as FaultyDriver
from agentpool.testing._faulty import Hang as Hang
from agentpool.testing._faulty import Stall as Stall
from agentpool.testing._faulty import Trickle as Trickle
from agentpool.testing._faulty import Truncate as Truncate
from agentpool.testing._latency import LatencyDriver as LatencyDriver
from agentpool.testing._latency import latency as latency
from agentpool.testing._latency import slow as slow
from agentpool.testing._log import EventLog as EventLog
from agentpool.testing._simulation.chance import dice as dice
from agentpool.testing._simulation.clock import JumpingClock as JumpingClock
from agentpool.testing._simulation.explore import Exploration as Exploration
from agentpool.testing._simulation.explore import explore as explore
from agentpool.testing._simulation.explore import simulate as simulate
from agentpool.testing._simulation.findings import CancelPointError as CancelPointError
from agentpool.testing._simulation.findings import CrashPointError as CrashPointError
from agentpool.testing._simulation.findings import HangError as HangError
from agentpool.testing._simulation.findings import LeakError as LeakError
from agentpool.testing._simulation.findings import ScheduleError as ScheduleError
from agentpool.testing._simulation.operation import operation as operation
from agentpool.testing._simulation.quiescent import assert_quiescent as assert_quiescent
from agentpool.testing._simulation.replay import replay as replay
from agentpool.testing._simulation.sweep import CancelReport as CancelReport
from agentpool.testing._simulation.sweep import cancel_everywhere as cancel_everywhere
from agentpool.testing._simulation.systematic import Proof as Proof
from agentpool.testing._simulation.systematic import explore_all as explore_all

if TYPE_CHECKING:
    from agentpool.testing import strategies as strategies
    from agentpool.testing._machine import PoolMachine as PoolMachine
    from agentpool.testing._quirks import Quirk as Quirk
    from agentpool.testing._quirks import QuirkResult as QuirkResult
    from agentpool.testing._quirks import QuirkServer as QuirkServer
    from agentpool.testing._quirks import open_quirk_server as open_quirk_server
    from agentpool.testing._quirks import quirks as quirks
    from agentpool.testing._replay import RecordingTransport as RecordingTransport
    from agentpool.testing._replay import ReplayTransport as ReplayTransport
    from agentpool.testing._replay import open_recording as open_recording
    from agentpool.testing._replay import open_replay as open_replay
    from agentpool.testing._strict import StrictFake as StrictFake
    from agentpool.testing._strict import open_strict_server as open_strict_server
    from agentpool.testing._strict import strict_fake as strict_fake
    from agentpool.testing._strict_answers import FakeTurn as FakeTurn

# These load Hypothesis, which takes half a second and need not be installed, or httpx.
_publish(
    globals(),
    {
        "_machine": ("PoolMachine",),
        "_quirks": ("Quirk", "QuirkResult", "QuirkServer", "open_quirk_server", "quirks"),
        "_replay": ("RecordingTransport", "ReplayTransport", "open_recording", "open_replay"),
        "_strict": ("StrictFake", "open_strict_server", "strict_fake"),
        "_strict_answers": ("FakeTurn",),
        "strategies": ("strategies",),
    },
)
