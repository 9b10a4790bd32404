"""`gateway serve --workers`: several replicas behind one socket, looked after by the process that people start."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.process import child_environment
from tests.replicas.house import lay_out

PATIENCE_S = 40.0


class Workers:
    """The command with two workers, in `folder`."""

    def __init__(self, folder: Path, database_url: str, redis_url: str) -> None:
        self.data_dir = folder / "var"
        self.environment = child_environment() | {
            "GATEWAY_DATABASE_URL": database_url,
            "GATEWAY_REDIS_URL": redis_url,
            "GATEWAY_KEYS_DIR": str(folder / "keys"),
            "GATEWAY_CONFIG": str(folder / "gateway.yaml"),
            "GATEWAY_DATA_DIR": str(self.data_dir),
            "GATEWAY_LOG_LEVEL": "warning",
        }
        self.log = folder / "serve.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*_gateway(), "serve", "--workers", "2", "--port", "0"],
                env=self.environment,
                stdout=log,
                stderr=log,
            )

    def running(self) -> dict[int, str]:
        """Ids of the replicas that run, by process, as the operator sees them; none while nobody answers."""
        try:
            url = json.loads((self.data_dir / "gateway.json").read_text())["url"]
            token = (self.data_dir / "operator.token").read_text().strip()
            headers = {"authorization": f"Bearer {token}"}
            answer = httpx.get(f"{url}/api/v1/status", headers=headers, timeout=5, trust_env=False)
        except (FileNotFoundError, httpx.TransportError):
            return {}
        if answer.status_code != 200:
            return {}
        rows = [row for row in answer.json()["replicas"] if row["state"] == "running"]
        return {int(row["name"].rpartition("/")[2]): row["id"] for row in rows}

    def status(self) -> dict[str, Any]:
        """What `gateway status` says."""
        command = [*_gateway(), "status", "--json"]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def two(self) -> dict[int, str] | None:
        found = self.running()
        return found if len(found) == 2 else None

    def until(self, look: Callable[[], Any], what: str) -> Any:
        """What `look` gives, once it is something; each look is a command, or a question over the socket."""
        end_s = time.monotonic() + PATIENCE_S
        pause = threading.Event()
        while not (found := look()):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end_s, f"not in time: {what}\n{self.log.read_text()}"
            pause.wait(0.1)
        return found

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)


def _gateway() -> list[str]:
    return [sys.executable, "-P", "-m", "gateway.cli"]


@pytest.fixture
def workers(tmp_path: Path, postgres_url: str, redis_url: str) -> Iterator[Workers]:
    lay_out(tmp_path)
    workers = Workers(tmp_path, postgres_url, redis_url)
    try:
        yield workers
    finally:
        if workers.process.poll() is None:
            workers.stop()


def test_two_workers_are_two_replicas_and_a_killed_one_is_started_anew(workers: Workers) -> None:
    first = workers.until(workers.two, "two replicas")
    killed, other = first
    os.kill(killed, signal.SIGKILL)

    def again() -> dict[int, str] | None:
        found = workers.two()
        return found if found is not None and killed not in found else None

    now = workers.until(again, "a new worker for the killed one")
    assert now[other] == first[other]  # it was left alone
    assert not set(now.values()) & {first[killed]}
    told = workers.status()["replicas"]
    assert {row["id"] for row in told if row["state"] == "running"} == set(now.values())
    assert workers.stop() == 0, workers.log.read_text()
    said = workers.log.read_text()
    assert re.search(r"worker_ended.*code.{0,20}-9", said), said
    assert not (workers.data_dir / "gateway.json").exists()
