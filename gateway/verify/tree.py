"""The Merkle tree of RFC 6962, section 2.1, with SHA-256: hashes, frontier, proofs and their verification.

`Frontier` appends in O(log n) memory; the proof makers take all leaf hashes and are meant for checking and for
evidence packs, not for a hot path. Verification follows RFC 9162, sections 2.1.3.2 and 2.1.4.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()


class ProofError(ValueError):
    """A proof does not show what it claims."""


def leaf_hash(body: bytes) -> bytes:
    """Hash of a record's bytes; the prefix keeps a leaf from passing as a node."""
    return sha256(b"\x00" + body).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of two neighbouring subtrees."""
    return sha256(b"\x01" + left + right).digest()


class Frontier:
    """The right edge of a growing tree: roots of its complete subtrees, largest first."""

    __slots__ = ("peaks", "size")

    def __init__(self, size: int = 0, peaks: Iterable[bytes] = ()) -> None:
        self.size = size
        self.peaks = list(peaks)
        if len(self.peaks) != size.bit_count() or any(len(peak) != HASH_BYTES for peak in self.peaks):
            raise ValueError(f"a frontier of {size} leaves needs {size.bit_count()} hashes of 32 bytes")

    def append(self, hashed: bytes) -> None:
        """Add the hash of the next leaf."""
        rest, peaks = self.size, self.peaks
        while rest & 1:
            hashed = sha256(b"\x01" + peaks.pop() + hashed).digest()
            rest >>= 1
        peaks.append(hashed)
        self.size += 1

    def root(self) -> bytes:
        """Root hash of the tree as it stands."""
        if not self.peaks:
            return EMPTY_ROOT
        hashed = self.peaks[-1]
        for peak in self.peaks[-2::-1]:
            hashed = sha256(b"\x01" + peak + hashed).digest()
        return hashed

    def copy(self) -> Frontier:
        """An independent frontier of the same tree."""
        return Frontier(self.size, self.peaks)

    def to_bytes(self) -> bytes:
        """The peaks, one after another, as stored beside a checkpoint."""
        return b"".join(self.peaks)

    @classmethod
    def from_bytes(cls, size: int, packed: bytes) -> Frontier:
        """Inverse of `to_bytes`; raises ValueError where the length does not fit the size."""
        return cls(size, [packed[at : at + HASH_BYTES] for at in range(0, len(packed), HASH_BYTES)])


def root_of(hashes: Sequence[bytes]) -> bytes:
    """Root of the tree over these leaf hashes."""
    frontier = Frontier()
    for hashed in hashes:
        frontier.append(hashed)
    return frontier.root()


def _split(size: int) -> int:
    """The largest power of two below `size`."""
    return 1 << (size - 1).bit_length() - 1


def inclusion_proof(hashes: Sequence[bytes], index: int) -> list[bytes]:
    """Audit path of leaf `index` in the tree over `hashes` (RFC 6962, 2.1.1)."""
    if not 0 <= index < len(hashes):
        raise ValueError(f"leaf {index} is not in a tree of {len(hashes)}")
    if len(hashes) == 1:
        return []
    middle = _split(len(hashes))
    if index < middle:
        return [*inclusion_proof(hashes[:middle], index), root_of(hashes[middle:])]
    return [*inclusion_proof(hashes[middle:], index - middle), root_of(hashes[:middle])]


def verify_inclusion(hashed: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Raise `ProofError` unless `proof` shows that leaf hash `hashed` is number `index` of `size` under `root`."""
    if not 0 <= index < size:
        raise ProofError(f"leaf {index} is not in a tree of {size}")
    position, last = index, size - 1
    for step in proof:
        if last == 0:
            raise ProofError("the inclusion proof is too long")
        if position & 1 or position == last:
            hashed = node_hash(step, hashed)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            hashed = node_hash(hashed, step)
        position, last = position >> 1, last >> 1
    if last or hashed != root:
        raise ProofError(f"the inclusion proof of leaf {index} does not lead to the root of {size} leaves")


def consistency_proof(hashes: Sequence[bytes], old: int) -> list[bytes]:
    """Proof that the tree of the first `old` leaves is a prefix of the whole (RFC 6962, 2.1.2)."""
    if not 0 <= old <= len(hashes):
        raise ValueError(f"{old} leaves are no prefix of {len(hashes)}")
    return [] if old in (0, len(hashes)) else _subproof(hashes, old, whole=True)


def _subproof(hashes: Sequence[bytes], old: int, *, whole: bool) -> list[bytes]:
    if old == len(hashes):
        return [] if whole else [root_of(hashes)]
    middle = _split(len(hashes))
    if old <= middle:
        return [*_subproof(hashes[:middle], old, whole=whole), root_of(hashes[middle:])]
    return [*_subproof(hashes[middle:], old - middle, whole=False), root_of(hashes[:middle])]


def verify_consistency(old: int, new: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes) -> None:
    """Raise `ProofError` unless `proof` shows that the tree of `new` leaves only appended to that of `old`."""
    if not 0 <= old <= new:
        raise ProofError(f"a tree of {new} leaves can't extend one of {old}")
    if old in (0, new):
        if proof or (old == new and old_root != new_root) or (old == 0 and old_root != EMPTY_ROOT):
            raise ProofError(f"the trees of {old} and {new} leaves do not agree")
        return
    steps = list(proof)
    if old & (old - 1) == 0:
        steps.insert(0, old_root)  # a complete subtree proves itself
    if not steps:
        raise ProofError("the consistency proof is empty")
    position, last = old - 1, new - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    older = newer = steps[0]
    for step in steps[1:]:
        if last == 0:
            raise ProofError("the consistency proof is too long")
        if position & 1 or position == last:
            older, newer = node_hash(step, older), node_hash(step, newer)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            newer = node_hash(newer, step)
        position, last = position >> 1, last >> 1
    if last or older != old_root or newer != new_root:
        raise ProofError(f"the tree of {new} leaves is not an extension of the tree of {old}")
