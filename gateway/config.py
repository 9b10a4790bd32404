"""The models of gateway.yaml: one frozen model per room. `gateway/settings.py` loads and checks them.

The `Field` descriptions are the documentation (docs/reference/settings.md is generated from them).
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from gateway.actions import nanousd_from_usd
from gateway.pricing import OPEN_TIERS, PLAIN_TIERS
from gateway.public_keys import public_bytes
from gateway.references import Secret, is_reference

Risk = Literal["low", "medium", "high", "critical"]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$")]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Usd = Annotated[Decimal, Field(ge=0, max_digits=18, decimal_places=9, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, lt=2**53)]


class Room(BaseModel):
    """A part of the configuration: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=False)


# ---------------------------------------------------------------- upstreams


class _Remote(Room):
    api_key: Secret | None = Field(default=None, description="The provider's own key; never the agent's.")
    connect_timeout_s: Seconds = Field(default=5.0, description="For a connection, TLS included.")
    first_byte_timeout_s: Seconds = Field(default=300.0, description="From the request sent to the first byte back.")
    idle_timeout_s: Seconds = Field(default=120.0, description="Between two chunks of a stream.")
    retries: int = Field(default=2, ge=0, le=10, description="Only before the first byte of an answer.")
    on_hang_up: Literal["drain", "cancel"] = Field(
        default="drain", description="When the client leaves mid-stream: read on for the true usage, or stop paying."
    )
    drain_s: Seconds = Field(default=30.0, description="How long a drain may take.")


class DemoProvider(Room):
    """The scripted model that needs no key."""

    type: Literal["demo"] = Field(description="The scripted model that needs no key.")
    script: Path | None = Field(default=None, description="A YAML script of answers; absent: the built-in one.")


class OpenAIProvider(_Remote):
    """Anything that speaks the OpenAI chat dialect."""

    type: Literal["openai"] = Field(description="Anything that speaks the OpenAI chat dialect.")
    base_url: str = Field(default="https://api.openai.com/v1", description="http(s) URL, or a reference to one.")
    headers: dict[str, str] = Field(default={}, description="Sent upstream; values may be references.")
    transport: Literal["auto", "aiohttp"] = Field(
        default="auto",
        description="aiohttp: a slower HTTP client that speaks to proxies; auto: only where one leads there.",
    )

    @field_validator("base_url")
    @classmethod
    def _a_url(cls, value: str) -> str:
        if not is_reference(value) and not value.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://, or be a reference.")
        return value.rstrip("/")


class LitellmProvider(_Remote):
    """Any other provider, through litellm."""

    type: Literal["litellm"] = Field(description="Any other provider, through litellm.")
    prefix: str = Field(default="", description="Put before the model's name, e.g. bedrock/.")
    params: dict[str, Any] = Field(default={}, description="Handed to litellm; texts may be references.")


Provider = Annotated[DemoProvider | OpenAIProvider | LitellmProvider, Field(discriminator="type")]


# ---------------------------------------------------------------- catalog


_UNPRICED_TOKENS = "Absent: counted at the dearest price here, as an estimate."
TierName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
TierFactor = Annotated[Decimal, Field(gt=0, le=1000, max_digits=12, decimal_places=6, allow_inf_nan=False)]


class LongContext(Room):
    """Prices of a call whose prompt is longer than that; all its tokens have them."""

    above_tokens: Count = Field(description="Longer prompts cost what is given here.")
    input_usd_per_mtok: Usd = Field(description="US dollars per million tokens.")
    cached_input_usd_per_mtok: Usd | None = Field(default=None, description="Absent: as input.")
    cache_write_usd_per_mtok: Usd | None = Field(default=None, description=_UNPRICED_TOKENS)
    output_usd_per_mtok: Usd = Field(description="US dollars per million tokens.")


