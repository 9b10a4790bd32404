"""All tables of the control database, as SQLModel classes. Used by migrations and tests, never on a hot path.

Times are integer nanoseconds since the Unix epoch (UTC), money integer nano-US-dollars.
"""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import BigInteger, Index, Integer, LargeBinary, UniqueConstraint, text
from sqlmodel import Field, SQLModel

_BARE: dict[str, Any] = {"sqlite_with_rowid": False}  # the primary key is the table: one B-tree less per row


class AgentRow(SQLModel, table=True):
    """A registered agent, from the configuration or the API."""

    __tablename__: ClassVar[Any] = "agent"
    id: str = Field(primary_key=True)
    tenant: str
    env: str
    version: str
    team: str
    use_case: str
    tier: str
    status: str
    owners: str  # JSON object: role -> person
    next_review: str | None = None  # ISO date
    labels: str  # JSON object
    source: str  # "config" or "api"
    created_ns: int
    change_no: int = Field(default=0, sa_column_kwargs={"server_default": "0"})  # grows with every change
    mac: bytes | None = Field(default=None, sa_type=LargeBinary)  # see store/macs.py


class AgentKeyRow(SQLModel, table=True):
    """A credential of an agent; only its SHA-256 is kept."""

    __tablename__: ClassVar[Any] = "agent_key"
    id: str = Field(primary_key=True)
    tenant: str
    agent_id: str = Field(index=True)
    key_sha256: str = Field(unique=True)
    user: str | None = None
    created_ns: int
    expires_ns: int | None = None
    revoked_ns: int | None = None
    mac: bytes | None = Field(default=None, sa_type=LargeBinary)  # see store/macs.py


class PersonRow(SQLModel, table=True):
    """A human with roles."""

    __tablename__: ClassVar[Any] = "person"
    id: str = Field(primary_key=True)
    tenant: str
    name: str
    roles: str  # JSON array
    created_ns: int
    removed_ns: int | None = None
    groups: str = "[]"  # JSON: the groups of reviewers that the person belongs to
    change_no: int = Field(default=0, sa_column_kwargs={"server_default": "0"})  # grows with every change
    given: str | None = None  # JSON: who gave what they are and may do, and when
    mac: bytes | None = Field(default=None, sa_type=LargeBinary)  # see store/macs.py


class SignInRow(SQLModel, table=True):
    """A one-time sign-in link."""

    __tablename__: ClassVar[Any] = "sign_in"
    token_sha256: str = Field(primary_key=True)
    person_id: str
    expires_ns: int
    used_ns: int | None = None
    makers: str | None = None  # JSON array: who else could use it, since they made it or what it was made with
    parent: str | None = None  # the session that it was made in, and ends with
    mac: bytes | None = Field(default=None, sa_type=LargeBinary)  # see store/macs.py


class ConsoleSessionRow(SQLModel, table=True):
    """A person's signed-in browser, or a token of their scripts: its hash then begins with `agt_`."""

    __tablename__: ClassVar[Any] = "console_session"
    token_sha256: str = Field(primary_key=True)
    person_id: str
    created_ns: int
    expires_ns: int
    revoked_ns: int | None = None
    makers: str | None = None  # as of a sign-in link
    parent: str | None = None
    mac: bytes | None = Field(default=None, sa_type=LargeBinary)  # see store/macs.py


class SpendRow(SQLModel, table=True):
    """What a level has spent in a window, e.g. ('default', 'agent:reader', 'day:2026-11-22'), through one replica.

    A replica adds to its own rows only; what was spent is the sum over replicas. The embedded gateway is replica ''.
    """

    __tablename__: ClassVar[Any] = "spend"
    __table_args__ = _BARE
    tenant: str = Field(primary_key=True)
    level: str = Field(primary_key=True)
    window: str = Field(primary_key=True)
    replica: str = Field(primary_key=True)
    nanousd: int
    tokens: int
    mac: bytes | None = Field(default=None, sa_type=LargeBinary)  # see store/macs.py


