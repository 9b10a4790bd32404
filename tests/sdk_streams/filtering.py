"""The gateway's own filter of answers, with verdicts that a seed decides."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from random import Random
from typing import NamedTuple

from gateway.actions import Action, Agent, Caller, Decision, Effect, Kind, Session, Trace
from gateway.doors.openai.chat import ChatCompletions
from gateway.doors.openai.errors import error_event
from gateway.errors import Refusal
from gateway.proposals import Proposal, Verdict, unreadable
from tests.sdk_streams.upstream import Upstream

_ALLOW = Decision(effect=Effect.ALLOW)
_DENY = Decision(effect=Effect.DENY, rules=("no",), reasons=("Not this one.",))


class Filtered(NamedTuple):
    """What the agent is sent of an answer, and the verdicts on what was proposed in it."""

    pieces: tuple[bytes, ...]
    verdicts: tuple[Verdict, ...]
    refused: str | None  # the message of the refusal that ended it

    @property
    def data(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def released(self) -> list[Proposal]:
        return [verdict.proposal for verdict in self.verdicts if verdict.release]

    @property
    def all_allowed(self) -> bool:
        """Whether nothing was denied that could be read."""
        return not any(verdict.decision is _DENY for verdict in self.verdicts)

    @property
    def left_out(self) -> list[Verdict]:
        return [verdict for verdict in self.verdicts if not verdict.release]


class _Judge:
    """Denies a share of the proposals, and those that nobody could read."""

    def __init__(self, rng: Random, denied: float) -> None:
        self._rng = rng
        self._denied = denied
        self.verdicts: list[Verdict] = []

    async def __call__(self, proposals: Sequence[Proposal]) -> list[Verdict]:
        verdicts = [self._verdict(proposal) for proposal in proposals]
        self.verdicts += verdicts
        return verdicts

    def _verdict(self, proposal: Proposal) -> Verdict:
        denied = self._rng.random() < self._denied
        if proposal.arguments is None:
            return Verdict(proposal, unreadable(proposal.fault), release=False)
        return Verdict(proposal, _DENY if denied else _ALLOW, release=not denied)


async def filtered(upstream: Upstream, denied: float) -> Filtered:
    """What the agent is sent where this share of the proposals is denied (0 allows all). The same each time."""
    judge = _Judge(Random(f"verdicts/{upstream.name}"), denied)
    run = _stream if upstream.kind == "stream" else _plain
    return await run(upstream, judge)


async def _stream(upstream: Upstream, judge: _Judge) -> Filtered:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in upstream.pieces:
            yield piece

    out: list[bytes] = []
    refused = None
    try:
        async for piece in ChatCompletions().stream(_action(upstream), judge).run(pieces()):
            out.append(piece)  # noqa: PERF401 - what came before a refusal counts
    except Refusal as refusal:  # as the door ends it
        refused = refusal.message
        out.append(error_event(refusal))
    return Filtered(tuple(out), tuple(judge.verdicts), refused)


async def _plain(upstream: Upstream, judge: _Judge) -> Filtered:
    dialect = ChatCompletions()
    try:
        body, proposals = dialect.proposals(upstream.data, _action(upstream).body)
        if proposals:
            body = dialect.release(body, await judge(proposals))
    except Refusal as refusal:  # the door answers 502, and no SDK reads calls in that
        return Filtered((), tuple(judge.verdicts), refusal.message)
    return Filtered((body,), tuple(judge.verdicts), None)


def _action(upstream: Upstream) -> Action:
    return Action(
        id="act-1",
        kind=Kind.MODEL_INVOKE,
        door="openai.chat",
        caller=Caller(Agent(id="a"), None, "k", "key"),
        session=Session("s", "minted"),
        trace=Trace("0" * 32, "0" * 16),
        target="m",
        arguments={"n": upstream.choices},
        request_id="r",
        received_ns=0,
        body=json.dumps(upstream.request).encode(),
        stream=upstream.kind == "stream",
    )
