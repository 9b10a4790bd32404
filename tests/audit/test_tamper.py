"""Invariant 9: what is done to the files behind the gateway's back is told, below the last signed checkpoint.

Each test edits real files the way someone with a shell would.
"""

from __future__ import annotations

import asyncio
import base64
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.audit import AuditLog, records
from gateway.audit.check import Report, verify_data_dir
from gateway.audit.reverify import Reverification
from gateway.audit.source import FileSource, WrongKeyError, is_replicas
from gateway.audit.view import Filter
from gateway.errors import Refusal
from gateway.store import Writer
from gateway.store.interface import Connection
from gateway.verify.checkpoints import Checkpoint
from gateway.verify.notes import Signer, Verifier
from gateway.verify.tree import leaf_hash
from tests.audit.house import ORIGIN, House, embedded


@contextmanager
def database(house: House) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(house.data_dir / "gateway.db")
    try:
        yield connection
        connection.commit()
    finally:
        connection.close()


def codes(report: Report) -> set[str]:
    return {finding.code for finding in report.findings}


async def fill(house: House, pairs: int = 10) -> None:
    async with house.log() as log:
        await house.pairs(log, pairs)


async def start_refusal(house: House) -> str:
    """The one sentence with which the gateway refuses to start."""
    with pytest.raises(Refusal) as caught:
        async with house.log():
            pass
    assert caught.value.code == "audit_unavailable"
    return caught.value.message


async def test_an_untouched_log_is_operator_signed_and_no_more(house: House) -> None:
    await fill(house)
    report = verify_data_dir(house.data_dir)
    assert report.verdict == "operator-signed"
    assert report.ok
    assert (report.leaves, report.signed_size, report.unsigned) == (22, 22, 0)
    assert report.payloads_checked == 30
    assert report.in_flight == report.interrupted == 0
    assert "22 records verified, the last signed checkpoint covers 22, 0 not yet signed" in report.lines()[0]
    assert not report.vkey_given


async def test_verifying_changes_nothing_in_the_files(house: House) -> None:
    await fill(house)
    files = ["gateway.db", "audit/checkpoint", "audit/vkey"]
    before = [(house.data_dir / name).read_bytes() for name in files]
    verify_data_dir(house.data_dir)
    assert [(house.data_dir / name).read_bytes() for name in files] == before


async def test_every_flipped_byte_of_a_record_is_told(house: House) -> None:
    await fill(house, 1)
    path = house.data_dir / "gateway.db"
    whole = path.read_bytes()
    with database(house) as connection:
        bodies = [bytes(row[0]) for row in connection.execute("SELECT body FROM leaf ORDER BY idx")]
    for body in bodies:
        start = whole.find(body)
        assert start > 0
        for at in range(start, start + len(body), 97):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x01]) + whole[at + 1 :])
            report = verify_data_dir(house.data_dir)
            assert report.verdict == "invalid"
            assert "record_altered" in codes(report)
    path.write_bytes(whole)
    assert verify_data_dir(house.data_dir).ok


async def test_a_record_edited_together_with_its_hash_is_told(house: House) -> None:
    await fill(house)
    with database(house) as connection:
        (body,) = connection.execute("SELECT body FROM leaf WHERE idx = 5").fetchone()
        edited = bytes(body).replace(b'"user":"ada"', b'"user":"bob"')
        assert edited != body
        connection.execute("UPDATE leaf SET body = ?, hash = ? WHERE idx = 5", (edited, leaf_hash(edited)))
    assert codes(verify_data_dir(house.data_dir)) == {"tree_mismatch"}


async def test_many_later_checkpoints_are_told_as_one_finding_and_a_count(house: House) -> None:
    for _ in range(3):
        await fill(house, 2)
    with database(house) as connection:
        (body,) = connection.execute("SELECT body FROM leaf WHERE idx = 1").fetchone()
        edited = bytes(body).replace(b'"user":"ada"', b'"user":"bob"')
        assert edited != body
        connection.execute("UPDATE leaf SET body = ?, hash = ? WHERE idx = 1", (edited, leaf_hash(edited)))
        (later,) = connection.execute("SELECT count(*) - 1 FROM checkpoint WHERE size > 1").fetchone()
    assert later >= 2
    report = verify_data_dir(house.data_dir)
    assert [finding.code for finding in report.findings] == ["tree_mismatch"]
    assert any(f"{later} later checkpoints" in line for line in report.lines())


