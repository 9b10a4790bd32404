"""A gateway whose model proposes calls of the agent's own tools, some of which a person must approve.

The provider is real (`tests/e2e/upstream.py`), the gateway is in the test's own process, and `Call` is a client that
sees an answer arrive piece by piece and may hang up.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gateway.app import App
from gateway.approvals.case import Case, Choice, State
from gateway.audit.check import verify
from gateway.audit.view import Filter
from gateway.documents import errors
from gateway.identity import Role
from gateway.process import Process
from tests.footing import PUBLIC_URL, placed_and_signed, process_in

from .e2e.upstream import Exchange, Play, Upstream, call, chunk, completion, usage
from .gateway_house import ROOT

PATIENCE_S = 10.0
REVIEWERS = ("rita", "rob")
MANIFEST = """\
version: 1
server: desk
kind: client
owner: dana
tools:
  issue_refund: {risk: high, effect: write, sentence: "Refund {order}", arguments: {order: {kind: object_id}}}
  send_gift: {risk: medium, effect: write}
  look_up: {risk: low, effect: read}
  shred: {risk: high, effect: destructive}
"""
CONFIG = """\
version: 1
environment: dev
providers:
  up: {{type: openai, base_url: "{url}/v1", retries: 0, on_hang_up: {on_hang_up}}}
models:
  - {{alias: up, provider: up, model: served, price: {{input_usd_per_mtok: "1", output_usd_per_mtok: "2"}}}}
agents:
  - {{id: reader, team: finance, owners: {{business: dana}}}}
  - {{id: writer, team: finance}}
tool_registry: tools_registry
policy: {{path: policies}}
undeclared_client_tools: {undeclared}
approvals: {{hold_s: {hold_s:g}, replay_s: {replay_s}}}
limits:
  default: {{requests_per_minute: 100000, concurrency: {concurrency}, budgets: [{{window: day, usd: "{usd}"}}]}}
