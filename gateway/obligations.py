"""What a decision may demand beyond its effect, read strictly. Policy and approvals share these types.

There is one obligation, `approval`, and only an escalate may demand it. An obligation that the gateway does not know,
or cannot read, must never be ignored: whoever wrote it relies on it. So whoever reads one denies instead.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal

import msgspec

UNREADABLE_RULE: Final = "obligation_unreadable"
APPROVAL: Final = "approval"
MAX_TTL_S: Final = 30 * 86_400
MAX_PERSONS: Final = 20
MAX_QUORUMS: Final = 8

Count = Annotated[int, msgspec.Meta(ge=1, le=MAX_PERSONS)]


class QuorumAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many persons must approve, how many denials end it, and of which group (None: any reviewer)."""

    approve: Count = 1
    deny: Count = 1
    group: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None


class Approval(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the obligation `approval` holds. None: the setting under `approvals` in gateway.yaml applies."""

    quorum: Annotated[tuple[QuorumAsked, ...], msgspec.Meta(min_length=1, max_length=MAX_QUORUMS)] = (QuorumAsked(),)
    ttl_s: Annotated[int, msgspec.Meta(ge=1, le=MAX_TTL_S)] | None = None
    execute_on: Literal["decision", "claim"] | None = None


class UnreadableObligation(ValueError):  # noqa: N818 - said of the obligation
    """The text says what is wrong, for the policy's author."""


def read_approvals(obligations: Iterable[dict[str, Any]]) -> list[Approval]:
    """The approvals that an escalate demands. Raises UnreadableObligation for anything else."""
    return [_approval(one) for one in obligations]


def _approval(obligation: dict[str, Any]) -> Approval:
    unknown = [name for name in obligation if name != APPROVAL]
    if unknown or not obligation:
        told = ", ".join(repr(name[:64]) for name in unknown[:3]) or "an empty one"
        raise UnreadableObligation(f"the gateway knows no obligation {told}; the only one is 'approval'")
    try:
        return msgspec.convert(obligation[APPROVAL], Approval)
    except msgspec.ValidationError as error:
        raise UnreadableObligation(str(error)) from error
