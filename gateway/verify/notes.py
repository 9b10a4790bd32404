"""Signed notes with Ed25519 (C2SP signed-note, v1.0.0): text, an empty line, signature lines.

Keys are written as the specification and the Go reference write them: a verifier key
`<name>+<hash>+<base64(0x01 || public key)>`, a signer key `PRIVATE+KEY+<name>+<hash>+<base64(0x01 || seed)>`.
"""

from __future__ import annotations

import base64
import binascii
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_ED25519 = b"\x01"
_SIGNER_PREFIX = "PRIVATE+KEY+"
_DASH = "\N{EM DASH} "
MAX_NOTE_BYTES = 1_000_000


class NoteError(ValueError):
    """A note or a key can't be read, or no signature of the wanted key is good."""


def _key_id(name: str, public: bytes) -> bytes:
    return sha256(name.encode() + b"\n" + _ED25519 + public).digest()[:4]


def _check_name(name: str) -> str:
    if not name or "+" in name or any(character.isspace() for character in name):
        raise NoteError("a key's name has at least one character, no space, no plus")
    return name


def _unbase64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise NoteError("not valid base64") from error


class Verifier:
    """Checks notes of one named Ed25519 key."""

    def __init__(self, name: str, public: bytes) -> None:
        self.name = _check_name(name)
        self.key_id = _key_id(name, public)
        self._public = public
        try:
            self._key = Ed25519PublicKey.from_public_bytes(public)
        except ValueError as error:
            raise NoteError("an Ed25519 public key has 32 bytes") from error

    @classmethod
    def parse(cls, vkey: str) -> Verifier:
        """Read `<name>+<hash>+<base64>`; raises NoteError."""
        parts = vkey.strip().split("+", 2)
        if len(parts) != 3:
            raise NoteError("a verifier key looks like name+hash+base64")
        raw = _unbase64(parts[2])
        if raw[:1] != _ED25519:
            raise NoteError("the verifier key is not of type Ed25519 (0x01)")
        verifier = cls(parts[0], raw[1:])
        if verifier.key_id.hex() != parts[1].lower():
            raise NoteError("the verifier key's hash does not fit its name and key")
        return verifier

    @property
    def vkey(self) -> str:
        """The public key as text, to hand to auditors."""
        packed = base64.b64encode(_ED25519 + self._public).decode()
        return f"{self.name}+{self.key_id.hex()}+{packed}"

    @property
    def short(self) -> str:
        """`name+hash`, which tells keys apart, for people."""
        return f"{self.name}+{self.key_id.hex()}"

    def verify(self, text: bytes, signature: bytes) -> bool:
        """Whether `signature` (64 bytes) is this key's over `text`."""
        try:
            self._key.verify(signature, text)
        except InvalidSignature:
            return False
        return True

    def open(self, note: bytes) -> str:
        """Text of a note that this key signed; raises NoteError. Other keys' signatures are passed over."""
        text, lines = _split(note)
        good = False
        for name, raw in lines:
            if name != self.name or raw[:4] != self.key_id:
                continue
            if not self.verify(text.encode(), raw[4:]):
                raise NoteError(f"the signature of {self.name} is bad")
            good = True
        if not good:
            raise NoteError(f"no signature of {self.name} with key {self.key_id.hex()} is on the note")
        return text


class Signer:
    """Signs notes with one named Ed25519 key."""

    def __init__(self, name: str, seed: bytes) -> None:
        self._seed = seed
        try:
            self._key = Ed25519PrivateKey.from_private_bytes(seed)
        except ValueError as error:
            raise NoteError("an Ed25519 seed has 32 bytes") from error
        self.verifier = Verifier(name, self._key.public_key().public_bytes_raw())

    @classmethod
    def parse(cls, skey: str) -> Signer:
        """Read `PRIVATE+KEY+<name>+<hash>+<base64>`; raises NoteError (which never holds the key)."""
        parts = skey.strip().removeprefix(_SIGNER_PREFIX).split("+", 2)
        if not skey.startswith(_SIGNER_PREFIX) or len(parts) != 3:
            raise NoteError("a signer key looks like PRIVATE+KEY+name+hash+base64")
        raw = _unbase64(parts[2])
        if raw[:1] != _ED25519:
            raise NoteError("the signer key is not of type Ed25519 (0x01)")
        signer = cls(parts[0], raw[1:])
        if signer.verifier.key_id.hex() != parts[1].lower():
            raise NoteError("the signer key's hash does not fit its name and key")
        return signer

    @property
    def skey(self) -> str:
        """The private key as text, for its file."""
        packed = base64.b64encode(_ED25519 + self._seed).decode()
        return f"{_SIGNER_PREFIX}{self.verifier.name}+{self.verifier.key_id.hex()}+{packed}"

    def sign(self, text: str) -> bytes:
        """A note of `text`, which must end in a newline and hold no other control character."""
        if not text.endswith("\n") or any(ord(c) < 0x20 and c != "\n" for c in text):
            raise NoteError("a note's text ends in a newline and has no other control characters")
        signature = base64.b64encode(self.verifier.key_id + self._key.sign(text.encode())).decode()
        return f"{text}\n{_DASH}{self.verifier.name} {signature}\n".encode()


def signers(note: bytes) -> set[str]:
    """Who signed a note, by its own word: `name+hash` of each signature, unchecked. Empty for a malformed note."""
    try:
        return {f"{name}+{raw[:4].hex()}" for name, raw in _split(note)[1]}
    except NoteError:
        return set()


def _split(note: bytes) -> tuple[str, list[tuple[str, bytes]]]:
    """Text (with its last newline) and (name, key id || signature) of each signature line."""
    if len(note) > MAX_NOTE_BYTES:
        raise NoteError("the note is too large")
    try:
        whole = note.decode()
    except UnicodeDecodeError as error:
        raise NoteError("the note is not UTF-8") from error
    if any(ord(c) < 0x20 and c != "\n" for c in whole):
        raise NoteError("the note holds control characters")
    text, separator, signatures = whole.rpartition("\n\n")
    if not separator or not signatures.endswith("\n"):
        raise NoteError("the note has no signature block")
    lines: list[tuple[str, bytes]] = []
    for line in signatures[:-1].split("\n"):
        name, space, packed = line.removeprefix(_DASH).partition(" ")
        if not line.startswith(_DASH) or not space:
            raise NoteError("a signature line is malformed")
        raw = _unbase64(packed)
        if len(raw) < 5:
            raise NoteError("a signature is too short")
        lines.append((_check_name(name), raw))
    return text + "\n", lines
