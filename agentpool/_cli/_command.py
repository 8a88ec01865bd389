"""The commands and their options, as values."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, final

import attrs

from agentpool import Budget, PrivacyTier
from agentpool._cli._override import Override
from agentpool.abc import BudgetStore
from agentpool.drivers import ProviderGates
from agentpool.live import ApprovalDesk
from agentpool.observe import Content

NOTHING_HELD_BACK: Final = (
    "--rpm and --tpm hold requests to providers back, and no model here is behind one"
)
"""What is said where they have nothing to do."""

BUDGET_NAME: Final = "command line"
"""What the limits of a whole command are called."""

SESSIONS_FILE: Final = "agentpool.db"
"""Where conversations are kept if no journal is named: in the current folder."""

BUDGET_FILE: Final = SESSIONS_FILE
"""Where it is kept what is spent in a period, if no journal is named."""

Period: TypeAlias = Literal["hour", "day", "month"]
"""How long the limits of ``--per`` last. They begin in UTC."""

ApproveMode: TypeAlias = Literal["ask", "always", "never", "later"]
"""Who decides on calls that must be approved: a person, or this alone."""


@final
@attrs.frozen(kw_only=True)
class ClusterOptions:
    """The cluster with the nodes that answer."""

    address: str
    """``auto``, ``HOST:PORT`` or ``local:N``."""
    driver: str | None = None
    """The import path of what answers there. ``None``: the models of the manifests."""
    privacy: PrivacyTier | None = None
    """The strictest tier whose data may go there. ``None``: as it is for such nodes."""
    lease_seconds: float = 10.0
    """How long a node works without a word from here."""


@final
@attrs.frozen(kw_only=True)
class Options:
    """The options that ``run`` and ``map`` share."""

    json: bool
    """Whether results are JSON lines."""
    quiet: bool
    """Whether nothing but results and errors is said."""
    max_concurrent: int
    """Agents that run at the same time."""
    override: Override
    """What goes before the manifests' own words."""
    script: str | None
    """The file that answers in place of a model. ``None``: models answer."""
    deadline_seconds: float | None
    """The longest that one agent may run. ``None``: as its manifest says."""
    max_cost_usd: float | None = None
    """US dollars that all agents may spend together. ``None``: no limit, here as below."""
    max_total_tokens: int | None = None
    """Tokens in plus out that all agents may use together."""
    max_requests: int | None = None
    """Requests that all agents may make together."""
    per: Period | None = None
    """How long these limits last, over all commands with the same file. ``None``: they are for
    this command."""
    approve: ApproveMode = "ask"
    """What is done with calls that must be approved."""
    memory: str | None
    """The file in which agents keep fragments. ``None``: none, they end with the command."""
    memory_scope: str | None
    """The scope that all agents share. ``None``: each has its own."""
    requests_per_minute: int | None = None
    """The most requests to one provider in a minute. ``None``: no limit, here as below."""
    tokens_per_minute: int | None = None
    """The most tokens of these, questions and answers."""
    trace: str | None = None
    """The file that what happens is written to. ``None``: none."""
    trace_content: Content = "full"
    """How much of what is said is in it."""
    report: str | None = None
    """The page that is made of it at the end. ``None``: none."""
    live: tuple[str, int] | None = None
    """Where a page is served while agents run. ``None``: nowhere."""
    journal: str | None = None
    """The file from which a killed command goes on. ``None``: it begins again."""
    words: tuple[str, ...] = attrs.field(default=(), eq=False)
    """The command line itself, which that file keeps. Empty: it is not kept."""
    cluster: ClusterOptions | None = None
    """The cluster whose nodes answer. ``None``: this machine opens the models."""
    schema: str | None = None
    """The file with the JSON Schema of each answer. ``None``: answers are text."""

    def new_gates(self) -> ProviderGates | None:
        """Make the gates for requests to providers. ``None``: no gate is wanted."""
        requests, tokens = self.requests_per_minute, self.tokens_per_minute
        if requests is None and tokens is None:
            return None
        return ProviderGates(requests_per_minute=requests, tokens_per_minute=tokens)

    def new_desk(self) -> ApprovalDesk | None:
        """Make the desk for approvals on the live page. ``None``: it is not wanted."""
        return None if self.live is None else ApprovalDesk()

    @property
    def budget_file(self) -> str:
        """The file that keeps what is spent per hour, day or month."""
        return self.journal or BUDGET_FILE

    def new_budget(self, store: BudgetStore, *, is_shared: bool = False) -> Budget | None:
        """Make the budget that all agents share. ``None``: no limit is wanted.

        Args:
            store: Where it is kept what was used.
            is_shared: Whether several processes are this command.
        """
        limits = (self.max_total_tokens, self.max_cost_usd, self.max_requests)
        if limits == (None, None, None):
            return None
        tokens, cost_usd, requests = limits
        per = self.per or ("ever" if is_shared else None)
        return Budget(
            tokens=tokens, cost_usd=cost_usd, requests=requests, name=BUDGET_NAME,
            per=per, store=None if per is None else store,
        )  # fmt: skip


@final
@attrs.frozen(kw_only=True)
class RunCommand:
    """``agentpool run``."""

    manifests: tuple[str, ...]
    """Their paths; one agent each. Empty: one agent without tools."""
    query: str
    """The query. ``-``: read it from standard input."""
    attachments: tuple[str, ...] = ()
    """The paths of images and documents beside it."""
    session: str | None = None
    """The conversation that it is a turn of. ``None``: of none."""
    options: Options


