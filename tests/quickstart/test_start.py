"""The quickstart's ledger as a process of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

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
    assert given[0].items() >= {"LEDGER_TOKEN": "its-own"}.items()
    assert set(given[0]) <= {"LEDGER_TOKEN", "PATH", "HOME"}
