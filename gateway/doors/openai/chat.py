"""Chat completions as the governor's `Dialect`: requests, complete answers and streams, together."""

from __future__ import annotations

from gateway.actions import Action
from gateway.doors.openai import answer, request, secrets
from gateway.doors.openai.answered import answered
from gateway.doors.openai.stream import ChatStream
from gateway.known_secrets import KNOWN
from gateway.proposals import Proposal, Verdict
from gateway.rooms import Judge


class ChatCompletions:
    """Owns no state; one serves every action."""

    outbound = staticmethod(request.outbound)
    proposals = staticmethod(answer.proposals)
    release = staticmethod(answer.release)
    answered = staticmethod(answered)

    def without_secrets(self, body: bytes, *, stream: bool) -> bytes:
        """A provider's answer as it may be kept. A complete one comes without secrets."""
        return secrets.without_secrets(KNOWN.redactor, body) if stream else body

    def stream(self, action: Action, judge: Judge) -> ChatStream:
        """A filter for one streamed answer; the declared parameters of each proposed tool are added."""
        declared = request.declared_parameters(action.body)

        async def judge_declared(found: list[Proposal]) -> list[Verdict]:
            return await judge([one._replace(parameters=declared.get(one.name)) for one in found])

        return ChatStream(
            judge_declared,
            keep_usage=request.wants_usage(action.body),
            choices=action.arguments.get("n", 1),
        )
