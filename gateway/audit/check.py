"""`verify_data_dir`: the whole trail of a data directory against what was signed, from the files alone.

Opens the database read-only and works while the gateway runs and while it refuses to start.

What it proves at best is `operator-signed`: every record up to the signed size is, byte for byte and in order,
what the holder of the signing key signed, and no record of them is missing. It can't prove that nobody with
access to the whole machine put an older database and the older checkpoint file back together, or signed a
rewritten log with the same key: that takes a checkpoint kept elsewhere (pass it as `known`), and later witnesses.
Records after the last checkpoint (at most about a second's worth) are counted as not yet signed.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from gateway.audit.beside import UNCHECKED, ProjectionCheck, RegisterCheck
from gateway.audit.case_check import CaseCheck
from gateway.audit.ingest import is_of_a_replica
from gateway.audit.keys import public_key, queue_key, rows_key, wrapping_key
from gateway.audit.payload_check import PayloadCheck
from gateway.audit.recorded import ROWS_SEALED, NamesIn, nanoseconds
from gateway.audit.row_check import SessionCheck, SpendCheck, rows_without_code, unsealed, zones_of
from gateway.audit.source import FileSource, Source, WrongKeyError
from gateway.audit.wrong import Wrong
from gateway.store.interface import Connection
from gateway.store.macs import RowMacs
from gateway.verify.canonical import decode
from gateway.verify.checkpoints import Checkpoint, open_checkpoint
from gateway.verify.notes import NoteError, Verifier, signers
from gateway.verify.trail import Finding, Findings, Trail

_RESULT = "action.result"
_THE_KEY = "the log's own public key, as the console's audit page shows it, or a file with it"
_CHUNK = 1000
_BREATH = 16  # records between two rests
_SHOWN = 10
_LIMIT = (
    "a database and its checkpoint file put back together to an older state can't be told by this machine alone: "
    "compare this size and root with a copy kept elsewhere, or pass that copy with --known"
)


class Report(msgspec.Struct, kw_only=True):
    """What was proved and what was found. `verdict`: invalid, unsigned (no checkpoint: nothing proved), or
    operator-signed."""

    verdict: str
    leaves: int
    signed_size: int
    signed_root: str | None = None
    unsigned: int
    checkpoints: int
    in_flight: int
    interrupted: int
    payloads_checked: int
    payloads_erased: int
    running: bool
    origin: str | None = None
    vkey: str | None = None
    vkey_given: bool = False
    first_ts: str | None = None
    last_ts: str | None = None
    findings: list[Finding] = []
    findings_count: int = 0
    notes: list[str] = []
    contradicted: list[tuple[str, str]] = []
    """Rows that the records contradict: table and key."""
    records_hold: bool = True
    """Whether the records themselves are what was signed, whatever rows say."""
    rows_sealed: bool = False
    """Whether the log says that rows were authenticated before."""

    @property
    def ok(self) -> bool:
        """Nothing wrong was found and something was proved."""
        return self.verdict == "operator-signed"

    def lines(self) -> list[str]:
        """For people."""
        signed = f"the last signed checkpoint covers {self.signed_size}, {self.unsigned} not yet signed"
        intents = f"intents in flight {self.in_flight}, interrupted {self.interrupted}"
        payloads = f"payloads checked {self.payloads_checked}, erased {self.payloads_erased}"
        text = [f"{self.verdict}: {self.leaves} records verified, {signed}"]
        text.append(f"checkpoints {self.checkpoints}, {intents}, {payloads}")
        if self.signed_root is not None:
            text.append(f"checkpoint {self.signed_size}:{self.signed_root}")
        text += [f"FOUND {finding.code}: {finding.message}" for finding in self.findings]
        if self.findings_count > len(self.findings):
            text.append(f"and {self.findings_count - len(self.findings)} more")
        return [*text, *self.notes, f"limit: {_LIMIT}", UNCHECKED]


def verify_data_dir(
    path: Path,
    *,
    vkey: str | None = None,
    known: bytes | Checkpoint | None = None,
    payloads: bool = True,
    rest: Callable[[], None] | None = None,
    names_in: NamesIn | None = None,
) -> Report:
    """Check everything in the data directory `path`.

    `vkey` is the public key as the auditor holds it; without it the one beside the log is used, and the report
    says so. `known` is a checkpoint that the auditor kept from before, as a note or by its size and root. `rest` is
    called after every few records,
    to sleep, or to raise and so end the walk. `names_in` names the windows of spend in a time zone; without it spend is
    not compared. Raises nothing for what it finds; WrongKeyError where a key is another log's.
    """
    return verify(FileSource(path), vkey=vkey, known=known, payloads=payloads, rest=rest, names_in=names_in)


def verify(
    source: Source,
    *,
    vkey: str | None = None,
    known: bytes | Checkpoint | None = None,
    payloads: bool = True,
    rest: Callable[[], None] | None = None,
    names_in: NamesIn | None = None,
) -> Report:
    """The same for any trail, wherever it is kept. Raises UnreadableError where it can't be read from there, and
    WrongKeyError where `vkey`, or the folder of keys, is another log's."""
    return _Check(source, vkey, known, payloads, rest, names_in).run()