class Price(Room):
    """US dollars per million tokens. Decimal; quote the numbers."""

    input_usd_per_mtok: Usd = Field(description="US dollars per million tokens; quote the number.")
    cached_input_usd_per_mtok: Usd | None = Field(default=None, description="Absent: as input.")
    cache_write_usd_per_mtok: Usd | None = Field(
        default=None, description=f"Written to a prompt cache for minutes. {_UNPRICED_TOKENS}"
    )
    cache_write_long_usd_per_mtok: Usd | None = Field(
        default=None,
        description="Written to a prompt cache for an hour or more. Absent: twice the short one, estimated.",
    )
    audio_input_usd_per_mtok: Usd | None = Field(default=None, description=f"Sound in a prompt. {_UNPRICED_TOKENS}")
    output_usd_per_mtok: Usd = Field(description="US dollars per million tokens; thinking included.")
    audio_output_usd_per_mtok: Usd | None = Field(default=None, description=f"Spoken answers. {_UNPRICED_TOKENS}")
    server_tool_usd: Usd | None = Field(
        default=None,
        description="US dollars per call of a tool that the provider runs itself, such as a web search. Absent: a"
        " request that asks for one is refused under a money budget.",
    )
    tiers: dict[TierName, TierFactor] = Field(
        default={},
        description='By service tier, what its tokens cost as a multiple of the prices above, e.g. {priority: "2"}. A'
        " request for a tier that is not here (flex apart) is refused under a money budget.",
    )
    long_context: LongContext | None = Field(default=None, description="What long prompts cost. Absent: no more.")

    @field_validator("tiers")
    @classmethod
    def _not_the_plain_one(cls, tiers: dict[str, Decimal]) -> dict[str, Decimal]:
        for tier in tiers:
            if tier in PLAIN_TIERS or tier in OPEN_TIERS:
                raise ValueError(f"the prices above are those of the tier {tier}; name others here, such as priority.")
        return tiers


class Model(Room):
    """An alias that agents may name, and where it leads."""

    alias: Name = Field(description="What agents call it.")
    provider: str = Field(description="One of `providers`.")
    model: str = Field(min_length=1, description="What the provider calls it.")
    owner: str = Field(default="", description="Who answers for its use.")
    risk: Risk = Field(default="low", description="For policy.")
    data_classes: tuple[str, ...] = Field(default=(), description="What it may be sent; for policy.")
    price: Price | None = Field(default=None, description="Absent: from litellm's price file.")
    max_output_tokens: Count = Field(default=4096, description="Reserved for when a request names no maximum.")
    max_input_tokens: Count | None = Field(
        default=None,
        description="The context window; it bounds what a request only points at (a file's id, a URL). Absent: as in"
        " litellm's price file.",
    )
    cap_field: Literal["auto", "max_tokens", "max_completion_tokens", "none"] = Field(
        default="auto",
        description="The field that holds a request without a maximum to max_output_tokens, so that it can't cost more"
        " than was reserved. auto: what the provider takes; none: it is sent without one.",
    )


# ---------------------------------------------------------------- identity


class Owners(Room):
    """Who answers for an agent: names of persons."""

    business: str = Field(default="", description="Name of a person.")
    data: str = Field(default="", description="Name of a person.")
    technology: str = Field(default="", description="Name of a person.")
    risk: str = Field(default="", description="Name of a person.")
    operations: str = Field(default="", description="Name of a person.")


class Agent(Room):
    """A registered software principal."""

    id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")] = Field(
        description="Its name in keys, policies and records."
    )
    team: str = Field(default="", description="Who runs it.")
    use_case: str = Field(default="", description="The business purpose it serves.")
    env: Literal["dev", "stage", "prod"] = Field(default="dev", description="Where it runs.")
    version: str = Field(default="1", description="Of the agent itself; for policy and records.")
    tier: str = Field(default="standard", description="For policy.")
    owners: Owners = Field(default=Owners(), description="Who answers for it.")
    next_review: date | None = Field(default=None, description="When its owners look at it again.")
    labels: dict[str, str] = Field(default={}, description="Yours; for policy and records.")


# ---------------------------------------------------------------- limits


OnUnavailable = Literal["refuse", "allow"]
_ON_UNAVAILABLE = "While replicas can't count together: refuse, or let each replica count for itself."


class Budget(Room):
    """What may be spent in one window."""

    window: Literal["minute", "day", "month"] = Field(description="Of the calendar, in limits.time_zone.")
    usd: Usd | None = Field(default=None, description="US dollars; quote the number.")
    tokens: Count | None = Field(default=None, description="Input and output together.")
    hard: bool = Field(default=True, description="false: refuses nothing; that it was passed is told once per window.")
    on_unavailable: OnUnavailable = Field(default="refuse", description=_ON_UNAVAILABLE)

    @model_validator(mode="after")
    def _says_something(self) -> Budget:
        if self.usd is None and self.tokens is None:
            raise ValueError("a budget needs usd or tokens.")
        return self

    @property
    def nanousd(self) -> int | None:
        """The money as integer nano-dollars."""
        return None if self.usd is None else nanousd_from_usd(self.usd)


