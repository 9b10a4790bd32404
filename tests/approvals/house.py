"""What the tests of the case machine share: a house with agents, people and a log, that can be restarted."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gateway.actions import (
    Action,
    Agent,
    Caller,
    Cost,
    Decision,
    Effect,
    Kind,
    Reservation,
    Result,
    Session,
    Status,
    ToolTarget,
    Trace,
)
from gateway.approvals import Approvals, Sealing
from gateway.approvals.case import Case, Choice, Ending, Met, Requirement, Standing
from gateway.audit import keys as audit_keys
from gateway.audit.appending import Appending
from gateway.audit.log import AuditLog
from gateway.audit.shared import SharedLog
from gateway.audit.trail import Trail
from gateway.clock import Ids, ManualClock, SystemClock
from gateway.config import Approvals as Settings
from gateway.errors import Refusal
from gateway.identity.now import Now
from gateway.replicas import Replicas
from gateway.store import Writer
from gateway.store.interface import Connection
from gateway.store.postgres import PostgresDatabase

ORIGIN = "gateway.local/audit/default"
TARGET = ToolTarget(
    server="ledger",
    tool="transfer",
    server_kind="mcp",
    owner="t@example.com",
    risk="high",
    effect="write",
    definition_digest="sha256:one",
)
ALLOW = Decision(effect=Effect.ALLOW, rules=("small",), revision="r2")


def escalate(*obligations: dict[str, Any], rule: str = "large") -> Decision:
    """A policy's answer that people must decide; `obligations` are the contents of `approval`."""
    asked = tuple({"approval": one} for one in obligations)
    return Decision(effect=Effect.ESCALATE, rules=(rule,), reasons=("Over 100.",), revision="r1", obligations=asked)