class _Rows:
    """All checks of rows against records."""

    def __init__(self, connection: Connection, names_in: NamesIn | None) -> None:
        self.is_sealed = False
        self._registers = RegisterCheck(connection)
        self._cases = CaseCheck(connection)
        self._sessions = SessionCheck(connection)
        names = {} if names_in is None else {zone: partial(names_in, zone) for zone in zones_of(connection)}
        self._spend = SpendCheck(connection, names)

    def add(self, leaf: dict[str, Any], body: bytes) -> None:
        """The next record."""
        type_ = leaf["type"]
        self._registers.add(leaf)
        self._cases.add(leaf)
        if isinstance(type_, str) and type_.startswith("person."):
            self._sessions.add(leaf, nanoseconds(leaf["ts"]))
        if type_ == "gateway.start" and ROWS_SEALED in leaf["labels"]:
            self.is_sealed = True
        self._spend.recorded.add(body)

    def wrong(self) -> Iterator[tuple[str, Wrong]]:
        """What was found, each with the code of its finding."""
        for code, check in (
            ("register_altered", self._registers),
            ("case_altered", self._cases),
            ("session_altered", self._sessions),
            ("spend_altered", self._spend),
        ):
            for wrong in check.wrong():
                yield code, wrong


class _Check:
    def __init__(
        self,
        source: Source,
        vkey: str | None,
        known: bytes | Checkpoint | None,
        payloads: bool,
        rest: Callable[[], None] | None,
        names_in: NamesIn | None,
    ) -> None:
        self.source = source
        self.names_in = names_in
        self.contradicted: list[tuple[str, str]] = []
        self.faults_of_rows = 0
        self.rows_sealed = False
        self.rest = rest
        self.findings = Findings()
        self.trail = Trail(self.findings)
        self.notes: list[str] = []
        self.running = source.running()
        self.vkey_given = vkey is not None
        self.verifier = self._verifier(vkey)
        self.known = known
        key = wrapping_key(source.keys) if payloads else None
        if payloads and key is None:
            self.notes.append("payloads were not checked: their wrapping key can't be read from here")
        self.payloads = None if key is None else PayloadCheck(key, self.findings)
        self.checkpoints = 0
        self.signed_size = 0
        self.signed_root: bytes | None = None
        self.waiting = 0  # records without a place
        self.mismatched = 0  # checkpoints that the records do not lead to

    def run(self) -> Report:
        in_file = self._file()
        known = self._opened(self.known, "given checkpoint") if isinstance(self.known, bytes) else self.known
        opened = False
        try:
            with self.source.read() as connection:
                opened = True
                self._check_keys(connection)
                self._walk(connection, [("file", in_file), ("given", known)])
        except self.source.faults as error:
            what = "the database is damaged" if opened else "the database can't be opened"
            self.findings.add("database_unreadable", f"{what}: {error}")
        self._against("the file audit/checkpoint", in_file)
        self._against("the checkpoint you gave", known)
        return self._report()

    # ------------------------------------------------------------ reading

    def _verifier(self, vkey: str | None) -> Verifier | None:
        try:
            return Verifier.parse(vkey if vkey is not None else (self.source.folder / "vkey").read_text())
        except (NoteError, OSError, UnicodeDecodeError) as error:
            if vkey is not None:
                raise WrongKeyError(f"The key that you gave can't be used ({error}); give {_THE_KEY}.") from error
            self.findings.add("key_unusable", f"the public key can't be used: {error}")
            return None

    def _check_keys(self, connection: Connection) -> None:
        """Whether the keys that were given are this log's. Raises WrongKeyError; nothing is then said of the log.

        A log whose checkpoints were all signed with another key ends here too, which is why the sentence says so.
        """
        stored: set[str] = set().union(*(signers(bytes(note)) for _, _, note in connection.execute(_CHECKPOINTS)))
        used = None if self.verifier is None else self.verifier.short
        if self.source.shared and stored:
            self._check_installation(stored, used)
        if not self.vkey_given:
            return
        file = self.source.folder / "checkpoint"
        found = stored | (signers(file.read_bytes()) if file.is_file() else set()) or self._beside()
        if found and used not in found:
            raise WrongKeyError(
                f"The key {used} is not this log's: its checkpoints are signed by {_list(found)}. Nothing was verified;"
                f" give {_THE_KEY}. If you are sure of the key, somebody put another log in its place."
            )

    def _check_installation(self, stored: set[str], used: str | None) -> None:
        """Whether the database, the folder of keys and the data directory are of one installation."""
        own = public_key(self.source.keys)
        if own is not None and own not in stored:
            raise WrongKeyError(
                f"The keys in {self.source.keys} are not this log's: they are of {own}, and the database's checkpoints"
                f" are signed by {_list(stored)}. Nothing was verified; set GATEWAY_KEYS_DIR to the log's own folder."
            )
        if own is not None and not self.vkey_given and used is not None and used not in stored:
            raise WrongKeyError(
                f"The data directory {self.source.folder.parent} is of another log ({used}) than the database"
                f" ({_list(stored)}). Nothing was verified; name the data directory of one of its replicas, or unset"
                " GATEWAY_DATABASE_URL to verify the directory's own log."
            )

    def _beside(self) -> set[str]:
        try:
            return {Verifier.parse((self.source.folder / "vkey").read_text()).short}
        except (NoteError, OSError, UnicodeDecodeError):
            return set()

    def _file(self) -> Checkpoint | None:
        try:
            note = (self.source.folder / "checkpoint").read_bytes()
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                self.findings.add("checkpoint_unreadable", f"the file audit/checkpoint can't be read: {error}")
            return None
        return self._opened(note, "file audit/checkpoint")

    def _opened(self, note: bytes, where: str) -> Checkpoint | None:
        if self.verifier is None:
            return None
        try:
            return open_checkpoint(note, self.verifier, self.verifier.name)
        except NoteError as error:
            self.findings.add("signature_bad", f"the {where} does not hold: {error}")
            return None

    def _walk(self, connection: Connection, anchors: list[tuple[str, Checkpoint | None]]) -> None:
        wanted: dict[int, list[tuple[str, bytes]]] = {}
        for where, anchor in anchors:
            if anchor is not None:
                wanted.setdefault(anchor.size, []).append((where, anchor.root))
                if anchor is not self.known:  # a bare size and root is not signed
                    self._signed(anchor)
        largest = 0
        for size, root, note in connection.execute(_CHECKPOINTS):
            self.checkpoints += 1
            largest = max(largest, size)
            checkpoint = self._opened(note, f"stored checkpoint of {size} records")
            if checkpoint is None:
                continue
            if (checkpoint.size, checkpoint.root) != (size, root):
                self.findings.add("checkpoint_altered", f"the stored checkpoint of {size} records is filed wrongly")
            wanted.setdefault(checkpoint.size, []).append(("stored", checkpoint.root))
            self._signed(checkpoint)
        in_file = anchors[0][1]
        is_missing = in_file is None and not (self.source.folder / "checkpoint").exists()
        if largest and is_missing and self.source.shared:
            self.notes.append("this machine kept no checkpoint of its own: only what the database holds was compared")
        elif largest and is_missing:
            self.findings.add("checkpoint_missing", "the file audit/checkpoint is missing although records were signed")
        elif in_file is not None and in_file.size < largest and not self.running:
            self.findings.add(
                "checkpoint_older", f"the file audit/checkpoint is older ({in_file.size}) than the database ({largest})"
            )
        self._compare(wanted)
        projection, rows_of = ProjectionCheck(connection), _Rows(connection, self.names_in)
        type_of = "pg_typeof({})::text" if self.source.shared else "typeof({})"
        rows = _rows(connection, self.payloads is not None, projection.step, type_of)
        for idx, record_id, kinds, body, hashed, sealed, wrapped in rows:
            if kinds != self.source.bytes_type * 2:
                self.findings.add("record_altered", f"record {idx} is not stored as the bytes that were written", idx)
            leaf = self.trail.add(idx, record_id, body, hashed)
            if leaf is not None:
                projection.add(idx, body)
                rows_of.add(leaf, body)
            if self.payloads is not None and leaf is not None:
                self.payloads.add(idx, leaf, sealed, wrapped)
            self._compare(wanted)
            if self.rest is not None and not idx % _BREATH:
                self.rest()
        self._not_placed(connection, rows_of)
        if self.mismatched > 1:
            self.notes.append(
                f"{self.mismatched - 1} later checkpoints do not match either: they cover the same records"
            )
        if self.payloads is not None:
            self.payloads.finish()
        self._compare_rows(connection, rows_of)
        projection.finish()
        self._told_by(projection)

    def _compare_rows(self, connection: Connection, rows_of: _Rows) -> None:
        """What the records contradict, and what no gateway wrote; a row that is both is one finding."""
        before = self.findings.count
        self.rows_sealed = rows_of.is_sealed
        for code, wrong in rows_of.wrong():
            self.findings.add(code, f"table {wrong.table}: {wrong.fault}")
            self.contradicted.append((wrong.table, wrong.key))
        waiting, key = unsealed(connection), rows_key(self.source.keys)
        if waiting is None:
            self.notes.append("rows were not authenticated: the database is of a version without codes")
        elif key is None:
            self.notes.append("rows were not authenticated: the key of their codes can't be read from here")
        else:
            if waiting:
                tables = ", ".join(sorted(waiting))
                self.notes.append(f"rows of {tables} have no codes yet: the next start compares them with the records")
            found = set(self.contradicted)
            for wrong in rows_without_code(connection, RowMacs(key), waiting):
                if (wrong.table, wrong.key) not in found:
                    self.findings.add("row_altered", f"table {wrong.table}: the row {wrong.key} {wrong.fault}")
        self.faults_of_rows = self.findings.count - before

    def _not_placed(self, connection: Connection, rows_of: _Rows) -> None:
        """Records that have no place in the log yet have changed registers and cases already."""
        if not self.source.shared:
            return
        key = queue_key(self.source.keys)
        for record_id, body, mac in connection.execute("SELECT id, body, mac FROM ingest ORDER BY seq"):
            self.waiting += 1
            if key is not None and not is_of_a_replica(key, record_id, bytes(body), bytes(mac)):
                self.findings.add(
                    "record_malformed",
                    f"record {record_id}, which has no place yet (table ingest), is not what a replica wrote",
                )
                continue
            try:
                leaf = decode(body)
                rows_of.add(leaf, bytes(body))
                if leaf["type"] == _RESULT:
                    self.trail.open.pop(leaf["refs"]["intent"], None)
            except (KeyError, TypeError, AttributeError, ValueError):
                self.findings.add(
                    "record_malformed", f"record {record_id}, which has no place yet (table ingest), is not one"
                )

    def _told_by(self, projection: ProjectionCheck) -> None:
        """Where records themselves were changed, that the view differs is a trace of it, not another fault."""
        if self.findings.count:
            self.notes += [f"for comparison: {message}" for _, message in projection.wrong[:_SHOWN]]
            return
        for idx, message in projection.wrong:
            self.findings.add("projection_altered", message, idx)
        self.faults_of_rows += len(projection.wrong)

    def _signed(self, checkpoint: Checkpoint) -> None:
        if checkpoint.size >= self.signed_size:
            self.signed_size, self.signed_root = checkpoint.size, checkpoint.root

    def _compare(self, wanted: dict[int, list[tuple[str, bytes]]]) -> None:
        roots = wanted.pop(self.trail.size, None)
        if roots is None:
            return
        found = self.trail.frontier.root()
        if all(root == found for _, root in roots):
            return
        self.mismatched += 1
        if self.mismatched == 1:
            self.findings.add(
                "tree_mismatch",
                f"the first {self.trail.size} records are not those that were signed: one was edited, reordered, "
                "inserted or replaced",
            )

    def _against(self, where: str, checkpoint: Checkpoint | None) -> None:
        if checkpoint is not None and checkpoint.size > self.trail.size:
            self.findings.add(
                "records_missing",
                f"{where} covers {checkpoint.size} records, but only {self.trail.size} are there: the last ones were "
                "deleted, an older database was put back, or the write-ahead log is damaged",
            )

    def _report(self) -> Report:
        trail, findings = self.trail, self.findings
        lost = trail.lost_intents(running=self.running)
        for intent_id, idx in lost:
            findings.add("intent_without_result", f"record {idx} (intent {intent_id}) has no result", idx)
        left = len(trail.open) - len(lost)
        if left and not self.running:
            self.notes.append(
                f"the gateway was interrupted with {left} actions open: its next start records them as unknown"
            )
        if not self.vkey_given:
            self.notes.append("the public key was taken from the data directory itself: pass yours to be sure")
        if findings.count:
            verdict = "invalid"
        elif not self.signed_size:
            verdict = "unsigned"
            self.notes.append("no signed checkpoint was found, so nothing is proved")
        else:
            verdict = "operator-signed"
        return Report(
            verdict=verdict,
            leaves=trail.size,
            signed_size=self.signed_size,
            signed_root=None if self.signed_root is None else base64.b64encode(self.signed_root).decode(),
            unsigned=max(0, trail.size - self.signed_size) + self.waiting,
            checkpoints=self.checkpoints,
            in_flight=left if self.running else 0,
            interrupted=0 if self.running else left,
            payloads_checked=0 if self.payloads is None else self.payloads.checked,
            payloads_erased=0 if self.payloads is None else self.payloads.erased,
            running=self.running,
            origin=None if self.verifier is None else self.verifier.name,
            vkey=None if self.verifier is None else self.verifier.vkey,
            vkey_given=self.vkey_given,
            first_ts=trail.first_ts,
            last_ts=trail.last_ts,
            findings=findings.kept,
            findings_count=findings.count,
            notes=self.notes,
            contradicted=self.contradicted,
            records_hold=findings.count == self.faults_of_rows + len(lost) and self.verifier is not None,
            rows_sealed=self.rows_sealed,
        )


