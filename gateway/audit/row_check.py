"""Checks, for `gateway audit verify`, the codes of rows, and what no code can show: old sessions and lost spend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.audit.case_check import is_older
from gateway.audit.recorded import Names, Recorded
from gateway.audit.wrong import Wrong
from gateway.store.interface import Connection
from gateway.store.macs import COVERED, RowMacs, key_of

_NANOS = 10**9
_CLOSE_NS = 60 * _NANOS  # between a time in a row and that of its record
_SESSION_NS = 12 * 3600 * _NANOS
_LINK_NS = 15 * 60 * _NANOS
_SESSIONS = (
    "SELECT token_sha256, person_id, created_ns, expires_ns, revoked_ns FROM console_session ORDER BY created_ns"
)
_LINKS = "SELECT token_sha256, person_id, expires_ns, used_ns FROM sign_in ORDER BY expires_ns"
_OF_SESSIONS = frozenset(
    f"person.{what}" for what in ("link_made", "signed_in", "signed_out", "token_made", "session_revoked", "removed")
)
_KEPT_ALWAYS = ("agent:", "user:")  # levels whose days and months are counted whether or not they are limited


def unsealed(connection: Connection) -> set[str] | None:
    """Tables whose rows have no codes yet; None where the database is of a version without codes."""
    if is_older(connection):
        return None
    return {str(name) for (name,) in connection.execute("SELECT name FROM unsealed")}


def rows_without_code(connection: Connection, macs: RowMacs, waiting: set[str]) -> Iterator[Wrong]:
    """Rows that no gateway with these keys wrote, or that were changed since; of tables that are not `waiting`."""
    for table, covered in COVERED.items():
        if table in waiting:
            continue
        for row in connection.execute(f"SELECT {covered.listed} FROM {table}"):  # noqa: S608 - names of ours
            if not macs.is_ours(table, row):
                yield Wrong(table, key_of(table, row), "was not written by this gateway, or was changed since")


class SessionCheck:
    """Holds sessions and sign-in links against the records of people, also of versions that did not name them there."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._before = {statement: set(connection.execute(statement)) for statement in (_SESSIONS, _LINKS)}
        self._made: dict[tuple[str, str], list[int]] = {}  # what, person -> times on record
        self._named: dict[str, str] = {}  # session or link -> what the log said of it last

    def add(self, leaf: dict[str, Any], at_ns: int) -> None:
        """What one record says of sessions."""
        type_, labels = leaf["type"], leaf["labels"]
        if type_ not in _OF_SESSIONS:
            return
        person = labels.get("subject.person")
        self._made.setdefault((type_, person), []).append(at_ns)
        if type_ == "person.link_made":
            self._named[labels.get("subject.link", "")] = "made"
        elif type_ == "person.signed_in":
            self._named[labels.get("subject.link", "")] = "used"
            self._named[labels.get("subject.session", "")] = "made"
        elif type_ == "person.token_made":
            self._named[labels.get("subject.token", "")] = "made"
        elif type_ == "person.signed_out":
            self._named[labels.get("subject.session", "")] = "ended"
        elif type_ == "person.session_revoked":
            self._named[labels.get("subject.token", "")] = "ended"

    def wrong(self) -> Iterator[Wrong]:
        """All records were seen. Rows that were changed meanwhile are left out."""
        yield from self._sessions()
        yield from self._links()

    def _stayed(self, statement: str) -> list[Any]:
        return [row for row in self._connection.execute(statement) if tuple(row) in self._before[statement]]

    def _sessions(self) -> Iterator[Wrong]:
        rows = self._stayed(_SESSIONS)
        signed_out = {person: list(times) for (what, person), times in self._made.items() if what.endswith("_out")}
        for _, person, _, _, revoked_ns in rows:
            if revoked_ns is not None:
                _take(signed_out.get(person, []), revoked_ns)
        signed_in = {person: list(times) for (what, person), times in self._made.items() if what.endswith("_in")}
        for token, person, created_ns, expires_ns, revoked_ns in rows:
            key = key_of("sign_in", (token,))
            said = self._named.get(key)
            is_on_record = said is not None or _take(signed_in.get(person, []), created_ns)
            if revoked_ns is not None:
                continue
            if not is_on_record or (said is None and expires_ns > created_ns + _SESSION_NS):
                yield Wrong("console_session", key, f"lets {person} in, and no record says so")
            elif said == "ended" or (said is None and any(at > created_ns for at in signed_out.get(person, []))):
                yield Wrong("console_session", key, f"lets {person} in, and was ended on record")
            elif any(at > created_ns for at in self._made.get(("person.removed", person), [])):
                yield Wrong("console_session", key, f"lets {person} in, who was removed on record since")

    def _links(self) -> Iterator[Wrong]:
        made = {person: list(times) for (what, person), times in self._made.items() if what.endswith("link_made")}
        for token, person, expires_ns, used_ns in self._stayed(_LINKS):
            key = key_of("sign_in", (token,))
            said = self._named.get(key)
            is_on_record = said is not None or _take(made.get(person, []), expires_ns - _LINK_NS)
            if used_ns is not None:
                continue
            if not is_on_record:
                yield Wrong("sign_in", key, f"lets {person} in, and no record says so")
            elif said == "used":
                yield Wrong("sign_in", key, f"lets {person} in again, and was used on record")


