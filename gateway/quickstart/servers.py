"""Real PostgreSQL and Redis beside the gateway, for `make replicas`, drills and tests; OPA stands in `opa_server.py`.

Both listen on 127.0.0.1 only and ask for a password, which is made once and stays in their folder (mode 600).
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import redis
from psycopg import sql

from gateway.errors import Refusal
from gateway.process import child_environment
from gateway.quickstart.child import Server

# PostgreSQL does not run as root; what root starts runs as the first of these that there is.
_UNPRIVILEGED = ("postgres", "nobody")
_PROBE_S = 2


def find_postgres() -> Path | None:
    """The folder of PostgreSQL's programs: on the PATH, where pg_config says, or where Debian puts the newest."""
    for folder in _postgres_folders():
        if all(os.access(folder / program, os.X_OK) for program in ("initdb", "postgres")):
            return folder
    return None


def _postgres_folders() -> Iterator[Path]:
    if found := shutil.which("postgres"):
        yield Path(found).resolve().parent
    if asked := shutil.which("pg_config"):
        told = subprocess.run([asked, "--bindir"], capture_output=True, text=True, check=False)  # noqa: S603
        yield Path(told.stdout.strip() or "/nowhere")
    debian = Path("/usr/lib/postgresql").glob("[0-9]*/bin")
    yield from sorted(debian, key=lambda folder: float(folder.parent.name), reverse=True)


def find_redis() -> Path | None:
    """The program redis-server, or None."""
    found = shutil.which("redis-server")
    return None if found is None else Path(found)


class PostgresServer(Server):
    """PostgreSQL with an empty database `gateway`, which a role of that name owns, as a gateway's role should be.

    `durable` False does without fsync: for tests, whose data outlives a killed process but no power cut.
    """

    name = "PostgreSQL"
    stops_by = signal.SIGINT

    def __init__(self, folder: Path, *, port: int | None = None, durable: bool = True) -> None:
        super().__init__(folder, port=port)
        self._durable = durable

    @property
    def url(self) -> str:
        """The database `gateway`, as its owner."""
        return self._url("gateway", "gateway")

    @property
    def admin_url(self) -> str:
        """The database `postgres`, as the superuser."""
        return self._url("postgres", "postgres")

    def create(self, database: str, *, template: str | None = None) -> str:
        """A new database of the role `gateway`: its address. A copy of `template` if one is named, which nobody may
        be connected to."""
        like = sql.SQL("") if template is None else sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
        self._run(sql.SQL("CREATE DATABASE {} OWNER gateway{}").format(sql.Identifier(database), like))
        return self._url("gateway", database)

    def drop(self, database: str) -> None:
        """Remove a database, also from under those connected to it."""
        self._run(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database)))

    def start(self) -> None:
        """See `Server.start`. The first start makes the role and its database."""
        super().start()
        with psycopg.connect(self.admin_url, autocommit=True) as admin:
            if admin.execute("SELECT 1 FROM pg_roles WHERE rolname = 'gateway'").fetchone() is None:
                admin.execute(sql.SQL("CREATE ROLE gateway LOGIN PASSWORD {}").format(_password(self.folder)))
            if admin.execute("SELECT 1 FROM pg_database WHERE datname = 'gateway'").fetchone() is None:
                admin.execute("CREATE DATABASE gateway OWNER gateway")

    def _url(self, role: str, database: str) -> str:
        return f"postgresql://{role}:{_password(self.folder)}@127.0.0.1:{self.port}/{database}"

    def _run(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.admin_url, autocommit=True) as admin:
            admin.execute(statement)

    def _prepare(self) -> list[str]:
        programs = find_postgres()
        if programs is None:
            raise Refusal("internal", "PostgreSQL is not installed: on Debian, `apt-get install postgresql` brings it.")
        data = self.folder / "data"
        user = _user()
        if not (data / "PG_VERSION").exists():
            self._make(programs, data, user)
        settings = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",  # the path of a socket may be too long for one in a test's folder
            "fsync": "on" if self._durable else "off",
            "synchronous_commit": "on",
            "max_connections": "200",
        }
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [*_as_user(user), str(programs / "postgres"), "-D", str(data), *words]

    def _make(self, programs: Path, data: Path, user: str | None) -> None:
        """The cluster; a half-made one of an earlier run goes."""
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir(mode=0o700)
        secret = self.folder / "first-password"
        secret.touch(mode=0o600)
        secret.write_text(_password(self.folder))
        if user is not None:
            shutil.chown(data, user)
            shutil.chown(secret, user)
        words = ["--username=postgres", "--auth=scram-sha-256", f"--pwfile={secret}", "--encoding=UTF8", "--no-locale"]
        command = [*_as_user(user), str(programs / "initdb"), "-D", str(data), *words]
        with self.log.open("ab") as log:
            made = subprocess.run(  # noqa: S603
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", env=child_environment(), check=False
            )
        secret.unlink()
        if made.returncode != 0:
            raise Refusal("internal", f"PostgreSQL's initdb failed; {self.log} says why.")

    def answers(self) -> bool:
        try:
            with psycopg.connect(self.admin_url, connect_timeout=_PROBE_S) as admin:
                return admin.execute("SELECT 1").fetchone() is not None
        except psycopg.OperationalError:
            return False


class RedisServer(Server):
    """Redis. `appendonly` False keeps nothing over a restart: what a cache on loan is like."""

    name = "Redis"

    def __init__(self, folder: Path, *, port: int | None = None, appendonly: bool = True) -> None:
        super().__init__(folder, port=port)
        self._appendonly = appendonly

    @property
    def url(self) -> str:
        """Its database 0."""
        return f"redis://:{_password(self.folder)}@127.0.0.1:{self.port}/0"

    def _prepare(self) -> list[str]:
        program = find_redis()
        if program is None:
            raise Refusal("internal", "Redis is not installed: on Debian, `apt-get install redis-server` brings it.")
        settings = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": f'"{self.folder}"',
            "requirepass": _password(self.folder),
            "appendonly": "yes" if self._appendonly else "no",
            "appendfsync": "everysec",
            "save": '""',
            "maxmemory-policy": "noeviction",
        }
        config = self.folder / "redis.conf"
        config.touch(mode=0o600)
        config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        return [str(program), str(config)]

    def answers(self) -> bool:
        with contextlib.closing(redis.Redis.from_url(self.url, socket_timeout=_PROBE_S)) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:  # not there, or still reading its file
                return False


def _password(folder: Path) -> str:
    file = folder / "password"
    if not file.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.touch(mode=0o600)
        file.write_text(secrets.token_hex(16))
    return file.read_text()


def _user() -> str | None:
    """Who runs PostgreSQL where we are root; None where we are not, and run it ourselves."""
    if os.geteuid() != 0:
        return None
    known = {user.pw_name for user in pwd.getpwall()}
    for name in _UNPRIVILEGED:
        if name in known:
            return name
    raise Refusal("internal", "PostgreSQL does not run as root, and there is no user `postgres` to run it as.")


def _as_user(user: str | None) -> list[str]:
    """Words before a command that make `user` run it. It keeps the right to pass through folders that are closed to
    it: its data may stand below one of ours."""
    if user is None:
        return []
    group = pwd.getpwnam(user).pw_gid
    capability = "+dac_override"
    return [
        *("setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"),
        *(f"--inh-caps={capability}", f"--ambient-caps={capability}", "--"),
    ]
