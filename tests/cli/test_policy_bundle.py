"""`gateway policy bundle` needs no running gateway, and writes nothing that the gateway would not put in force."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from gateway.cli import run
from gateway.policy import load
from tests.gateway_house import CONFIG, ROOT


def test_the_bundle_is_that_of_the_folder_or_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, output = tmp_path / "gateway.yaml", tmp_path / "bundle.tar.gz"
    config.write_text(CONFIG)
    (tmp_path / "tools_registry").mkdir()
    shutil.copytree(ROOT / "policies", tmp_path / "policies")
    command = ["policy", "bundle", "--config", str(config), "-o", str(output)]
    assert run([*command, "--json"]) == 0
    engine, _ = load(tmp_path / "policies")
    assert engine is not None
    assert json.loads(capsys.readouterr().out)["revision"] == engine.revision
    assert output.read_bytes() == engine.bundle()
    output.unlink()
    (tmp_path / "policies" / "broken.rego").write_text("package gateway\n\nallow if {")
    assert run(command) == 1
    assert "broken.rego:3" in capsys.readouterr().err
    assert not output.exists()
    (tmp_path / "policies" / "broken.rego").unlink()
    assert run([*command[:-1], str(tmp_path)]) == 1
    assert "cannot be written" in capsys.readouterr().err
