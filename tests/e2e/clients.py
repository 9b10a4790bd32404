"""The official clients as programs: started by tests, each in a process of its own, telling what they got as JSON."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.gateway_process import ROOT

SDK = ROOT / ".venv-sdk"
NPM = ROOT / ".venv-npm"
HERE = Path(__file__).parent


def need(*folders: Path) -> None:
    """Skip the test where the clients in these folders are not installed; fail it where nothing may be skipped."""
    for folder in folders:
        if not (folder / ".made").exists():
            why = f"the clients in {folder.name} are not installed: make {folder.name}/.made"
            if os.environ.get("GATEWAY_TEST_STRICT") == "1":
                pytest.fail(why)
            pytest.skip(why)


class Told:
    """A client that runs."""

    def __init__(self, command: list[str], source: Path | None = None, folder: Path | None = None) -> None:
        with Path(os.devnull if source is None else source).open() as given:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            )

    def told(self, patience_s: float) -> dict[str, Any]:
        """What it printed, once it has ended."""
        try:
            printed, complaints = self._process.communicate(timeout=patience_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        assert self._process.returncode == 0, complaints
        found: dict[str, Any] = json.loads(printed)
        return found

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


def python(script: str, *arguments: str) -> Told:
    """One of our scripts on the official Python SDKs."""
    return Told([str(SDK / "bin" / "python"), str(HERE / script), *arguments])


def node(script: str, *arguments: str) -> Told:
    """One of our scripts on the official npm SDKs. It comes over standard input, since Node looks for a module's
    dependencies beside it, and they are not in the source tree."""
    own = NPM / "node_modules" / ".bin" / "node"
    program = str(own) if own.exists() else shutil.which("node") or "node"
    return Told([program, "--input-type=module", "-", *arguments], HERE / "npm" / script, NPM)
