"""The composition root: every room built once, every route listed in order. Nothing here decides anything.

`App(process)` builds what needs no reading; `start` reads, checks and opens, in the order that makes a failure leave
nothing half begun; `stop` closes in reverse.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import structlog
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from gateway import __version__, tasks
from gateway.actions import Action, Agent, DeclaredTool, Reservation, Target
from gateway.approvals import Approvals
from gateway.approvals.case import Case
from gateway.audit import records
from gateway.audit.leaf import Leaf
from gateway.audit.lost import lost_call
from gateway.audit.reverify import Reverification
from gateway.audit.trail import Trail
from gateway.audit.view import Filter
from gateway.catalog.catalog import Catalog
from gateway.catalog.manifests import Stdio
from gateway.catalog.seen import SeenTools
from gateway.catalog.sentences import render_sentence
from gateway.catalog.snapshot import NOT_CONNECTED_YET
from gateway.clock import Ids, PooledRandom, SystemClock
from gateway.config import Config
from gateway.configuration import Configuration, Prepared, server_configs
from gateway.configuration import read as read_configuration
from gateway.documents import Problem, errors
from gateway.doors.desk import Desk
from gateway.doors.dispatch import Asgi, Dispatcher
from gateway.doors.health import Condition, Health
from gateway.doors.hosts import EVERYWHERE, Hosts
from gateway.doors.mcp.door import McpDoor
from gateway.doors.mcp.origins import Origins
from gateway.doors.mcp.sessions import Sessions
from gateway.doors.openai.chat import ChatCompletions
from gateway.doors.openai.door import DOOR as OPENAI_CHAT
from gateway.doors.openai.door import OpenAIDoor
from gateway.doors.openai.request import declared_tools
from gateway.engines import Engines
from gateway.errors import Refusal
from gateway.footing import footing_of, sealing
from gateway.govern import Governor
from gateway.guards import Guards
from gateway.host_names import as_sent
from gateway.identity.console_site import ConsoleSite
from gateway.identity.now import Now
from gateway.identity.registry import Registry
from gateway.keys import session_key
from gateway.limits.overrun import Overrun
from gateway.limits.soft import SoftBudget
from gateway.limits.windows import names_in
from gateway.policy import Decider
from gateway.policy.known import Known
from gateway.process import Process
from gateway.settings import child_environment, resolve, resolve_text
from gateway.stdio_servers import guarded, mode_of
from gateway.store.interface import Connection
from gateway.telemetry import Metrics, Observer, names, start_export, trace_parser
from gateway.telemetry.settings import read as read_telemetry
from gateway.upstreams.budget import AnswerBudget
from gateway.upstreams.confinement.support import support
from gateway.upstreams.models import Models
from gateway.upstreams.performing import Performing
from gateway.upstreams.proxies import proxy_of
from gateway.upstreams.tool_link import NOT_REACHED_YET
from gateway.upstreams.tool_servers import ToolServers
from gateway.upstreams.wire import Wire

HOMES = "tool-servers"  # in the data directory: what tool servers that the gateway runs keep
TICK_S = 1.0
FOOTING_TICK_S = 0.5
RESUME_EVERY = 10  # ticks: what was approved and could not begin, as while no policy could be asked, is tried again
SAVE_SEEN_EVERY = 30  # ticks
_CONNECTED = ("connected", "client")
_STARTING = (NOT_CONNECTED_YET, NOT_REACHED_YET)

log = structlog.get_logger("gateway.app")


class App:
    """The gateway in one process. `asgi` serves every path."""

    asgi: Asgi

    def __init__(
        self,
        process: Process,
        *,
        operator_token: str | None = None,
        common_dir: Path | None = None,
        port: int | None = None,
        defaults: Path | None = None,
    ) -> None:
        """`operator_token`: the local operator's, and `common_dir` the data directory that several workers share.
        `port`: the one that was bound, where the process leaves it to the system. `defaults`: a file whose settings
        apply where the configuration says nothing; the quickstart has one."""
        self.process = process
        self._common_dir = common_dir
        self._port = process.port if port is None else port
        self._defaults = defaults
        self._operator_token = operator_token
        self.clock = SystemClock()
        self.ids = Ids(self.clock)
        self.is_stopping = False
        self.metrics = Metrics(CollectorRegistry(), version=__version__)
        self.footing = footing_of(process, self.clock, self.ids)
        self.limits = self.footing.limits
        self.limits.on_soft_budget = self._soft_budget_passed
        self.limits.on_overrun = self._reservation_exceeded
        self.guards = Guards()
        self._decider: Decider | None = None
        self.catalog = Catalog(price=self._price)
        self.wire = Wire()
        self.answers = AnswerBudget()
        self.models = Models(
            budget=self.answers,
            wire=self.wire,
            clock=self.clock,
            new_id=self.ids.new,
            jitter=random.random,
            resolve=resolve,
            resolve_text=resolve_text,
            proxy_of=lambda url: proxy_of(url, os.environ),
        )
        self.configuration = Configuration(
            process.config,
            catalog=self.catalog,
            models=self.models,
            install=self._install,
            registered=self._registered_agents,
            defaults=defaults,
        )
        self.health = Health(self.clock)
        self.health.on_change = _told_of_part
        self.engines = Engines(process.opa_url, self.clock, self._was_in_force)
        self.reverification = Reverification(self.footing.source(), names_in)
        self._prices: Any = {}
        self._installed_ns = 0  # when the state in force came into force
        self._has_learned = False  # a tool server has told its tools since what was approved was last tried

    @property
    def configured(self) -> Prepared:
        """The state in force; there is one once `start` has returned."""
        current = self.configuration.current
        assert current is not None
        return current

    @property
    def policy(self) -> Decider:
        """Who is asked for decisions; there is one once `start` has returned."""
        assert self._decider is not None
        return self._decider

    # ------------------------------------------------------------ start

    async def start(self) -> None:
        """Open everything. Raises Refusal with the first reason why the gateway can't run."""
        found, problems = read_configuration(self.process.config, defaults=self._defaults)
        if found is None:
            raise bad_configuration(problems)
        config = found.config
        self.log = await self.footing.open(config)
        try:
            await self._start(config)
        except BaseException:
            # So that neither the next start nor other replicas take this for a crash.
            await self.footing.end(self._settle_unknown, self._lost_call)
            raise

    async def _start(self, config: Config) -> None:
        self.writer = self.footing.writer
        self.writer.on_commit = self.metrics.audit_committed
        self.trail = Trail(self.log)
        self.registry = Registry(
            journal=self._journal, macs=self.log.macs, clock=self.clock, ids=self.ids, on_suspend=self._suspended
        )
        now = Now(self.log.macs)
        self.approvals = Approvals(
            store=self.writer,
            records=self.trail,
            sealing=sealing(self.footing),
            macs=self.log.macs,
            clock=self.clock,
            ids=self.ids,
            sentence=render_sentence,
            standing=self.registry.people.standing,
            standing_in=now.standing,
            owners=self._owners,
            active=now.is_active,
            on_record=self.log.case_on_record,
            deleted=self.log.deleted_cases,
            settings=config.approvals,
            replica=self.footing.replica,
        )
        self.registry.agents.suspended_on_record = await self.footing.begin(self._settle_unknown, self._lost_call)
        await self.registry.load(self.writer)
        await self.approvals.load()
        await self.footing.join(self.registry, self.approvals, self._told, self._doubted)
        self.seen = SeenTools(
            store=self.writer, read=_declared_tools, described=self.catalog.describes, clock=self.clock
        )
        await self.seen.load()
        await self.registry.open_local_door(self.process.data_dir, self._operator_token)
        self.tools = ToolServers(
            budget=self.answers,
            transport=self.wire,
            resolve=resolve,
            resolve_text=resolve_text,
            child_environment=child_environment(),
            homes=self.process.data_dir.absolute() / HOMES,
            support=support(),
            learn=self._learned,
            report=self.catalog.connection,
            clock=self.clock,
        )
        problems = await self.configuration.load()
        if self.configuration.current is None:
            raise bad_configuration(problems)
        _log_warnings(problems)
        self._build_doors(config.server.max_body_bytes)
        await self.engines.start()
        await self.governor.attempting.resume()
        self._tasks = [
            asyncio.create_task(self._keep_ticking(), name="approvals-tick"),
            asyncio.create_task(self._keep_footing(), name="footing-tick"),
        ]

    async def _keep_footing(self) -> None:
        while True:
            await asyncio.sleep(FOOTING_TICK_S)
            try:
                await self.footing.tick()
            except Refusal as refusal:
                log.warning("footing_tick", code=refusal.code, message=refusal.message)
            except Exception:
                log.exception("footing_tick_fault")

    async def _keep_ticking(self) -> None:
        """What time does to cases; a tick that fails is told, and the next one comes all the same."""
        for tick in itertools.count(1):
            await asyncio.sleep(TICK_S)
            try:
                await self.approvals.tick()
                if tick % SAVE_SEEN_EVERY == 0:
                    await self.seen.save()
                if self._has_learned or tick % RESUME_EVERY == 0:
                    self._has_learned = False
                    await self.governor.attempting.resume()
            except Refusal as refusal:
                log.warning("approvals_tick", code=refusal.code, message=refusal.message)
            except Exception:
                log.exception("approvals_tick_fault")

    def _build_path(self, prepared: Prepared) -> None:
        self._decider = Decider(
            self.engines.of(prepared),
            environment=prepared.config.environment,
            undeclared=prepared.config.undeclared_client_tools,
            clock=self.clock,
            limits=self._limits_left,
            facts=lambda _session: {},
            took_s=self.metrics.policy_evaluated,
        )
        self.export = start_export(
            read_telemetry(os.environ),
            self.metrics,
            self.clock,
            service_name=self.process.service_name,
            version=__version__,
            environment=prepared.config.environment,
            replica_id=self.footing.replica or self.ids.new(),
        )
        self.observe = Observer(self.metrics, self.clock, self.export.tracing)
        self.governor = Governor(
            catalog=self.catalog,
            limits=self.limits,
            guards=self.guards,
            policy=self._decider,
            approvals=self.approvals,
            audit=self.trail,
            upstreams=Performing(self.models, self.tools, self.answers),
            dialects={OPENAI_CHAT: ChatCompletions()},
            agent=self.registry.agents.get,
            observe=self.observe,
            clock=self.clock,
            new_id=self.ids.new,
            digest=self.trail.digest_of,
            hold_s=lambda: self.configured.config.approvals.hold_s,
            saw=self.seen.note,
        )
        self.approvals.on_decided = self._case_decided
        self.approvals.on_approved = self.governor.attempting.approved
        self.approvals.under_way = self.governor.attempting.under_way

    def _build_doors(self, max_body_bytes: int) -> None:
        # FastAPI is the longest import, so it comes when all else is well.
        from gateway.console import console_app
        from gateway.doors.admin import admin_app

        parse_trace = trace_parser(PooledRandom())
        self.desk = desk = Desk(
            identity=self.registry.identity,
            find_session=self.registry.identity.session,
            parse_trace=parse_trace,
            digest=self.log.digest,
            clock=self.clock,
            ids=self.ids,
            max_body_bytes=max_body_bytes,
            look_again=self.footing.look_again,
        )
        process = self.process
        secret = session_key(self.footing.keys_dir, create=not self.footing.replica)
        self.site = ConsoleSite.of(
            public_url=process.public_url, console_host=process.console_host, port=self._port, secret=secret
        )
        mcp = McpDoor(
            desk,
            self.governor,
            sessions=Sessions(secret),
            origins=Origins(bound_host=process.host, public_url=process.public_url),
            definition=self.catalog.definition,
            parse_trace=parse_trace,
            version=__version__,
        )
        rest = admin_app(self, console=console_app(self))
        self._watch()
        hosts = Hosts(bound_host=process.host, names=self._names(), allowed=process.allowed_names)
        self.asgi = Dispatcher(models=OpenAIDoor(desk, self.governor), mcp=mcp, rest=rest, hosts=hosts)

    def _names(self) -> Iterator[str]:
        """What the gateway is called, beside the address it is bound to: by people, by agents, by other replicas."""
        yield self.site.host
        if self.process.public_url is not None:
            yield as_sent(urlsplit(self.process.public_url).hostname or "")
        if self.process.host in EVERYWHERE:
            yield socket.gethostname()

    def _watch(self) -> None:
        """What probes, people and Prometheus ask about."""
        self.metrics.watch(
            {
                names.STREAMS_OPEN: lambda: float(self.governor.open_streams),
                names.AUDIT_QUEUE: lambda: float(self.writer.queued),
                names.AUDIT_UNSIGNED: lambda: float(self.log.unsigned),
                names.AUDIT_LATCHED: lambda: float(self.writer.latched is not None),
                names.APPROVALS_PENDING: lambda: float(self.approvals.pending_count),
                names.APPROVALS_UNKNOWN: lambda: float(self.approvals.unknown_count),
                names.APPROVALS_WAITING: lambda: float(self.approvals.waiting_callers),
            }
        )
        self.health.add("accepting", lambda: "The gateway is shutting down." if self.is_stopping else None, needed=True)
        self.health.add("audit", lambda: self.writer.latched, needed=True)
        for name, (fault, needed) in (self.footing.faults() | self.engines.faults()).items():
            self.health.add(name, fault, needed=needed)
        self.health.add("rows", lambda: self.log.macs.fault)
        self.health.add("audit_trail", lambda: self.reverification.fault)
        self.health.add("configuration", self._configuration_fault)
        self.health.add("tool_servers", self._tool_server_fault)
        self.health.add("confinement", self._confinement_fault)

    def _configuration_fault(self) -> str | None:
        found = errors(self.configuration.problems)
        return f"The files on disk are not in force: {found[0]}" if found else None

    def _tool_server_fault(self) -> str | None:
        # A server that is being reached for the first time is no fault: at a start, all of them are.
        servers = [one for one in self.catalog.servers() if one.state not in _CONNECTED and one.reason not in _STARTING]
        away = [f"{one.server} ({one.reason})" for one in servers]
        return f"Not connected: {'; '.join(away)}" if away else None

    def _confinement_fault(self) -> str | None:
        servers = self.tools.unconfined()
        if not servers:
            return None
        return f"Not confined fully: {', '.join(servers)}; {self.tools.support.shortfall}."

    def _tell_confinement(self, prepared: Prepared) -> None:
        """Once for each state in force: how the servers that the gateway runs are confined."""
        modes = {
            one.server: mode_of(one.transport, prepared.config.stdio)
            for one in prepared.manifests
            if isinstance(one.transport, Stdio)
        }
        if modes:
            log.info("confinement", servers=modes, landlock_abi=self.tools.support.landlock)
        for server in self.tools.unconfined():
            log.warning("tool_server_not_confined", server=server, reason=self.tools.support.shortfall)

    # ------------------------------------------------------------ change

    async def reload(self, why: str) -> list[Problem]:
        """Read the configuration anew; the problems. If one is an error, the old state stays in force."""
        problems = await self.configuration.load()
        if errors(problems):
            log.warning("reload_refused", why=why, problems=[str(problem) for problem in problems])
        else:
            log.info("reloaded", why=why, policy=self.configured.engine.revision[:19])
            _log_warnings(problems)
        return problems

    def configuration_problems(self) -> list[Problem]:
        """What is wrong with the files as they were read last: errors if they are not active, and warnings."""
        return self.configuration.told()

    def known_names(self) -> Known:
        """The agents, tools, models and groups that there are now."""
        known = self.configuration.known()
        assert known is not None
        return known

    def _registered_agents(self) -> list[Agent]:
        return [one.agent for one in self.registry.agents.all() if one.source == "api"]

    async def replicas(self) -> list[dict[str, Any]]:
        """All replicas as they told of themselves; none where there is one gateway."""
        return await self.footing.replicas()

    async def look_again(self) -> bool:
        """Whether another replica changed something that this one had not seen; it has by now."""
        return await self.footing.look_again()

    async def changed(self) -> bool:
        """Whether the configuration's files are others than those in force."""
        return await self.configuration.changed()

    async def _install(self, prepared: Prepared) -> None:
        """Swap a prepared state in; the register first, since it may refuse."""
        prepared.engine.on_fault = lambda fault: log.error("policy_fault", fault=fault)
        await self.registry.agents.declare(prepared.agents)
        before = None if self._decider is None else self._decider.revision
        if self._decider is None:
            self._build_path(prepared)
        else:
            self._decider.swap(self.engines.of(prepared), undeclared=prepared.config.undeclared_client_tools)
        self._installed_ns = self.clock.now_ns()
        self._prices = prepared.prices
        self.catalog.install(self.catalog.prepare(prepared.config, prepared.manifests))
        self.limits.reconfigure(prepared.allowances)
        self.approvals.reconfigure(prepared.config.approvals)
        self.models.swap(prepared.providers)
        kept = guarded(self.process, prepared.config, prepared.manifests, common_dir=self._common_dir)
        self.tools.configure(server_configs(prepared.manifests, prepared.config.stdio, kept))
        self._tell_confinement(prepared)
        if before != prepared.engine.revision:
            await self._journal(
                "policy.activated",
                tenant=self.log.tenant,
                person=None,
                subject={"policy": prepared.engine.revision},
                labels={"previous": before or "none"},
                also=None,
            )

    # ------------------------------------------------------------ stop

    def stopping(self) -> None:
        """From here on the gateway is not ready, new actions are refused, and nobody waits for people any more."""
        self.is_stopping = True
        self.approvals.stop_waiting()

    async def stop(self, grace_s: float) -> None:
        """Let what runs finish, close the upstreams, flush and sign the log."""
        self.is_stopping = True
        await tasks.end(self._tasks)
        await self.governor.stop(grace_s)
        await self.engines.stop()
        await self.seen.save()
        await self.tools.aclose()
        await self.models.aclose()
        await self.wire.aclose()
        await self.footing.end(self._settle_unknown, self._lost_call)
        await self.export.aclose()

    # ------------------------------------------------------------ between rooms

    def _price(self, model: str) -> Any:
        return self._prices.get(model)

    async def _learned(self, server: str, definitions: list[dict[str, Any]]) -> None:
        """Take in what a server offers; a changed or quarantined tool is an event that auditors want to see."""
        read = await asyncio.to_thread(self.catalog.read, server, definitions)
        by_digest = {one.digest: one.raw for one in read.good.values()}
        self.guards.keep(await asyncio.to_thread(self.guards.prepare, by_digest))
        learned = self.catalog.take(server, read)
        self._has_learned = True
        changes = dict.fromkeys(learned.changed, "changed") | dict.fromkeys(learned.quarantined, "quarantined")
        for tool, change in changes.items():
            await asyncio.sleep(0)  # there may be thousands
            reason = learned.quarantined.get(tool, "Its definition is another than before.")
            log.warning("tool_definition", change=change, server=server, tool=tool, reason=reason)
            entry = records.event(
                f"tool.{change}",
                tenant=self.log.tenant,
                subject={"tool": f"{server}__{tool}"},
                labels={"reason": reason},
            )
            self.log.append_soon(entry)

    def _limits_left(self, action: Action, target: Target) -> dict[str, Any]:
        caller, agent = action.caller, action.caller.agent
        return self.limits.remaining(
            agent.id,
            caller.user,
            tenant=agent.tenant,
            team=agent.team,
            use_case=agent.use_case,
            session=action.session.id,
            target=target,
        )

    def _soft_budget_passed(self, passed: SoftBudget) -> None:
        """Nothing is refused; people want to know, once for each window."""
        log.warning("soft_budget_passed", level=passed.level, window=passed.window, sentence=passed.sentence)
        self.metrics.soft_budget_passed(passed.level.partition(":")[0])
        told = {"level": passed.level, "window": passed.window}
        entry = records.event("budget.passed", tenant=passed.tenant, subject=told, labels={"message": passed.sentence})
        try:
            self.log.append_soon(entry)
        except Refusal as refusal:
            log.warning("soft_budget_not_recorded", level=passed.level, message=refusal.message)

    def _reservation_exceeded(self, overrun: Overrun) -> None:
        """A call cost more than was reserved: a budget may be overspent by it, and people must know why."""
        reserved = overrun.reserved
        log.warning("reservation_exceeded", action=reserved.id, model=reserved.target, sentence=overrun.sentence)
        self.metrics.reservation_exceeded(reserved.target)
        told = {"action": reserved.id, "model": reserved.target}
        entry = records.event(
            "reservation.exceeded", tenant=overrun.tenant, subject=told, labels={"message": overrun.sentence}
        )
        try:
            self.log.append_soon(entry)
        except Refusal as refusal:
            log.warning("reservation_exceeded_not_recorded", action=reserved.id, message=refusal.message)

    def _suspended(self, agent_id: str) -> None:
        self.governor.end_streams_of(
            agent_id, Refusal("agent_suspended", f"The agent {agent_id} was suspended; its streams were ended.")
        )

    def _doubted(self, agent_id: str) -> None:
        reason = f"The agent {agent_id} was suspended, as it seems, and this gateway can't ask; its streams were ended."
        self.governor.end_streams_of(agent_id, Refusal("store_unavailable", reason))

    def _settle_unknown(self, connection: Connection, held: Reservation, replica: str) -> None:
        """Book what an action that nobody ended may have cost, in the window it began in, as its replica's spend."""
        began_ns = int(held.id[:8] + held.id[9:13], 16) * 1_000_000  # a UUIDv7 begins with its milliseconds
        self.limits.persist_unknown(held, began_ns, replica=replica)(connection)

    def _lost_call(self, connection: Connection, intent: Leaf) -> str | None:
        """An effect that may have happened, and nobody knows: a case for people to find out."""
        lost = lost_call(intent, self.log.arguments_of(connection, intent))
        if lost is None:
            return None
        action, target, decision = lost
        agent, known = self.registry.agents.get(action.caller.agent.id), self.catalog.described(target.id)
        if agent is not None:
            of = replace(action.caller.agent, owners=agent.owners)
            action = replace(action, caller=replace(action.caller, agent=of))
        if known is not None:
            told = {name: getattr(known, name) for name in ("owner", "data_classes", "sentence", "arguments")}
            target = replace(target, **told)
        why = (
            "The gateway ended before the result was on record, so it is not known whether it was done; the agent may"
            " have been told that it was."
        )
        try:
            return self.approvals.lost_sight(action, target, decision, why).insert(connection)
        except Refusal as refusal:  # it stays on record as unknown; only nobody is reminded of it
            log.warning("lost_call_without_case", action=action.id, message=refusal.message)
            return None

    async def _journal(
        self,
        type: str,  # noqa: A002 - the record's own field name
        *,
        tenant: str,
        person: str | None,
        subject: dict[str, Any],
        labels: dict[str, str],
        also: Any,
    ) -> None:
        """One record, and the change it is of, in one transaction."""
        entry = records.event(type, tenant=tenant, person=person, subject=subject, labels=labels)
        topic = type.partition(".")[0]
        entry.also = self.footing.riding(topic, also)
        await self.log.append(entry)
        self.footing.told(topic, suspended=subject["agent"] if type == "agent.suspended" else None)

    def _told(self) -> dict[str, str]:
        """What other replicas and people may know of this one."""
        if self.configuration.current is None:
            return {}
        degraded = ", ".join(one.id for one in self.health.conditions() if one.reason is not None)
        return {
            "policy": self.policy.revision,
            "policy_server": self.engines.server_revision or "",
            "configuration": self.configured.revision,
            "registry": self.configured.registry_revision,
            "since_ns": str(self._installed_ns),
            "degraded": degraded,
        }

    async def _was_in_force(self, revision: str) -> bool:
        """Whether a gateway of this log once activated a revision of the policies."""
        found = await self.log.query(Filter(type="policy.activated", limit=1000))
        return any((one.get("labels") or {}).get("subject.policy") == revision for one in found.records)

    def _case_decided(self, case: Case) -> None:
        decided_ns = case.decided_ns or self.clock.now_ns()
        self.metrics.case_decided(case.outcome, max(0, decided_ns - case.opened_ns) / 1e9)

    def _owners(self, agent_id: str) -> tuple[str, ...]:
        agent = self.registry.agents.get(agent_id)
        return () if agent is None else tuple(agent.owners.values())

    def agent(self, agent_id: str) -> Agent | None:
        return self.registry.agents.get(agent_id)


def _declared_tools(action: Action) -> list[DeclaredTool]:
    return declared_tools(action.body) if action.door == OPENAI_CHAT else []


def _log_warnings(problems: list[Problem]) -> None:
    for one in problems:
        if one.severity == "warning":
            log.warning("configuration_warning", problem=str(one))


def bad_configuration(problems: list[Problem]) -> Refusal:
    """One sentence on top, then every problem on a line of its own."""
    lines = "\n".join(str(problem) for problem in problems)
    return Refusal("invalid_configuration", f"The configuration has errors; correct them and start again.\n{lines}")


def _told_of_part(part: Condition) -> None:
    if part.reason is None:
        log.info("part_back", part=part.id)
    else:
        log.warning("part_failed", part=part.id, reason=part.reason, needed=part.needed)
