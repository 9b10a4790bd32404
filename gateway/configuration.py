"""What can change while the gateway runs: read and checked beside the old state, then swapped in, all or nothing.

Fails closed at start (no configuration, no gateway) and safe at reload (a bad one changes nothing and says why).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from gateway import documents, settings
from gateway.actions import Agent
from gateway.catalog.catalog import Catalog
from gateway.catalog.manifests import Manifest, StreamableHttp
from gateway.catalog.models import PriceRow, priced_name
from gateway.catalog.prices import read_prices
from gateway.catalog.registry import described, read_registry
from gateway.config import StdioServers
from gateway.documents import Problem, errors
from gateway.known_names import known_names
from gateway.limits.allowance import AllowanceTable, table_of
from gateway.policy import EmbeddedEngine, Examined, build, failures
from gateway.policy.known import Known
from gateway.settings import Config
from gateway.stdio_servers import server_config
from gateway.upstreams.confinement.plan import Guarded
from gateway.upstreams.models import ModelProvider, Models
from gateway.upstreams.tool_servers import HttpServerConfig, ServerConfig

# What the rooms that are built once, at start, were given.
_FIXED = {"environment", "audit", "server"}


@dataclass(frozen=True)
class Prepared:
    """A whole new state, ready to be swapped in."""

    config: Config
    manifests: tuple[Manifest, ...]
    described: tuple[Manifest, ...]
    """All manifests, also of servers that are switched off."""
    prices: Mapping[str, PriceRow]
    engine: EmbeddedEngine
    providers: dict[str, ModelProvider]
    allowances: AllowanceTable
    agents: tuple[Agent, ...]
    revision: str
    """Of the configuration file: what replicas compare. SHA-256 of what it means, hex."""
    registry_revision: str
    """Of the tool registry, in the same way."""


@dataclass(frozen=True)
class Read:
    """What the files say, before anything is built that only the running gateway needs."""

    config: Config
    manifests: tuple[Manifest, ...]
    described: tuple[Manifest, ...]


def read(
    path: Path, environ: Mapping[str, str] = os.environ, *, defaults: Path | None = None
) -> tuple[Read | None, list[Problem]]:
    """Read gateway.yaml and the tool registry; None if either has an error, and the problems of both.

    `defaults` is a file whose settings apply where gateway.yaml says nothing.
    """
    config, problems = settings.load(path, environ, defaults=defaults)
    if config is None:
        return None, problems
    manifests, found = read_registry(config.tool_registry, environ)
    problems = [*problems, *found]
    return (None if manifests is None else Read(config, manifests, described(config.tool_registry))), problems


class Configuration:
    """The configuration in force, and how the next one comes into force."""

    def __init__(
        self,
        path: Path,
        *,
        catalog: Catalog,
        models: Models,
        install: Callable[[Prepared], Any],
        registered: Callable[[], Iterable[Agent]] = tuple,
        defaults: Path | None = None,
    ) -> None:
        """`registered` gives the agents that were registered through the API; `defaults` is as for `read`."""
        self.path = path
        self._defaults = defaults
        self._catalog = catalog
        self._models = models
        self._install = install
        self._registered = registered
        self._turn = asyncio.Lock()
        self._seen: dict[Path, tuple[int, int]] = {}
        self._named: tuple[Prepared, Known, list[Problem]] | None = None  # what was found last, and among which names
        self.current: Prepared | None = None
        self.problems: list[Problem] = []  # of the files as they were read last, unknown names apart

    def told(self) -> list[Problem]:
        """What is wrong with the files as they were read last, and with names as agents are registered now."""
        return [*self.problems, *self._unknown_names(self.current)]

    def known(self) -> Known | None:
        """The names that there are, as active now."""
        current = self.current
        return None if current is None else known_names(current.config, current.described, self._registered())

    async def load(self) -> list[Problem]:
        """Read everything again and activate it; the problems found, and if one is an error nothing changed."""
        async with self._turn:
            before = await asyncio.to_thread(self._times, self.current)
            prepared, problems = await self._prepare()
            self.problems = problems
            problems = [*problems, *self._unknown_names(prepared)]
            if prepared is not None:
                await self._install(prepared)
                self.current = prepared
            # A file that changed while it was read counts as changed: for it the time from before stays.
            after = await asyncio.to_thread(self._times, self.current)
            self._seen = {file: before.get(file, time) for file, time in after.items()}
            return problems

    async def changed(self) -> bool:
        """Whether a file of the configuration is other than when it was read last."""
        return self.current is not None and await asyncio.to_thread(self._times, self.current) != self._seen

    async def _prepare(self) -> tuple[Prepared | None, list[Problem]]:
        found, problems = await asyncio.to_thread(read, self.path, defaults=self._defaults)
        if found is None:
            return None, problems
        config = found.config
        if self.current is not None:
            fixed = await asyncio.to_thread(_fixed, self.path, self.current.config, config)
            if fixed:
                return None, [*problems, *fixed]
        wanted = [priced_name(config, model) for model in config.models if model.price is None]
        prices: dict[str, Any] = dict(await asyncio.to_thread(read_prices, wanted)) if wanted else {}
        examined = await asyncio.to_thread(Examined, config.policy.path)
        # The engine belongs to the thread that makes it: the event loop's.
        engine, policy_problems = build(examined)
        providers, provider_problems = await self._models.prepare(config.providers)
        problems = [*problems, *policy_problems, *provider_problems]
        if engine is not None and config.policy.tests != "off":
            is_required = config.policy.tests == "required"
            problems += await asyncio.to_thread(failures, examined, is_error=is_required)
        if engine is None or errors(problems):
            return None, problems
        agents = tuple(_agent(one) for one in config.agents)
        allowances = table_of(config.limits)
        revision = _revision(config.model_dump_json())
        registry = _revision(*sorted(manifest.model_dump_json() for manifest in found.manifests))
        return (
            Prepared(
                config,
                found.manifests,
                found.described,
                prices,
                engine,
                providers,
                allowances,
                agents,
                revision,
                registry,
            ),
            problems,
        )

    def _unknown_names(self, state: Prepared | None) -> list[Problem]:
        if state is None:
            return []
        known = known_names(state.config, state.described, self._registered())
        if self._named is None or self._named[0] is not state or self._named[1] != known:
            self._named = state, known, state.engine.unknown_names(known)
        return self._named[2]

    def _times(self, current: Prepared | None) -> dict[Path, tuple[int, int]]:
        """Modification time (nanoseconds) and size of every file whose change would be noticed."""
        files = [self.path, *([self._defaults] if self._defaults is not None else [])]
        if current is not None:
            config = current.config
            for folder in (config.tool_registry, config.policy.path):
                with contextlib.suppress(OSError):  # it is being replaced just now
                    files += [file for file in folder.rglob("*") if file.suffix in (".yaml", ".yml", ".json", ".rego")]
        times = {}
        for file in files:
            try:
                found = file.stat()
                times[file] = (found.st_mtime_ns, found.st_size)
            except OSError:
                times[file] = (-1, -1)
        return times


def _revision(*texts: str) -> str:
    return sha256("\n".join(texts).encode()).hexdigest()


def _fixed(path: Path, old: Config, new: Config) -> list[Problem]:
    """Settings that running parts were built with and that another file can't change: told, not ignored."""
    before, after = old.model_dump(include=_FIXED), new.model_dump(include=_FIXED)
    places: list[tuple[str, ...]] = []
    for name in sorted(_FIXED):
        if isinstance(before[name], dict):
            places += [(name, key) for key, value in before[name].items() if after[name][key] != value]
        elif before[name] != after[name]:
            places.append((name,))
    if not places:
        return []
    document, _ = documents.load(path)
    lines = [0 if document is None else document.line(*place) for place in places]
    return [
        Problem(
            str(path),
            line,
            f"{'.'.join(place)} can't change while the gateway runs.",
            "Restart the gateway to change it.",
        )
        for place, line in zip(places, lines, strict=True)
    ]


def server_configs(manifests: tuple[Manifest, ...], stdio: StdioServers, kept: Guarded) -> list[ServerConfig]:
    """The tool servers that the gateway itself talks to, as upstreams need them; `kept` from those that it runs."""
    servers: list[ServerConfig] = []
    for one in manifests:
        transport = one.transport
        if one.kind != "mcp" or transport is None:
            continue
        if isinstance(transport, StreamableHttp):
            credential = None if one.credential is None else one.credential.reference
            servers.append(
                HttpServerConfig(one.server, transport.url, credential, transport.connect_timeout_s, one.call_timeout_s)
            )
        else:
            servers.append(server_config(one, transport, stdio, kept))
    return servers


def _agent(one: settings.Agent) -> Agent:
    return Agent(
        id=one.id,
        env=one.env,
        version=one.version,
        team=one.team,
        use_case=one.use_case,
        tier=one.tier,
        owners={role: person for role, person in one.owners.model_dump().items() if person},
        next_review=None if one.next_review is None else one.next_review.isoformat(),
        labels=dict(one.labels),
    )