class SpendCheck:
    """Compares what rows say was spent by agents and users with the costs on record."""

    def __init__(self, connection: Connection, names: Mapping[str, Names]) -> None:
        """`names` by time zone, as the rows' windows name it."""
        self._connection = connection
        self.recorded = Recorded(
            "", lambda now_ns: tuple(one for of in names.values() for one in of(now_ns)), shared=True
        )

    def wrong(self) -> Iterator[Wrong]:
        """All records were seen."""
        rows: dict[tuple[str, str, str], tuple[int, int]] = {}
        replicas: dict[tuple[str, str, str], list[str]] = {}
        zones: dict[tuple[str, str], set[str]] = {}
        for tenant, level, window, replica, nanousd, tokens in self._connection.execute(
            'SELECT tenant, level, "window", replica, nanousd, tokens FROM spend'
        ):
            replicas.setdefault((tenant, level, window), []).append(replica)
            had = rows.get((tenant, level, window), (0, 0))
            rows[tenant, level, window] = (had[0] + nanousd, had[1] + tokens)
            zones.setdefault((tenant, level), set()).add(str(window).partition("@")[2])
        totals: dict[tuple[str, str, str], tuple[int, int]] = {}
        for key, (nanousd, tokens) in self.recorded.state.spent.items():
            tenant, level, window, _ = key.split("\x00")
            had = totals.get((tenant, level, window), (0, 0))
            totals[tenant, level, window] = (had[0] + nanousd, had[1] + tokens)
        for (tenant, level, window), said in totals.items():
            if not level.startswith(_KEPT_ALWAYS) or len(zones.get((tenant, level), ())) > 1:
                continue  # where the time zone was changed, a window was begun in its middle
            stands = rows.get((tenant, level, window), (0, 0))
            if stands[0] < said[0] or stands[1] < said[1]:
                fault = f"says that less was spent ({stands[0]} nano-USD, {stands[1]} tokens) than is on record"
                fault = f"{tenant}/{level}/{window} {fault} ({said[0]}, {said[1]})"
                for replica in replicas.get((tenant, level, window), ("",)):
                    yield Wrong("spend", f"{tenant}/{level}/{window}/{replica}", fault)


def zones_of(connection: Connection) -> set[str]:
    """The time zones that windows of spend are named in; '' is UTC."""
    found = connection.execute('SELECT DISTINCT "window" FROM spend')
    return {str(window).partition("@")[2] for (window,) in found} | {""}


def _take(times: list[int], at_ns: int) -> bool:
    """Take the nearest of `times` that is close to a time; False if there is none."""
    nearest = min(times, key=lambda one: abs(one - at_ns), default=None)
    if nearest is None or abs(nearest - at_ns) > _CLOSE_NS:
        return False
    times.remove(nearest)
    return True