class House:
    """Opens cases and lets people decide them."""

    def __init__(self, folder: Path, url: str | None = None) -> None:
        """`url`: a PostgreSQL that replicas share; without it everything stands in the folder."""
        self.folder = folder
        self.url = url
        self.clock = ManualClock()
        self.ids = Ids(self.clock, random.Random(1).randbytes)
        self.settings = Settings(groups=("treasury", "risk"))
        self.owners: tuple[str, ...] = ()
        self._look = ThreadPoolExecutor(1)  # a connection belongs to its thread
        self.approved: list[str] = []
        self.agent = Agent(id="payer", team="treasury", owners={"business": "olga"})

    async def start(self) -> None:
        replica = ""
        self.log: Appending
        if self.url is not None:
            replica = await self._join(self.url)
        else:
            self.writer = Writer.open(self.folder)
            log = AuditLog.open(self.folder, self.writer, origin=ORIGIN, clock=self.clock, ids=self.ids)
            await log.start()
            self.log = log
        self.trail = Trail(self.log)
        self.now = Now(self.log.macs)
        self.room = Approvals(
            store=self.writer,
            records=self.trail,
            sealing=Sealing.open(self.folder / "keys"),
            macs=self.log.macs,
            clock=self.clock,
            ids=self.ids,
            sentence=lambda target, arguments: f"Transfer {arguments.get('amount')} to {arguments.get('to')}",
            standing=self._standing,
            standing_in=self.now.standing,
            owners=lambda agent_id: self.owners,
            active=self.now.is_active,
            on_record=self.log.case_on_record,
            deleted=self.log.deleted_cases,
            settings=self.settings,
            replica=replica,
        )
        self.room.on_approved = lambda case: self.approved.append(case.id)
        await self.writer.write(self._people)
        await self.room.load()

    async def _join(self, url: str) -> str:
        """Be a replica of those that share the database."""
        keys = self.folder / "keys"
        audit_keys.load(keys, ORIGIN, create=True, random_bytes=audit_keys.system_random)
        clock = SystemClock()
        replica = Ids(clock).new()
        self.group = Replicas(url, replica, name="house", version="0", clock=clock)
        await self.group.register()
        self.writer = Writer(PostgresDatabase(url, replica))
        self.log = SharedLog.open(
            self.folder,
            self.writer,
            url=url,
            replica=replica,
            keys_dir=keys,
            origin=ORIGIN,
            clock=self.clock,
            ids=self.ids,
        )
        await self.log.start()
        return replica

    async def stop(self) -> None:
        await self.log.stop()
        await self.writer.close()
        if self.url is not None:
            await self.group.stop()

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    def _people(self, db: Connection) -> None:
        macs = self.log.macs
        for person, role, groups in (
            ("ada", "reviewer", ["treasury"]),
            ("ben", "reviewer", ["risk"]),
            ("cy", "reviewer", ["treasury", "risk"]),
            ("dan", "reviewer", []),
            ("olga", "reviewer", ["treasury"]),
            ("uma", "reviewer", []),
            ("eve", "auditor", []),
        ):
            row = {"id": person, "tenant": "default", "name": person, "roles": json.dumps([role])}
            macs.insert(db, "person", **row, created_ns=1, groups=json.dumps(groups), change_no=1)
        row = {"id": "payer", "tenant": "default", "env": "dev", "version": "1", "team": "", "use_case": ""}
        row |= {"tier": "standard", "status": "active", "owners": "{}", "labels": "{}", "source": "api"}
        macs.insert(db, "agent", **row, created_ns=1, change_no=1)

    def _standing(self, person: str) -> Standing | None:
        found = self._look.submit(self.writer.database.read, lambda db: self.now.standing(db, person)).result()
        return None if found is None else Standing(found.reviewer, found.groups)

    async def role_taken(self, person: str) -> None:
        await self._roles(person, "[]")

    async def role_given(self, person: str) -> None:
        await self._roles(person, '["reviewer"]')

    async def _roles(self, person: str, roles: str) -> None:
        change = self.log.macs.change
        await self.writer.write(lambda db: change(db, "person", "WHERE id = ?", (person,), roles=roles))

    def action(self, user: str | None = "uma", agent: Agent | None = None, **changes: Any) -> Action:
        """A transfer of 500 by the agent `payer` for `uma`."""
        given: dict[str, Any] = {
            "id": self.ids.new(),
            "kind": Kind.TOOL_CALL,
            "door": "mcp",
            "caller": Caller(agent or self.agent, user, "key-1", "key"),
            "session": Session("s-1", "header"),
            "trace": Trace("a" * 32, "b" * 16),
            "target": "ledger__transfer",
            "request_id": "req-1",
            "received_ns": self.clock.now_ns(),
            "arguments": {"to": "acme-secret-payee", "amount": 500},
        }
        action = Action(**(given | changes))
        digest = self.log.digest("default", action.caller.agent.id, user, action.target, action.arguments)
        return Action(**{**{name: getattr(action, name) for name in action.__struct_fields__}, "digest": digest})

    async def meet(self, action: Action | None = None, *obligations: dict[str, Any]) -> Met:
        met = await self.room.meet(action or self.action(), TARGET, escalate(*obligations))
        assert met is not None
        return met

    async def opened(self, *obligations: dict[str, Any], **changes: Any) -> Case:
        return (await self.meet(self.action(**changes), *obligations)).case

    async def vote(self, case: Case, person: str, choice: Choice = Choice.APPROVE, **more: Any) -> Case:
        given: dict[str, Any] = {"presented_digest": case.presented_digest}
        return await self.room.vote(case.id, person, choice, **(given | more))

    async def passed(self, *obligations: dict[str, Any], **changes: Any) -> Case:
        """A case that ada approved."""
        return await self.vote(await self.opened(*obligations, **changes), "ada")

    async def begin(self, case: Case, requirement: Requirement | None = None) -> Case:
        held = Reservation(id=case.action.id, nanousd=0, tokens=0, levels=())
        also = self.room.begin(case, requirement or case.requirement)
        await self.trail.intent(case.action, TARGET, escalate(), held, (), also=also, case=case.id)
        await self.room.changed(case.id)
        return await self.room.case(case.id)

    async def end(self, case: Case, status: Status = Status.SUCCEEDED, **ending: Any) -> Case:
        also = self.room.end(case, status, Ending(**ending))
        result = Result(status=status, cost=Cost())
        await self.trail.ended(case.action, TARGET, escalate(), result, also, case.id)
        await self.room.changed(case.id)
        return await self.room.case(case.id)

    async def done(self, **ending: Any) -> Case:
        return await self.end(await self.begin(await self.passed()), body=b'{"ok":1}', **ending)

    async def records(self, case_id: str) -> list[dict[str, Any]]:
        """All records of a case, oldest first."""
        if self.url is not None:
            await self.log.caught_up()
        bodies = await self.writer.read(lambda db: db.execute("SELECT body FROM leaf ORDER BY idx").fetchall())
        return [leaf for (body,) in bodies if (leaf := json.loads(body)).get("case") == case_id]

    async def types(self, case_id: str) -> list[str]:
        return [record["type"] for record in await self.records(case_id)]


async def code_of(awaitable: Any) -> str:
    """What something is refused with."""
    try:
        await awaitable
    except Refusal as refusal:
        return refusal.code
    return "not refused"
