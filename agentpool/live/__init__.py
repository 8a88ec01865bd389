"""Watch and control a running pool, with a page in the browser or a display on a terminal."""

from agentpool._public import publish as _publish
from agentpool.live._approvals import ApprovalDesk as ApprovalDesk
from agentpool.live._approvals import PendingCall as PendingCall
from agentpool.live._approvals import first_decision as first_decision
from agentpool.live._board import AgentView as AgentView
from agentpool.live._board import Board as Board
from agentpool.live._board import BoardView as BoardView
from agentpool.live._display import FRAMES_PER_SECOND as FRAMES_PER_SECOND
from agentpool.live._display import LiveDisplay as LiveDisplay
from agentpool.live._display import counts_line as counts_line
from agentpool.live._display import open_display as open_display
from agentpool.live._listen import listen as listen
from agentpool.live._serve import LivePage as LivePage
from agentpool.live._serve import serve_live as serve_live
from agentpool.live._terminal import show_in_terminal as show_in_terminal

_publish(globals())
