"""A real `opa run --server` beside the gateway, for `make replicas` and for tests: own port, own folder, no account.

`find` says where the program is; `.ci/run` and `make .opa/.made` put it into the checkout.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from gateway.quickstart.child import Server

_CHECKOUT = Path(__file__).parents[2]


def find(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The OPA program: what GATEWAY_OPA_BINARY names, the one on the PATH, or `.opa/opa` of this checkout."""
    named = environ.get("GATEWAY_OPA_BINARY")
    found = named or shutil.which("opa", path=environ.get("PATH"))
    if found is None:
        found = str(_CHECKOUT / ".opa" / "opa")
    return Path(found) if os.access(found, os.X_OK) else None


class OpaServer(Server):
    """One OPA server, without an account of anybody's."""

    name = "OPA"

    def __init__(
        self,
        program: Path,
        folder: Path,
        *,
        port: int | None = None,
        bundle: Path | None = None,
        fetch_from: str | None = None,
        token: str | None = None,
    ) -> None:
        """It decides by a `bundle` file, or by the one it fetches every second `fetch_from` a gateway's address,
        showing `token`. Its log is its decision log too."""
        super().__init__(folder, port=port)
        self.url = f"http://127.0.0.1:{self.port}"
        self._program = program
        self._bundle = bundle
        self._config = configuration(fetch_from, token)

    def _prepare(self) -> list[str]:
        config = self.folder / "opa.json"
        config.touch(mode=0o600)
        config.write_text(json.dumps(self._config))
        command = [str(self._program), "run", "--server", "--addr", f"127.0.0.1:{self.port}"]
        command += ["--config-file", str(config), "--disable-telemetry", "--log-level", "error"]
        return command if self._bundle is None else [*command, "--bundle", str(self._bundle.absolute())]

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=1, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False


def configuration(fetch_from: str | None, token: str | None) -> dict[str, Any]:
    """OPA's configuration file: a decision log on its output, and the bundle of a gateway."""
    config: dict[str, Any] = {"decision_logs": {"console": True}}  # only then do answers bear a decision's id
    if fetch_from is not None:
        service: dict[str, Any] = {"url": fetch_from}
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
