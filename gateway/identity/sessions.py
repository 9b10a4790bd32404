"""Which run of an agent a request belongs to.

What a client sends is a name of its own choice. The session's id is that name bound to the credential by a
digest, so the same name under another credential is another session, and nobody can join a run by naming it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping

from gateway.actions import Session
from gateway.errors import Refusal

MAX_NAME_CHARS = 128
_NAME = re.compile(r"[A-Za-z0-9._:@/+=-]{1,128}")

_OURS = b"x-gateway-session"
# Headers that known clients send by themselves: Claude Code; MCP revisions up to 2025-11-25 (stateful HTTP).
_CLIENT_HEADERS = (b"x-claude-code-session-id", b"mcp-session-id")


def session(
    headers: Mapping[bytes, bytes],
    path_session: str | None,
    trace_id: str | None,
    credential: str,
    mint_id: Callable[[], str],
) -> Session:
    """The session, from the first of these that is there.

    The header `x-gateway-session`; a known client's own header; the path prefix `/s/{session}/`; `trace_id`,
    which the caller passes only if the client sent one; else a new one from `mint_id`. `credential` is the id
    of the key (never the key). Raises `Refusal("malformed")` for a name in our header or the path that is
    longer than 128 characters or has others than letters, digits and ._:@/+=-. A client's own header is not
    the user's to mend, so an odd one is taken by its digest alone.
    """
    ours = headers.get(_OURS)
    if ours:
        return _bound(_named(ours.decode("latin-1"), "header x-gateway-session"), "header", credential)
    for header in _CLIENT_HEADERS:
        theirs = headers.get(header)
        if theirs:
            return _bound(theirs.decode("latin-1"), "client", credential)
    if path_session:
        return _bound(_named(path_session, "path prefix /s/{session}/"), "path", credential)
    if trace_id:
        return _bound(trace_id, "trace", credential)
    return Session(mint_id(), "minted")


def _named(name: str, where: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise Refusal(
            "malformed",
            f"The session name in the {where} is not usable; take 1 to {MAX_NAME_CHARS} letters, digits or"
            " ._:@/+=- characters.",
        )
    return name


def _bound(name: str, source: str, credential: str) -> Session:
    # The source is not part of the digest: a client that names its run by header here and by path there
    # means one session. Zero bytes part the fields; neither can hold one that matters (ids are UUIDs).
    bound = hashlib.sha256(f"{credential}\x00{name}".encode()).hexdigest()[:16]
    shown = name if _NAME.fullmatch(name) is not None else "client"
    return Session(f"{shown}~{bound}", source)
