"""Signed notes and checkpoints: format by the specification's own example keys, and refusals."""

from __future__ import annotations

import pytest

from gateway.verify.checkpoints import Checkpoint, open_checkpoint, parse
from gateway.verify.notes import NoteError, Signer, Verifier
from gateway.verify.tree import leaf_hash

# A key pair and its note as published with the Go reference (package note, documentation example).
SKEY = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
NOTE = (
    TEXT
    + "\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)


def test_keys_and_notes_are_byte_for_byte_those_of_the_reference() -> None:
    signer = Signer.parse(SKEY)
    assert signer.verifier.vkey == VKEY
    assert signer.skey == SKEY
    assert signer.sign(TEXT).decode() == NOTE
    assert Verifier.parse(VKEY).open(NOTE.encode()) == TEXT


def test_other_signatures_on_a_note_are_passed_over() -> None:
    ours, other = Signer("log", b"1" * 32), Signer("witness", b"2" * 32)
    note = ours.sign("a\n")
    both = note + other.sign("a\n").split(b"\n\n")[1]
    assert ours.verifier.open(both) == other.verifier.open(both) == "a\n"


@pytest.mark.parametrize(
    "damage",
    [
        lambda note: note.replace(b"5", b"6", 1),
        lambda note: note.replace(b"\n\n", b"\n"),
        lambda note: note[:-1],
        lambda note: note[:-10] + b"AAAAAAAA=\n",
        lambda note: b"\xff" + note,
        lambda note: note + b"\x00\n",
        lambda note: note.replace("— ".encode(), b"- "),
        lambda note: b"",
    ],
)
def test_a_damaged_note_is_not_opened(damage: object) -> None:
    signer = Signer("log", b"1" * 32)
    note = Checkpoint("log", 5, leaf_hash(b"")).sign(signer)
    assert callable(damage)
    with pytest.raises(NoteError):
        open_checkpoint(damage(note), signer.verifier)


def test_a_note_of_another_key_or_origin_is_not_opened() -> None:
    signer = Signer("log", b"1" * 32)
    note = Checkpoint("log", 5, leaf_hash(b"")).sign(signer)
    assert open_checkpoint(note, signer.verifier, "log").size == 5
    with pytest.raises(NoteError, match="no signature"):
        open_checkpoint(note, Signer("log", b"2" * 32).verifier)
    with pytest.raises(NoteError, match="is for the log"):
        open_checkpoint(note, signer.verifier, "another")


@pytest.mark.parametrize(
    "text",
    ["log\n", "log\n-1\nAA==\n", "log\n01\nAA==\n", "log\n1\nAA==\n", "log\n1\n!\n", "\n1\nAA==\n", "log\n²\nAA==\n"],
)
def test_a_malformed_checkpoint_is_not_read(text: str) -> None:
    with pytest.raises(NoteError):
        parse(text)


@pytest.mark.parametrize(
    "vkey", ["", "a+b", "a+00000000+AAAA", "a b+c74f20a3+AQ==", VKEY.replace("c7", "c8"), VKEY[:-4]]
)
def test_a_malformed_key_is_not_read(vkey: str) -> None:
    with pytest.raises(NoteError):
        Verifier.parse(vkey)


def test_control_characters_are_not_signed() -> None:
    with pytest.raises(NoteError):
        Signer("log", b"1" * 32).sign("a\tb\n")
