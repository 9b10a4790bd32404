"""The SDKs' readers: one process for each runtime, fed with many answers at a time."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

ROOT = Path(__file__).parents[2]
SDK = ROOT / ".venv-sdk"
NPM = ROOT / ".venv-npm"
HERE = Path(__file__).parent


class Item(NamedTuple):
    """One answer to be read. `readers` names those that are asked; None: all."""

    kind: str
    pieces: Sequence[bytes]
    tools: Sequence[str]
    readers: Sequence[str] | None = None


class CallRead(NamedTuple):
    """A call as an SDK hands it to its user. `value` is JSON of arguments that the SDK parsed."""

    kind: str
    choice: int | None
    call_id: str | None
    name: str | None
    text: str | None
    value: str | None
    signature: str | None = None


class Reading(NamedTuple):
    """What an SDK made of an answer. `executed` are the calls that it ran itself; None where it runs none."""

    calls: tuple[CallRead, ...]
    executed: tuple[CallRead, ...] | None
    text: str
    finish: dict[str, str | None]
    error: str | None


class Readers:
    """`with Readers() as readers`: the processes run until the block ends."""

    def __init__(self) -> None:
        own = NPM / "node_modules" / ".bin" / "node"
        node = str(own) if own.exists() else shutil.which("node") or "node"
        # Node looks for modules beside the program; given as text, beside the folder it runs in.
        program = (HERE / "read_node.mjs").read_text()
        self._processes = [
            _Process([str(SDK / "bin" / "python"), str(HERE / "read_python.py")], HERE),
            _Process([node, "--input-type=module", "--eval", program], NPM),
        ]
        self._queues = [ThreadPoolExecutor(1) for _ in self._processes]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        for queue, process in zip(self._queues, self._processes, strict=True):
            queue.shutdown(cancel_futures=True)
            process.close()

    def begin(self, items: Sequence[Item]) -> list[Future[list[dict[str, Reading]]]]:
        """Start reading; `finish` gives the result."""
        return [queue.submit(process.read, items) for queue, process in zip(self._queues, self._processes, strict=True)]

    @staticmethod
    def finish(begun: Sequence[Future[list[dict[str, Reading]]]]) -> list[dict[str, Reading]]:
        """Of each item, what each reader made of it."""
        by_process = [future.result() for future in begun]
        return [{name: one for found in item for name, one in found.items()} for item in zip(*by_process, strict=True)]

    def read(self, items: Sequence[Item]) -> list[dict[str, Reading]]:
        return self.finish(self.begin(items))


class _Process:
    def __init__(self, command: list[str], folder: Path) -> None:
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        )

    def read(self, items: Sequence[Item]) -> list[dict[str, Reading]]:
        given = [
            {
                "kind": item.kind,
                "pieces": [base64.b64encode(piece).decode() for piece in item.pieces],
                "tools": item.tools,
                "readers": item.readers,
            }
            for item in items
        ]
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(given) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the reader ended: see what it printed"
        return [{name: _reading(one) for name, one in item.items()} for item in json.loads(line)]

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def _reading(found: dict[str, Any]) -> Reading:
    executed = found.get("executed")
    return Reading(
        calls=tuple(map(_call, found["calls"])),
        executed=None if executed is None else tuple(map(_call, executed)),
        text=found["text"],
        finish=found["finish"],
        error=found["error"],
    )


def _call(call: dict[str, Any]) -> CallRead:
    name, text = (
        one if one is None or isinstance(one, str) else json.dumps(one) for one in (call["name"], call["text"])
    )
    return CallRead(
        *(call["kind"], call["choice"], call["id"], name, text, call["value"]), signature=call.get("signature")
    )
