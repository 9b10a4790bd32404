"""What operators see of the catalog: servers, their tools and what is wrong with them. Plain data."""

from __future__ import annotations

from typing import NamedTuple


class Learned(NamedTuple):
    """What a server's list of tools came to."""

    server: str
    live: tuple[str, ...]  # callable now
    quarantined: dict[str, str]  # tool -> why
    unregistered: tuple[str, ...]  # offered, but no manifest names them: unknown to agents
    absent: tuple[str, ...]  # in the manifest, but not offered
    changed: tuple[str, ...]  # other definition than last time
    warnings: tuple[str, ...] = ()


class ToolStatus(NamedTuple):
    """`state`: live, declared (not seen yet), unreachable, absent, quarantined, unregistered or client."""

    name: str
    state: str
    reason: str = ""
    digest: str | None = None
    pin: str | None = None
    risk: str | None = None
    effect: str | None = None


class ServerStatus(NamedTuple):
    """`state`: connected, connecting, unreachable, stopped, or client (nothing to connect to)."""

    server: str
    kind: str
    title: str
    owner: str
    review: str | None
    state: str
    reason: str
    tools: tuple[ToolStatus, ...]
    warnings: tuple[str, ...] = ()