@pytest.mark.parametrize("column", ["body", "hash"])
async def test_a_record_stored_as_text_is_one_finding_and_the_walk_goes_on(house: House, column: str) -> None:
    await fill(house)
    with database(house) as connection:
        connection.execute(f"UPDATE leaf SET {column} = CAST({column} AS TEXT) WHERE idx = 5")
    report = verify_data_dir(house.data_dir)
    assert [(finding.code, finding.idx) for finding in report.findings] == [("record_altered", 5)]
    assert report.leaves == 22


async def test_a_stopped_walk_ends_and_says_nothing(house: House) -> None:
    await fill(house)
    walk = Reverification(FileSource(house.data_dir))
    walk._stop.set()
    await walk.run()
    assert walk.fault is None


async def test_reordered_records_are_told(house: House) -> None:
    await fill(house)
    with database(house) as connection:
        for old, new in ((5, -1), (6, 5), (-1, 6)):
            connection.execute("UPDATE leaf SET idx = ? WHERE idx = ?", (new, old))
    found = codes(verify_data_dir(house.data_dir))
    assert {"tree_mismatch", "sequence_gap"} <= found


async def test_a_deleted_last_record_is_told_and_refused_at_start(house: House) -> None:
    await fill(house)
    with database(house) as connection:
        connection.execute("DELETE FROM leaf WHERE idx = (SELECT max(idx) FROM leaf)")
    report = verify_data_dir(house.data_dir)
    assert "records_missing" in codes(report)
    assert "22 records were signed, but the database holds only 21" in await start_refusal(house)
    # And not even when the database's own checkpoints are trimmed to fit.
    with database(house) as connection:
        connection.execute("DELETE FROM checkpoint")
        connection.execute("DELETE FROM log_head")
    assert "records_missing" in codes(verify_data_dir(house.data_dir))
    assert "holds only 21" in await start_refusal(house)


async def test_a_deleted_middle_record_is_told(house: House) -> None:
    await fill(house)
    with database(house) as connection:
        connection.execute("DELETE FROM leaf WHERE idx = 7")
    assert {"records_missing", "sequence_gap"} <= codes(verify_data_dir(house.data_dir))


async def test_a_deleted_middle_record_closed_up_is_told(house: House) -> None:
    await fill(house)
    with database(house) as connection:
        connection.execute("DELETE FROM leaf WHERE idx = 7")
        connection.execute("UPDATE leaf SET idx = idx - 1 WHERE idx > 7")
    assert {"records_missing", "sequence_gap"} <= codes(verify_data_dir(house.data_dir))


async def test_an_older_database_put_back_is_told_and_refused_at_start(house: House, tmp_path: Path) -> None:
    await fill(house, 3)
    old = tmp_path / "old.db"
    shutil.copy(house.data_dir / "gateway.db", old)
    await fill(house, 3)
    shutil.copy(old, house.data_dir / "gateway.db")
    assert codes(verify_data_dir(house.data_dir)) == {"records_missing"}
    assert "an older database was put back" in await start_refusal(house)


async def test_an_older_checkpoint_file_put_back_is_told(house: House) -> None:
    await fill(house, 3)
    old = (house.data_dir / "audit/checkpoint").read_bytes()
    await fill(house, 3)
    (house.data_dir / "audit/checkpoint").write_bytes(old)
    assert codes(verify_data_dir(house.data_dir)) == {"checkpoint_older"}
    await fill(house, 1)  # it is still a prefix of this log, so the gateway may go on
    assert verify_data_dir(house.data_dir).ok


async def test_both_rolled_back_together_is_told_by_a_checkpoint_kept_elsewhere(house: House, tmp_path: Path) -> None:
    await fill(house, 3)
    shutil.copytree(house.data_dir, tmp_path / "old")
    await fill(house, 3)
    kept = (house.data_dir / "audit/checkpoint").read_bytes()
    rolled_back = tmp_path / "old"
    assert verify_data_dir(rolled_back).ok  # one machine alone can't know
    assert codes(verify_data_dir(rolled_back, known=kept)) == {"records_missing"}