def _list(names: set[str]) -> str:
    return ", ".join(sorted(names))


# Whoever edits a file may also change what type a value has; that is for the findings, not the end of the walk.
_CHECKPOINTS = "SELECT size, CAST(root AS BLOB), CAST(note AS BLOB) FROM checkpoint ORDER BY size"
_KINDS = ("leaf.body", "leaf.hash")
_RECORD = "SELECT leaf.idx, leaf.id, {kinds}, CAST(leaf.body AS BLOB), CAST(leaf.hash AS BLOB)"
_ALONE = f"{_RECORD}, NULL, NULL FROM leaf"
_WITH_PAYLOADS = (
    f"{_RECORD}, payload.sealed, payload_key.wrapped FROM leaf"
    " LEFT JOIN payload ON payload.leaf_id = leaf.id LEFT JOIN payload_key ON payload_key.leaf_id = leaf.id"
)


def _rows(
    connection: Connection, payloads: bool, step: Callable[[int, int], None], type_of: str
) -> Iterator[tuple[int, str, str, bytes, bytes, Any, Any]]:
    """All records, with their sealed payloads if wanted, in steps, so that a running gateway's WAL is not held back."""
    kinds = " || ".join(type_of.format(one) for one in _KINDS)
    what = (_WITH_PAYLOADS if payloads else _ALONE).format(kinds=kinds)
    after = -1
    while True:
        rows = connection.execute(f"{what} WHERE leaf.idx > ? ORDER BY leaf.idx LIMIT ?", (after, _CHUNK)).fetchall()
        if rows:
            step(after, rows[-1][0])
        yield from rows
        if len(rows) < _CHUNK:
            return
        after = rows[-1][0]
