"""Bodies of the administration API. Unknown fields are errors; times are RFC 3339 in UTC."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from gateway.actions import Agent, ModelTarget, usd_text
from gateway.clock import rfc3339
from gateway.identity.agents import Registered
from gateway.identity.console_site import page_of_console
from gateway.identity.keys import Key
from gateway.identity.people import Person, Role, Session

AgentId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
PersonId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,127}$")]
Text = Annotated[str, StringConstraints(max_length=256, pattern=r"^[^\x00-\x1f\x7f]*$")]
_TEN_YEARS_S = 10 * 365 * 86_400


class In(BaseModel):
    """What comes in: unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Out(BaseModel):
    """What goes out."""

    model_config = ConfigDict(frozen=True)


class AgentIn(In):
    """An agent to register. Who answers for it and for which purpose cannot come from its requests later."""

    id: AgentId
    team: Text = ""
    use_case: Text = ""
    env: Literal["dev", "stage", "prod"] = "dev"
    version: Text = "1"
    tier: Text = "standard"
    owners: dict[Literal["business", "data", "technology", "risk", "operations"], Text] = Field(
        default={}, description="Role to person."
    )
    next_review: date | None = None
    labels: Annotated[dict[Text, Text], Field(max_length=32)] = {}

    def agent(self) -> Agent:
        """As the register keeps it."""
        return Agent(
            id=self.id,
            team=self.team,
            use_case=self.use_case,
            env=self.env,
            version=self.version,
            tier=self.tier,
            owners={str(role): person for role, person in self.owners.items() if person},
            next_review=None if self.next_review is None else self.next_review.isoformat(),
            labels=dict(self.labels),
        )


class AgentOut(Out):
    """A registered agent."""

    id: str
    status: Literal["active", "suspended"]
    source: str = Field(description="config: from gateway.yaml; api: made by a person.")
    tenant: str
    team: str
    use_case: str
    env: str
    version: str
    tier: str
    owners: dict[str, str]
    next_review: str | None
    labels: dict[str, str]
    created: str

    @staticmethod
    def of(one: Registered) -> AgentOut:
        agent = one.agent
        return AgentOut(
            id=agent.id,
            status=agent.status.value,
            source=one.source,
            tenant=agent.tenant,
            team=agent.team,
            use_case=agent.use_case,
            env=agent.env,
            version=agent.version,
            tier=agent.tier,
            owners=agent.owners,
            next_review=agent.next_review,
            labels=agent.labels,
            created=rfc3339(one.created_ns),
        )


class KeyOut(Out):
    """A key of an agent, without its secret."""

    id: str
    agent: str
    user: str | None
    state: str = Field(description="active, expiring, expired or revoked.")
    created: str
    expires: str | None
    revoked: str | None

    @staticmethod
    def of(key: Key, now_ns: int) -> KeyOut:
        return KeyOut(
            id=key.id,
            agent=key.agent_id,
            user=key.user,
            state=key.state(now_ns),
            created=rfc3339(key.created_ns),
            expires=_when(key.expires_ns),
            revoked=_when(key.revoked_ns),
        )


class KeyIn(In):
    """A key to make."""

    user: Text | None = Field(default=None, description="The person the agent acts for with this key.")
    valid_s: Annotated[float, Field(gt=0, le=_TEN_YEARS_S, allow_inf_nan=False)] | None = Field(
        default=None, description="Seconds until it ends; absent: until revoked."
    )


class RotateIn(In):
    """How to rotate: which user's keys, and how long the old ones still work."""

    user: Text | None = None
    overlap_s: float = Field(default=86_400, ge=0, le=_TEN_YEARS_S, allow_inf_nan=False)


class NewKey(Out):
    """A key just made. `secret` is shown this once; the gateway keeps only its hash."""

    id: str
    agent: str
    user: str | None
    secret: str
    expires: str | None
    replaces: list[KeyOut] = []


class AgentMade(AgentOut):
    """A new agent with its first key."""

    key: NewKey


class ReasonIn(In):
    """Why, for the record."""

    reason: Text = ""


# What people write about a case; the room itself refuses control characters other than line ends and tabs.
Prose = Annotated[str, StringConstraints(max_length=2000)]


class ReviewIn(In):
    """A vote on what was shown: `presented_digest` is that of the card."""

    decision: Literal["approve", "deny"]
    presented_digest: Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
    reason: Prose = Field(default="", description="For the trail.")
    guidance: Prose = Field(default="", description="For the agent: what it should do instead. A denial needs it.")

    @model_validator(mode="after")
    def _a_denial_says_what_instead(self) -> ReviewIn:
        if self.decision == "deny" and not self.guidance.strip():
            raise ValueError("a denial needs guidance: say what the agent should do instead.")
        return self


class CommentIn(In):
    """A remark for other people; no agent sees it."""

    text: Prose


