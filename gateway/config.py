"""The models of gateway.yaml: one frozen model per room. `gateway/settings.py` loads and checks them.

The `Field` descriptions are the documentation (docs/reference/settings.md is generated from them).
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from gateway.actions import nanousd_from_usd
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
    connect_timeout_s: Seconds = 5.0
    first_byte_timeout_s: Seconds = Field(default=300.0, description="From the request sent to the first byte back.")
    idle_timeout_s: Seconds = Field(default=120.0, description="Between two chunks of a stream.")
    retries: int = Field(default=2, ge=0, le=10, description="Only before the first byte of an answer.")
    on_hang_up: Literal["drain", "cancel"] = Field(
        default="drain", description="When the client leaves mid-stream: read on for the true usage, or stop paying."
    )
    drain_s: Seconds = Field(default=30.0, description="How long a drain may take.")


class DemoProvider(Room):
    """The scripted model that needs no key."""

    type: Literal["demo"]
    script: Path | None = Field(default=None, description="A YAML script of answers; absent: the built-in one.")


class OpenAIProvider(_Remote):
    """Anything that speaks the OpenAI chat dialect."""

    type: Literal["openai"]
    base_url: str = Field("https://api.openai.com/v1", description="http(s) URL, or a reference to one.")
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

    type: Literal["litellm"]
    prefix: str = Field(default="", description="Put before the model's name, e.g. bedrock/.")
    params: dict[str, Any] = Field(default={}, description="Handed to litellm; texts may be references.")


Provider = Annotated[DemoProvider | OpenAIProvider | LitellmProvider, Field(discriminator="type")]


# ---------------------------------------------------------------- catalog


class Price(Room):
    """US dollars per million tokens. Decimal; quote the numbers."""

    input_usd_per_mtok: Usd
    cached_input_usd_per_mtok: Usd | None = Field(default=None, description="Absent: as input.")
    output_usd_per_mtok: Usd


class Model(Room):
    """An alias that agents may name, and where it leads."""

    alias: Name
    provider: str
    model: str = Field(min_length=1, description="What the provider calls it.")
    owner: str = ""
    risk: Risk = "low"
    data_classes: tuple[str, ...] = ()
    price: Price | None = Field(default=None, description="Absent: from litellm's price file.")
    max_output_tokens: Count = Field(default=4096, description="Reserved for when a request names no maximum.")


# ---------------------------------------------------------------- identity


class Owners(Room):
    """Who answers for an agent: names of persons."""

    business: str = ""
    data: str = ""
    technology: str = ""
    risk: str = ""
    operations: str = ""


class Agent(Room):
    """A registered software principal."""

    id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
    team: str = ""
    use_case: str = ""
    env: Literal["dev", "stage", "prod"] = "dev"
    version: str = "1"
    tier: str = "standard"
    owners: Owners = Owners()
    next_review: date | None = None
    labels: dict[str, str] = {}


# ---------------------------------------------------------------- limits


class Budget(Room):
    """What may be spent in one window (a UTC day or month)."""

    window: Literal["day", "month"]
    usd: Usd | None = Field(default=None, description="US dollars; quote the number.")
    tokens: Count | None = None

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
    """Limits of one agent or user. What is absent is not limited, or taken from the default."""

    requests_per_minute: Count | None = None
    concurrency: Count | None = None
    tokens_per_minute: Count | None = None
    budgets: tuple[Budget, ...] | None = None

    @field_validator("budgets")
    @classmethod
    def _one_per_window(cls, budgets: tuple[Budget, ...] | None) -> tuple[Budget, ...] | None:
        windows = [budget.window for budget in budgets or ()]
        if len(set(windows)) < len(windows):
            raise ValueError("two budgets have the same window; put usd and tokens into one.")
        return budgets

    def over(self, default: LimitSet) -> LimitSet:
        """These limits, with the default's where these are silent. An explicit null lifts a limit."""
        return default.model_copy(update={name: getattr(self, name) for name in self.model_fields_set})


_DEFAULT_LIMITS = LimitSet(requests_per_minute=600, concurrency=64, tokens_per_minute=1_000_000)


class Limits(Room):
    """Rates, concurrency and budgets, kept per agent and per user."""

    default: LimitSet = Field(default=_DEFAULT_LIMITS, description="Every agent.")
    agents: dict[str, LimitSet] = Field(default={}, description="Replaces the default's given fields.")
    user_default: LimitSet = Field(default=LimitSet(), description="Every user, over all agents.")
    users: dict[str, LimitSet] = Field(default={}, description="Replaces the user default's given fields.")

    def of_agent(self, agent_id: str) -> LimitSet:
        """What holds for an agent."""
        own = self.agents.get(agent_id)
        return self.default if own is None else own.over(self.default)

    def of_user(self, user: str) -> LimitSet:
        """What holds for a user."""
        own = self.users.get(user)
        return self.user_default if own is None else own.over(self.user_default)


# ---------------------------------------------------------------- policy, audit, server


class Policy(Room):
    path: Path = Field(default=Path("policies"), description="Folder of Rego and data.")


class Audit(Room):
    origin: Annotated[str, StringConstraints(pattern=r"^[^\s+]{1,255}$")] = Field(
        default="gateway.local/audit/default", description="Name of the log in its checkpoints (C2SP)."
    )
    capture: Literal["metadata", "arguments", "full"] = "full"
    payload_cap_bytes: int = Field(default=262_144, ge=0, le=64 * 1024 * 1024)


class Server(Room):
    max_body_bytes: int = Field(default=33_554_432, ge=1024, le=1024 * 1024 * 1024)
    shutdown_grace_s: Seconds = 30.0


class Config(Room):
    """gateway.yaml, version 1."""

    version: Literal[1]
    environment: Literal["dev", "stage", "prod"] = "dev"
    providers: dict[str, Provider] = {}
    models: tuple[Model, ...] = ()
    agents: tuple[Agent, ...] = ()
    limits: Limits = Limits()
    tool_registry: Path = Field(default=Path("tools_registry"), description="Folder of tool manifests.")
    policy: Policy = Policy()
    undeclared_client_tools: Literal["deny", "escalate", "observe"] = "deny"
    audit: Audit = Audit()
    server: Server = Server()
