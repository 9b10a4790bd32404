"""`make replicas`: two gateways as one, told by the demo's own clients, and started again when they end."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from gateway.quickstart import note
from gateway.quickstart.child import free_port
from gateway.quickstart.opa_server import find as find_opa
from gateway.quickstart.servers import find_postgres, find_redis
from tests.quickstart.test_demo import ROOT, SDK, STORY, demo, told
from tests.servers import missing

pytestmark = [pytest.mark.drill, pytest.mark.timeout(300)]


class Replicas:
    """The command, and what it has said."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.said: list[str] = []
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gateway.quickstart.replicas", "--port", str(port)],
            cwd=ROOT,
            env=os.environ | {"GATEWAY_DATA_DIR": str(data_dir)},
            stdout=subprocess.PIPE,
            text=True,
        )
        self.hear("Logs and data: ")

    def hear(self, words: str) -> None:
        """Wait until it says this."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if words in line:
                return
        pytest.fail("".join(self.said))

    def pid(self, name: str) -> int:
        """The process of one of the servers, as the command told it first."""
        (line,) = [line for line in self.said if line.startswith(f"  {name} ")]
        return int(line.split()[-1])

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=120)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    for found, name in ((find_postgres(), "postgresql"), (find_redis(), "redis-server"), (find_opa(), "opa")):
        if found is None:
            missing(f"{name} is not here")
    if not SDK.exists():
        missing("the current SDKs are not installed: make .venv-sdk/.made")
    return tmp_path / "var"


def is_ready(url: str) -> bool:
    return httpx.get(f"{url}/readyz", timeout=10, trust_env=False).status_code == 200


def test_the_story_is_told_by_two_replicas_and_goes_on_when_one_dies(data_dir: Path) -> None:
    replicas = Replicas(data_dir)
    try:
        done = demo(data_dir)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"plays against the gateway that runs on {replicas.url}" in done.stdout
        assert told(done) == STORY
        both = (data_dir / "replicas/balancer/haproxy.log").read_text()
        assert "gateways/gateway-1" in both
        assert "gateways/gateway-2" in both

        os.kill(replicas.pid("gateway-2"), signal.SIGKILL)
        assert is_ready(replicas.url)
        replicas.hear("gateway-2 answers again.")
        os.kill(replicas.pid("PostgreSQL"), signal.SIGKILL)
        replicas.hear("PostgreSQL answers again.")
        key = note.read(data_dir / "replicas")["GATEWAY_KEY"]
        processes = [os.pidfd_open(replicas.pid(name)) for name in ("Redis", "OPA", "HAProxy", "gateway-1")]
    finally:
        replicas.stop()
    assert replicas.process.returncode == 0
    for process in processes:
        assert select.select([process], [], [], 0)[0], "something still runs"
        os.close(process)

    again = Replicas(data_dir)
    try:
        assert note.read(data_dir / "replicas")["GATEWAY_KEY"] == key
        done = demo(data_dir)
        assert done.returncode == 0, done.stdout + done.stderr
        assert told(done) == STORY
    finally:
        again.stop()
