"""Where the story plays: the gateway that runs on the data directory, else one of its own that ends with the story."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from gateway.quickstart import note
from gateway.quickstart.demo.told import NotAsTold, say

REPLICAS = "replicas"  # the folder that `make replicas` makes in the data directory
START_S = 60.0  # a first start on a slow machine
STOP_S = 15.0
ASK_S = 10.0
COMMAND_S = 60.0


class Stage(NamedTuple):
    """A gateway with the quickstart in it, or several that are one. `command` is our `gateway`, `data_dir` what it
    names to find this one, `environment` what it needs to know of what the gateway stands on."""

    url: str
    key: str
    command: Path
    data_dir: Path
    environment: dict[str, str]

    def gateway(self, *arguments: str) -> Any:
        """Run a command line as the local operator, and read its JSON. Raises NotAsTold with what it said."""
        done = self.run(*arguments, "--json")
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().replace("\n", " ")
            raise NotAsTold(f"`gateway {' '.join(arguments)}` did not succeed: {said}")
        return json.loads(done.stdout)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command line as the local operator."""
        command = [str(self.command), *arguments, "--data-dir", str(self.data_dir)]
        try:
            return subprocess.run(  # noqa: S603
                command,
                capture_output=True,
                text=True,
                timeout=COMMAND_S,
                check=False,
                env=_elsewhere() | self.environment,
            )
        except (OSError, subprocess.TimeoutExpired) as failed:
            raise NotAsTold(f"`{self.command} {' '.join(arguments)}` could not be run: {failed}.") from failed


def _elsewhere() -> dict[str, str]:
    """Our environment without what it says of a gateway: it may be another one, as in a shell that sourced a note."""
    return {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}


def running(command: Path, data_dir: Path) -> Stage | None:
    """The gateway that `data_dir` tells of, or else the replicas below it: ready, and knowing the key they tell."""
    replicas = note.replicas_of(data_dir) or data_dir / REPLICAS
    return _stage(command, data_dir) or _stage(command, replicas)


def _stage(command: Path, data_dir: Path) -> Stage | None:
    values = note.read(data_dir)
    url, key = values.pop("GATEWAY_URL", ""), values.pop("GATEWAY_KEY", "")
    if not url.startswith("http") or not key or not _answers(f"{url}/readyz"):
        return None
    # Another gateway may have taken the port since.
    if not _answers(f"{url}/api/v1/me", key):
        return None
    # Replicas have a data directory each; the note names the one to ask.
    return Stage(url, key, command, Path(values.pop("GATEWAY_DATA_DIR", data_dir)), values)


@contextlib.contextmanager
def own(command: Path, config: Path) -> Iterator[Stage]:
    """A gateway on a free port with a data directory of its own; both are gone at the end."""
    with tempfile.TemporaryDirectory(prefix="gateway-demo-") as folder:
        data_dir = Path(folder) / "var"
        printed = Path(folder) / "printed"
        start = [str(command), "quickstart", "--port", "0", "--config", str(config), "--data-dir", str(data_dir)]
        with printed.open("w") as output:
            child = subprocess.Popen(  # noqa: S603 - our own command
                start, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=_elsewhere(), start_new_session=True
            )
        try:
            yield _ready(child, command, data_dir, printed)
        finally:
            child.terminate()
            try:
                child.wait(STOP_S)
            except subprocess.TimeoutExpired:
                say("The demo's own gateway did not stop when told, so it was killed.")
                child.kill()
                child.wait()


def _ready(child: subprocess.Popen[bytes], command: Path, data_dir: Path, printed: Path) -> Stage:
    deadline_s = time.monotonic() + START_S
    while time.monotonic() < deadline_s and child.poll() is None:
        # The note is written when the gateway is ready; the tools of the ledger may come a moment later.
        stage = running(command, data_dir)
        if stage is not None and _usable(stage):
            return stage
        time.sleep(0.1)
    last = " ".join(printed.read_text(errors="replace").split())[-600:] or "It said nothing."
    how = "ended while it started" if child.poll() is not None else f"was not ready within {START_S:g} s"
    raise NotAsTold(f"The demo's own gateway {how}. {last}")


def _usable(stage: Stage) -> bool:
    done = stage.run("tools", "list", "--json")
    if done.returncode != 0:
        return False
    return any(tool["id"] == "ledger__transfer" and tool["state"] == "live" for tool in json.loads(done.stdout))


def _answers(url: str, key: str | None = None) -> bool:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - http(s), checked by who calls
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # this machine is not behind a proxy
    try:
        with opener.open(request, timeout=ASK_S) as answer:
            return int(answer.status) == 200
    except (urllib.error.URLError, OSError, ValueError):
        return False
