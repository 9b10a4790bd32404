"""A tool server that runs as a child of the gateway and speaks JSON-RPC over its standard input and output.

The child gets the environment that its manifest lists and a minimal PATH and HOME, never the gateway's own, and runs
confined (`confinement/`). It leads a process group, which is ended as a whole. What it writes to standard error goes
to the log, bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from gateway.actions import Reply
from gateway.errors import Refusal
from gateway.known_secrets import KNOWN
from gateway.offload import run_sized
from gateway.upstreams import mcp_faults as faults
from gateway.upstreams import mcp_messages as messages
from gateway.upstreams.budget import AnswerBudget, full
from gateway.upstreams.confinement.plan import Wanted
from gateway.upstreams.confinement.starting import How, NotStarted, Started, start
from gateway.upstreams.lines import Lines
from gateway.upstreams.mcp_conversation import Conversation, Outcome, Outgoing
from gateway.upstreams.mcp_messages import Message, NotJsonRpc, RpcError
from gateway.upstreams.pacing import Pace, Turns

_log = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 16 * 1024 * 1024
PROBE_TIMEOUT_S = 5.0  # how long a server may ignore `server/discover` before the handshake is tried
ALIVE_TIMEOUT_S = 5.0  # a child that let a call time out must answer a ping, or it is started anew
STOP_GRACE_S = 2.0
_CHUNK_BYTES = 256 * 1024
_READ_BYTES = 32 * 1024  # cut into lines in one go
_UNREAD_CAP_BYTES = 8 * 1024 * 1024  # the child does not read its input: refuse rather than pile up
_UNREAD_REPLIES_BYTES = 64 * 1024  # beyond this, the child's own requests are not answered
_GARBAGE_LINES = 20  # logged, per start; beyond which they are only counted
_STOPPED = "the gateway stopped it"
_STDERR_LINES = 50  # kept; and logged at most, per start, beyond which they are only counted
_STDERR_LINE_BYTES = 1000
_STDERR_TURN = 500  # lines that are taken without letting others run
_ID_AT_START = re.compile(rb'\s*\{\s*"jsonrpc"\s*:\s*"2\.0"\s*,\s*"id"\s*:\s*(\d{1,18})\s*,')


class StdioServer:
    """One run of the child: opened once, closed once, never restarted (`tool_servers` makes a new one)."""

    def __init__(
        self,
        wanted: Wanted,
        base: Mapping[str, str],
        how: How,
        *,
        changed: Callable[[], None],
        lost: Callable[[str], None],
        budget: AnswerBudget | None = None,
    ) -> None:
        """`base` is the environment that every server gets; `wanted` and `how` say what is run, and how confined."""
        self._wanted = wanted
        self._server = wanted.server
        self._base = dict(base)
        self._how = how
        self._budget = budget or AnswerBudget()
        self._changed = changed
        self._lost = lost
        self._conversation = Conversation(wanted.server, self)
        self._started: Started | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._transport: asyncio.SubprocessTransport | None = None
        self._pending: dict[int, asyncio.Future[Message]] = {}
        self._next_id = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._doubts: asyncio.Task[None] | None = None
        self._over: str | None = None  # why the run ended
        self._version = ""
        self._pace = Pace()
        self._garbage = 0
        self.stderr: deque[str] = deque(maxlen=_STDERR_LINES)

    # ------------------------------------------------------------ for the registry

    async def open(self, timeout_s: float) -> None:
        """Start the child and agree on a version. Raises Refusal; the child is gone then."""
        try:
            async with asyncio.timeout(timeout_s):
                self._started = await start(self._wanted, self._base, self._how)
        except NotStarted as fault:
            raise faults.failed(self._server, str(fault), dispatched=False) from None
        except TimeoutError:
            raise faults.timed_out(self._server, timeout_s) from None
        self._process, self._transport = self._started.process, self._started.transport
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._read_stderr())]
        try:
            async with asyncio.timeout(timeout_s):
                await self._conversation.open(timeout_s)
                if self._conversation.modern and self._conversation.tells_of_changes:
                    await self._subscribe()
        except TimeoutError:
            await self.aclose()
            raise faults.timed_out(self._server, timeout_s) from None
        except BaseException:
            await self.aclose()
            raise

    async def list_tools(self, timeout_s: float) -> list[dict[str, Any]]:
        """All definitions, raw. Raises Refusal."""
        return await self._conversation.list_tools(timeout_s)

    async def call(
        self, tool: str, arguments: dict[str, Any], *, meta: dict[str, Any] | None, timeout_s: float, once: bool
    ) -> Reply:
        """Call a tool; nothing is ever sent to a child twice. Raises Refusal."""
        return await self._conversation.call(tool, arguments, meta=meta, timeout_s=timeout_s, once=once)

    async def aclose(self) -> None:
        """End the child and everything it started: input closed, then SIGTERM, then SIGKILL. Leaves no zombie."""
        self._end(_STOPPED)
        process = self._process
        if process is not None and self._transport is not None:
            if process.stdin is not None:
                process.stdin.close()
            self._signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_GRACE_S):
                    await process.wait()
            self._signal(signal.SIGKILL)  # also what the child started and left behind
            self._transport.close()
            await process.wait()
        if self._started is not None:
            await self._started.remove_folders()
        tasks = [*self._tasks, *([self._doubts] if self._doubts else ())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ------------------------------------------------------------ channel

    def agreed(self, version: str) -> None:
        self._version = version

    async def notify(self, method: str) -> None:
        self._write(messages.request(None, method, {}))

    async def exchange(self, outgoing: Outgoing, timeout_s: float) -> Outcome:
        """Send a request and wait for its result. Raises Refusal, RpcError."""
        probe = outgoing.method == "server/discover"
        if probe:
            timeout_s = min(PROBE_TIMEOUT_S, timeout_s / 2)
        self._next_id += 1
        rpc_id = self._next_id
        line = messages.request(rpc_id, outgoing.method, outgoing.params)
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._pending[rpc_id] = future
        try:
            self._write(line)
            async with asyncio.timeout(timeout_s):
                message = await future
            if outgoing.method == "tools/call" and not self._budget.of_task().add(message.size):
                raise full(f"The tool server {self._server}", {"server": self._server})
        except TimeoutError:
            self._give_up(rpc_id, outgoing)
            if outgoing.method == "tools/call":
                self._doubt()
            refusal = faults.timed_out(self._server, timeout_s)
            if probe:
                refusal.detail["probe"] = "unanswered"
            raise refusal from None
        except asyncio.CancelledError:
            self._give_up(rpc_id, outgoing)
            raise
        finally:
            self._pending.pop(rpc_id, None)
        try:
            return Outcome(await run_sized(message.size, message.outcome), rpc_id)
        except NotJsonRpc as bad:
            raise faults.failed(self._server, f"it answered with {bad}") from None

    def _give_up(self, rpc_id: int, outgoing: Outgoing) -> None:
        """Tell the server that nobody waits any more; handshakes can't be cancelled."""
        if outgoing.method in ("initialize", "server/discover"):
            return
        with contextlib.suppress(Refusal):
            params = {"requestId": rpc_id, "reason": "The caller no longer waits."}
            self._write(messages.request(None, "notifications/cancelled", params))

    def _doubt(self) -> None:
        """A call timed out: is only the tool slow, or does the child answer nothing any more?"""
        if self._doubts is None or self._doubts.done():
            self._doubts = asyncio.create_task(self._prove_alive())

    async def _prove_alive(self) -> None:
        params = {"_meta": messages.meta(None, modern=True)} if self._conversation.modern else {}
        try:
            await self.exchange(Outgoing("ping", params), ALIVE_TIMEOUT_S)
        except RpcError:
            pass  # an error is an answer too
        except Refusal:
            self._end("it no longer answers")
            self._signal(signal.SIGKILL)

    async def _subscribe(self) -> None:
        self._next_id += 1
        params = {"notifications": {"toolsListChanged": True}, "_meta": messages.meta(None, modern=True)}
        self._write(messages.request(self._next_id, "subscriptions/listen", params))

    def _write(self, line: bytes) -> None:
        """Queue a line for the child. Raises Refusal where it certainly does not get there."""
        if self._over is not None:
            raise faults.not_connected(self._server, self._over)
        assert self._process is not None
        assert self._process.stdin is not None
        stdin = self._process.stdin
        if stdin.transport.get_write_buffer_size() > _UNREAD_CAP_BYTES:
            raise faults.failed(self._server, "it does not read what it is sent", dispatched=False)
        stdin.write(line + b"\n")

    # ------------------------------------------------------------ what the child says

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        stdout = self._process.stdout
        lines, turns = Lines(MAX_ANSWER_BYTES), Turns()
        reason = "it closed its output"
        holding = self._budget.holding()
        try:
            while chunk := await stdout.read(_READ_BYTES):
                await turns.after(len(chunk))
                for line, whole in lines.feed(chunk):
                    if whole:
                        if not await self._take(line):
                            await self._pace.wait()
                    elif not self._give_up_answer(line, self._larger()):
                        self._end(f"it wrote a line of more than {MAX_ANSWER_BYTES} bytes")
                        self._signal(signal.SIGKILL)
                holding.give_back()
                if not holding.at_least(lines.size):
                    no_room = full(f"The tool server {self._server}", {"server": self._server})
                    if not self._give_up_answer(lines.cut(), no_room):
                        self._end("it wrote a large line while the gateway had no room for it")
                        self._signal(signal.SIGKILL)
        except OSError as error:
            reason = f"its output broke ({error.strerror})"
        finally:
            holding.give_back()
            if self._over is None:
                code = await self._reap()
                self._end(f"{reason} (exit status {code})" if code is not None else reason)

    async def _reap(self) -> int | None:
        """The exit status, if the child ends by itself now that it said its last word; else it is killed."""
        assert self._process is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                return await self._process.wait()
        self._signal(signal.SIGKILL)
        return None

    async def _take(self, line: bytes) -> bool:
        """Whether the line is the answer to a call."""
        if not line.strip():
            return False
        try:
            message = await run_sized(len(line), messages.decode, line)
        except NotJsonRpc:
            self._note_garbage()
            return False
        if message.is_response:
            waiting = self._pending.get(message.id) if isinstance(message.id, int) else None
            if waiting is None:
                _log.debug("tool server %s answered a request that nobody waits for", self._server)
                return False
            if not waiting.done():
                waiting.set_result(message)
                return True
        elif message.id is not None:
            self._reply(messages.answer_to(message))
        elif message.method == "notifications/tools/list_changed":
            self._changed()
        return False

    def _note_garbage(self) -> None:
        self._garbage += 1
        if self._garbage <= _GARBAGE_LINES:
            _log.warning("tool server %s wrote a line that is not JSON-RPC; it is ignored", self._server)

    def _reply(self, line: bytes) -> None:
        """Answer a request of the child's own; not where it does not read, for nothing depends on it."""
        assert self._process is not None
        assert self._process.stdin is not None
        if self._process.stdin.transport.get_write_buffer_size() + len(line) <= _UNREAD_REPLIES_BYTES:
            with contextlib.suppress(Refusal):
                self._write(line)

    def _larger(self) -> Refusal:
        return faults.failed(self._server, f"its answer is larger than {MAX_ANSWER_BYTES} bytes")

    def _give_up_answer(self, start: bytes, why: Refusal) -> bool:
        """Fail only the call that a line answers which is not read on, where its start tells which; else False."""
        found = _ID_AT_START.match(start)
        waiting = self._pending.get(int(found[1])) if found else None
        if waiting is None:
            return False
        if not waiting.done():
            waiting.set_exception(why)
        return True

    async def _read_stderr(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        lines, turns = Lines(_STDERR_LINE_BYTES), Turns(_STDERR_TURN)
        logged = 0
        while chunk := await self._process.stderr.read(_READ_BYTES):
            for line, whole in lines.feed(chunk):
                text = _shown(line, whole)
                self.stderr.append(text)
                logged += 1
                if logged <= _STDERR_LINES:
                    _log.info("tool server %s: %s", self._server, text)
                await turns.after(1)
        if self.stderr and self._over != _STOPPED:
            _log.warning("tool server %s ended; its last words: %s", self._server, " | ".join(self.stderr)[-2000:])

    def _end(self, reason: str) -> None:
        if self._over is not None:
            return
        self._over = reason
        for waiting in self._pending.values():
            if not waiting.done():
                waiting.set_exception(faults.failed(self._server, f"it ended during the call: {reason}"))
        self._lost(reason)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


def _shown(line: bytes, whole: bool) -> str:
    """A line of standard error, without secrets; of one that was cut, without what may begin one either."""
    text, redactor = line.decode("utf-8", "replace"), KNOWN.redactor
    if whole:
        return redactor.redact(text)
    return redactor.split(text.rstrip("\N{REPLACEMENT CHARACTER}"))[0][:_STDERR_LINE_BYTES]
