from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import uvicorn

from gateway.cli import run

from ..bank_house import a_bank
from ..gateway_house import Running, a_running_gateway

__all__ = ["a_bank", "a_running_gateway"]


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Shell:
    """Runs `gateway` against a gateway that serves a real socket. In a thread: a process each would cost a second."""

    running: Running
    url: str

    async def __call__(self, *arguments: str, exit_code: int = 0) -> Ended:
        out, err = io.StringIO(), io.StringIO()

        def command() -> int:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                return run(arguments)

        ended = Ended(await asyncio.to_thread(command), out.getvalue(), err.getvalue())
        assert ended.code == exit_code, ended
        assert "Traceback" not in ended.err
        assert exit_code or not ended.err, ended
        return ended


@pytest.fixture
async def shell(running: Running, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shell]:
    config = uvicorn.Config(running.app.asgi, host="127.0.0.1", port=0, lifespan="off", log_config=None)
    server, socket = uvicorn.Server(config), config.bind_socket()
    url = f"http://127.0.0.1:{socket.getsockname()[1]}"
    serving = asyncio.create_task(server.serve(sockets=[socket]))
    monkeypatch.chdir(running.folder)
    monkeypatch.setenv("GATEWAY_DATA_DIR", str(running.app.process.data_dir))
    note = running.app.process.data_dir / "gateway.json"
    note.write_text(json.dumps({"url": url, "pid": os.getpid()}))
    try:
        yield Shell(running, url)
    finally:
        server.should_exit = True
        await serving
        socket.close()