class CancelIn(In):
    """Why a case is ended without a decision; the agent is told."""

    why: Prose = ""


class ReconcileIn(In):
    """What became of an outcome that was unknown, and in `note` how you know."""

    outcome: Literal["succeeded", "failed"]
    note: Prose


# No comma: records list groups by it.
GroupName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,58}$")]
Roles = Annotated[list[Role], Field(max_length=len(Role))]
Groups = Annotated[list[GroupName], Field(max_length=8, description="Of reviewers, as policies name them.")]


class PersonIn(In):
    """A person to add."""

    id: PersonId
    name: Text = ""
    roles: Roles = []
    groups: Groups = []


class PersonChange(In):
    """What to change of a person; what is absent stays."""

    name: Text | None = None
    roles: Roles | None = None
    groups: Groups | None = None


class PersonOut(Out):
    """A person."""

    id: str
    name: str
    roles: list[str]
    groups: list[str]
    created: str

    @staticmethod
    def of(person: Person) -> PersonOut:
        return PersonOut(
            id=person.id,
            name=person.name,
            roles=[role.value for role in person.roles],
            groups=list(person.groups),
            created=rfc3339(person.created_ns),
        )


class SignInIn(In):
    """Whom to make a sign-in link for; absent: yourself."""

    person: PersonId | None = None
    next: Annotated[str, StringConstraints(max_length=2000)] | None = Field(
        default=None, description="The console's page to show after the sign-in, such as /console/approvals."
    )

    @field_validator("next")
    @classmethod
    def _is_page(cls, path: str | None) -> str | None:
        if path is not None and page_of_console(path) is None:
            raise ValueError("Name a page of the console by its path, such as /console/approvals.")
        return path


class SignInOut(Out):
    """A one-time sign-in link."""

    url: str
    person: str
    expires: str


class TokenIn(In):
    """Whom to make an API token for; absent: yourself."""

    person: PersonId | None = None
    days: Annotated[int, Field(ge=1, le=365)] = Field(default=30, description="How long it is good.")


class SessionOut(Out):
    """A console session, or an API token, that is good now."""

    id: str
    kind: Literal["console", "token"]
    person: str
    created: str
    expires: str
    makers: list[str] = Field(description="Who else can act through it, since they made it or what it was made with.")

    @staticmethod
    def of(one: Session) -> SessionOut:
        return SessionOut(
            id=one.id,
            kind="token" if one.is_token else "console",
            person=one.person,
            created=rfc3339(one.created_ns),
            expires=rfc3339(one.expires_ns),
            makers=list(one.makers),
        )


class TokenMade(SessionOut):
    """A new API token, shown this once."""

    token: str


class ModelOut(Out):
    """A model alias. Prices are US dollars per million tokens."""

    id: str
    provider: str
    model: str
    owner: str
    risk: str
    data_classes: list[str]
    max_output_tokens: int
    priced: bool
    input_usd_per_mtok: str | None
    output_usd_per_mtok: str | None

    @staticmethod
    def of(model: ModelTarget) -> ModelOut:
        return ModelOut(
            id=model.alias,
            provider=model.provider,
            model=model.model,
            owner=model.owner,
            risk=model.risk,
            data_classes=list(model.data_classes),
            max_output_tokens=model.max_output_tokens,
            priced=model.priced,
            input_usd_per_mtok=usd_text(model.input_nanousd_per_mtok) if model.priced else None,
            output_usd_per_mtok=usd_text(model.output_nanousd_per_mtok) if model.priced else None,
        )


class ToolOut(Out):
    """A tool as the registry and its server show it."""

    id: str
    server: str
    tool: str
    kind: str = Field(description="mcp: the gateway executes it; client: the agent does.")
    owner: str
    state: str = Field(description="live, declared, unreachable, absent, quarantined, unregistered or client.")
    reason: str
    risk: str | None
    effect: str | None
    digest: str | None
    pin: str | None


class ToolShown(ToolOut):
    """A tool with its manifest entry and the definition that its server sent."""

    sentence: str | None = None
    data_classes: list[str] = []
    reversible: bool | None = None
    idempotent: bool | None = None
    arguments: dict[str, dict[str, Any]] = {}
    trusted_outputs: list[str] = []
    review: str | None = None
    definition: dict[str, Any] | None = None


class SeenToolOut(Out):
    """A tool that an agent was seen to declare and that no manifest describes. All of it is the agent's own words."""

    id: str
    agent: str
    tool: str
    description: str
    parameters: dict[str, Any] = Field(description="JSON Schema; of a large one only the names of its arguments.")
    first_seen: str
    last_seen: str
    count: int = Field(description="Model calls that declared it.")


def _when(ns: int | None) -> str | None:
    return None if ns is None else rfc3339(ns)
