"""The secrets the gateway hands out: how they look, and the only form in which they are kept.

A secret is a prefix that says what it is for (so that scanners and people recognise a leaked one) and 32 random
bytes in URL-safe base64: 43 characters. With 256 random bits a plain SHA-256 is enough to keep it by; a slow
password hash would only slow the request path.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable

AGENT_KEY = "agw_"
LOCAL_OPERATOR = "agp_"
API_TOKEN = "agt_"  # noqa: S105 - a person's, for scripts
CONSOLE_SESSION = "agc_"  # a browser's cookie; never a bearer token
SIGN_IN = "ags_"

_SHAPE = re.compile(r"ag[wptcs]_[A-Za-z0-9_-]{43}")


def mint(prefix: str, random_bytes: Callable[[int], bytes]) -> str:
    """A new secret with `prefix`."""
    return prefix + base64.urlsafe_b64encode(random_bytes(32)).rstrip(b"=").decode("ascii")


def well_formed(secret: str, prefix: str) -> bool:
    """Whether `secret` looks like one that `mint(prefix)` made."""
    return secret.startswith(prefix) and _SHAPE.fullmatch(secret) is not None


def digest(secret: str) -> str:
    """The SHA-256 of a secret in hex: what the store and memory keep instead of it."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
