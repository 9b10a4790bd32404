"""The governed model call on both footings: embedded, one replica, two replicas, in turns, in one run.

usage: python -m bench.replicas [--rounds N] [--seconds S]

The gateways are those of `bench.run` (everything on, models at the mock upstream); the replicas share a PostgreSQL
with its durable defaults and a Redis. Each gateway has core 0 or, the second replica, core 1, where load and upstream
are too; PostgreSQL and Redis run where they like. CPU per call is what gateways, PostgreSQL and Redis took until they
were quiet again, placing and signing included. The first replica places for both; while it is alone under load the
second one is up and idle.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench import payload
from bench.measure import cpu_us
from bench.run import WORK, Subject, _line, _load, _pinned, _process
from bench.subject import prepare
from gateway import settings
from gateway.keys import make_keys
from gateway.quickstart.servers import PostgresServer, RedisServer
from gateway.store.postgres import schema


@contextlib.contextmanager
def _gateway(name: str, core: int, upstream: str, footing: dict[str, str]) -> Iterator[Subject]:
    folder = WORK / f"replicas-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    command = _pinned(core, [sys.executable, "-m", "bench.subject", str(folder), upstream])
    with _process(command, WORK / f"{name}.log", env={**os.environ, **footing}) as child:
        ready = json.loads(_line(child))
        yield Subject(name, ready["url"] + "/v1/chat/completions", ready["key"], child.pid)


@contextlib.contextmanager
def _shared(folder: Path, upstream: str) -> Iterator[tuple[dict[str, str], dict[str, int]]]:
    """What replicas stand on, and the processes of it by name."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o755)
    with PostgresServer(folder / "postgres") as postgres, RedisServer(folder / "redis") as redis:
        schema.migrate(postgres.url)
        config, problems = settings.load(prepare(folder / "config", upstream))
        assert config is not None, problems
        make_keys(folder / "keys", config.audit.origin, is_new=True)
        footing = {
            "GATEWAY_DATABASE_URL": postgres.url,
            "GATEWAY_REDIS_URL": redis.url,
            "GATEWAY_KEYS_DIR": str(folder / "keys"),
        }
        assert postgres.pid is not None
        assert redis.pid is not None
        yield footing, {"postgres_us": postgres.pid, "redis_us": redis.pid}


def _turn(
    subjects: list[Subject], servers: dict[str, int], body: Path, connections: int, seconds: float
) -> dict[str, float]:
    """Load on all of them at once; figures of the whole."""
    before = {name: cpu_us(pid) for name, pid in servers.items()}
    with ThreadPoolExecutor(len(subjects)) as pool:
        each = list(pool.map(lambda one: _load(one, body, connections // len(subjects), seconds), subjects))
    calls = sum(one["ok"] for one in each)
    return {
        "rps": sum(one["per_s"] for one in each),
        "cpu_us": sum(one["cpu_us_with_rest"] * one["ok"] for one in each) / calls,
        "postgres_us": 0.0,
        "redis_us": 0.0,
        "p50_us": statistics.median(one["p50_us"] for one in each),
        "p99_us": max(one["p99_us"] for one in each),
    } | {name: (cpu_us(pid) - before[name]) / calls for name, pid in servers.items()}


def main() -> None:
    """Run the turns, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    chosen = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    body = payload.write(WORK / "payload")["chat"]
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    with contextlib.ExitStack() as stack:
        child = stack.enter_context(
            _process(_pinned(1, [sys.executable, "-m", "bench.upstream"]), WORK / "replicas-upstream.log")
        )
        upstream = f"http://127.0.0.1:{int(_line(child))}"
        footing, servers = stack.enter_context(_shared(WORK / "replicas-shared", upstream))
        embedded = stack.enter_context(_gateway("embedded", 0, upstream, {}))
        first = stack.enter_context(_gateway("replica-1", 0, upstream, footing))
        second = stack.enter_context(_gateway("replica-2", 1, upstream, footing))
        turns = {
            "embedded": ([embedded], {}),
            "one replica": ([first], servers),
            "two replicas": ([first, second], servers),
        }
        for number in range(chosen.rounds + 1):  # the first warms up
            for connections in (1, 32):
                for name, (subjects, beneath) in turns.items():
                    if connections == 1 and len(subjects) > 1:
                        continue
                    figures = _turn(subjects, beneath, body, connections, chosen.seconds)
                    if number:
                        found.setdefault((name, connections), []).append(figures)
            print(f"round {number} of {chosen.rounds}, load average {os.getloadavg()[0]:.1f}", file=sys.stderr)
    print(
        "| footing | connections | calls/s | gateway CPU us/call | PostgreSQL us/call | Redis us/call | p50 ms |"
        " p99 ms |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for (name, connections), rounds in sorted(found.items(), key=lambda one: (one[0][1], one[0][0])):
        of = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
        print(
            f"| {name} | {connections} | {of['rps']:,.0f} | {of['cpu_us']:,.0f} |"
            f" {of['postgres_us']:,.0f} | {of['redis_us']:,.0f} | {of['p50_us'] / 1000:.2f} |"
            f" {of['p99_us'] / 1000:.1f} |"
        )


if __name__ == "__main__":
    main()
