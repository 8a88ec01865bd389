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
    "--rpm and --tpm limit requests to providers, but no model here is at a provider"
)
"""The warning for ``--rpm`` and ``--tpm`` when they have no effect."""

BUDGET_NAME: Final = "command line"
"""The name for the limits of a whole command."""

SESSIONS_FILE: Final = "agentpool.db"
"""The file for conversations if no journal is named, in the current folder."""

BUDGET_FILE: Final = SESSIONS_FILE
"""The file for the spending in a period, if no journal is named."""

Period: TypeAlias = Literal["hour", "day", "month"]
"""How long the limits of ``--per`` last. They begin in UTC."""

ApproveMode: TypeAlias = Literal["ask", "always", "never", "later"]
"""How calls that need approval are decided: by a person, or always in the same way."""


@final
@attrs.frozen(kw_only=True)
class ClusterOptions:
    """The cluster with the nodes that answer."""

    address: str
    """``auto``, ``HOST:PORT`` or ``local:N``."""
    driver: str | None = None
    """The import path of the driver that answers on the nodes. ``None``: the models of the
    manifests answer."""
    privacy: PrivacyTier | None = None
    """The strictest privacy tier whose data may go to the nodes. ``None``: the default for such
    nodes."""
    lease_seconds: float = 10.0
    """How long a node works without a message from this program."""