class LimitSet(Room):
    """Limits of one level. What is absent is not limited, or taken from the default."""

    requests_per_minute: Count | None = Field(default=None, description="Actions of any kind.")
    concurrency: Count | None = Field(default=None, description="Actions at once.")
    tokens_per_minute: Count | None = Field(default=None, description="Input and output together.")
    budgets: tuple[Budget, ...] | None = Field(default=None, description="Money and tokens per window.")
    on_unavailable: OnUnavailable = Field(default="refuse", description=f"{_ON_UNAVAILABLE} Budgets have their own.")

    @field_validator("budgets")
    @classmethod
    def _one_per_window(cls, budgets: tuple[Budget, ...] | None) -> tuple[Budget, ...] | None:
        windows = [(budget.window, budget.hard) for budget in budgets or ()]
        if len(set(windows)) < len(windows):
            raise ValueError(
                "two budgets have the same window and are both hard or both soft; put usd and tokens into one."
            )
        return budgets

    def over(self, default: LimitSet) -> LimitSet:
        """These limits, with the default's where these are silent. An explicit null lifts a limit."""
        return default.model_copy(update={name: getattr(self, name) for name in self.model_fields_set})


_DEFAULT_LIMITS = LimitSet(requests_per_minute=600, concurrency=64, tokens_per_minute=1_000_000)
_REPLACES = "Replaces the default's given fields."


class Limits(Room):
    """Rates, concurrency and budgets, kept at eight levels at once. A default holds for each one of its kind alone."""

    time_zone: str = Field(default="UTC", description="IANA name; in which the days and months of budgets begin.")
    default: LimitSet = Field(default=_DEFAULT_LIMITS, description="Every agent.")
    agents: dict[str, LimitSet] = Field(default={}, description=_REPLACES)
    user_default: LimitSet = Field(default=LimitSet(), description="Every user, over all agents.")
    users: dict[str, LimitSet] = Field(default={}, description="Replaces the user default's given fields.")
    tenant_default: LimitSet = Field(default=LimitSet(), description="Every tenant: all its agents together.")
    tenants: dict[str, LimitSet] = Field(default={}, description=_REPLACES)
    team_default: LimitSet = Field(default=LimitSet(), description="Every team: all its agents together.")
    teams: dict[str, LimitSet] = Field(default={}, description=_REPLACES)
    use_case_default: LimitSet = Field(default=LimitSet(), description="Every use case: all its agents together.")
    use_cases: dict[str, LimitSet] = Field(default={}, description=_REPLACES)
    session_default: LimitSet = Field(default=LimitSet(), description="Every session, also one that an agent names.")
    tool_default: LimitSet = Field(
        default=LimitSet(), description="Every tool, over all agents; counted when it is about to be called."
    )
    tools: dict[str, LimitSet] = Field(default={}, description=f"By `server__tool`. {_REPLACES}")
    model_default: LimitSet = Field(
        default=LimitSet(), description="Every model, over all agents; counted when it is about to be asked."
    )
    models: dict[str, LimitSet] = Field(default={}, description=f"By alias. {_REPLACES}")

    @field_validator("time_zone")
    @classmethod
    def _is_known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f"there is no time zone {name!r}; give an IANA name such as Europe/Berlin.") from error
        return name

    def default_of(self, kind: str) -> LimitSet:
        """What holds for every level of a kind."""
        found: LimitSet = self.default if kind == "agent" else getattr(self, f"{kind}_default")
        return found

    def named(self, kind: str) -> dict[str, LimitSet]:
        """The entries with names of a kind of level; sessions have none."""
        found: dict[str, LimitSet] = {} if kind == "session" else getattr(self, f"{kind}s")
        return found

    def of(self, kind: str, name: str) -> LimitSet:
        """What holds for one level."""
        own, default = self.named(kind).get(name), self.default_of(kind)
        return default if own is None else own.over(default)


# ---------------------------------------------------------------- policy, audit, server


class OpaServer(Room):
    """How an OPA server is asked, where GATEWAY_OPA_URL names one, and how it gets the policies."""

    timeout_s: Annotated[float, Field(ge=0.01, le=30)] = Field(
        default=1.0, description="An answer that takes longer is none."
    )
    token: Secret | None = Field(default=None, description="What OPA is shown, as a bearer token.")
    bundle_token: Secret | None = Field(
        default=None, description="What OPA shows to fetch /api/v1/policy/bundle; absent: only people may."
    )
    cross_check: bool = Field(
        default=True, description="What OPA does not deny is asked of the engine in the process too; both must agree."
    )
    rollout_s: Annotated[float, Field(ge=0, le=86_400)] = Field(
        default=300.0, description="So long a server may decide by a revision that was in force here before or is next."
    )


