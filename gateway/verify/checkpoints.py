"""Checkpoints: signed tree heads (C2SP tlog-checkpoint, v1.0.0): origin, size, root."""

from __future__ import annotations

import base64
from typing import NamedTuple

from gateway.verify.notes import NoteError, Signer, Verifier
from gateway.verify.tree import HASH_BYTES


class Checkpoint(NamedTuple):
    """A tree head. `size` in leaves; `root` is the 32 byte root hash."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """The note text that is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    def sign(self, signer: Signer) -> bytes:
        """The signed note."""
        return signer.sign(self.text())


def parse(text: str) -> Checkpoint:
    """Read a checkpoint's text; raises NoteError. Extension lines are read over, as the specification asks."""
    lines = text.split("\n")
    if len(lines) < 4 or not lines[0]:
        raise NoteError("a checkpoint has an origin, a size and a root")
    if not (lines[1].isascii() and lines[1].isdigit()) or (lines[1][0] == "0" and lines[1] != "0"):
        raise NoteError("the size of the checkpoint is not a plain decimal number")
    try:
        root = base64.b64decode(lines[2], validate=True)
    except ValueError as error:
        raise NoteError("the root of the checkpoint is not base64") from error
    if len(root) != HASH_BYTES:
        raise NoteError("the root of the checkpoint has not 32 bytes")
    return Checkpoint(lines[0], int(lines[1]), root)


def open_checkpoint(note: bytes, verifier: Verifier, origin: str | None = None) -> Checkpoint:
    """The checkpoint in `note`, signed by `verifier`'s key, for `origin` if given; raises NoteError."""
    checkpoint = parse(verifier.open(note))
    if origin is not None and checkpoint.origin != origin:
        raise NoteError(f"the checkpoint is for the log {checkpoint.origin!r}, not {origin!r}")
    return checkpoint