async def test_a_database_of_another_life_is_refused(house: House, tmp_path: Path) -> None:
    empty = tmp_path / "empty.db"
    shutil.copy(house.data_dir / "gateway.db", empty)
    await fill(house)
    keys = house.data_dir / "keys"
    shutil.copytree(keys, tmp_path / "keys")
    note = (house.data_dir / "audit/checkpoint").read_bytes()
    # Another history under the same key, just as long.
    shutil.copy(empty, house.data_dir / "gateway.db")
    (house.data_dir / "audit/checkpoint").unlink()
    await fill(house)
    (house.data_dir / "audit/checkpoint").write_bytes(note)
    assert "tree_mismatch" in codes(verify_data_dir(house.data_dir))
    assert "not those that were signed" in await start_refusal(house)


async def test_a_missing_or_damaged_checkpoint_file_is_told_and_refused_at_start(house: House) -> None:
    await fill(house)
    path = house.data_dir / "audit/checkpoint"
    note = path.read_bytes()
    path.unlink()
    assert codes(verify_data_dir(house.data_dir)) == {"checkpoint_missing"}
    assert "the file audit/checkpoint is missing" in await start_refusal(house)
    path.write_bytes(note.replace(b"\n22\n", b"\n21\n"))
    assert codes(verify_data_dir(house.data_dir)) == {"signature_bad"}
    assert "does not hold" in await start_refusal(house)
    path.write_bytes(note)
    await fill(house)


async def test_a_bad_signature_in_the_database_is_told(house: House) -> None:
    await fill(house)
    with database(house) as connection:
        size, note = connection.execute("SELECT size, note FROM checkpoint ORDER BY size LIMIT 1").fetchone()
        broken = bytes(note)[:-12] + b"AAAAAAAAAAA\n"
        connection.execute("UPDATE checkpoint SET note = ? WHERE size = ?", (broken, size))
    assert codes(verify_data_dir(house.data_dir)) == {"signature_bad"}


async def test_the_auditors_own_key_decides_not_the_one_beside_the_log(house: House) -> None:
    await fill(house)
    vkey = (house.data_dir / "audit/vkey").read_text()
    assert verify_data_dir(house.data_dir, vkey=vkey).ok
    other = Signer(ORIGIN, b"x" * 32).verifier.vkey
    with pytest.raises(WrongKeyError, match="is not this log's"):
        verify_data_dir(house.data_dir, vkey=other)
    public = base64.b64decode(vkey.split("+", 2)[2])[1:]
    with pytest.raises(WrongKeyError, match="is not this log's"):
        verify_data_dir(house.data_dir, vkey=Verifier("elsewhere.example", public).vkey)
    (house.data_dir / "audit/vkey").write_text(other)
    assert "signature_bad" in codes(verify_data_dir(house.data_dir))
    assert "does not belong to" in await start_refusal(house)
    with pytest.raises(WrongKeyError, match="can't be used"):
        verify_data_dir(house.data_dir, vkey="nonsense")


async def test_an_altered_or_vanished_payload_is_told(house: House) -> None:
    await fill(house)
    with database(house) as connection:
        leaf_id, sealed = connection.execute("SELECT leaf_id, sealed FROM payload ORDER BY seq LIMIT 1").fetchone()
        broken = bytes([sealed[0] ^ 1]) + bytes(sealed[1:])
        connection.execute("UPDATE payload SET sealed = ? WHERE leaf_id = ?", (broken, leaf_id))
        connection.execute("DELETE FROM payload_key WHERE leaf_id = (SELECT max(leaf_id) FROM payload_key)")
    assert codes(verify_data_dir(house.data_dir)) == {"payload_altered", "payload_missing"}


async def viewed(house: House) -> None:
    """Some records, all of them in the query view."""
    async with house.log() as log:
        await house.pairs(log, 3)
        await log.query(Filter())


@pytest.mark.parametrize(
    ("statement", "idx"),
    [
        ("UPDATE record_view SET agent = 'nobody' WHERE idx = 3", 3),
        ("UPDATE record_view SET tenant = 'elsewhere' WHERE idx = 3", 3),
        ("DELETE FROM record_view WHERE idx = 3", 3),
        (
            "INSERT INTO record_view (idx, id, ts, type, tenant) VALUES (99, 'x', '2027', 'action.result', 'default')",
            99,
        ),
    ],
)
async def test_an_edited_query_view_is_told_by_the_record_it_lies_about(house: House, statement: str, idx: int) -> None:
    await viewed(house)
    assert verify_data_dir(house.data_dir).ok
    with database(house) as connection:
        connection.execute(statement)
    found = {(finding.code, finding.idx) for finding in verify_data_dir(house.data_dir).findings}
    assert ("projection_altered", idx) in found


