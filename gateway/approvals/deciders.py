"""Who may decide a case: reviewers of the right group who are no party to it."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, Protocol

from gateway.approvals.case import Case, Quorum


class Stands(Protocol):
    """What a person may do on cases now; `case.Standing` is one."""

    @property
    def reviewer(self) -> bool: ...
    @property
    def groups(self) -> tuple[str, ...]: ...
    @property
    def given(self) -> tuple[tuple[str, tuple[str, ...], int], ...]:
        """What others gave them that counts today ("person", "role:reviewer", "group:NAME"), who did, and when (ns)."""
        ...


Standings = Callable[[str], Stands | None]
Hindrance = Literal["no_reviewer", "party", "group"]


def is_party(case: Case, person: str, owners: Iterable[str]) -> bool:
    """Whether they own the agent, now (`owners`) or when it asked, or it acts for them; upper or lower case is one."""
    parties = {*owners, *case.card.agent.owners.values(), case.action.caller.user or ""}
    return plain(person) in {plain(one) for one in parties}


def plain(name: str) -> str:
    """A name as it is compared: neither case, nor spaces around it, nor another form of its characters matter."""
    return unicodedata.normalize("NFKC", name).strip().casefold()


def counts(case: Case, person: str, quorum: Quorum, standing: Stands | None, owners: Iterable[str]) -> bool:
    """Whether a vote of theirs counts for a quorum."""
    if standing is None or not standing.reviewer or is_party(case, person, owners):
        return False
    return quorum.group is None or quorum.group in standing.groups


def hindrance(
    case: Case, person: str, standing: Stands | None, owners: Iterable[str], quorums: Sequence[Quorum]
) -> Hindrance | None:
    """What keeps a person from filling a place of any of `quorums`; None: nothing does."""
    if standing is None or not standing.reviewer:
        return "no_reviewer"
    owning = tuple(owners)
    if is_party(case, person, owning):
        return "party"
    if not any(counts(case, person, quorum, standing, owning) for quorum in quorums):
        return "group"
    return None


def groups_of(quorums: Sequence[Quorum]) -> str:
    """The groups that decide, for people."""
    return ", ".join(sorted({quorum.group for quorum in quorums if quorum.group})) or "nobody"
