"""The types that travel the path: who asks, for what, what was decided, how it ended.

Every room knows these and no other room. They are frozen msgspec structs: cheap to make, and an `Action`
serialises to JSON and back, because the gateway (not the connection) owns it.

Money is integer nano-US-dollars (1e-9 USD) in code, rounded up, and a decimal string in records.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import ROUND_CEILING, Decimal
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

import msgspec

from gateway.pricing import MTOK, Band, Rates, Tariff, charge
from gateway.pricing import Usage as Usage

NANOUSD_PER_USD = 1_000_000_000


class Kind(StrEnum):
    """What an agent asks to do."""

    MODEL_INVOKE = "model.invoke"
    TOOL_CALL = "tool.call"
    TOOL_PROPOSE = "tool.propose"
    TOOL_LIST = "tool.list"
    RESOURCE_READ = "resource.read"
    PROMPT_GET = "prompt.get"
    AGENT_MESSAGE = "agent.message"
    ADMIN_CHANGE = "admin.change"


class Effect(StrEnum):
    """The policy's answer."""

    ALLOW = "allow"
    DENY = "deny"
    ESCALATE = "escalate"


class Status(StrEnum):
    """The technical end of an action."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DENIED = "denied"
    BLOCKED = "blocked"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"


class AgentStatus(StrEnum):
    ACTIVE = "active"
    SUSPENDED = "suspended"


# ---------------------------------------------------------------- who


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    """A registered software principal. Everything here comes from registration, never from a request."""

    id: str
    tenant: str = "default"
    env: str = "dev"
    version: str = "1"
    team: str = ""
    use_case: str = ""
    tier: str = "standard"
    status: AgentStatus = AgentStatus.ACTIVE
    owners: dict[str, str] = {}  # role (business, data, technology, risk, operations) -> person
    next_review: str | None = None  # ISO date
    labels: dict[str, str] = {}


class Caller(msgspec.Struct, frozen=True):
    """An agent as its credential proved it, and the person it acts for, if the credential says so."""

    agent: Agent
    user: str | None
    credential_id: str
    authn: str  # "key"


class Session(msgspec.Struct, frozen=True):
    """One run of one agent. `source` is header, client, path, trace, chain or minted."""

    id: str
    source: str


class Trace(msgspec.Struct, frozen=True):
    """W3C trace context: 32 and 16 lower-case hex digits.

    `state` is the caller's `tracestate`; `link` is a second context that came along, as (trace id, span id).
    """

    trace_id: str
    span_id: str
    parent_id: str | None = None
    state: str = ""
    link: tuple[str, str] | None = None


class ParsesTrace(Protocol):
    """Makes the trace of an action from `traceparent` and `tracestate`; `link` is a further context that came along."""

    def __call__(
        self, header: bytes | None, state: bytes | None = None, link: tuple[str, str] | None = None
    ) -> Trace: ...


class Rpc(msgspec.Struct, frozen=True):
    """A JSON-RPC request as it stood on the wire: the protocol's version, and its id as text."""

    version: str
    request_id: str


class Claimed(msgspec.Struct, frozen=True):
    """What the agent says of itself; policy sees it as `claimed.*` and should not trust it."""

    session: str | None = None
    purpose: str | None = None


# ---------------------------------------------------------------- for what


class ArgumentKind(msgspec.Struct, frozen=True):
    """What an argument means. `kind`: payee, money, email, address, url, path, object_id, text."""

    kind: str
    currency: str | None = None
    unit: str | None = None  # money: "cents" or "units"


class ToolTarget(msgspec.Struct, frozen=True, kw_only=True):
    """A tool as its manifest and its server describe it."""

    server: str
    tool: str
    server_kind: str  # "mcp" (the gateway executes it) or "client" (the agent executes it)
    owner: str
    risk: str  # low, medium, high, critical
    effect: str  # read, write, destructive, egress
    data_classes: tuple[str, ...] = ()
    reversible: bool = False
    idempotent: bool = False
    sentence: str | None = None  # "Transfer {amount_cents:money} to {to}"
    arguments: dict[str, ArgumentKind] = {}
    trusted_outputs: tuple[str, ...] = ()
    review: str | None = None
    declared: bool = True  # False: nobody registered it
    definition: dict[str, Any] | None = None  # raw, as the server sent it; unknown fields kept
    definition_digest: str | None = None

    @property
    def id(self) -> str:
        return f"{self.server}__{self.tool}"


class DeclaredTool(NamedTuple):
    """A tool that an agent says, in a model call, that it has: its own words, untrusted."""

    name: str
    description: str
    parameters: dict[str, Any] | None  # JSON Schema


class ModelTarget(msgspec.Struct, frozen=True, kw_only=True):
    """A model alias that agents may name, and where it leads."""

    alias: str
    provider: str  # name of a configured provider
    model: str  # what the provider calls it
    owner: str = ""
    risk: str = "low"
    data_classes: tuple[str, ...] = ()
    input_nanousd_per_mtok: int = 0  # per million tokens
    cached_input_nanousd_per_mtok: int | None = None  # None: as input
    output_nanousd_per_mtok: int = 0
    tariff: Tariff | None = None  # None: the rates above are all that is known
    max_output_tokens: int = 4096
    max_input_tokens: int | None = None  # the context window; None: not known
    cap_field: str | None = "max_tokens"  # set to max_output_tokens where a request names no maximum; None: never
    priced: bool = True  # False: no price is known; a money budget then refuses

    @property
    def id(self) -> str:
        return self.alias

    @property
    def prices(self) -> Tariff:
        """All prices that are known, the plain rates at least."""
        if self.tariff is not None:
            return self.tariff
        rates = Rates(
            input=self.input_nanousd_per_mtok,
            cached_input=self.cached_input_nanousd_per_mtok,
            output=self.output_nanousd_per_mtok,
        )
        return Tariff(bands=(Band(rates=rates),))


