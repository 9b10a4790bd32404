"""The secrets that this process resolved: what no answer, record or log line may hold.

Fed where references are resolved, and again when what they lead to changes. Earlier values stay, up to a bound, since
an upstream may still repeat one. Secrets under LEAST_BYTES are not taken: they would be found in ordinary text.
"""

from __future__ import annotations

import base64
import binascii
import re
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from gateway.redaction import Redactor

LEAST_BYTES = 8
VALUES_KEPT = 16  # of one reference, earlier values included
_LEAST_LINE = 16  # characters; a line of a key in several lines, such as PEM

_SCHEMES = frozenset({"bearer", "basic", "token", "apikey", "api-key"})
_SECRET_NAME = re.compile(r"key|token|secret|passw|auth|sig|credential", re.IGNORECASE)
_SECRET_VARIABLE = re.compile(r"_(?:KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS)\Z", re.IGNORECASE)
_SECRET_SEGMENT = re.compile(r"(?=[^/]*[0-9])(?=[^/]*[A-Za-z])[A-Za-z0-9_-]{20,}")


class KnownSecrets:
    """The values by the reference that led to them. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, deque[tuple[str, ...]]] = {}
        self.redactor = Redactor()
        """For the values known now; a change replaces it."""

    def remember(self, reference: str, value: str) -> None:
        """`value` is a secret, and so are the parts that stand for it alone: a password in a URL, lines of a key."""
        self._add(reference, (value, *_parts(value)))

    def remember_url(self, reference: str, url: str) -> None:
        """`url` is no secret, but may have a password or a token in it."""
        self._add(reference, tuple(_of_url(url)))

    def _add(self, reference: str, parts: tuple[str, ...]) -> None:
        parts = tuple(part for part in dict.fromkeys(parts) if not is_short(part))
        with self._lock:
            kept = self._values.setdefault(reference, deque(maxlen=VALUES_KEPT))
            if parts and parts not in kept:
                kept.append(parts)
                self.redactor = Redactor(one for values in self._values.values() for known in values for one in known)


KNOWN = KnownSecrets()
"""Those of this process."""
remember = KNOWN.remember
remember_url = KNOWN.remember_url


def remember_environment(environ: Mapping[str, str]) -> None:
    """Variables that are secrets by their name, for libraries that read them without a reference of ours."""
    for name, value in environ.items():
        if _SECRET_VARIABLE.search(name) and not value.startswith("/"):  # a path to one
            remember(f"env:{name}", value.strip())


def redact(text: str) -> str:
    """`text` without the secrets of this process."""
    return KNOWN.redactor.redact(text)


def is_short(secret: str) -> bool:
    """Whether a secret is too short to be redacted."""
    return len(secret.encode("utf-8", "surrogatepass")) < LEAST_BYTES


def is_path(value: str) -> bool:
    """Whether a value names a file or folder of this machine; a secret may begin with a slash as well."""
    try:
        return value.startswith("/") and Path(value).exists()
    except (OSError, ValueError):
        return False


def password_in(url: str) -> str | None:
    """The password in a URL as it is written there; None if there is none or it is no URL."""
    try:
        return urlsplit(url).password or None
    except ValueError:
        return None


def _parts(value: str) -> Iterator[str]:
    scheme, _, rest = value.partition(" ")
    if rest and scheme.lower() in _SCHEMES:
        yield rest.strip()
        if scheme.lower() == "basic":
            yield from _of_basic(rest.strip())
    if "\n" in value:
        lines = map(str.strip, value.splitlines())
        yield from (line for line in lines if len(line) >= _LEAST_LINE and not line.startswith("-----"))
    if "://" in value:
        yield from _of_url(value)


def _of_basic(credentials: str) -> Iterator[str]:
    try:
        plain = base64.b64decode(credentials, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return
    yield plain
    yield plain.partition(":")[2]


def _of_url(url: str) -> Iterator[str]:
    try:
        parts = urlsplit(url)
        password = parts.password
    except ValueError:
        return
    if password:
        yield from (password, unquote(password))
    for name, value in parse_qsl(parts.query):
        if _SECRET_NAME.search(name):
            yield value
    yield from _SECRET_SEGMENT.findall(parts.path)
