"""What each stage of the path costs, on real parts, one after the other: CPU microseconds, best of several batches.

usage: python -m bench.stages
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from bench import payload
from bench.subject import prepare
from gateway.actions import Cost, Decision, Kind, Result, Status
from gateway.app import App
from gateway.audit import records
from gateway.doors.openai.answer import proposals
from gateway.doors.openai.door import DOOR
from gateway.doors.openai.request import outbound, parse_request
from gateway.policy import load
from gateway.policy.document import document
from gateway.process import Process

BATCHES, PER_BATCH = 9, 400
ANSWER = payload.BODIES["chat"]  # of about the right size; only its bytes matter to the vault


def _best(function: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(BATCHES):
        began = time.process_time_ns()
        for _ in range(PER_BATCH):
            function()
        best = min(best, (time.process_time_ns() - began) / PER_BATCH / 1000)
    return best


def _now(coroutine: Coroutine[Any, Any, object]) -> None:
    """Run one that never waits."""
    with contextlib.suppress(StopIteration):
        coroutine.send(None)


async def _best_async(function: Callable[[], Awaitable[object]], each: int) -> float:
    best = float("inf")
    for _ in range(BATCHES):
        began = time.process_time_ns()
        for _ in range(PER_BATCH // each):
            await function()
        best = min(best, (time.process_time_ns() - began) / (PER_BATCH // each) / each / 1000)
    return best


async def main() -> None:
    """Build the gateway, take it apart, print the table."""
    with tempfile.TemporaryDirectory() as folder:
        config = prepare(Path(folder), "http://127.0.0.1:9")
        app = App(Process(data_dir=Path(folder) / "var", config=config, port=0, log_level="warning"))
        await app.start()
        _, key = await app.registry.keys.create("bench", person=None)
        scope = {
            "headers": [
                (b"host", b"127.0.0.1"),
                (b"content-type", b"application/json"),
                (b"authorization", f"Bearer {key}".encode()),
            ]
        }
        raw = payload.BODIES["chat"]
        request = parse_request(raw)
        intake = await app.desk.admit(scope, app.ids.new())

        def action() -> object:
            return app.desk.action(
                intake,
                kind=Kind.MODEL_INVOKE,
                door=DOOR,
                target="mock",
                arguments=request.arguments,
                identity_arguments=request.identity,
                body=request.body,
            )

        one = app.desk.action(
            intake,
            kind=Kind.MODEL_INVOKE,
            door=DOOR,
            target="mock",
            arguments=request.arguments,
            identity_arguments=request.identity,
            body=request.body,
        )
        target = app.catalog.model("mock")
        asked = document(
            one,
            target,
            environment="dev",
            undeclared="observe",
            limits=app.limits.remaining("bench"),
            facts={},
            now_ns=1,
        )

        def put() -> bytes:
            return document(one, target, environment="dev", undeclared="observe", limits={}, facts={}, now_ns=1)

        engine = app.configured.engine
        evaluating, _ = load(app.configured.config.policy.path)
        assert evaluating is not None
        evaluating._memo = None  # noqa: SLF001 - to measure what an evaluation costs
        decision: Decision = engine.decide_now(asked)

        async def limited() -> None:
            with await app.limits.admit(one):
                app.limits.settle(await app.limits.reserve(one, target), Cost())

        def limits() -> None:
            _now(limited())

        async def pairs() -> None:
            held = await app.limits.reserve(one, target)
            app.limits.settle(held, Cost())

            async def pair() -> None:
                mine = app.desk.action(
                    intake, kind=Kind.MODEL_INVOKE, door=DOOR, target="mock", arguments={}, body=request.body
                )
                await app.log.append(records.intent(mine, target, decision, held))
                app.log.append_soon(
                    records.result(mine, target, decision, Result(status=Status.SUCCEEDED, body=ANSWER))
                )

            await asyncio.gather(*(pair() for _ in range(32)))

        rows = [
            ("identify the caller, find the session, trace (desk)", _best(lambda: _now(app.desk.admit(scope, "r")))),
            ("parse and rebuild the request, 1.7 kB", _best(lambda: parse_request(raw))),
            ("make the action, keyed digest included", _best(action)),
            ("look up the target", _best(lambda: app.catalog.target(one))),
            ("limits: admit, reserve, settle", _best(limits)),
            ("policy: what is left of the limits", _best(lambda: app.limits.remaining("bench"))),
            ("policy: the input document", _best(put)),
            ("policy: a decision remembered", _best(lambda: engine.decide_now(asked))),
            ("policy: a decision evaluated", _best(lambda: evaluating.decide_now(asked))),
            ("audit: intent and result with three payloads, 32 at once, both threads", await _best_async(pairs, 32)),
            ("body for the provider", _best(lambda: outbound(one, target))),
            (
                "inspect the answer for proposals",
                _best(lambda: proposals(b'{"choices":[{"message":{}}]}', None)),
            ),
        ]
        await app.stop(1)
    print("| stage | CPU us |\n|---|---:|")
    for name, cost in rows:
        print(f"| {name} | {cost:.1f} |")


if __name__ == "__main__":
    asyncio.run(main())