@final
@attrs.frozen(kw_only=True)
class ChatCommand:
    """``agentpool chat``."""

    manifest: str | None
    """Its path. ``None``: one agent without tools."""
    session: str | None
    """The conversation to go on with. ``None``: a new one, which is not kept."""
    options: Options


@final
@attrs.frozen(kw_only=True)
class MapCommand:
    """``agentpool map``."""

    manifest: str
    """Its path; one agent for each file."""
    sources: tuple[tuple[str, ...], ...]
    """The paths of the inputs, in sources that take turns."""
    prompt: str | None
    """The text before each input. ``None``: nothing."""
    reduce: str | None
    """The path of the manifest that gets all answers. ``None``: there is none."""
    reduce_prompt: str | None
    """The text before the answers. ``None``: nothing."""
    ordered: bool
    """Whether results are printed in the order of the inputs, and not as they come."""
    output_dir: str | None
    """The folder that gets a file for each answer. ``None``: answers are printed."""
    workers: int | None = None
    """The processes that share the inputs. ``None``: this one has all of them."""
    lease_seconds: float = 30.0
    """How long a worker may be silent before another one continues what it had."""
    options: Options


@final
@attrs.frozen(kw_only=True)
class CheckCommand:
    """``agentpool check``."""

    manifests: tuple[str, ...]
    """Their paths."""
    model_file: bool
    """Whether the model's file must be there."""
    json: bool
    """Whether findings are JSON lines."""


@final
@attrs.frozen(kw_only=True)
class MemoryCommand:
    """``agentpool memory``."""

    action: Literal["list", "search", "delete"]
    file: str
    """The path of the memory's file."""
    words: str
    """What to search for. Empty: the newest."""
    ids: tuple[str, ...]
    """The fragments to delete."""
    scope: str | None
    """Where to look, or what to delete. ``None``: everywhere, or the named fragments."""
    limit: int
    """The most fragments."""
    json: bool
    """Whether what is found is JSON lines."""


@final
@attrs.frozen(kw_only=True)
class RunsCommand:
    """``agentpool runs``."""

    action: Literal["list", "show", "resume", "prune"]
    file: str
    """The path of the journal."""
    pool: str | None
    """The pool to show, resume or prune. ``None``: all, or the one that can be resumed."""
    json: bool
    """Whether what is found is JSON lines."""


@final
@attrs.frozen(kw_only=True)
class ApproveCommand:
    """``agentpool approve``."""

    file: str
    """The path of the journal."""
    question: str | None
    """The question to answer. ``None``: those that stand are listed."""
    answer: Literal["yes", "no"]
    """What is said of it."""
    reason: str
    """Why not, for the model."""
    pool: str | None
    """The pool whose question it is. ``None``: the only one that has it."""
    json: bool
    """Whether questions are JSON lines."""


Address: TypeAlias = tuple[str, int]
"""A host's number and a port."""


@final
@attrs.frozen(kw_only=True)
class ServeCommand:
    """``agentpool serve``."""

    manifests: tuple[str, ...]
    """Their paths; one tool each."""
    http: Address | None
    """Where to listen. ``None``: standard input and output."""
    options: Options


@final
@attrs.frozen(kw_only=True)
class ShowCommand:
    """``agentpool show``."""

    file: str
    """The path of the trace, or of a journal."""
    pool: str | None
    """Which pool of a journal. ``None``: the only one."""
    agent: int | None
    """The agent whose conversation is shown. ``None``: all agents are, in numbers."""
    follow: bool
    """Whether events are printed as they come."""
    json: bool
    """Whether what is found is JSON."""
    html: str | None
    """The page to write. ``None``: none is."""
    format: Literal["text", "chrome"]
    """What is printed."""
    other: str | None
    """The trace that it is compared with. ``None``: it is not."""


@final
@attrs.frozen(kw_only=True)
class InitCommand:
    """``agentpool init``."""

    folder: str
    """Where files are written. It is made if it is not there."""
    name: str
    """The agent's name."""
    model: str | None
    """A GGUF file, or a provider and its model. ``None``: the packaged one."""
    parts: tuple[str, ...] | None
    """What is written beside the manifest. ``None``: whoever is at the terminal is asked."""
    json: bool
    """Whether what was written is a JSON line."""


@final
@attrs.frozen(kw_only=True)
class DoctorCommand:
    """``agentpool doctor``."""

    ask: bool
    """Whether the packaged model, if it is there, has to say a word."""
    json: bool
    """Whether what is found is a JSON line."""


@final
@attrs.frozen(kw_only=True)
class CompletionCommand:
    """``agentpool completion``."""

    shell: str
    """Whose script is printed."""


@final
@attrs.frozen(kw_only=True)
class ClusterCommand:
    """``agentpool cluster``."""

    action: Literal["status"]
    address: str
    """Where the cluster is, as in ``ClusterOptions``."""
    json: bool
    """Whether nodes are JSON lines."""


Command: TypeAlias = (
    RunCommand
    | ChatCommand
    | ClusterCommand
    | MapCommand
    | CheckCommand
    | CompletionCommand
    | DoctorCommand
    | InitCommand
    | MemoryCommand
    | RunsCommand
    | ApproveCommand
    | ServeCommand
    | ShowCommand
)
"""What the user wants done."""