async def test_a_query_view_that_lags_is_no_finding(house: House) -> None:
    await viewed(house)
    with database(house) as connection:
        connection.execute("DELETE FROM record_view WHERE idx > 3")
    assert verify_data_dir(house.data_dir).ok


async def registered(house: House) -> None:
    """Keys, people and agents as their records say."""

    async with house.log() as log:
        macs = log.macs

        async def told(type_: str, also: Callable[[Connection], object], **subject: str) -> None:
            entry = records.event(type_, tenant="default", subject=subject)

            def rides(connection: Connection) -> None:
                also(connection)

            entry.also = rides
            await log.append(entry)

        def row(table: str, **values: str | int) -> Callable[[Connection], object]:
            return lambda db: macs.insert(db, table, tenant="default", created_ns=1, **values)

        def key(name: str) -> Callable[[Connection], object]:
            return row("agent_key", id=name, agent_id="a", key_sha256=name)

        def change(name: str, **ends: int) -> Callable[[Connection], object]:
            return lambda db: macs.change(db, "agent_key", "WHERE id = ?", (name,), **ends)

        agent = {"env": "dev", "version": "1", "team": "t", "use_case": "u", "tier": "standard", "status": "suspended"}
        agent |= {"owners": "{}", "labels": "{}", "source": "api"}
        await told("agent.registered", row("agent", id="a", change_no=1, **agent), agent="a")
        await told("agent.suspended", lambda db: None, agent="a")
        person = row("person", id="ada", name="A", roles='["auditor"]', groups="[]", change_no=1)
        await told("person.added", person, person="ada", roles="auditor")
        for one in ("k1", "k2"):
            await told("key.created", key(one), agent="a", key=one)
        await told("key.revoked", change("k1", revoked_ns=5), agent="a", key="k1")
        await told("key.rotated", key("k3"), agent="a", key="k3", replaces="k2")
        await log.writer.write(change("k2", expires_ns=9))


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE agent_key SET revoked_ns = NULL WHERE id = 'k1'", "revoked on record"),
        ("UPDATE agent_key SET expires_ns = NULL WHERE id = 'k2'", "replaced on record"),
        ("UPDATE agent_key SET agent_id = 'b' WHERE id = 'k3'", "another agent"),
        ("UPDATE agent_key SET id = 'k9' WHERE id = 'k3'", "no record says"),
        ("UPDATE person SET roles = '[\"operator\"]'", "other roles"),
        ("UPDATE person SET id = 'eve'", "no record says"),
        ("UPDATE agent SET status = 'active'", "suspended on record"),
    ],
)
async def test_a_register_that_says_otherwise_than_the_records_is_told(
    house: House, statement: str, words: str
) -> None:
    await registered(house)
    report = verify_data_dir(house.data_dir)
    assert report.ok, report.findings
    with database(house) as connection:
        connection.execute(statement)
    report = verify_data_dir(house.data_dir)
    assert codes(report) == {"register_altered"}
    assert words in report.findings[0].message


async def test_the_size_and_root_noted_from_before_tell_a_log_that_was_rolled_back(
    house: House, tmp_path: Path
) -> None:
    await fill(house, 3)
    shutil.copytree(house.data_dir, tmp_path / "old")
    early = verify_data_dir(house.data_dir)
    await fill(house, 3)
    late = verify_data_dir(house.data_dir)
    assert f"checkpoint {late.signed_size}:{late.signed_root}" in late.lines()
    (limit,) = [line for line in late.lines() if line.startswith("limit: ")]
    assert "put back together to an older state can't be told by this machine alone" in limit

    def head(report: Report) -> Checkpoint:
        return Checkpoint("known", report.signed_size, base64.b64decode(report.signed_root or ""))

    assert verify_data_dir(house.data_dir, known=head(early)).ok
    assert verify_data_dir(house.data_dir, known=head(late)).ok
    assert codes(verify_data_dir(tmp_path / "old", known=head(late))) == {"records_missing"}
    assert codes(verify_data_dir(house.data_dir, known=head(early)._replace(root=bytes(32)))) == {"tree_mismatch"}