class LeafRow(SQLModel, table=True):
    """A record: canonical bytes and their leaf hash, at a contiguous index from 0."""

    __tablename__: ClassVar[Any] = "leaf"
    __table_args__ = (UniqueConstraint("id"),)
    idx: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    id: str
    body: bytes = Field(sa_type=LargeBinary)
    hash: bytes = Field(sa_type=LargeBinary)


class CheckpointRow(SQLModel, table=True):
    """A signed tree head."""

    __tablename__: ClassVar[Any] = "checkpoint"
    size: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    root: bytes = Field(sa_type=LargeBinary)
    note: bytes = Field(sa_type=LargeBinary)
    ts_ns: int
    frontier: bytes | None = Field(default=None, sa_type=LargeBinary)  # of the tree of that size, where replicas share


class LogHeadRow(SQLModel, table=True):
    """The tree's frontier at the last checkpoint, so that a start need not hash the whole log again."""

    __tablename__: ClassVar[Any] = "log_head"
    tenant: str = Field(primary_key=True)
    writer: str
    size: int
    frontier: bytes = Field(sa_type=LargeBinary)


class PayloadRow(SQLModel, table=True):
    """The sealed payloads of one record (AES-256-GCM under the record's own key)."""

    __tablename__: ClassVar[Any] = "payload"
    __table_args__ = (UniqueConstraint("leaf_id"),)
    seq: int | None = Field(default=None, primary_key=True)
    leaf_id: str
    sealed: bytes = Field(sa_type=LargeBinary)


class PayloadKeyRow(SQLModel, table=True):
    """The key of one record's payloads, wrapped. Without this row the payloads are noise."""

    __tablename__: ClassVar[Any] = "payload_key"
    __table_args__ = _BARE
    leaf_id: str = Field(primary_key=True)
    kek: str  # id of the key that wraps
    wrapped: bytes = Field(sa_type=LargeBinary)


_ALONE = text("digest IS NOT NULL")


class OpenIntentRow(SQLModel, table=True):
    """An intent whose result is not yet recorded. `replica`: who performs it, '' in the embedded gateway.

    `digest` stands where an identical call with an effect must not be made meanwhile, by whichever replica.
    """

    __tablename__: ClassVar[Any] = "open_intent"
    __table_args__ = (
        Index("open_intent_digest", "digest", unique=True, sqlite_where=_ALONE, postgresql_where=_ALONE),
        Index("open_intent_replica", "replica"),
        _BARE,
    )
    action_id: str = Field(primary_key=True)
    leaf_id: str
    reservation: bytes | None = Field(default=None, sa_type=LargeBinary)  # JSON of actions.Reservation
    replica: str = ""
    digest: str | None = None


_REFUSED = text("type = 'action.refused'")


class RecordViewRow(SQLModel, table=True):
    """Query projection of the log; can be rebuilt from `leaf` at any time."""

    __tablename__: ClassVar[Any] = "record_view"
    __table_args__ = (
        Index("record_view_agent", "agent", "idx"),
        Index("record_view_session", "session", "idx"),
        Index("record_view_action", "action"),
        Index("record_view_parent", "parent"),
        Index("record_view_ts", "ts"),
        Index("record_view_case", "case_id"),
        Index("record_view_refused", "ts", "tenant", "agent", "code", sqlite_where=_REFUSED, postgresql_where=_REFUSED),
    )
    idx: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    id: str
    ts: str  # RFC 3339 UTC with microseconds: sorts as text
    type: str
    tenant: str
    agent: str | None = None
    user: str | None = None
    session: str | None = None
    action: str | None = None
    parent: str | None = None
    kind: str | None = None
    server: str | None = None
    tool: str | None = None
    model: str | None = None
    effect: str | None = None
    status: str | None = None
    code: str | None = None
    rules: str | None = None  # "|rule|rule|"
    case_id: str | None = None