Target = ToolTarget | ModelTarget


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """One thing an agent asks to do. Serialisable; outlives the connection that brought it.

    `target` is what the agent named: a model alias, `server__tool`, or a server for `tool.list`.
    `arguments` is what policy reads; for model calls the head of the request (model, stream, max_tokens,
    tools). `body` is the request in its door's dialect, rebuilt from what was parsed.
    """

    id: str  # UUIDv7
    kind: Kind
    door: str  # "openai.chat", "mcp", ...
    caller: Caller
    session: Session
    trace: Trace
    target: str
    request_id: str
    received_ns: int
    rpc: Rpc | None = None  # where it came as JSON-RPC
    arguments: dict[str, Any] = {}
    body: bytes | None = None
    stream: bool = False
    claimed: Claimed = Claimed()
    parent: str | None = None  # id of the action this one grew out of
    idempotency_key: str | None = None
    digest: str = ""  # keyed digest of tenant, agent, user, target and arguments


# ---------------------------------------------------------------- what was decided


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The policy's answer. `hidden`: the tool is denied as a whole, so its existence is not disclosed.

    Agents read `reasons`. `notes` are for people (operators, reviewers, auditors): no agent may ever see them.
    """

    effect: Effect
    rules: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    obligations: tuple[dict[str, Any], ...] = ()
    revision: str = ""
    hidden: bool = False
    input: bytes = b""  # the input document as decided on; goes to the payload vault
    decision_id: str = ""  # what a policy server called it in its own decision log

    @property
    def as_told(self) -> Decision | None:
        """What an agent may learn of it: nothing of what is hidden, for that is answered as what does not exist."""
        return None if self.hidden else self


# ---------------------------------------------------------------- how it ended


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What an action cost. An estimate is booked at no less than what was reserved, unless it `is_counted`: then the
    provider counted the tokens, and only the price of some of them is not known."""

    nanousd: int = 0
    usage: Usage = Usage()
    estimated: bool = False
    is_counted: bool = False

    @property
    def is_counted_or_exact(self) -> bool:
        """Whether it may be booked as it is."""
        return self.is_counted or not self.estimated


class Reservation(msgspec.Struct, frozen=True, kw_only=True):
    """Budget taken before the action: an upper bound of what it can cost."""

    id: str  # the action's id
    target: str = ""  # the model or the tool
    nanousd: int
    tokens: int
    levels: tuple[str, ...]  # e.g. ("agent:reader", "user:ada")
    max_output_tokens: int = 0
    input_tokens: int = 0
    tier: str = ""  # the service tier that the request names
    server_calls: int = 0  # of tools that the provider runs, as far as the request asks for them
    has_unknown_price: bool = False  # the request chooses something that no known price covers

    @property
    def is_plain(self) -> bool:
        """Whether the request asks for nothing that is priced apart from its tokens."""
        return not (self.tier or self.server_calls or self.has_unknown_price)


class Result(msgspec.Struct, frozen=True, kw_only=True):
    status: Status
    code: str | None = None  # a code of errors.CODES, or the upstream's
    latency_us: int = 0
    cost: Cost = Cost()
    body: bytes | None = None  # what came back, for the payload vault
    unkept_bytes: int = 0  # what came back and was too much to keep


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """A complete answer of an upstream, in its own dialect."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = {}
    usage: Usage | None = None
    rpc: Rpc | None = None  # how it was asked for, where that was JSON-RPC


class Answered(NamedTuple):
    """What a model's answer says of itself, beside its usage."""

    id: str | None = None
    model: str | None = None
    finish_reasons: tuple[str, ...] = ()


class ReplyStream(Protocol):
    """A streaming answer. Iterating gives bytes as they arrive; `aclose` stops the upstream."""

    status: int
    headers: dict[str, str]

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def aclose(self) -> None: ...


def nanousd_from_usd(usd: Decimal | int | str) -> int:
    """Decimal US dollars to integer nano-dollars, rounded up (never below the truth)."""
    return int((Decimal(usd) * NANOUSD_PER_USD).to_integral_value(rounding=ROUND_CEILING))


def usd_text(nanousd: int) -> str:
    """Nano-dollars as a plain decimal string of US dollars, e.g. '0.000125'."""
    sign, whole = ("-", -nanousd) if nanousd < 0 else ("", nanousd)
    units, rest = divmod(whole, NANOUSD_PER_USD)
    fraction = f"{rest:09d}".rstrip("0")
    return f"{sign}{units}.{fraction}" if fraction else f"{sign}{units}"


def cost_of(model: ModelTarget, usage: Usage) -> Cost:
    """What `usage` of `model` costs, rounded up to the next nano-dollar."""
    if model.tariff is not None or usage.details is not None or not model.priced:
        charged = charge(model.prices, usage)
        estimated = charged.is_estimated or not model.priced
        counted = estimated and charged.is_counted
        return Cost(nanousd=charged.nanousd, usage=usage, estimated=estimated, is_counted=counted)
    cached_price = model.cached_input_nanousd_per_mtok
    if cached_price is None:
        cached_price = model.input_nanousd_per_mtok
    fresh = max(0, usage.input_tokens - usage.cached_input_tokens)
    total = (
        fresh * model.input_nanousd_per_mtok
        + usage.cached_input_tokens * cached_price
        + usage.output_tokens * model.output_nanousd_per_mtok
    )
    return Cost(nanousd=-(-total // MTOK), usage=usage, estimated=usage.estimated)