@final
@attrs.frozen(kw_only=True)
class Options:
    """The options that ``run`` and ``map`` share."""

    json: bool
    """Whether results are JSON lines."""
    quiet: bool
    """Whether only results, errors and why agents were stopped are printed."""
    max_concurrent: int
    """Agents that run at the same time."""
    override: Override
    """The settings that replace those of the manifests."""
    script: str | None
    """The file with answers in place of a model's. ``None``: models answer."""
    deadline_seconds: float | None
    """The most seconds that one agent may run. ``None``: as its manifest says."""
    max_cost_usd: float | None = None
    """US dollars that all agents may spend together. ``None``: no limit, here as below."""
    max_total_tokens: int | None = None
    """Tokens in plus out that all agents may use together."""
    max_requests: int | None = None
    """Requests that all agents may make together."""
    per: Period | None = None
    """The period of these limits, which then hold for all commands with the same file. ``None``:
    the limits hold for this command alone."""
    approve: ApproveMode = "ask"
    """What to do with calls that need approval."""
    memory: str | None
    """The file in which agents store fragments. ``None``: fragments are lost when the command
    ends."""
    memory_scope: str | None
    """The memory scope that all agents share. ``None``: each agent has its own scope."""
    requests_per_minute: int | None = None
    """The most requests to one provider in a minute. ``None``: no limit, here as below."""
    tokens_per_minute: int | None = None
    """The most tokens of these requests in a minute, counting questions and answers."""
    trace: str | None = None
    """The file in which the run is recorded. ``None``: it is not recorded."""
    trace_content: Content = "full"
    """How much of each text is recorded."""
    report: str | None = None
    """The page that is made from the recording at the end. ``None``: no page is made."""
    live: tuple[str, int] | None = None
    """The address at which a page is served while agents run. ``None``: no page is served."""
    journal: str | None = None
    """The file from which a killed command can continue. ``None``: a killed command begins
    again."""
    words: tuple[str, ...] = attrs.field(default=(), eq=False)
    """The command line itself, which the journal stores. Empty: it is not stored."""
    cluster: ClusterOptions | None = None
    """The cluster whose nodes answer. ``None``: this machine opens the models."""
    schema: str | None = None
    """The file with the JSON Schema of each answer. ``None``: answers are text."""

    command_words: str = attrs.field(default="", eq=False)
    """The command as traces name it, such as ``agentpool map``."""

    def new_gates(self) -> ProviderGates | None:
        """Make the gates for requests to providers. ``None``: the options ask for no gate."""
        requests, tokens = self.requests_per_minute, self.tokens_per_minute
        if requests is None and tokens is None:
            return None
        return ProviderGates(requests_per_minute=requests, tokens_per_minute=tokens)

    def new_desk(self) -> ApprovalDesk | None:
        """Make the desk for approvals on the live page. ``None``: the options ask for no desk."""
        return None if self.live is None else ApprovalDesk()

    @property
    def budget_file(self) -> str:
        """The file that keeps what is spent per hour, day or month."""
        return self.journal or BUDGET_FILE

    def new_budget(self, store: BudgetStore, *, is_shared: bool = False) -> Budget | None:
        """Make the budget that all agents share. ``None``: the options set no limit.

        Args:
            store: The store for the used amounts.
            is_shared: Whether several processes run this command.
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
    """The paths of the manifests; one agent each. Empty: one agent without tools."""
    query: str
    """The query. ``-``: read it from standard input."""
    attachments: tuple[str, ...] = ()
    """The paths of images and documents that belong to the query."""
    session: str | None = None
    """The conversation of which this is a turn. ``None``: it is not part of a conversation."""
    options: Options


@final
@attrs.frozen(kw_only=True)
class ChatCommand:
    """``agentpool chat``."""

    manifest: str | None
    """The path of the manifest. ``None``: one agent without tools."""
    session: str | None
    """The conversation to continue. ``None``: a new one, which is not stored."""
    options: Options


@final
@attrs.frozen(kw_only=True)
class MapCommand:
    """``agentpool map``."""

    manifest: str
    """The path of the manifest; one agent for each file."""
    sources: tuple[tuple[str, ...], ...]
    """The paths of the inputs, in sources that take turns."""
    prompt: str | None
    """The text before each input. ``None``: nothing."""
    reduce: str | None
    """The path of the manifest whose agent gets all answers. ``None``: no agent gets them."""
    reduce_prompt: str | None
    """The text before the answers. ``None``: nothing."""
    ordered: bool
    """Whether results are printed in the order of the inputs, rather than in the order in which
    they come."""
    output_dir: str | None
    """The folder that gets a file for each answer. ``None``: answers are printed."""
    workers: int | None = None
    """The number of processes that share the inputs. ``None``: this process does all inputs."""
    lease_seconds: float = 30.0
    """How long a worker may be silent before another one takes over its inputs."""
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
    """The scope to search or to delete. ``None``: search all scopes, or delete only the named
    fragments."""
    limit: int
    """The most fragments."""
    json: bool
    """Whether findings are JSON lines."""


@final
@attrs.frozen(kw_only=True)
class RunsCommand:
    """``agentpool runs``."""

    action: Literal["list", "show", "resume", "prune"]
    file: str
    """The path of the journal."""
    pool: str | None
    """The pool to show, resume or prune. ``None``: show or prune all pools, or resume the one pool
    that can be resumed."""
    json: bool
    """Whether findings are JSON lines."""


@final
@attrs.frozen(kw_only=True)
class ApproveCommand:
    """``agentpool approve``."""

    file: str
    """The path of the journal."""
    question: str | None
    """The question to answer. ``None``: list the open questions."""
    answer: Literal["yes", "no"]
    """The answer."""
    reason: str
    """The reason for a refusal, for the model."""
    pool: str | None
    """The pool of the question. ``None``: the only pool that has it."""
    json: bool
    """Whether questions are JSON lines."""


Address: TypeAlias = tuple[str, int]
"""An IP address and a port."""


@final
@attrs.frozen(kw_only=True)
class ServeCommand:
    """``agentpool serve``."""

    manifests: tuple[str, ...]
    """The paths of the manifests; one tool each."""
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
    """Which pool of a journal to show. ``None``: the only pool."""
    agent: int | None
    """The agent whose conversation is shown. ``None``: figures about all agents are shown."""
    follow: bool
    """Whether events are printed as they come."""
    json: bool
    """Whether findings are JSON."""
    html: str | None
    """The page to write. ``None``: no page."""
    format: Literal["text", "chrome"]
    """What is printed."""
    other: str | None
    """The trace to compare with. ``None``: nothing is compared."""


@final
@attrs.frozen(kw_only=True)
class InitCommand:
    """``agentpool init``."""

    folder: str
    """The folder for the files. It is created if it is missing."""
    name: str
    """The agent's name."""
    model: str | None
    """A GGUF file, or a provider and its model. ``None``: the packaged one."""
    parts: tuple[str, ...] | None
    """The parts that are written in addition to the manifest. ``None``: ask at the terminal."""
    json: bool
    """Whether the list of written files is a JSON line."""


@final
@attrs.frozen(kw_only=True)
class DoctorCommand:
    """``agentpool doctor``."""

    ask: bool
    """Whether to ask the packaged model for a word, if it is installed."""
    json: bool
    """Whether findings are a JSON line."""


@final
@attrs.frozen(kw_only=True)
class CompletionCommand:
    """``agentpool completion``."""

    shell: str
    """The shell whose script is printed."""


@final
@attrs.frozen(kw_only=True)
class ClusterCommand:
    """``agentpool cluster``."""

    action: Literal["status"]
    address: str
    """The cluster's address, as in ``ClusterOptions``."""
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
"""Any command."""