"""
GRANTS = 'agents: {}\nteams: {}\ntiers:\n  standard: {models: ["*"], servers: {ledger: {max_risk: critical}}}\n'
REFUND = {"order": "A-1"}
COST_NANOUSD = 10 * 1_000 + 5 * 2_000  # what `usage(10, 5)` comes to


def refund(call_id: str = "call_1", name: str = "issue_refund", **arguments: Any) -> dict[str, Any]:
    """A proposed call, as it stands in a message."""
    return call(name, arguments or REFUND, call_id)


def deltas(*calls: dict[str, Any], index: int = 0) -> list[dict[str, Any]]:
    """The same calls as events of a stream, each in three pieces, and the finish."""
    events = []
    for number, one in enumerate(calls):
        text = one["function"]["arguments"]
        begun = {"index": number, **one, "function": {"name": one["function"]["name"], "arguments": ""}}
        parts = [begun, *({"index": number, "function": {"arguments": part}} for part in (text[:4], text[4:]))]
        events += [chunk({"tool_calls": [part]}) for part in parts]
    events.append(chunk({}, finish="tool_calls"))
    for event in events:
        event["choices"][0]["index"] = index
    return events


def stream_of(*calls: dict[str, Any], text: str = "") -> list[dict[str, Any]]:
    """A whole streamed answer with its usage; `text` flows before the calls."""
    said = [chunk({"content": text})] if text else []
    role = chunk({"role": "assistant", "content": ""})
    return [role, *said, *deltas(*calls), chunk(None, usage=usage(10, 5))]


@dataclass
class Assembled:
    """A stream put together as a client does it."""

    text: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)
    finish: list[str] = field(default_factory=list)
    usage: dict[str, Any] | None = None
    comments: int = 0  # those that tell of waiting
    done: bool = False
    error: dict[str, Any] | None = None


def assembled(body: bytes) -> Assembled:
    """Read a stream of server-sent events. Raises what a client would raise for a malformed one."""
    found = Assembled()
    parts: dict[tuple[int, int], list[str]] = {}
    for event in body.decode().split("\n\n"):
        if not event:
            continue
        if event.startswith(":"):
            found.comments += "waiting" in event
            continue
        assert not found.done, "something came after the end"
        assert event.startswith("data: "), event
        if event == "data: [DONE]":
            found.done = True
            continue
        value = json.loads(event.removeprefix("data: "))
        found.error = value.get("error") or found.error
        found.usage = value.get("usage") or found.usage
        for choice in value.get("choices", ()):
            delta = choice.get("delta") or {}
            found.text += delta.get("content") or ""
            for part in delta.get("tool_calls") or ():
                at = parts.setdefault((choice["index"], part["index"]), ["", ""])
                at[0] += part["function"].get("name") or ""
                at[1] += part["function"].get("arguments") or ""
            if choice.get("finish_reason"):
                found.finish.append(choice["finish_reason"])
    found.calls = [(name, arguments) for _, (name, arguments) in sorted(parts.items())]
    return found


class Call:
    """A model call of a client: over HTTP/1.1 as a server would hand it to the gateway, but for the socket."""

    def __init__(self, app: Any, key: str, body: dict[str, Any]) -> None:
        """`app` is the gateway's ASGI callable; asking begins at once."""
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.begun = asyncio.Event()
        self._news = asyncio.Event()
        self._gone = asyncio.Event()
        self._sent = False
        self._raw = json.dumps(body).encode()
        self._key = key
        self._task = asyncio.create_task(self._run(app))

    async def _run(self, app: Any) -> None:
        headers = [
            (b"host", b"gateway.test"),
            (b"authorization", b"Bearer " + self._key.encode()),
            (b"content-type", b"application/json"),
        ]
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/chat/completions",
            "query_string": b"",
            "headers": headers,
        }
        await app(scope, self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        if not self._sent:
            self._sent = True
            return {"type": "http.request", "body": self._raw}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            self.begun.set()
        else:
            self.body += message.get("body", b"")
        self._news.set()

    @property
    def over(self) -> bool:
        return self._task.done()

    async def until(self, wanted: bytes) -> None:
        """Wait until this has arrived."""
        async with asyncio.timeout(PATIENCE_S):
            while wanted not in self.body:
                self._news.clear()
                await self._news.wait()

    async def end(self) -> Call:
        """Wait for the whole answer."""
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.shield(self._task)
        return self

    def hang_up(self) -> None:
        self._gone.set()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = self.json["error"]
        return error

    @property
    def message(self) -> dict[str, Any]:
        message: dict[str, Any] = self.json["choices"][0]["message"]
        return message

    @property
    def finish(self) -> str:
        return str(self.json["choices"][0]["finish_reason"])

    @property
    def stream(self) -> Assembled:
        return assembled(self.body)


class Desk:
    """The gateway, its provider, an agent at work and two people who decide."""

    def __init__(
        self,
        folder: Path,
        upstream: Upstream,
        monkeypatch: pytest.MonkeyPatch,
        app: App | None = None,
        *,
        process: Process | None = None,
    ) -> None:
        """`app`: one that runs already; `configure` puts it behind this desk. `process`: of one that does not."""
        self.folder = folder
        self.upstream = upstream
        self.app = app or App(
            process or Process(data_dir=folder / "var", config=folder / "gateway.yaml", public_url=PUBLIC_URL)
        )
        self.key = ""
        self._monkeypatch = monkeypatch
        self._ahead_ns = 0

    async def open(self) -> None:
        shutil.copytree(ROOT / "policies", self.folder / "policies")
        (self.folder / "policies" / "grants" / "data.yaml").write_text(GRANTS)
        (self.folder / "tools_registry").mkdir()
        (self.folder / "tools_registry" / "desk.yaml").write_text(MANIFEST)
        self.write()
        await self.app.start()
        await self.people()

    async def people(self) -> None:
        """The agent has a key, and there are people who decide."""
        _, self.key = await self.app.registry.keys.create("reader", person="operator")
        for person in REVIEWERS:
            await self.app.registry.people.add(person, name=person.title(), roles=(Role.REVIEWER,), by="operator")

    async def restart(self) -> None:
        await self.app.stop(1)
        self.app = App(self.app.process)
        await self.app.start()

    def write(
        self,
        *,
        hold_s: float = 0.05,
        replay_s: int = 900,
        undeclared: str = "deny",
        concurrency: int = 1000,
        usd: str = "1000",
        on_hang_up: str = "drain",
    ) -> None:
        text = CONFIG.format(
            url=self.upstream.url,
            hold_s=hold_s,
            replay_s=replay_s,
            undeclared=undeclared,
            concurrency=concurrency,
            usd=usd,
            on_hang_up=on_hang_up,
        )
        (self.folder / "gateway.yaml").write_text(text)

    async def reload(self) -> None:
        assert not (problems := errors(await self.app.reload("test"))), problems

    async def configure(self, **changed: Any) -> None:
        """Put another configuration in force; see `write`."""
        self.write(**changed)
        await self.reload()

    async def rule(self, text: str) -> None:
        """Put a further rule in force; an empty one takes it away."""
        (self.folder / "policies" / "extra.rego").write_text(f"package gateway\n\n{text}\n")
        await self.reload()

    # ------------------------------------------------------------ the agent

    def call(self, play: Play, **more: Any) -> Call:
        """Ask the model; the same arguments make the identical request."""
        body = {"model": "up", "messages": [{"role": "user", "content": play.word}], **more}
        return Call(self.app.asgi, self.key, body)

    async def told(self, play: Play, **more: Any) -> Call:
        """Ask the model and wait for the answer."""
        return await self.call(play, **more).end()

    def answers(self, *calls: dict[str, Any], text: str | None = None, **more: Any) -> Play:
        """A play that answers with these calls, plain or streamed, as it is asked."""
        events = stream_of(*calls, text=text or "")
        return self.plays(completion(text, calls=list(calls), **more), *({**event, **more} for event in events))

    def plays(self, body: object, *events: object) -> Play:
        """A play that answers with this body or, where it is asked to, streams these events."""

        def player(exchange: Exchange, _: Play) -> None:
            if not exchange.received.body.get("stream"):
                exchange.answer(body)
                return
            exchange.begin()
            for event in events:
                exchange.event(event)
            exchange.send(b"data: [DONE]\n\n")
            exchange.end()

        return self.upstream.plays(player)

    # ------------------------------------------------------------ people

    async def cases(self, status: str | None = None) -> list[Case]:
        """Newest first."""
        return (await self.app.approvals.find(status=status)).cases

    async def waiting(self, count: int = 1) -> list[Case]:
        """The cases that wait, oldest first, once there are so many."""
        await self.until(lambda: self.app.approvals.pending_count >= count)
        found = await self.cases("pending")
        assert len(found) == count
        return found[::-1]

    async def vote(self, case: Case, choice: Choice = Choice.APPROVE, person: str = "rita", **more: Any) -> Case:
        return await self.app.approvals.vote(case.id, person, choice, presented_digest=case.presented_digest, **more)

    async def decide(self, *choices: Choice, **more: str) -> list[Case]:
        """Decide the waiting cases in their order."""
        return [
            await self.vote(case, choice, **more)
            for case, choice in zip(await self.waiting(len(choices)), choices, strict=True)
        ]

    async def state(self, case: Case) -> State:
        return (await self.app.approvals.case(case.id)).state

    async def pass_time(self, seconds: float) -> None:
        """It is later now, and what time does to cases has happened."""
        if not self._ahead_ns:
            now_ns = self.app.clock.now_ns
            self._monkeypatch.setattr(self.app.clock, "now_ns", lambda: now_ns() + self._ahead_ns)
        self._ahead_ns += int(seconds * 1e9)
        await self.app.approvals.tick()

    # ------------------------------------------------------------ what can be seen

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await asyncio.sleep(0.005)

    async def held(self, count: int = 1) -> None:
        """So many callers are held."""
        await self.until(lambda: self.app.approvals.waiting_callers >= count)

    def end_holds(self) -> None:
        """Whoever is held has been held for long enough: a stream that is open looks at the clock with its next beat."""
        for running in self.app.governor._running:
            running.until_s = 0.0
        self.app.approvals.wake_agent("reader")

    async def spent_nanousd(self) -> int:
        """What is booked of the agent's budget, on disk."""
        await self.app.writer.write(lambda db: None)  # what rides with the next commit is written by then

        def read(db: Any) -> int:
            found = db.execute(
                "SELECT coalesce(sum(nanousd), 0) FROM spend WHERE level = 'agent:reader' AND \"window\" LIKE 'day:%'"
            )
            return int(found.fetchone()[0])

        return await self.app.writer.read(read)

    async def records(self, **wanted: Any) -> list[dict[str, Any]]:
        """Records, oldest first."""
        return (await self.app.log.query(Filter(limit=100, **wanted))).records[::-1]

    async def types(self, **wanted: Any) -> list[str]:
        return [record["type"] for record in await self.records(**wanted)]

    async def verified(self) -> None:
        await placed_and_signed(self.app.log)
        report = await asyncio.to_thread(verify, self.app.footing.source())
        assert report.ok, list(report.lines())


@pytest.fixture(name="desk")
async def a_desk(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Desk]:
    with Upstream() as upstream:
        desk = Desk(tmp_path, upstream, monkeypatch, process=process_in(tmp_path, request))
        await desk.open()
        try:
            yield desk
            await desk.verified()
        finally:
            await desk.app.stop(1)
