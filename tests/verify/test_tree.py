"""The tree against a naive reading of RFC 6962, and proofs against everything that should not pass."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.verify.tree import (
    EMPTY_ROOT,
    Frontier,
    ProofError,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)


def naive_root(bodies: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, word for word."""
    if not bodies:
        return sha256(b"").digest()
    if len(bodies) == 1:
        return sha256(b"\x00" + bodies[0]).digest()
    k = 1
    while k * 2 < len(bodies):
        k *= 2
    return sha256(b"\x01" + naive_root(bodies[:k]) + naive_root(bodies[k:])).digest()


# The test vectors that every implementation of RFC 6962 carries: these eight leaves, this root.
VECTOR = [bytes.fromhex(text) for text in (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
)]  # fmt: skip


def test_the_root_of_the_well_known_vectors_is_reproduced() -> None:
    root = root_of([leaf_hash(body) for body in VECTOR])
    assert root.hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
    assert root_of([]) == EMPTY_ROOT


@given(st.lists(st.binary(max_size=8), max_size=70))
def test_frontier_and_naive_tree_agree_at_every_size(bodies: list[bytes]) -> None:
    frontier = Frontier()
    for size, body in enumerate(bodies):
        assert frontier.root() == naive_root(bodies[:size])
        frontier.append(leaf_hash(body))
    assert frontier.root() == naive_root(bodies)
    again = Frontier.from_bytes(frontier.size, frontier.to_bytes())
    assert again.root() == frontier.root()


@settings(max_examples=60)
@given(st.integers(1, 80), st.data())
def test_inclusion_is_proved_for_the_true_leaf_only(size: int, data: st.DataObject) -> None:
    hashes = [leaf_hash(bytes([number])) for number in range(size)]
    index = data.draw(st.integers(0, size - 1))
    root, proof = root_of(hashes), inclusion_proof(hashes, index)
    verify_inclusion(hashes[index], index, size, proof, root)
    bad: list[tuple[bytes, int, int, list[bytes], bytes]] = [
        (leaf_hash(b"other"), index, size, proof, root),
        (hashes[index], index, size, [*proof, root], root),
        (hashes[index], index, size, proof, leaf_hash(b"")),
        (hashes[index], size, size, proof, root),
    ]
    if proof:
        bad.append((hashes[index], index, size, proof[:-1], root))
    if size > 1:
        bad.append((hashes[index], (index + 1) % size, size, proof, root))
    for attempt in bad:
        with pytest.raises(ProofError):
            verify_inclusion(*attempt)


@settings(max_examples=60)
@given(st.integers(0, 80), st.data())
def test_consistency_is_proved_for_true_prefixes_only(new: int, data: st.DataObject) -> None:
    hashes = [leaf_hash(bytes([number])) for number in range(new)]
    old = data.draw(st.integers(0, new))
    proof, old_root, new_root = consistency_proof(hashes, old), root_of(hashes[:old]), root_of(hashes)
    verify_consistency(old, new, proof, old_root, new_root)
    with pytest.raises(ProofError):
        verify_consistency(old, new, [*proof, new_root], old_root, new_root)
    if 0 < old < new:
        forked = [leaf_hash(b"fork"), *hashes[1:]]
        for attempt in (
            (proof, root_of(forked[:old]), new_root),
            (proof, old_root, root_of(forked)),
            ([], old_root, new_root),
        ):
            with pytest.raises(ProofError):
                verify_consistency(old, new, *attempt)
        with pytest.raises(ProofError):
            verify_consistency(new, old, proof, new_root, old_root)


def test_a_frontier_with_the_wrong_number_of_hashes_is_refused() -> None:
    with pytest.raises(ValueError, match="needs 2 hashes"):
        Frontier.from_bytes(3, b"x" * 32)
