"""What the database adds to `gateway check`: who may decide each agent's cases, and which agents there are.

An owner of an agent does not decide for it, so a small gateway can have escalations that nobody may approve; they
would all expire.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import msgspec

from gateway.approvals.deciders import plain
from gateway.audit.keys import rows_key
from gateway.config import Agent, Config
from gateway.documents import Document, Problem
from gateway.identity.people import Role
from gateway.store.connections import DATABASE_NAME, open_for_reading
from gateway.store.macs import RowMacs


class Reviewer(NamedTuple):
    """A person who may decide cases, and the groups they belong to."""

    id: str
    groups: frozenset[str]


class Registered(NamedTuple):
    """An agent in the database, what it belongs to, and who owns it."""

    id: str
    team: str
    tier: str
    use_case: str
    owners: frozenset[str]


def reviewers(data_dir: Path) -> list[Reviewer] | None:
    """Who may decide; None where that can't be seen."""
    known = _people(data_dir)
    if known is None:
        return None
    return [Reviewer(person, groups) for person, roles, groups in known if Role.REVIEWER in roles]


def operators(data_dir: Path) -> frozenset[str]:
    """Who may make sign-in links for others, as far as it can be seen."""
    return frozenset(person for person, roles, _ in _people(data_dir) or () if Role.OPERATOR in roles)


def too_few_hands(
    asked: Iterable[tuple[int, str, int]], known: Iterable[Reviewer], operators: Iterable[str], keys: Iterable[str]
) -> Iterator[Problem]:
    """Quorums that can't be filled, since one operator makes all links and what they made fills one place together.

    `asked`: how many approvals rules ask for, with file and line; `keys`: who signs in with a key of their own.
    """
    keyed, deciding = {plain(one) for one in keys}, {plain(one.id) for one in known}
    makers = 1 + len({plain(one) for one in operators} & keyed - deciding)  # the local operator has no key
    places = len(deciding & keyed) + min(len(deciding - keyed), makers)
    for number, file, line in asked:
        if number > max(places, 1) and len(deciding) >= number:
            yield Problem(
                file,
                line,
                f"{number} approvals are asked for, and at most {places} can count: one operator makes the links"
                " by which reviewers without a key of their own sign in, and these fill one place together.",
                "Name reviewers' public keys under sign_in.keys of gateway.yaml; they use `gateway login --key`.",
                "warning",
            )


def _people(data_dir: Path) -> list[tuple[str, list[str], frozenset[str]]] | None:
    """Everybody with roles and groups, from the database as it lies there; None where none can be read.

    It is only read. One that no gateway has started on holds nobody: its first start adds the local operator.
    """
    path = data_dir / DATABASE_NAME
    if not path.is_file():
        return None
    try:
        with closing(open_for_reading(path)) as connection:
            key = rows_key(data_dir / "keys")
            if key is None:
                rows = connection.execute("SELECT id, roles, groups FROM person WHERE removed_ns IS NULL").fetchall()
            else:  # a person that somebody else put there decides nothing
                found = RowMacs(key).read(connection, "person", "WHERE removed_ns IS NULL")
                rows = [(row[0], row[3], row[6]) for row in found]
        known = [(person, _strings(roles), frozenset(_strings(groups))) for person, roles, groups in rows]
    except (sqlite3.Error, msgspec.DecodeError):
        return None  # of an older version: `gateway serve` and `gateway migrate` tell what is wrong with a database
    return known or None


def registered(data_dir: Path) -> list[Registered] | None:
    """The agents that were registered through the API, read as `reviewers` are; None where they can't be seen."""
    path = data_dir / DATABASE_NAME
    if not path.is_file():
        return None
    try:
        with closing(open_for_reading(path)) as connection:
            rows = connection.execute(
                "SELECT id, team, tier, use_case, owners FROM agent WHERE source = 'api'"
            ).fetchall()
        return [
            Registered(id_, team, tier, use_case, frozenset(_owners_of(owners)))
            for id_, team, tier, use_case, owners in rows
        ]
    except (sqlite3.Error, msgspec.DecodeError):
        return None


def nobody_left(
    document: Document, config: Config, known: Iterable[Reviewer], agents: Iterable[Registered] = ()
) -> Iterator[Problem]:
    """Agents, and groups for an agent, that no reviewer may decide for. `agents`: those of the database."""
    everybody = list(known)
    asking = [(("agents", index), agent.id, _owners(agent)) for index, agent in enumerate(config.agents)]
    for place, agent_id, owners in (*asking, *((("agents",), one.id, one.owners) for one in agents)):
        left = [one for one in everybody if plain(one.id) not in owners]
        if not left:
            yield document.problem(
                place,
                f"Nobody may decide what the agent {agent_id} has to ask for, or find out what became of a call whose"
                " outcome is unknown: no reviewer is left who does not own it.",
                "Add one: gateway people add NAME --role reviewer.",
                warning=True,
            )
            continue
        for group in config.approvals.groups:
            if not any(group in one.groups for one in left):
                yield document.problem(
                    ("approvals", "groups"),
                    f"Nobody of the group {group!r} may decide for the agent {agent_id}.",
                    f"Add a member who does not own it: gateway people add NAME --role reviewer --group {group}.",
                    warning=True,
                )


def _owners(agent: Agent) -> frozenset[str]:
    held: Mapping[str, str] = agent.owners.model_dump()
    return frozenset(plain(person) for person in held.values() if person)


def _owners_of(text: str) -> Iterator[str]:
    return (plain(person) for person in msgspec.json.decode(text, type=dict[str, str]).values() if person)


def _strings(text: str) -> list[str]:
    return msgspec.json.decode(text, type=list[str])
