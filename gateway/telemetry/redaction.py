"""Keeps secrets out of the log: those of this process, and others by the name of a field and the look of a value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gateway import known_secrets
from gateway.redaction import REDACTED

MAX_DEPTH = 6
MAX_TEXT = 16_384  # characters; a log line is no place for more, and searching it takes time

_INT64 = 1 << 63

_SECRET_NAME = re.compile(
    r"(?:authorization|cookie|password|passwd|secret|credential|private_?key|api_?key|goog_api_key)s?$"
    r"|(?:^|_)(?:token|key)$"
)

_SECRET_VALUE = re.compile(
    r"""
    (?P<keep>
        \b(?:bearer|basic)\s+                                  # an Authorization header's value
      | ://[^/\s:@]*:(?=[^/\s@]+@)                              # a password in an address
      | [?&](?:key|token|api_key|access_token|code)=            # a credential in a query
    )
    [^\s"'&@,;]+
  | \b(?:sk|pk|rk)-[A-Za-z0-9_-]{16,}                           # OpenAI, Anthropic and their like
  | \bag[wps]_[A-Za-z0-9_-]{16,}                                # our own
  | \bgh[opsur]_[A-Za-z0-9]{20,} | \bxox[a-z]-[A-Za-z0-9-]{10,}
  | \bAKIA[0-9A-Z]{16}\b | \bAIza[A-Za-z0-9_-]{30,}
  | \beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*   # a JSON web token
  | -----BEGIN[ ][A-Z ]*PRIVATE[ ]KEY-----.*?(?:-----END[ ][A-Z ]*PRIVATE[ ]KEY-----|\Z)
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)


def redact(value: Any, depth: int = 0) -> Any:
    """A copy of a JSON-like value without what looks like a secret."""
    if isinstance(value, str):
        value = known_secrets.redact(value)  # first: what is cut may not be found
        if len(value) > MAX_TEXT:
            value = value[:MAX_TEXT] + " [cut]"
        return _SECRET_VALUE.sub(_hide, value)
    if isinstance(value, bytes):
        return redact(value.decode("utf-8", "replace"), depth)
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, int):
        return value if -_INT64 <= value < _INT64 else str(value)  # what a JSON reader can hold
    if depth >= MAX_DEPTH:
        return "[too deep]"
    if isinstance(value, Mapping):
        return {
            known_secrets.redact(str(name)): REDACTED
            if _names_a_secret(str(name)) and field
            else redact(field, depth + 1)
            for name, field in value.items()
        }
    if isinstance(value, (list, tuple, set, frozenset)):
        return [redact(item, depth + 1) for item in value]
    return redact(str(value), depth)


def _names_a_secret(name: str) -> bool:
    return _SECRET_NAME.search(name.lower().replace("-", "_")) is not None


def _hide(match: re.Match[str]) -> str:
    return (match.group("keep") or "") + REDACTED