_OPEN, _WAITING = text("open = 1"), text("state = 'pending'")
_TOLD = text("ending IS NOT NULL AND open = 0")


class CaseRow(SQLModel, table=True):
    """An action that waits for people, and what became of it. What was asked is sealed."""

    __tablename__: ClassVar[Any] = "approval_case"
    __table_args__ = (
        Index("approval_case_open", "digest", unique=True, sqlite_where=_OPEN, postgresql_where=_OPEN),
        Index("approval_case_digest", "digest", "opened_ns"),
        Index("approval_case_key", "idempotency"),
        Index("approval_case_state", "state", "expires_ns"),
        Index("approval_case_agent", "agent", "id"),
        Index("approval_case_parent", "parent"),
        Index("approval_case_written", "written"),
        Index("approval_case_waiting", "agent", sqlite_where=_WAITING, postgresql_where=_WAITING),
        Index("approval_case_ending", "told_until_ns", sqlite_where=_TOLD, postgresql_where=_TOLD),
    )
    id: str = Field(primary_key=True)
    tenant: str
    kind: str
    action_id: str
    parent: str | None = None  # the model call whose answer a proposal stood in when the case was opened
    digest: str
    idempotency: str | None = None  # SHA-256 of tenant, agent, user and the idempotency key
    agent: str
    user: str | None = None
    server: str
    tool: str
    risk: str
    effect: str
    rules: str  # "|rule|rule|"
    definition_digest: str | None = None
    state: str
    open: int  # 1: an identical action attaches, and there is no second
    version: int
    fence: int
    requirement: str  # JSON of approvals.case.Requirement
    presented_digest: str
    asked: bytes = Field(sa_type=LargeBinary)  # sealed JSON: the action and the card
    opened_ns: int
    expires_ns: int
    decided_ns: int | None = None
    ended_ns: int | None = None
    told_until_ns: int | None = None
    code: str | None = None
    why: str
    released_to: str | None = None
    ending: bytes | None = Field(default=None, sa_type=LargeBinary)  # sealed JSON: the stored end, for replay
    written: int | None = None  # the order in which cases were opened, whatever clocks said
    votes: int = Field(default=0, sa_column_kwargs={"server_default": "0"})  # how many votes it was given
    findings: str | None = None  # JSON: what reviewers found of an unknown outcome
    mac: bytes | None = Field(default=None, sa_type=LargeBinary)  # see store/macs.py


class CaseKeyRow(SQLModel, table=True):
    """An idempotency key that met a case which was opened without it."""

    __tablename__: ClassVar[Any] = "case_key"
    __table_args__ = (Index("case_key_case", "case_id"), _BARE)
    idempotency: str = Field(primary_key=True)
    case_id: str
    mac: bytes | None = Field(default=None, sa_type=LargeBinary)  # see store/macs.py


class CaseVoteRow(SQLModel, table=True):
    """One person's vote on one card. Only ever added."""

    __tablename__: ClassVar[Any] = "case_vote"
    __table_args__ = (UniqueConstraint("case_id", "person", "presented_digest"),)
    id: str = Field(primary_key=True)
    case_id: str
    person: str
    choice: str
    presented_digest: str
    reason: str
    guidance: str
    ts_ns: int
    makers: str | None = None  # JSON array: who made the session that it was cast through
    mac: bytes | None = Field(default=None, sa_type=LargeBinary)  # see store/macs.py


class CaseCommentRow(SQLModel, table=True):
    """What people say to each other about a case."""

    __tablename__: ClassVar[Any] = "case_comment"
    __table_args__ = (Index("case_comment_case", "case_id"),)
    id: str = Field(primary_key=True)
    case_id: str
    person: str
    text: str
    ts_ns: int
    mac: bytes | None = Field(default=None, sa_type=LargeBinary)  # see store/macs.py


