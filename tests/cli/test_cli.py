from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cli import run
from gateway.commands.reference import cli_markdown, commands, error_codes_markdown

from ..gateway_house import CONFIG, ROOT

COMMANDS = dict(commands())


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_has_help_with_an_example(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*path.split()[1:], "--help"]) == 0
    out = capsys.readouterr().out
    assert "Example:" in out
    assert f"{path} " in out.partition("Example:")[2] or out.partition("Example:")[2].split("\n")[1].strip() == path


@pytest.mark.parametrize("path", [one for one in COMMANDS if one.split()[1] not in ("serve", "quickstart")])
def test_every_command_speaks_json(path: str) -> None:
    assert "--json" in {name for parameter in COMMANDS[path].params for name in parameter.opts}


def test_the_commands_of_the_contract_are_there() -> None:
    wanted = (
        "serve check migrate login status healthcheck quickstart|agents create list show suspend resume rotate-key"
        "|people add update list remove|policy check test explain|audit query show verify checkpoint|tools list inspect"
    )
    top, *groups = wanted.split("|")
    names = [f"gateway {name}" for name in top.split()]
    for one in groups:
        group, *inner = one.split()
        names += [f"gateway {group} {name}" for name in inner]
    assert set(names) <= set(COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nothing"], 2, "No such command 'nothing'."),
        (["agents", "shw"], 2, "Did you mean 'show'?"),
        (["agents", "show"], 2, "Missing argument 'AGENT'."),
        (["status", "--nope"], 2, "No such option"),
        (["agents", "list", "--limit", "0"], 2, "--limit"),
        (["serve", "--workers", "2"], 2, "PostgreSQL"),
        (["agents", "create", "x", "--owner", "dana"], 2, "name=value"),
        (["agents", "rotate-key", "x", "--overlap", "soon"], 2, "duration"),
        (["policy", "explain"], 2, "--agent"),
        (["policy", "explain", "--agent", "a", "--target", "t", "--arguments", "{"], 2, "not JSON"),
        (["audit", "verify", "--data-dir", "/nonexistent"], 2, "--data-dir"),
        (["status"], 1, "gateway serve"),
        (["healthcheck"], 1, "gateway serve"),
        (["serve", "--config", "/nonexistent.yaml"], 1, "nonexistent.yaml"),
    ],
)
def test_errors_are_a_sentence_on_standard_error_with_the_mend(
    arguments: list[str],
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GATEWAY_DATA_DIR", str(tmp_path / "var"))
    assert run(arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("gateway: ")
    assert said in captured.err
    assert "Traceback" not in captured.err


def test_a_fault_of_ours_does_not_tell_what_it_was_about(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text of an exception may quote a key or a password."""

    def faulty(*_: object) -> None:
        raise ValueError("sk-secret")

    monkeypatch.setattr("gateway.store.schema.migrate", faulty)
    monkeypatch.delenv("GATEWAY_LOG_LEVEL", raising=False)
    assert run(["migrate", "--data-dir", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert "A fault of the gateway (ValueError)" in captured.err
    assert "sk-secret" not in captured.out + captured.err


def test_a_gateway_that_is_gone_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gateway.json").write_text('{"url": "http://127.0.0.1:9", "pid": 1}')
    (tmp_path / "operator.token").write_text("agp_x")
    assert run(["status", "--data-dir", str(tmp_path)]) == 1
    assert "does not answer" in capsys.readouterr().err
    (tmp_path / "gateway.json").write_text("{")
    assert run(["status", "--data-dir", str(tmp_path)]) == 1
    assert "cannot be read" in capsys.readouterr().err


def test_migrate_makes_the_schema_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["migrate", "--json", "--data-dir", str(tmp_path / "var")]
    assert run(arguments) == 0
    assert json.loads(capsys.readouterr().out)["changed"] is True
    assert run(arguments) == 0
    assert json.loads(capsys.readouterr().out)["changed"] is False


def test_help_does_not_wait_for_what_it_does_not_need() -> None:
    heavy = "fastapi httpx sqlalchemy sqlmodel pydantic litellm jinja2 uvicorn alembic regorus msgspec"
    code = (
        "import sys; from gateway.cli import run; run(['--help']); "
        f"sys.exit(str([m for m in {heavy.split()!r} if m in sys.modules] or ''))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert ended.stderr.strip() == ""


@pytest.mark.parametrize(("name", "made"), [("cli.md", cli_markdown), ("error-codes.md", error_codes_markdown)])
def test_the_reference_is_equal_to_the_code(name: str, made: object) -> None:
    assert callable(made)
    assert (ROOT / "docs" / "reference" / name).read_text() == made(), "run python -m gateway.commands.reference"


async def test_serve_tells_where_it_is_and_stops_cleanly_at_sigterm(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text(CONFIG)
    (tmp_path / "tools_registry").mkdir()
    (tmp_path / "policies").symlink_to(ROOT / "policies")
    env = {**os.environ, "GATEWAY_DATA_DIR": str(tmp_path / "var"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "gateway.cli"]
    serving = await asyncio.create_subprocess_exec(
        *command, "serve", "--port", "0", env=env, cwd=tmp_path, stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(60):
            while not (tmp_path / "var" / "gateway.json").exists():
                assert serving.returncode is None
                await asyncio.sleep(0.05)
            while True:
                asked = await asyncio.create_subprocess_exec(
                    *command, "healthcheck", env=env, cwd=tmp_path, stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.DEVNULL,
                )  # fmt: skip
                if await asked.wait() == 0:
                    break
        serving.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(serving.wait(), 30) == 0
    finally:
        if serving.returncode is None:
            serving.kill()
            await serving.wait()
    assert not (tmp_path / "var" / "gateway.json").exists()
    assert run(["audit", "verify", "--data-dir", str(tmp_path / "var")]) == 0


def test_what_migrate_writes_is_closed_to_others_and_check_warns_of_a_folder_that_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gateway.yaml").write_text(CONFIG)
    (tmp_path / "tools_registry").mkdir()
    (tmp_path / "policies").symlink_to(ROOT / "policies")
    data = tmp_path / "var"
    data.mkdir()
    data.chmod(0o755)
    before = os.umask(0o022)
    try:
        assert run(["migrate", "--data-dir", str(data)]) == 0
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o077 for file in data.iterdir()} == {0}
    monkeypatch.setenv("GATEWAY_DATA_DIR", str(data))
    check = ["check", "--config", str(tmp_path / "gateway.yaml")]
    assert run(check) == 0
    assert "open to other users" in capsys.readouterr().out
    data.chmod(0o700)
    assert run(check) == 0
    assert "open to other users" not in capsys.readouterr().out
