"""serve, quickstart, migrate, healthcheck: the process and its files."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.commands.shared import CONFIG, DATA_DIR, PROBLEM, USAGE, CommandError, ConfigFile, DataDir, Json, show

if TYPE_CHECKING:
    from gateway.audit.keys import Keys
    from gateway.process import Process
    from gateway.store.interface import Connection
    from gateway.store.postgres.beside import Beside

# What these commands write is for their own user alone.
_UMASK = 0o077

Host = Annotated[
    str | None, typer.Option("--host", help="Address to listen on; GATEWAY_HOST.", show_default="127.0.0.1")
]
Port = Annotated[
    int | None, typer.Option("--port", min=0, max=65535, help="Port; 0 takes a free one.", show_default="8080")
]


def serve(
    config: ConfigFile = CONFIG,
    host: Host = None,
    port: Port = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes.")] = 1,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Run the gateway.

    \b
    Example:
      gateway serve --config gateway.yaml --port 8080
    """
    process = _process(config, host, port, data_dir)
    if workers > 1 and not process.is_scaled:
        raise CommandError(
            f"{workers} workers need a shared database and shared limits (PostgreSQL and Redis), which the embedded"
            " default does not have: run one worker, or set GATEWAY_DATABASE_URL and GATEWAY_REDIS_URL.",
            USAGE,
        )
    os.umask(_UMASK)
    if workers > 1:
        from gateway.workers import supervise

        raise typer.Exit(supervise(process, workers))
    from gateway.serve import serve as run

    run(process)


def quickstart(
    config: ConfigFile = CONFIG,
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Run the gateway with its quickstart: a demo model, a small ledger, and commands to paste.

    \b
    Example:
      gateway quickstart --port 8080
    """
    from gateway.quickstart.start import run

    os.umask(_UMASK)
    run(_process(config, host, port, data_dir))


def migrate(config: ConfigFile = CONFIG, data_dir: DataDir = DATA_DIR, as_json: Json = False) -> None:
    """Bring the database's schema up to date; the embedded gateway must not be running meanwhile.

    With GATEWAY_DATABASE_URL it is PostgreSQL's, and the keys that replicas share are made in GATEWAY_KEYS_DIR where
    the log is still empty. Replicas may run, unless the step needs them stopped; then it says so. Rows of a version
    that did not authenticate them are compared with the audit log and sealed.

    \b
    Example:
      gateway migrate --data-dir var
    """
    from gateway.store import DirectoryLock, schema
    from gateway.store.connections import DATABASE_NAME

    os.umask(_UMASK)
    process = _process(config, None, None, data_dir)
    if process.is_scaled:
        changed = migrate_shared(process)
    else:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = DirectoryLock(data_dir)
        try:
            changed = schema.migrate(data_dir / DATABASE_NAME)
        finally:
            lock.release()
    text = f"The schema is now at revision {schema.HEAD}." if changed else f"The schema is at revision {schema.HEAD}."
    show({"id": schema.HEAD, "revision": schema.HEAD, "changed": changed}, as_json, text)


def migrate_shared(process: Process) -> bool:
    """Bring the database that replicas share up to date, with its keys and codes of rows. Raises CommandError."""
    from gateway import settings
    from gateway.audit import keys as audit_keys
    from gateway.keys import make_keys
    from gateway.store.database import LostError
    from gateway.store.postgres import schema
    from gateway.store.postgres.beside import Beside

    assert process.database_url is not None
    config, problems = settings.load(process.config)
    if config is None:
        lines = "\n  ".join(str(one) for one in problems)
        raise CommandError(f"The configuration names the log that keys are for, and has errors.\n  {lines}")
    url = process.database_url.get_secret_value()
    beside = Beside(url, name="gateway migrate")
    keys_dir = process.keys_dir or process.data_dir / "keys"
    try:
        beside.run(partial(_require_stopped, found=schema.version(url)))
        changed = schema.migrate(url)
        is_new = beside.run(
            lambda db: db.execute("SELECT NOT EXISTS (SELECT FROM leaf) AND NOT EXISTS (SELECT FROM ingest)").fetchone()
        )[0]
        make_keys(keys_dir, config.audit.origin, is_new=bool(is_new))
        _seal_rows(
            process, audit_keys.load(keys_dir, config.audit.origin, create=False, random_bytes=os.urandom), beside
        )
    except LostError as error:
        raise CommandError(
            f"PostgreSQL can't be reached: {error}; correct GATEWAY_DATABASE_URL or start it."
        ) from error
    finally:
        beside.close()
    return changed


def _require_stopped(db: Connection, found: str | None) -> None:
    """Replicas of a version that has other codes of rows, or none, must not run any more. Raises CommandError."""
    if found is None or not "0004" <= found < "0008":
        return
    from gateway.store.postgres.database import NOW

    alive = f"SELECT count(*) FROM replica WHERE ended_ns IS NULL AND beat_ns > {NOW} - 10 * 1000000000::bigint"  # noqa: S608
    (running,) = db.execute(alive).fetchone()
    if running:
        raise CommandError(
            f"{running} replicas of the version before still run and would not understand the codes of rows: stop all "
            "of them, run `gateway migrate` again, then start the new version."
        )


def _seal_rows(process: Process, keys: Keys, beside: Beside) -> None:
    from gateway.audit import row_sealing
    from gateway.audit.check import verify
    from gateway.audit.source import PostgresSource
    from gateway.limits.windows import names_in
    from gateway.store.macs import RowMacs

    assert process.database_url is not None
    if not beside.run(row_sealing.is_wanted):
        return
    source = PostgresSource(
        process.database_url.get_secret_value(), process.data_dir, process.keys_dir or process.data_dir / "keys"
    )
    report = verify(source, vkey=keys.signer.verifier.vkey, payloads=False, names_in=names_in)
    for chunk in beside.run(partial(row_sealing.plan, report=report)):
        beside.run(partial(row_sealing.seal, macs=RowMacs(keys.rows), chunk=chunk))
    beside.run(row_sealing.finish)


def healthcheck(
    data_dir: DataDir = DATA_DIR,
    url: Annotated[str | None, typer.Option("--url", help="Ask this gateway instead.")] = None,
    as_json: Json = False,
) -> None:
    """Exit 0 if the gateway is ready for traffic, 1 if not (and say what is missing).

    \b
    Example:
      gateway healthcheck
    """
    from gateway.commands.client import ask, running_at

    response = ask("GET", f"{(url or running_at(data_dir)).rstrip('/')}/readyz")
    try:
        state = response.json()
        missing = {str(name): str(reason) for name, reason in state["missing"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CommandError(f"What answered with {response.status_code} is not a gateway; correct --url.") from None
    show({"id": "gateway", **state}, as_json, "ready" if not missing else [f"{k}: {v}" for k, v in missing.items()])
    if missing:
        raise typer.Exit(PROBLEM)


def _process(config: Path, host: str | None, port: int | None, data_dir: Path) -> Process:
    from gateway import process

    found, problems = process.load()
    if found is None:
        lines = "\n  ".join(str(one) for one in problems)
        raise CommandError(f"The environment has errors; correct them and start again.\n  {lines}")
    given = {"config": config, "data_dir": data_dir, "host": host, "port": port}
    return found.model_copy(update={name: value for name, value in given.items() if value is not None})