class CaseAttemptRow(SQLModel, table=True):
    """One try to carry a case out; written before anything is sent."""

    __tablename__: ClassVar[Any] = "case_attempt"
    __table_args__ = _BARE
    case_id: str = Field(primary_key=True)
    fence: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    started_ns: int
    ended_ns: int | None = None
    outcome: str | None = None
    note: str | None = None
    replica: str = ""  # who carries it out
    mac: bytes | None = Field(default=None, sa_type=LargeBinary)  # see store/macs.py


class KeptAnswerRow(SQLModel, table=True):
    """A model's answer that was paid for and waits for the tool calls it proposes."""

    __tablename__: ClassVar[Any] = "kept_answer"
    __table_args__ = (Index("kept_answer_id", "answer_id"), Index("kept_answer_until", "until_ns"), _BARE)
    request: str = Field(primary_key=True)  # keyed digest of the whole request
    digest: str  # of the action: tenant, agent, user, model, head of the request
    answer_id: str
    sealed: bytes = Field(sa_type=LargeBinary)
    stream: int
    until_ns: int


class SeenToolRow(SQLModel, table=True):
    """A tool that an agent declared to a model and that no manifest describes. All of it is the agent's own words."""

    __tablename__: ClassVar[Any] = "seen_tool"
    agent: str = Field(primary_key=True)
    tool: str = Field(primary_key=True)
    tenant: str
    description: str
    parameters: str  # JSON Schema, perhaps only its names
    first_ns: int
    last_ns: int
    count: int


# ---------------------------------------------------------------- many replicas


class ReplicaRow(SQLModel, table=True):
    """A process that serves, from its start to its end. Rows of an embedded gateway: none."""

    __tablename__: ClassVar[Any] = "replica"
    id: str = Field(primary_key=True)
    name: str  # host and process id, for people
    url: str
    version: str
    started_ns: int
    beat_ns: int  # of the database's clock, as are the other times here
    seq: int  # transactions that it made; tells after a lost connection whether the last one became durable
    ended_ns: int | None = None  # from here on it can write nothing more
    released: int  # 1: what it held of limits was given back
    told: str  # JSON: the revisions that it runs, and what is degraded


class IngestRow(SQLModel, table=True):
    """A durable record that the sequencer has not given its place in the log yet."""

    __tablename__: ClassVar[Any] = "ingest"
    __table_args__ = (UniqueConstraint("id"),)
    seq: int | None = Field(default=None, primary_key=True)
    id: str
    body: bytes = Field(sa_type=LargeBinary)
    mac: bytes = Field(sa_type=LargeBinary)  # by a key that only replicas have


class ChangedRow(SQLModel, table=True):
    """How often something that replicas hold in memory was changed: agents, keys, people."""

    __tablename__: ClassVar[Any] = "changed"
    topic: str = Field(primary_key=True)
    version: int


class SharedKeyRow(SQLModel, table=True):
    """What tells that a replica has the keys that the others have. Never a key."""

    __tablename__: ClassVar[Any] = "shared_key"
    name: str = Field(primary_key=True)
    fingerprint: str


# ---------------------------------------------------------------- rows and the log


class RecordedRow(SQLModel, table=True):
    """What the first `size` records say that rows must not contradict, so that a start need not read all of them."""

    __tablename__: ClassVar[Any] = "recorded"
    tenant: str = Field(primary_key=True)
    size: int
    state: bytes = Field(sa_type=LargeBinary)  # see audit/recorded.py
    mac: bytes | None = Field(default=None, sa_type=LargeBinary)  # see store/macs.py


class UnsealedRow(SQLModel, table=True):
    """A table whose rows were written before rows were authenticated; they are compared with the log, then sealed."""

    __tablename__: ClassVar[Any] = "unsealed"
    name: str = Field(primary_key=True)


# 64 bits everywhere: times are nanoseconds. SQLite's INTEGER has them, and only as INTEGER is a key the row's own id.
for _table in SQLModel.metadata.tables.values():
    for _column in _table.columns:
        if isinstance(_column.type, Integer):
            _column.type = BigInteger().with_variant(Integer(), "sqlite")