@pytest.mark.parametrize("how", ["damaged", "truncated", "gone"])
async def test_a_damaged_write_ahead_log_is_told_and_refused_at_start(house: House, tmp_path: Path, how: str) -> None:
    """SQLite drops what follows the first damaged frame, without a word."""
    copy = House(tmp_path / "copy")
    async with house.log() as log:
        await house.pairs(log, 10)
        await embedded(log)._notary.sign()
        async with asyncio.timeout(10):
            await house.pairs(log, 1)
        shutil.copytree(house.data_dir, copy.data_dir)  # what a power cut would leave
    wal = copy.data_dir / "gateway.db-wal"
    (copy.data_dir / "gateway.db-shm").unlink()
    whole = wal.read_bytes()
    middle = len(whole) // 2
    if how == "damaged":
        wal.write_bytes(whole[:middle] + bytes([whole[middle] ^ 0xFF]) + whole[middle + 1 :])
    elif how == "truncated":
        wal.write_bytes(whole[:middle])
    else:
        wal.unlink()
    report = verify_data_dir(copy.data_dir)
    assert report.verdict == "invalid"
    assert "records_missing" in codes(report)
    assert "write-ahead log is damaged" in await start_refusal(copy)


async def test_a_damaged_database_file_is_told_not_raised(house: House) -> None:
    await fill(house)
    path = house.data_dir / "gateway.db"
    whole = path.read_bytes()
    for start in range(0, len(whole), 16384):
        path.write_bytes(whole[:start] + bytes(4096) + whole[start + 4096 :])
        verify_data_dir(house.data_dir)
    path.write_bytes(b"x" * len(whole))
    assert codes(verify_data_dir(house.data_dir)) >= {"database_unreadable", "records_missing"}
    path.unlink()
    assert codes(verify_data_dir(house.data_dir)) >= {"database_unreadable", "records_missing"}
    assert not is_replicas(house.data_dir)


async def test_records_after_the_last_checkpoint_are_counted_while_the_gateway_runs(house: House) -> None:
    async with house.log() as log:
        await house.pairs(log, 3)
        await embedded(log)._notary.sign()
        action = house.action()
        await log.append(house.intent(action))
        report = await asyncio.to_thread(verify_data_dir, house.data_dir)
        assert report.running
        assert report.verdict == "operator-signed"
        assert (report.leaves, report.signed_size, report.unsigned) == (8, 7, 1)
        assert report.in_flight == 1
    assert verify_data_dir(house.data_dir).interrupted == 0


async def test_a_checkpoint_file_touched_while_the_gateway_runs_latches(house: House) -> None:
    async with house.log() as log:
        await house.pairs(log, 1)
        await embedded(log)._notary.sign()
        (house.data_dir / "audit/checkpoint").write_text("something else\n")
        await house.pairs(log, 1)
        await embedded(log)._notary.sign()
        assert "changed by something else" in (log.writer.latched or "")
        with pytest.raises(Refusal):
            await log.append(house.intent(house.action()))


async def test_a_missing_key_of_an_existing_log_is_refused_not_replaced(house: House) -> None:
    await fill(house)
    key = house.data_dir / "keys/audit-signing.key"
    assert key.stat().st_mode & 0o777 == 0o600
    text = key.read_bytes()
    key.chmod(0o644)
    assert "chmod 600" in await start_refusal(house)
    key.unlink()
    assert "is missing although the log has records" in await start_refusal(house)
    key.write_bytes(b"PRIVATE+KEY+nonsense")
    key.chmod(0o600)
    assert "is damaged" in await start_refusal(house)
    key.write_bytes(text + b"\xff")  # whose error would quote what it could not read
    sentence = await start_refusal(house)
    assert "is damaged" in sentence
    assert text.decode().strip()[-20:] not in sentence
    key.write_bytes(text)
    writer = Writer.open(house.data_dir)
    with pytest.raises(Refusal, match="keeps its origin for life"):
        AuditLog.open(house.data_dir, writer, origin="other.example/audit/default")
    await writer.close()
    await fill(house)
