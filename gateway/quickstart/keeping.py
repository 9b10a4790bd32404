"""Servers that are started again when they end, each by itself: none waits for another that does not come up."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from gateway.errors import Refusal
from gateway.quickstart.child import START_S, Server

_AGAIN_S = 5.0  # a server that did not come up is tried again after this


class Keeping:
    """Looks after servers that were started. Owns when each is started again; `look` is called now and then."""

    def __init__(self, servers: Iterable[Server], *, now_s: Callable[[], float], say: Callable[[str], None]) -> None:
        """`now_s` is a monotonic clock; `say` hears what ends and what answers again."""
        self._servers = list(servers)
        self._now_s = now_s
        self._say = say
        self._late_s: dict[Server, float] = {}  # those that come up, and when they should have
        self._again_s: dict[Server, float] = {}  # those that did not, and when they are tried again

    def look(self) -> None:
        """Start what has ended, and say which of those that were started answers now. Waits for none of them."""
        for server in self._servers:
            if server in self._late_s:
                self._look_at_coming(server)
            elif not server.runs and self._now_s() >= self._again_s.get(server, 0.0):
                self._say(f"{server.name} ended; starting it again.")
                self._launch(server)

    def _launch(self, server: Server) -> None:
        try:
            server.launch()
        except Refusal as failed:
            self._failed(server, failed.message)
        else:
            self._late_s[server] = self._now_s() + START_S

    def _look_at_coming(self, server: Server) -> None:
        if not server.runs:
            self._failed(server, server.failing("ended while it started"))
        elif server.answers():
            del self._late_s[server]
            self._say(f"{server.name} answers again.")
        elif self._now_s() >= self._late_s[server]:
            why = server.failing(f"did not answer within {START_S:g} s")
            server.kill()
            self._failed(server, why)

    def _failed(self, server: Server, why: str) -> None:
        self._late_s.pop(server, None)
        self._again_s[server] = self._now_s() + _AGAIN_S
        self._say(why)
