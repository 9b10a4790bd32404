"""`gateway serve --workers 2`: two replicas on one machine that share a port, and start again when one ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60


def until(look: Callable[[], Any]) -> Any:
    end_s = time.monotonic() + PATIENCE_S
    while not (found := look()):
        assert time.monotonic() < end_s, "it never came"
        time.sleep(0.1)
    return found


@pytest.mark.timeout(200)
def test_workers_are_replicas_and_one_that_ends_is_started_anew(
    tmp_path: Path, postgres_url: str, redis_url: str
) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    environment |= {"GATEWAY_DATABASE_URL": postgres_url, "GATEWAY_REDIS_URL": redis_url, "LEDGER_TOKEN": "none"}
    environment |= {"GATEWAY_DATA_DIR": str(tmp_path / "var"), "LEDGER_URL": "http://127.0.0.1:9/mcp"}

    def gateway(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-m", "gateway.cli", *arguments],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def running() -> list[dict[str, Any]]:
        told = gateway("status", "--json")
        if not told.stdout.startswith("{"):
            return []
        found = json.loads(told.stdout)["replicas"]
        return [one for one in found if one["state"] == "running" and one["policy"]]  # ready, and has said so

    assert gateway("migrate").returncode == 0
    command = [sys.executable, "-P", "-m", "gateway.cli", "serve", "--port", "0", "--workers", "2"]
    with subprocess.Popen(command, env=environment, cwd=ROOT, start_new_session=True) as serving:
        try:
            first = until(lambda: found if len(found := running()) == 2 else None)
            assert len({one["policy"] for one in first}) == 1
            killed = int(first[0]["name"].rpartition("/")[2])
            os.kill(killed, signal.SIGKILL)

            def renewed() -> bool:
                names = {one["name"] for one in running()}
                return len(names) == 2 and first[0]["name"] not in names

            until(renewed)
            assert gateway("audit", "query", "--type", "gateway.start", "--json").stdout.count('"gateway.start"') == 3
            serving.send_signal(signal.SIGTERM)
            assert serving.wait(60) == 0
        finally:
            if serving.poll() is None:
                os.killpg(serving.pid, signal.SIGKILL)
    assert gateway("audit", "verify").stdout.startswith("operator-signed")


def test_workers_without_shared_engines_are_refused(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    command = [
        sys.executable,
        "-P",
        "-m",
        "gateway.cli",
        "serve",
        "--workers",
        "2",
        "--data-dir",
        str(tmp_path / "var"),
    ]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "set GATEWAY_DATABASE_URL and GATEWAY_REDIS_URL" in done.stderr
