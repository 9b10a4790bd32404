"""`gateway serve --workers`: several replicas behind one socket, looked after by the process that people start."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from gateway.errors import Refusal
from gateway.process import Process, child_environment
from gateway.store import DirectoryLock
from gateway.workers import pause_s, supervise
from tests.replicas.house import lay_out

PATIENCE_S = 40.0


class Workers:
    """The command with two workers, in `folder`. Owns the processes: `end` leaves none."""

    def __init__(self, folder: Path, database_url: str, redis_url: str, workers_port: str = "") -> None:
        self.config = folder / "gateway.yaml"
        self.data_dir = folder / "var"
        self.environment = child_environment() | {
            "GATEWAY_DATABASE_URL": database_url,
            "GATEWAY_REDIS_URL": redis_url,
            "GATEWAY_KEYS_DIR": str(folder / "keys"),
            "GATEWAY_CONFIG": str(self.config),
            "GATEWAY_DATA_DIR": str(self.data_dir),
            "GATEWAY_WORKERS_PORT": workers_port,
            "GATEWAY_LOG_LEVEL": "warning",
        }
        self.log = folder / "serve.log"
        self._seen: set[int] = set()
        # All of them have the writing end as standard output, and say nothing there.
        self._alive, theirs = os.pipe()
        try:
            with self.log.open("wb") as log:
                self.process = subprocess.Popen(
                    [*_gateway(), "serve", "--workers", "2", "--port", "0"],
                    env=self.environment,
                    stdout=theirs,
                    stderr=log,
                    start_new_session=True,
                )
        finally:
            os.close(theirs)

    @property
    def url(self) -> str:
        """By which all are reached."""
        return str(json.loads((self.data_dir / "gateway.json").read_text())["url"])

    def running(self) -> dict[int, dict[str, Any]]:
        """The replicas that run, by process, as the operator sees them; none while nobody answers."""
        try:
            token = (self.data_dir / "operator.token").read_text().strip()
            headers = {"authorization": f"Bearer {token}"}
            answer = httpx.get(f"{self.url}/api/v1/status", headers=headers, timeout=5, trust_env=False)
        except (FileNotFoundError, httpx.TransportError):
            return {}
        if answer.status_code != 200:
            return {}
        rows = [row for row in answer.json()["replicas"] if row["state"] == "running" and row["url"]]
        found = {int(row["name"].rpartition("/")[2]): row for row in rows}
        self._seen |= found.keys()
        return found

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Another command of the same environment."""
        return subprocess.run(
            [*_gateway(), *arguments], env=self.environment, capture_output=True, text=True, check=False
        )

    def two(self) -> dict[int, dict[str, Any]] | None:
        found = self.running()
        return found if len(found) == 2 else None

    def logged(self) -> list[dict[str, Any]]:
        """The lines of all of them; the sentence of one that can't start stands beside them."""
        lines = self.log.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]

    def until(self, look: Callable[[], Any], what: str) -> Any:
        """What `look` gives, once it is something; each look is a command, or a question over the socket."""
        end_s = time.monotonic() + PATIENCE_S
        pause = threading.Event()
        while not (found := look()):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end_s, f"not in time: {what}\n{self.log.read_text()}"
            pause.wait(0.1)
        return found

    def all_ended(self) -> bool:
        """Whether neither the supervisor nor a worker is left; waits for that."""
        readable, _, _ = select.select([self._alive], [], [], PATIENCE_S)
        return bool(readable) and os.read(self._alive, 1) == b""

    def interrupt(self) -> int:
        """End them as Ctrl-C does in a terminal, which tells the whole process group."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(PATIENCE_S)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)

    def end(self) -> None:
        """Leave nothing behind, whatever the test found."""
        try:
            if self.process.poll() is None:
                self.stop()
        finally:
            self.process.kill()
            self.process.wait()
            ended = self.all_ended()
            os.close(self._alive)
            if not ended:
                for pid in self._seen:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
        assert ended, f"something was left: {self.log.read_text()}"


def _gateway() -> list[str]:
    return [sys.executable, "-P", "-m", "gateway.cli"]


def _configure(folder: Path) -> None:
    lay_out(folder)
    with (folder / "gateway.yaml").open("a") as config:
        config.write("server: {drain_s: 0}\n")  # nobody stands before these


@contextmanager
def _serving(folder: Path, postgres_url: str, redis_url: str, workers_port: str = "") -> Iterator[Workers]:
    workers = Workers(folder, postgres_url, redis_url, workers_port)
    try:
        yield workers
    finally:
        workers.end()


@pytest.fixture
def workers(tmp_path: Path, postgres_url: str, redis_url: str) -> Iterator[Workers]:
    _configure(tmp_path)
    with _serving(tmp_path, postgres_url, redis_url) as workers:
        yield workers


def _ids(found: dict[int, dict[str, Any]]) -> dict[int, str]:
    return {pid: row["id"] for pid, row in found.items()}


def _unauthenticated(url: str) -> int:
    """How many requests without a credential the process at `url` has had, which answers as ready."""
    assert httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
    told = httpx.get(f"{url}/metrics", trust_env=False).text
    counted = re.search(r"^gateway_unauthenticated_total (\S+)$", told, re.MULTILINE)
    assert counted is not None, told
    return int(float(counted[1]))


def test_neither_the_supervisor_nor_a_worker_shows_its_environment(workers: Workers) -> None:
    secrets = [workers.environment[name] for name in ("GATEWAY_DATABASE_URL", "GATEWAY_REDIS_URL")]
    for pid in (workers.process.pid, *workers.until(workers.two, "two replicas")):
        for name in ("environ", "cmdline"):
            shown = Path(f"/proc/{pid}/{name}").read_text()
            assert shown
            assert not [secret for secret in secrets if secret in shown], (pid, name)


def test_each_is_reached_by_itself_and_a_killed_one_is_started_anew(workers: Workers) -> None:
    first = workers.until(workers.two, "two replicas")
    killed, other = first
    told = json.loads(workers.command("status", "--json").stdout)
    own = {row["id"]: row["url"] for row in told["replicas"] if row["state"] == "running"}
    assert own == {row["id"]: row["url"] for row in first.values()}
    assert len({workers.url, *own.values()}) == 3

    one, two = first[killed]["url"], first[other]["url"]
    before = _unauthenticated(one), _unauthenticated(two)
    for _ in range(3):
        assert httpx.get(f"{one}/v1/models", trust_env=False).status_code == 401
    assert (_unauthenticated(one), _unauthenticated(two)) == (before[0] + 3, before[1])

    drilled = workers.command("drill", "reader", "--model", "demo", "--json")
    assert drilled.returncode == 0, drilled.stdout + drilled.stderr
    assert {row["id"] for row in json.loads(drilled.stdout)} == {row["name"] for row in first.values()}

    # It can't start for a while, which is no reason to end the other.
    good = workers.config.read_text()
    workers.config.write_text("nonsense: true\n")
    os.kill(killed, signal.SIGKILL)
    workers.until(lambda: any(line.get("again_s") == 2 for line in workers.logged()), "a try that fails")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{one}/readyz", trust_env=False)
    assert httpx.get(f"{two}/readyz", trust_env=False).status_code == 200
    workers.config.write_text(good)

    def again() -> dict[int, dict[str, Any]] | None:
        found = workers.two()
        return found if found is not None and killed not in found else None

    now = workers.until(again, "a new worker for the killed one")
    assert now[other]["id"] == first[other]["id"]  # it was left alone
    assert first[killed]["id"] not in {row["id"] for row in now.values()}
    assert workers.interrupt() == 0, workers.log.read_text()
    assert workers.all_ended()
    assert not (workers.data_dir / "gateway.json").exists()
    ends = [line for line in workers.logged() if line["event"] == "worker_ended"]
    assert [(line["logger"], line["code"], line["again_s"]) for line in ends[:2]] == [
        ("gateway.workers", -signal.SIGKILL, 1.0),
        ("gateway.workers", 1, 2.0),
    ]


def test_a_drill_measures_the_others_where_one_hangs(workers: Workers) -> None:
    both = workers.until(workers.two, "two replicas")
    hangs, answers = both
    os.kill(hangs, signal.SIGSTOP)
    try:
        since_s = time.monotonic()
        drilled = workers.command("drill", "reader", "--model", "demo", "--json")
        took_s = time.monotonic() - since_s
    finally:
        os.kill(hangs, signal.SIGCONT)
    assert drilled.returncode == 1, drilled.stdout + drilled.stderr
    rows = {row.pop("id"): row for row in json.loads(drilled.stdout)}
    assert rows[both[hangs]["name"]] == {"refused_after_ms": None, "stream_ended_after_ms": None}
    assert all(after <= 1000 for after in rows[both[answers]["name"]].values()), rows
    assert took_s < 15
    assert json.loads(workers.command("agents", "show", "reader", "--json").stdout)["status"] == "active"


def test_a_second_is_refused_and_none_outlives_a_killed_supervisor(workers: Workers) -> None:
    workers.until((workers.data_dir / "worker-1").exists, "the beginning of the first")
    workers.process.send_signal(signal.SIGHUP)  # which ends who does not listen for it yet
    first = workers.until(workers.two, "two replicas")
    # The shipped policies name tool servers that this gateway does not have.
    assert [line for line in workers.logged() if line["event"] != "configuration_warning"] == []
    url, token = workers.url, (workers.data_dir / "operator.token").read_text()
    second = workers.command("serve", "--workers", "2", "--port", "0")
    assert second.returncode == 1
    (sentence,) = second.stderr.splitlines()
    assert f"is in use by another gateway (process {workers.process.pid}): stop that one" in sentence
    assert (workers.url, (workers.data_dir / "operator.token").read_text()) == (url, token)
    assert _ids(workers.running()) == _ids(first)

    workers.process.kill()
    workers.process.wait()
    assert workers.all_ended(), "workers outlived their supervisor"
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((host, int(port)))
    for folder in (workers.data_dir, *workers.data_dir.glob("worker-*")):
        DirectoryLock(folder).release()
    for number in (1, 2):  # they ended orderly, as by SIGTERM
        assert not (workers.data_dir / f"worker-{number}" / "gateway.json").exists()


def test_what_keeps_one_from_starting_ends_all_and_is_told_once(
    tmp_path: Path, postgres_url: str, redis_url: str
) -> None:
    _configure(tmp_path)
    (tmp_path / "gateway.yaml").write_text("nonsense: true\n")
    with _serving(tmp_path, postgres_url, redis_url) as workers:
        assert workers.process.wait(PATIENCE_S) == 1
        assert workers.all_ended()
        text = workers.log.read_text()
        assert text.startswith("gateway: The configuration has errors;")
        assert text.count("'nonsense'") == 1
        (line,) = workers.logged()
        assert (line["event"], line["logger"], line["worker"]) == ("worker_not_started", "gateway.workers", 1)
        assert not (workers.data_dir / "gateway.json").exists()


def test_a_port_of_their_own_that_somebody_has_ends_all(tmp_path: Path, postgres_url: str, redis_url: str) -> None:
    _configure(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        port = str(somebody.getsockname()[1])
        with _serving(tmp_path, postgres_url, redis_url, port) as workers:
            assert workers.process.wait(PATIENCE_S) == 1
            assert workers.all_ended()
            sentence = workers.log.read_text().splitlines()[0]
    assert sentence.startswith(f"gateway: The gateway cannot listen on 127.0.0.1:{port} ")
    assert sentence.endswith("stop what uses it or take another GATEWAY_WORKERS_PORT.")


def test_ports_beyond_the_last_are_refused(tmp_path: Path) -> None:
    process = Process(
        data_dir=tmp_path / "var",
        workers_port=65_534,
        database_url=SecretStr("postgresql://db/gateway"),
        redis_url=SecretStr("redis://cache"),
    )
    with pytest.raises(Refusal, match="no 3 ports from GATEWAY_WORKERS_PORT=65534 on"):
        supervise(process, 3)
    assert not process.data_dir.exists()


def test_pauses_grow_up_to_half_a_minute() -> None:
    assert [pause_s(failures) for failures in range(1, 8)] == [1, 2, 4, 8, 16, 30, 30]
    assert pause_s(10_000) == 30
