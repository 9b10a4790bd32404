"""The launchers of real servers: what they keep over crashes and pauses, and that they end with whoever started them."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import redis

from gateway.errors import Refusal
from gateway.quickstart.child import Server, check_free, free_port
from gateway.quickstart.servers import PostgresServer, RedisServer
from gateway.quickstart.topology import Topology

ROOT = Path(__file__).parents[2]

STARTER = """
import pathlib, sys
from gateway.quickstart.servers import PostgresServer, RedisServer
folder = pathlib.Path(sys.argv[1])
servers = [PostgresServer(folder / "postgres", durable=False), RedisServer(folder / "redis")]
for server in servers:
    server.start()
servers[0].pause()
print(*(server.pid for server in servers), flush=True)
sys.stdin.read()
"""


def test_postgres_keeps_what_it_acknowledged_over_a_crash_on_the_same_port(own_postgres: PostgresServer) -> None:
    url = own_postgres.url
    with psycopg.connect(url) as client:
        settings = [client.execute(f"SHOW {name}").fetchone() for name in ("fsync", "synchronous_commit")]
        assert settings == [("on",), ("on",)]
        client.execute("CREATE TABLE kept (value int)")
        client.execute("INSERT INTO kept VALUES (7)")
        client.commit()
        own_postgres.kill()
        with pytest.raises(psycopg.OperationalError):
            client.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)
    own_postgres.start()
    with psycopg.connect(url) as client:
        assert client.execute("SELECT value FROM kept").fetchall() == [(7,)]


def test_a_paused_postgres_answers_nobody_and_goes_on_where_it_was(own_postgres: PostgresServer) -> None:
    with psycopg.connect(own_postgres.url) as client:
        own_postgres.pause()
        with pytest.raises(psycopg.OperationalError, match="timeout"):
            psycopg.connect(own_postgres.url, connect_timeout=2)
        own_postgres.resume()
        assert client.execute("SELECT 1").fetchone() == (1,)


def test_the_gateways_role_owns_its_database_and_is_no_superuser(postgres_server: PostgresServer) -> None:
    with psycopg.connect(postgres_server.url, autocommit=True) as client:
        row = client.execute("SELECT rolsuper, rolcreatedb FROM pg_roles WHERE rolname = current_user").fetchone()
        assert row == (False, False)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            client.execute("CREATE DATABASE another")
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(postgres_server.url, password="wrong")


def test_each_test_has_a_database_of_its_own_with_the_schema_in_it(postgres_url: str, empty_postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as client:
        assert client.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)
    with psycopg.connect(empty_postgres_url) as client:
        assert client.execute("SELECT to_regclass('alembic_version')").fetchone() == (None,)


def test_redis_keeps_what_it_wrote_where_it_is_to(tmp_path: Path) -> None:
    for appendonly, kept in ((True, b"1"), (False, None)):
        server = RedisServer(tmp_path / str(appendonly), appendonly=appendonly)
        with server, redis.Redis.from_url(server.url) as client:
            client.set("spent", 1)
            server.restart()
            assert client.get("spent") == kept
            server.kill()
            with pytest.raises(redis.ConnectionError):
                client.get("spent")


def test_a_paused_redis_answers_once_it_goes_on(own_redis: RedisServer) -> None:
    with redis.Redis.from_url(own_redis.url, socket_timeout=0.2, retry=None) as client:
        assert client.ping()
        own_redis.pause()
        with pytest.raises(redis.TimeoutError):
            client.ping()
    own_redis.resume()
    with redis.Redis.from_url(own_redis.url, socket_timeout=20) as client:
        assert client.ping()


def test_a_redis_without_its_password_is_closed(redis_url: str) -> None:
    with (
        redis.Redis.from_url(f"redis://{redis_url.partition('@')[2]}") as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()


def test_they_end_with_a_parent_that_is_killed_even_while_paused(tmp_path: Path) -> None:
    command = [sys.executable, "-c", STARTER, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        started = [os.pidfd_open(int(word)) for word in parent.stdout.readline().split()]
        assert len(started) == 2
        assert not select.select(started, [], [], 0)[0]
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    for process in started:
        assert select.select([process], [], [], 30)[0], "a server outlived its parent"
        os.close(process)


def test_a_server_that_does_not_come_up_says_why(tmp_path: Path) -> None:
    class Broken(Server):
        name = "Broken"

        def _prepare(self) -> list[str]:
            return ["/bin/sh", "-c", "echo no such setting >&2; exit 3"]

        def answers(self) -> bool:
            return False

    server = Broken(tmp_path, port=free_port())
    with pytest.raises(Refusal, match=r"ended while it started.*no such setting"):
        server.start()
    assert not server.runs


def test_a_port_in_use_is_said_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        topology = Topology(tmp_path / "replicas", port=port)
        with pytest.raises(Refusal, match=f"Port {port} of 127.0.0.1 is in use; stop what listens there"):
            topology.start()
        assert not (tmp_path / "replicas").exists()
    check_free(port, "nothing")
