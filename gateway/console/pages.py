"""Templates, their filters, and the headers that every page carries."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

from gateway.console.case_view import span
from gateway.console.visible import visible
from gateway.identity.people import Role
from gateway.identity.signed_in import SignedIn

_HERE = Path(__file__).parent

# Our own style sheet and our own modules, which ask only us: nothing inline, no frame, no form to elsewhere.
CSP = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; img-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # stricter, and browsers would send our own forms with `Origin: null`
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}

READERS = (Role.OPERATOR, Role.AUDITOR)
CASE_READERS = (Role.REVIEWER, Role.AUDITOR)
APPROVALS = "/console/approvals"


class Entry(NamedTuple):
    """One entry of the menu, shown to those with one of `roles` (none: to everybody signed in)."""

    path: str
    title: str
    roles: tuple[Role, ...] = ()


MENU = (
    Entry("/console/overview", "Overview"),
    Entry(APPROVALS, "Approvals", CASE_READERS),
    Entry("/console/activity", "Activity", READERS),
    Entry("/console/agents", "Agents"),
    Entry("/console/tools", "Tools"),
    Entry("/console/models", "Models"),
    Entry("/console/audit", "Audit", READERS),
)


def _moment(text: str | None) -> str:
    """An RFC 3339 time for people: to the second, UTC."""
    return "" if not text else f"{text[:10]} {text[11:19]}"


def _money(text: str | None) -> str:
    """A decimal string of US dollars, never rounded down to nothing."""
    if not text:
        return ""
    try:
        value = Decimal(text)
    except InvalidOperation:
        return text
    return "$0" if value == 0 else f"${value:f}"


def _latency(ms: float | None) -> str:
    if ms is None:
        return ""
    return f"{ms:.1f} ms" if ms < 1000 else f"{ms / 1000:.2f} s"


def _short(text: str | None, length: int = 12) -> str:
    return "" if not text else text if len(text) <= length else f"{text[:length]}…"


def _from_ns(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S")


class Asset(NamedTuple):
    """A file that browsers keep for good: its address changes with its content."""

    content: bytes
    media_type: str
    version: str


_MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class Pages:
    """Renders templates; made once. `pending`: how many cases wait for people now."""

    def __init__(self, pending: Callable[[], int]) -> None:
        self._pending = pending
        self.assets = {path.name: _asset(path) for path in sorted((_HERE / "static").iterdir())}
        self._environment = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(
            moment=_moment, money=_money, latency=_latency, short=_short, from_ns=_from_ns, visible=visible, span=span
        )
        self._environment.globals.update(asset=self._address, approvals=APPROVALS)

    def render(
        self, template: str, *, who: SignedIn | None, path: str = "", status_code: int = 200, **values: Any
    ) -> HTMLResponse:
        """A page. `who` is None where nobody is signed in."""
        menu = [one for one in MENU if who is not None and (not one.roles or who.may(*one.roles))]
        text = self._environment.get_template(template).render(
            who=None if who is None else who.person, menu=menu, path=path, pending=self._pending(), **values
        )
        return HTMLResponse(text, status_code=status_code, headers=HEADERS)

    def _address(self, name: str) -> str:
        return f"/console/static/{name}?v={self.assets[name].version}"


def _asset(path: Path) -> Asset:
    content = path.read_bytes()
    return Asset(content, _MEDIA_TYPES[path.suffix], hashlib.sha256(content).hexdigest()[:12])
