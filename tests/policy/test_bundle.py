"""One artefact, two engines: the bundle that the gateway writes and serves is what OPA decides by."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

from gateway.policy import load
from gateway.policy.bundle import bundle
from tests.policy.asking import answer, folder, shipped

ENTRY = f"package gateway\n\ndefault decision := {answer('deny')}\n"


def unpacked(packed: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        found = {}
        for entry in archive.getmembers():
            assert (entry.mtime, entry.uid, entry.gid, entry.mode) == (0, 0, 0, 0o644)
            file = archive.extractfile(entry)
            assert file is not None
            found[entry.name.lstrip("/")] = file.read()
        return found


def test_the_bundle_holds_policies_data_and_the_revision_and_no_tests() -> None:
    engine = shipped()
    files = unpacked(engine.bundle())
    manifest = json.loads(files[".manifest"])
    assert manifest == {"revision": engine.revision, "roots": ["gateway", "grants", "ledger"], "rego_version": 1}
    assert json.loads(files["data.json"])["ledger"]["unattended_limit_cents"] == 10_000
    assert files["ledger/ledger.rego"].decode() == engine.modules["ledger/ledger.rego"]
    assert not [name for name in files if name.endswith("_test.rego")]


def test_the_same_policies_give_the_same_bytes(tmp_path: Path) -> None:
    engine, again = shipped(), shipped()
    assert engine.bundle() == again.bundle()
    reordered = dict(reversed(list(engine.modules.items())))
    assert bundle(reordered, engine.data_json, engine.revision) == engine.bundle()
    assert gzip.decompress(engine.bundle())
    other, problems = load(
        folder(tmp_path, {"d.rego": ENTRY, "é/data.yaml": "a: ü\n", "lib.rego": "package lib.x\n\ny := 1\n"})
    )
    assert other is not None, problems
    files = unpacked(other.bundle())
    assert json.loads(files[".manifest"])["roots"] == ["gateway", "lib", "é"]
    assert json.loads(files["data.json"]) == {"é": {"a": "ü"}}
