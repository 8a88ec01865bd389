"""A page in the browser that shows a pool while it runs, and lets a person step in."""

from agentpool.live._approvals import ApprovalDesk as ApprovalDesk
from agentpool.live._approvals import PendingCall as PendingCall
from agentpool.live._approvals import first_decision as first_decision
from agentpool.live._listen import listen as listen
from agentpool.live._serve import LivePage as LivePage
from agentpool.live._serve import serve_live as serve_live

__all__ = ["ApprovalDesk", "LivePage", "PendingCall", "first_decision", "listen", "serve_live"]
