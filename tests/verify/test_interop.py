"""Our notes, inclusion and consistency proofs, checked by the Go reference implementation (x/mod/sumdb)."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from gateway.verify.checkpoints import Checkpoint
from gateway.verify.notes import Signer
from gateway.verify.tree import consistency_proof, inclusion_proof, leaf_hash, root_of

SOURCE = Path(__file__).parent / "interop_go"


@pytest.fixture(scope="module")
def checker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference checker, built once; skipped where there is no Go or its module can't be had."""
    strict = os.environ.get("GATEWAY_TEST_STRICT") == "1"
    if shutil.which("go") is None:
        pytest.skip("Go is not installed; it is asked for nowhere else")
    binary = tmp_path_factory.mktemp("go") / "checker"
    built = subprocess.run(
        ["go", "build", "-o", binary, "."], cwd=SOURCE, check=False, capture_output=True, timeout=110
    )
    if built.returncode:
        return _missing(f"the Go checker does not build: {built.stderr.decode()[-300:]}", strict)
    return binary


def _missing(why: str, strict: bool) -> Path:
    if strict:
        pytest.fail(why)
    pytest.skip(why)


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


@pytest.mark.parametrize(("size", "old"), [(1, 1), (7, 4), (1000, 517), (1024, 1023)])
def test_the_go_reference_verifies_our_log(checker: Path, size: int, old: int) -> None:
    leaves = [f"record {number}".encode() for number in range(size)]
    hashes = [leaf_hash(leaf) for leaf in leaves]
    signer = Signer("gateway.local/audit/default", b"7" * 32)
    note = Checkpoint(signer.verifier.name, size, root_of(hashes)).sign(signer)
    document = {
        "Vkey": signer.verifier.vkey,
        "Note": note.decode(),
        "Origin": signer.verifier.name,
        "Proofs": [
            {
                "Index": index,
                "Leaf": leaves[index].decode(),
                "Path": [b64(step) for step in inclusion_proof(hashes, index)],
            }
            for index in {0, size // 2, size - 1}
        ],
        "OldSize": old,
        "OldRoot": b64(root_of(hashes[:old])),
        "Consistency": [b64(step) for step in consistency_proof(hashes, old)],
    }

    def check(text: str) -> int:
        return subprocess.run([checker], input=text.encode(), check=False, capture_output=True, timeout=30).returncode

    assert check(json.dumps(document)) == 0
    forged = note.replace(f"\n{size}\n".encode(), f"\n{size + 1}\n".encode())
    assert check(json.dumps(document | {"Note": forged.decode()})) == 1
    assert check(json.dumps(document | {"OldRoot": b64(b"x" * 32)})) == 1