class Policy(Room):
    path: Path = Field(default=Path("policies"), description="Folder of Rego and data.")
    tests: Literal["required", "reported", "off"] = Field(
        default="reported",
        description="The folder's own tests, run at a start and a reload. `required`: policies whose tests fail do not"
        " become active, and the gateway does not start with them; `reported`: failures are warnings; `off`: not run.",
    )
    opa: OpaServer = OpaServer()


class Audit(Room):
    origin: Annotated[str, StringConstraints(pattern=r"^[^\s+]{1,255}$")] = Field(
        default="gateway.local/audit/default", description="Name of the log in its checkpoints (C2SP)."
    )
    capture: Literal["metadata", "arguments", "full"] = Field(
        default="full", description="Which payloads are kept: none, what was asked, or answers too."
    )
    payload_cap_bytes: int = Field(
        description="A larger payload is not kept, only committed to.", default=262_144, ge=0, le=64 * 1024 * 1024
    )


class Approvals(Room):
    """How actions wait for people. A policy's obligation may ask for more, and for another time to live."""

    hold_s: Seconds = Field(default=45.0, description="How long a caller is held before it is told to come back.")
    ttl_s: Annotated[int, Field(ge=1, le=30 * 86_400)] = Field(
        default=14_400, description="An undecided case is denied after this."
    )
    replay_s: Annotated[int, Field(ge=1, le=7 * 86_400)] = Field(
        default=900, description="How long an identical call is given the stored result."
    )
    execute_on: Literal["decision", "claim"] = Field(
        default="decision", description="Run when it is approved, or when the agent comes back."
    )
    pending_per_agent: Count = Field(default=100, description="More waiting cases of one agent are refused.")
    groups: tuple[str, ...] = Field(default=(), description="Groups of reviewers that policies may name.")


def _public_key(text: str) -> str:
    public_bytes(text)
    return text


def _one_person_each(keys: dict[str, str]) -> dict[str, str]:
    whose: dict[bytes, str] = {}
    for person, line in keys.items():
        other = whose.setdefault(public_bytes(line), person)
        if other != person:
            raise ValueError(
                f"{other} and {person} have the same key, so whoever has it could vote as both; each person needs one "
                "of their own"
            )
    return keys


class SignIn(Room):
    """How people sign in without a link of an operator."""

    keys: Annotated[dict[str, Annotated[str, AfterValidator(_public_key)]], AfterValidator(_one_person_each)] = Field(
        default={},
        description="By person, their own public key (a line `ssh-ed25519 ...`), for `gateway login --key`.",
    )


class StdioServers(Room):
    """How tool servers that the gateway runs (transport `stdio`) are confined. A manifest may say otherwise for its
    own, but not less than `required`."""

    confinement: Literal["required", "best_effort", "off"] = Field(
        default="best_effort",
        description="required: a server that this system can't confine to its folders is not started; best_effort: it"
        " is, and `gateway status` says what is missing; off: it runs as any child of the gateway.",
    )
    user: str | None = Field(
        default=None, min_length=1, description="User of this system as whom they run; needs a gateway run by root."
    )


class Server(Room):
    max_body_bytes: int = Field(
        description="Larger requests are refused.", default=33_554_432, ge=1024, le=1024 * 1024 * 1024
    )
    shutdown_grace_s: Seconds = Field(default=30.0, description="For what runs when told to stop.")
    drain_s: Annotated[float, Field(ge=0, le=300)] = Field(
        default=3.0,
        description="Of a replica that is told to stop: how long it still takes requests after /readyz says no.",
    )


class Config(Room):
    """gateway.yaml, version 1."""

    version: Literal[1] = Field(description="Of this file's format.")
    environment: Literal["dev", "stage", "prod"] = Field(default="dev", description="Where this gateway runs.")
    providers: dict[str, Provider] = Field(default={}, description="Where models live, by name.")
    models: tuple[Model, ...] = Field(default=(), description="What agents may name.")
    agents: tuple[Agent, ...] = Field(default=(), description="The registered agents; more through the API.")
    limits: Limits = Limits()
    tool_registry: Path = Field(default=Path("tools_registry"), description="Folder of tool manifests.")
    policy: Policy = Policy()
    undeclared_client_tools: Literal["deny", "escalate", "observe"] = Field(
        default="deny", description="A proposed call of a tool that no manifest describes."
    )
    approvals: Approvals = Approvals()
    sign_in: SignIn = SignIn()
    audit: Audit = Audit()
    stdio: StdioServers = StdioServers()
    server: Server = Server()
