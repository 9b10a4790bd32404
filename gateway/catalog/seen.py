"""What agents were seen to declare: tools in their model calls that no manifest describes.

Owns: a list of them by agent and name, bounded and kept over restarts; a manifest is drafted from it.
Never: decides anything, or believes a word of it. Names, descriptions and schemas are the agents' own; whoever shows
them must take them for hostile.
Fails open: no action waits for a note or fails with one. What can't be written now is written later, what is too
much is left out, and a crash forgets what was seen since the last save.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

import structlog

from gateway.actions import Action, DeclaredTool
from gateway.catalog.seen_tool import MAX_NAME, SeenTool, cut, delete_before, names_or_whole, row_of, rows, upsert
from gateway.clock import Clock
from gateway.store.interface import Connection

MAX_PER_AGENT = 500
MAX_IN_ALL = 2000
MAX_SETS = 2000
LOOK_AGAIN_S = 60  # how long a set of names is taken to mean the tools it meant
FORGET_AFTER_S = 90 * 86_400
_SWEEP_EVERY_S = 86_400
_ROWS_PER_WRITE = 50

T = TypeVar("T")

log = structlog.get_logger("gateway.catalog")


class Store(Protocol):
    """Where the list is kept."""

    async def read(self, fn: Callable[[Connection], T]) -> T: ...
    async def write(self, fn: Callable[[Connection], T]) -> T: ...


class _Set:
    """What calls with the same agent and the same names add up to until the next look at what they declare."""

    __slots__ = ("again_ns", "calls", "last_ns", "tools")

    def __init__(self, tools: tuple[SeenTool, ...], now_ns: int) -> None:
        self.tools = tools
        self.again_ns = now_ns + LOOK_AGAIN_S * 1_000_000_000
        self.last_ns = now_ns
        self.calls = 0


class SeenTools:
    """Notes what allowed model calls declare. One event loop uses it.

    `read` gives the tools that a call declares, in its door's dialect; `described` says whether a manifest has one.
    """

    def __init__(
        self,
        *,
        store: Store,
        read: Callable[[Action], Iterable[DeclaredTool]],
        described: Callable[[DeclaredTool | SeenTool], bool],
        clock: Clock,
    ) -> None:
        self._store = store
        self._read = read
        self._described = described
        self._clock = clock
        self._tools: dict[str, dict[str, SeenTool]] = {}  # by agent, then by name
        self._size = 0
        self._sets: dict[int, _Set] = {}
        self._unsaved: dict[tuple[str, str], SeenTool] = {}
        self._full: set[str] = set()  # agents of which it was told
        self._saving_fails = False
        self._swept_ns = 0

    # ------------------------------------------------------------ on the path

    def note(self, action: Action) -> None:
        """A model call was allowed. Raises nothing; costs a look-up where its agent and tools are known."""
        names = action.arguments.get("tools")
        if not names:
            return
        agent_id = action.caller.agent.id
        key = hash((agent_id, *names))
        known = self._sets.get(key)
        if known is not None and action.received_ns < known.again_ns:
            known.calls += 1
            known.last_ns = action.received_ns
            return
        try:
            self._look(action, key)
        except Exception:  # it is only a note
            log.exception("seen_tools_fault", agent=agent_id, action=action.id)

    def _look(self, action: Action, key: int) -> None:
        known = self._sets.pop(key, None)
        if known is not None:
            self._add_up(known)
        elif len(self._sets) >= MAX_SETS:
            self._settle()
            self._sets.clear()
        found = {
            tool.name: tool
            for tool in self._read(action)
            if 0 < len(tool.name) <= MAX_NAME and "\x00" not in tool.name and not self._described(tool)
        }
        noted = [self._noted(action, tool) for tool in found.values()]
        seen = tuple(one for one in noted if one is not None)
        self._sets[key] = _Set(seen, action.received_ns)

    def _noted(self, action: Action, tool: DeclaredTool) -> SeenTool | None:
        agent = action.caller.agent
        mine = self._tools.setdefault(agent.id, {})
        seen = mine.get(tool.name)
        description, schema = cut(tool.description), names_or_whole(tool.parameters)
        if seen is None:
            if len(mine) >= MAX_PER_AGENT or self._size >= MAX_IN_ALL:
                self._tell_full(agent.id)
                return None
            seen = SeenTool(
                agent=agent.id,
                name=tool.name,
                tenant=agent.tenant,
                description=description,
                schema=schema,
                first_ns=action.received_ns,
                last_ns=action.received_ns,
                count=0,
            )
            mine[tool.name] = seen
            self._size += 1
        seen.description, seen.schema = description, schema
        self._count(seen, 1, action.received_ns)
        return seen

    def _tell_full(self, agent_id: str) -> None:
        if agent_id not in self._full:
            self._full.add(agent_id)
            log.warning("seen_tools_full", agent=agent_id, per_agent=MAX_PER_AGENT, in_all=MAX_IN_ALL)

    def _count(self, seen: SeenTool, calls: int, last_ns: int) -> None:
        seen.count += calls
        seen.last_ns = max(seen.last_ns, last_ns)
        self._unsaved[seen.agent, seen.name] = seen

    def _add_up(self, one: _Set) -> None:
        if one.calls:
            for seen in one.tools:
                self._count(seen, one.calls, one.last_ns)
            one.calls = 0

    def _settle(self) -> None:
        for one in self._sets.values():
            self._add_up(one)

    # ------------------------------------------------------------ for people

    def all(self, agent_id: str | None = None) -> list[SeenTool]:
        """What no manifest describes now, by agent and name; of one agent or all."""
        self._settle()
        agents = self._tools if agent_id is None else {agent_id: self._tools.get(agent_id, {})}
        found = [seen for mine in agents.values() for seen in mine.values() if not self._described(seen)]
        return sorted(found, key=lambda seen: seen.id)

    # ------------------------------------------------------------ over restarts

    async def load(self) -> None:
        """Take up what was saved. A list that can't be read begins anew."""
        try:
            found = await self._store.read(rows)
        except Exception:
            log.exception("seen_tools_not_loaded")
            return
        for seen in found:
            self._tools.setdefault(seen.agent, {})[seen.name] = seen
        self._size = len(found)

    async def save(self) -> None:
        """Write what changed since the last time, and forget what nobody declared for a long time. Raises nothing."""
        self._settle()
        try:
            while self._unsaved:
                batch = list(self._unsaved)[:_ROWS_PER_WRITE]
                values = [row_of(self._unsaved.pop(key)) for key in batch]
                try:
                    await self._store.write(upsert(values))
                except BaseException:
                    self._take_back(batch)
                    raise
            await self._sweep()
        except Exception as error:  # noqa: BLE001 - tried again at the next save
            if not self._saving_fails:
                log.warning("seen_tools_not_saved", error=str(error))
            self._saving_fails = True
        else:
            self._saving_fails = False

    def _take_back(self, keys: Iterable[tuple[str, str]]) -> None:
        for agent_id, name in keys:
            seen = self._tools.get(agent_id, {}).get(name)
            if seen is not None:
                self._unsaved.setdefault((agent_id, name), seen)

    async def _sweep(self) -> None:
        now_ns = self._clock.now_ns()
        if now_ns - self._swept_ns < _SWEEP_EVERY_S * 1_000_000_000:
            return
        self._swept_ns = now_ns
        before_ns = now_ns - FORGET_AFTER_S * 1_000_000_000
        await self._store.write(delete_before(before_ns))
        for agent_id, mine in list(self._tools.items()):
            kept = {name: seen for name, seen in mine.items() if seen.last_ns >= before_ns}
            self._size -= len(mine) - len(kept)
            self._tools[agent_id] = kept
        self._full.clear()
