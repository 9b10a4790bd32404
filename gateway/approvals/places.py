"""Which votes and findings fill places of a quorum, by what is known of people today.

A person fills a place only by what they said themselves. Whoever makes a sign-in link or a token for somebody else can
use it too, and whoever adds a person or gives a role or group decides who may vote. So what was said through the hands
of one maker fills one place together, however many persons it was, and none where the maker is a party or speaks too.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import NamedTuple, Protocol, TypeVar

from gateway.approvals.case import Case, Choice, Quorum, State, Vote
from gateway.approvals.deciders import Standings, counts, is_party

K = TypeVar("K", bound=Hashable)
_GROUP, _REVIEWER = "group:", "role:reviewer"


class Said(Protocol):
    """A vote or a finding. `makers`: who else could have said it, since they made the session."""

    @property
    def id(self) -> str: ...
    @property
    def person(self) -> str: ...
    @property
    def makers(self) -> tuple[str, ...]: ...


class Tally(NamedTuple):
    """What was said, by the places that it can fill: what is in one list fills one place together at most.

    `why_not`: by ID, why something fills no place, or none of its own.
    """

    seats: list[list[Said]]
    why_not: dict[str, str]


class Places:
    """Counts what people said of a case."""

    def __init__(
        self, case: Case, standings: Standings, owners: Iterable[str], quorums: Sequence[Quorum] | None = None
    ) -> None:
        """`owners` of the agent as registered now; `quorums` to fill, the case's own by default."""
        self._case = case
        self._standings = standings
        self._owners = tuple(owners)
        self._quorums = case.requirement.quorum if quorums is None else quorums

    # ------------------------------------------------------------ what was said

    def approvals(self, votes: Sequence[Vote]) -> Tally:
        """Of the votes on the card that is shown."""
        return self._tally([one for one in votes if one.counts and one.choice is Choice.APPROVE], _persons(votes))

    def denials(self, votes: Sequence[Vote]) -> Tally:
        """The same. A denial counts whoever made the session: it lets nothing happen."""
        return self._tally([one for one in votes if one.counts and one.choice is Choice.DENY], None)

    def findings(self, outcome: State) -> Tally:
        """Of the case's findings of its last attempt, those with this outcome."""
        said = self._case.found
        return self._tally([one for one in said if one.outcome is outcome], {one.person for one in said})

    # ------------------------------------------------------------ what it fills

    def counts(self, person: str, quorum: Quorum) -> bool:
        """Whether somebody may fill a place of a quorum at all."""
        return counts(self._case, person, quorum, self._standings(person), self._owners)

    def filled(self, quorum: Quorum, tally: Tally) -> int:
        """How many places of one quorum could be filled, were it the only one."""
        return sum(self._fills(seat, quorum) for seat in tally.seats)

    def enough(self, tally: Tally) -> bool:
        """Whether every place of every quorum is filled."""
        return enough(
            self._quorums, range(len(tally.seats)), lambda seat, quorum: self._fills(tally.seats[seat], quorum)
        )

    def speakers(self, tally: Tally) -> list[str]:
        """One person for each place that can be filled."""
        found = []
        for seat in tally.seats:
            able = (one.person for one in seat if any(self.counts(one.person, quorum) for quorum in self._quorums))
            found.extend(list(able)[:1])
        return found

    def hindered_by_maker(self, person: str, makers: tuple[str, ...], others: Iterable[str]) -> str:
        """Why what a person says now would fill no place, where `others` have spoken already; '' if it would."""
        return self._void(person, makers, self._hands(person, makers), set(others) - {person}) or ""

    # ------------------------------------------------------------ inside

    def _fills(self, seat: Sequence[Said], quorum: Quorum) -> bool:
        return any(self.counts(one.person, quorum) for one in seat)

    def _tally(self, said: Sequence[Said], speaking: set[str] | None) -> Tally:
        """`speaking`: whoever said anything; None: it does not matter who the maker is."""
        seats: list[tuple[list[Said], set[str]]] = []
        why_not: dict[str, str] = {}
        for one in said:
            hands = self._hands(one.person, one.makers)
            void = None if speaking is None else self._void(one.person, one.makers, hands, speaking - {one.person})
            if void is not None:
                why_not[one.id] = void
                continue
            same = [seat for seat in seats if seat[1] & hands]
            if same:
                first, shared = same[0][0][0], sorted(set().union(*(seat[1] for seat in same)) & hands)
                why_not[one.id] = (
                    f"{one.person} fills one place together with {first.person}: {_and(shared)} made the sign-ins of"
                    " both, or gave them the right to decide since the case was opened."
                )
            merged = ([*(said for seat in same for said in seat[0]), one], set().union(hands, *(s[1] for s in same)))
            seats = [seat for seat in seats if seat not in same] + [merged]
        return Tally([seat for seat, _ in seats], why_not)

    def _hands(self, person: str, makers: tuple[str, ...]) -> set[str]:
        """Who else had a hand in what a person says."""
        standing = self._standings(person)
        hands = set(makers)
        groups = {quorum.group for quorum in self._quorums}
        for what, by, at_ns in () if standing is None else standing.given:
            matters = what.removeprefix(_GROUP) in groups if what.startswith(_GROUP) else what in ("person", _REVIEWER)
            if matters and at_ns >= self._case.opened_ns:
                hands.update(by)
        return hands - {person}

    def _void(self, person: str, makers: Sequence[str], hands: set[str], speaking: set[str]) -> str | None:
        for hand in sorted(hands):
            did = "made their sign-in" if hand in makers else "gave them the right to decide since the case was opened"
            if is_party(self._case, hand, self._owners):
                agent = self._case.agent_id
                return f"{person} fills no place: {hand} {did}, and owns the agent {agent} or acts through it."
            if hand in speaking:
                return f"{person} fills no place: {hand} {did}, and decides too."
        return None


def enough(quorums: Sequence[Quorum], seats: Iterable[K], fills: Callable[[K, Quorum], bool]) -> bool:
    """Whether distinct seats fill every place of every quorum: none fills two (a bipartite matching)."""
    places = [quorum for quorum in quorums for _ in range(quorum.approve)]
    there = list(dict.fromkeys(seats))
    taken: dict[K, int] = {}

    def find(place: int, tried: set[K]) -> bool:
        for seat in there:
            if seat in tried or not fills(seat, places[place]):
                continue
            tried.add(seat)
            if seat not in taken or find(taken[seat], tried):
                taken[seat] = place
                return True
        return False

    return all(find(place, set()) for place in range(len(places)))


def _persons(votes: Sequence[Vote]) -> set[str]:
    return {one.person for one in votes if one.counts}


def _and(names: Sequence[str]) -> str:
    return " and ".join(names)
