"""Record (leaf) version 1: metadata and commitments only, never content. Every field is always written.

The canonical bytes are sorted JSON without floats (`gateway.verify.canonical`); they are hashed and stored as
written. Text that comes from outside is bounded by the builders in `records`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from gateway.actions import Reservation
from gateway.store.interface import Connection

MAX_LEAF_BYTES = 65_535  # an entry of a C2SP tile has a 16 bit length


class _Part(msgspec.Struct):
    pass


class WriterPart(_Part):
    """Who wrote the record: `seq` counts from 1 without a gap in each epoch, an epoch is one run of a writer."""

    id: str
    epoch: int
    seq: int


class ActorPart(_Part):
    """For people's own actions `agent` is null and `user` the person."""

    agent: str | None = None
    version: str | None = None
    user: str | None = None
    authn: str | None = None


class SessionPart(_Part):
    id: str
    source: str


class TracePart(_Part):
    """W3C trace context, and the id that the caller saw in `x-request-id`."""

    trace_id: str
    span_id: str
    parent_id: str | None = None
    request: str | None = None


class ActionPart(_Part):
    """`id` is the same in all records of one action (`x-gateway-action`)."""

    id: str
    kind: str
    server: str | None = None
    tool: str | None = None
    definition_digest: str | None = None
    risk: str | None = None
    effect: str | None = None
    digest: str | None = None


class ModelPart(_Part):
    requested: str
    served: str | None = None
    provider: str | None = None


class DecisionPart(_Part):
    effect: str
    rules: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # for people; the surfaces of agents never read it
    revision: str = ""
    input_commitment: str | None = None


class LimitsPart(_Part):
    """What was reserved; money as a decimal string of US dollars."""

    levels: tuple[str, ...]
    reserved_usd: str
    tokens: int


class CostPart(_Part):
    usd: str
    estimated: bool


class UsagePart(_Part):
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    estimated: bool


class ResultPart(_Part):
    status: str
    code: str | None = None
    latency_us: int | None = None
    usage: UsagePart | None = None


class RefsPart(_Part):
    """`intent` and `supersedes` are record ids, `parent` an action id, `case` a case id."""

    intent: str | None = None
    parent: str | None = None
    case: str | None = None
    supersedes: str | None = None


class PayloadPart(_Part, rename={"data_class": "class"}):
    """`key` is the id of the key that wraps the payload's key; null: the payload itself was not kept."""

    name: str
    commitment: str
    size: int
    data_class: str | None = None
    key: str | None = None


class Leaf(_Part, kw_only=True):
    """One record. `id`, `ts`, `writer`, `payloads` and `refs.intent` are filled in by the log."""

    v: int = 1
    id: str = ""
    type: str
    ts: str = ""
    writer: WriterPart | None = None
    tenant: str
    env: str = ""
    actor: ActorPart | None = None
    session: SessionPart | None = None
    trace: TracePart | None = None
    action: ActionPart | None = None
    model: ModelPart | None = None
    decision: DecisionPart | None = None
    case: str | None = None
    obligations: tuple[dict[str, Any], ...] = ()
    limits: LimitsPart | None = None
    cost: CostPart | None = None
    result: ResultPart | None = None
    refs: RefsPart | None = None
    payloads: tuple[PayloadPart, ...] = ()
    labels: dict[str, str] = {}


class Payload(msgspec.Struct, frozen=True):
    """Content that belongs to a record but lives in the vault."""

    name: str  # arguments, request, policy_input, response
    media: str
    data: bytes
    data_class: str | None = None


class Entry(msgspec.Struct):
    """A record to append. `also` runs in the same transaction; if it raises, nothing of the append is written.

    `reservation` of an intent is what its reaper settles if no result ever comes. `beside`: what `also` changes
    belongs to this replica alone, so that others need not wait for it. `claim` of an intent: the digest that no
    other replica may have in flight meanwhile.
    """

    leaf: Leaf
    payloads: tuple[Payload, ...] = ()
    also: Callable[[Connection], None] | None = None
    reservation: Reservation | None = None
    beside: bool = False
    claim: str | None = None


_decoder = msgspec.json.Decoder(Leaf)


def decode_leaf(body: bytes) -> Leaf:
    """The record in canonical bytes; raises msgspec.DecodeError."""
    return _decoder.decode(body)
