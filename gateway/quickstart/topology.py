"""Many replicas as plain processes: PostgreSQL, Redis, OPA, the ledger, gateways, and a balancer before them.

What docker-compose.yml starts in containers, for `make replicas`, drills and tests. Everything it writes stands below
one folder, and each server has a port of its own.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import httpx
import yaml

from gateway.errors import Refusal
from gateway.quickstart.child import START_S, Server, check_free
from gateway.quickstart.ledger_child import ledger
from gateway.quickstart.opa_server import OpaServer
from gateway.quickstart.opa_server import find as find_opa
from gateway.quickstart.servers import PostgresServer, RedisServer

_CHECKOUT = Path(__file__).parents[2]
_MIGRATE_S = 120
_BUNDLE_TOKEN = "OPA_BUNDLE_TOKEN"  # noqa: S105 - the name of a variable


class GatewayServer(Server):
    """One gateway, with a data directory of its own: `folder`."""

    stop_s = 60.0  # streams may use up its grace

    def __init__(self, name: str, folder: Path, config: Path, environment: dict[str, str]) -> None:
        super().__init__(folder)
        self.name = name
        self.log = folder.parent / f"{name}.log"
        self.url = f"http://127.0.0.1:{self.port}"
        self._config = config
        self._given = environment

    def _prepare(self) -> list[str]:
        return [*_gateway(), "serve", "--config", str(self._config), "--port", str(self.port)]

    def _environment(self) -> dict[str, str]:
        return self._given | {"GATEWAY_DATA_DIR": str(self.folder), "GATEWAY_LOG_LEVEL": "warning"}

    def answers(self) -> bool:
        return _is_ready(self.url)


class Balancer(Server):
    """HAProxy with deploy/haproxy.cfg before two gateways."""

    name = "HAProxy"

    def __init__(self, folder: Path, gateways: list[GatewayServer], *, port: int | None = None) -> None:
        super().__init__(folder, port=port)
        self.url = f"http://127.0.0.1:{self.port}"
        self._gateways = gateways

    def _prepare(self) -> list[str]:
        program = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if program is None:
            raise Refusal("internal", "HAProxy is not installed: on Debian, `apt-get install haproxy` brings it.")
        return [program, "-db", "-f", str(_CHECKOUT / "deploy" / "haproxy.cfg")]

    def _environment(self) -> dict[str, str]:
        addresses = {
            f"GATEWAY_{number}_ADDRESS": f"127.0.0.1:{gateway.port}" for number, gateway in enumerate(self._gateways, 1)
        }
        return super()._environment() | addresses | {"BALANCER_BIND": f"127.0.0.1:{self.port}"}

    def answers(self) -> bool:
        # It answers itself while no gateway does.
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/readyz", timeout=2, trust_env=False).status_code in (200, 503)
        return False


class Topology:
    """All of them, started and stopped in order. `gateways` are `config` with the quickstart's ledger."""

    def __init__(self, folder: Path, *, config: Path = _CHECKOUT / "gateway.yaml", port: int | None = None) -> None:
        """Starts nothing. `port` is the balancer's. Where there is no OPA program, the gateways decide themselves:
        `opa` is None."""
        self.folder = folder.absolute()
        self.postgres = PostgresServer(self.folder / "postgres")
        self.redis = RedisServer(self.folder / "redis")
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
        self._config = config
        self._own_config = self.folder / "gateway.yaml"
        self.gateways = [
            GatewayServer(f"gateway-{number}", self.folder / f"gateway-{number}", self._own_config, self.environment)
            for number in (1, 2)
        ]
        self.balancer = Balancer(self.folder / "balancer", self.gateways, port=port)
        self.url = self.balancer.url
        self.environment["GATEWAY_PUBLIC_URL"] = self.url
        token = secrets.token_urlsafe(32)
        self.environment[_BUNDLE_TOKEN] = token
        program = find_opa()
        self.opa = (
            None if program is None else OpaServer(program, self.folder / "opa", fetch_from=self.url, token=token)
        )
        self._entered = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def servers(self) -> list[Server]:
        """All of them but the ledger, in the order in which they start."""
        opa = [] if self.opa is None else [self.opa]
        return [self.postgres, self.redis, self.balancer, *opa, *self.gateways]

    @property
    def footing(self) -> dict[str, str]:
        """What a gateway, or a command beside one, is told of what it stands on: settings of the process."""
        opa = {} if self.opa is None else {"GATEWAY_OPA_URL": self.opa.url}
        return opa | {
            "GATEWAY_DATABASE_URL": self.postgres.url,
            "GATEWAY_REDIS_URL": self.redis.url,
            "GATEWAY_KEYS_DIR": str(self.folder / "keys"),
        }

    def start(self) -> None:
        """Start everything; returns once the balancer reaches a gateway that is ready. Raises Refusal."""
        # Else the gateways wait for policies that OPA fetches through the balancer, and a minute later one says so.
        check_free(self.balancer.port, "stop what listens there, or choose another: make replicas PORT=9000")
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        token = secrets.token_urlsafe(32)
        self.environment["LEDGER_TOKEN"] = token
        self.environment["LEDGER_URL"] = self._entered.enter_context(ledger(self.folder, token))
        self._write_config()
        for server in self.servers[: -len(self.gateways)]:
            server.start()
        self.environment.update(self.footing)
        self._migrate()
        for gateway in self.gateways:
            gateway.start()
        ends_s = time.monotonic() + START_S
        while not _is_ready(self.url):  # it looks at them twice a second
            if time.monotonic() > ends_s:
                raise Refusal("internal", f"The balancer reaches no gateway; {self.balancer.log} says why.")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop everything, what stands on the others first."""
        for gateway in self.gateways:
            gateway.stop()
        for server in reversed(self.servers[: -len(self.gateways)]):
            server.stop()
        self._entered.close()

    def _write_config(self) -> None:
        """The configuration, and in it what lets OPA fetch policies; paths are then from another folder."""
        config: dict[str, Any] = yaml.safe_load(self._config.read_text())
        here = self._config.absolute().parent
        policy = config.setdefault("policy", {})
        policy["path"] = str(here / policy.get("path", "policies"))
        policy.setdefault("opa", {})["bundle_token"] = f"env:{_BUNDLE_TOKEN}"
        config["tool_registry"] = str(here / config.get("tool_registry", "tools_registry"))
        self._own_config.write_text(
            f"# Made from {self._config} at each start; change that one.\n" + yaml.safe_dump(config, sort_keys=False)
        )

    def _migrate(self) -> None:
        command = [*_gateway(), "migrate", "--config", str(self._own_config), "--data-dir", str(self.folder)]
        done = subprocess.run(  # noqa: S603 - our own command
            command, env=self.environment, cwd="/", capture_output=True, text=True, timeout=_MIGRATE_S, check=False
        )
        if done.returncode != 0:
            raise Refusal("internal", f"`gateway migrate` failed: {(done.stderr or done.stdout).strip()}")


def _gateway() -> list[str]:
    return [sys.executable, "-P", "-m", "gateway.cli"]


def _is_ready(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{url}/readyz", timeout=2, trust_env=False).status_code == 200
    return False
