"""The quickstart's ledger as a process of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway import environment
from gateway.quickstart.ledger_child import ledger


def test_the_ledger_gets_its_token_and_no_other_secret_or_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEDGER_TOKEN", "not-its-own")
    monkeypatch.setenv("OPENAI_API_KEY", "not-its-own")
    (tmp_path / "json.py").write_text("raise SystemExit('imported from where it was started')")
    monkeypatch.chdir(tmp_path)
    given: list[dict[str, str]] = []
    popen = subprocess.Popen

    def watched(*args: Any, **options: Any) -> Any:
        given.append(options["env"])
        return popen(*args, **options)

    monkeypatch.setattr(subprocess, "Popen", watched)
    with ledger(tmp_path, "its-own") as url:
        assert url.startswith("http://127.0.0.1:")
        answers = [_status(url, token) for token in ("its-own", "not-its-own")]
        assert answers == [400, 401], "with its own token it reads the request, which is empty"
    assert set(given[0]) <= {environment.PIPE, "PATH", "HOME"}
    assert "its-own" not in given[0].values()


def _status(url: str, token: str) -> int:
    headers = {"authorization": f"Bearer {token}"}
    return httpx.post(url, headers=headers, trust_env=False, timeout=30).status_code
