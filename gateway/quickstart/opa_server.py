"""A real `opa run --server` beside the gateway, for `make replicas` and for tests: own port, own folder, no account.

`find` says where the program is; `.ci/run` and `make .opa/opa` put it into the checkout.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import httpx

from gateway.errors import Refusal
from gateway.process import child_environment

_CHECKOUT = Path(__file__).parents[2]
_START_S = 20.0
_STOP_S = 5.0


def find(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The OPA program: what GATEWAY_OPA_BINARY names, the one on the PATH, or `.opa/opa` of this checkout."""
    named = environ.get("GATEWAY_OPA_BINARY")
    found = named or shutil.which("opa", path=environ.get("PATH"))
    if found is None:
        found = str(_CHECKOUT / ".opa" / "opa")
    return Path(found) if os.access(found, os.X_OK) else None


class OpaServer:
    """One OPA server. `start`, `stop` and `kill` as often as wanted: the port stays the same."""

    def __init__(
        self,
        program: Path,
        folder: Path,
        *,
        bundle: Path | None = None,
        fetch_from: str | None = None,
        token: str | None = None,
    ) -> None:
        """It decides by a `bundle` file, or by the one it fetches every second `fetch_from` a gateway's address,
        showing `token`. What it says and its decision log go to opa.log in `folder`."""
        self.folder = folder
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "opa.log"
        self._program = program
        self._bundle = bundle
        self._config = _config(fetch_from, token)
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers. Raises Refusal if it does not."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "opa.json"
        config.touch(mode=0o600)
        config.write_text(json.dumps(self._config))
        command = [str(self._program), "run", "--server", "--addr", f"127.0.0.1:{self.port}"]
        command += ["--config-file", str(config), "--disable-telemetry", "--log-level", "error"]
        if self._bundle is not None:
            command += ["--bundle", str(self._bundle)]
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(  # noqa: S603 - the program that `find` found
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=child_environment(),
                start_new_session=True,
            )
        self._wait()

    def _wait(self) -> None:
        assert self._child is not None
        ends_s = time.monotonic() + _START_S
        while time.monotonic() < ends_s and self._child.poll() is None:
            try:
                if httpx.get(f"{self.url}/health", timeout=1, trust_env=False).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.02)
        self.stop()
        raise Refusal("internal", f"OPA did not start; {self.log} says why.")

    def pause(self) -> None:
        """Stop its clock: connections stay and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Go on after `pause`."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it orderly."""
        self._end(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        if self._child is None:
            return
        self._signal(number)
        self._signal(signal.SIGCONT)
        try:
            self._child.wait(timeout=_STOP_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._child = None


def _config(fetch_from: str | None, token: str | None) -> dict[str, object]:
    config: dict[str, object] = {"decision_logs": {"console": True}}  # only then do answers bear a decision's id
    if fetch_from is not None:
        service: dict[str, object] = {"url": fetch_from}
        if token is not None:
            service["credentials"] = {"bearer": {"token": token}}
        config["services"] = {"gateway": service}
        config["bundles"] = {
            "gateway": {
                "service": "gateway",
                "resource": "/api/v1/policy/bundle",
                "polling": {"min_delay_seconds": 1, "max_delay_seconds": 1},
            }
        }
    return config


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
