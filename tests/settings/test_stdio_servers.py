"""What `gateway check` finds about tool servers that the gateway runs: what they would get, and what can't be confined."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway import settings
from gateway.catalog.registry import read_registry
from gateway.process import Process
from gateway.stdio_servers import guarded, problems
from gateway.upstreams.confinement.support import Support

FULL = Support(7, None)
NONE = Support(0, "only Linux has Landlock")

CONFIG = """\
version: 1
providers: {{up: {{type: openai, api_key: "file:{0}/secrets/up"}}}}
tool_registry: registry
policy: {{path: policies}}
{1}
"""
MANIFEST = """\
version: 1
server: s
owner: dana
transport:
  type: stdio
  command: [server, "{0}"]
  env: {{TOKEN: "file:{1}/secrets/own"}}
{2}
"""


def found(
    folder: Path, transport: str, *, config: str = "", word: str = "--serve", support: Support = FULL
) -> list[str]:
    """Line, severity and sentence of each problem of one manifest."""
    for name in ("registry", "policies", "secrets", "var", "work"):
        (folder / name).mkdir(exist_ok=True)
    for name in ("up", "own"):
        (folder / "secrets" / name).write_text("secret")
    (folder / "gateway.yaml").write_text(CONFIG.format(folder, config))
    (folder / "registry" / "s.yaml").write_text(MANIFEST.format(word, folder, transport))
    loaded, wrong = settings.load(folder / "gateway.yaml")
    assert loaded is not None, wrong
    manifests, wrong = read_registry(loaded.tool_registry)
    assert manifests is not None, wrong
    process = Process(data_dir=folder / "var", config=folder / "gateway.yaml")
    return [f"{one.line} {one.severity}: {one.message}" for one in problems(process, loaded, support)]


def test_what_is_sound_has_no_problem(tmp_path: Path) -> None:
    assert found(tmp_path, "  cwd: ../work\n  paths: {read: [../work], write: [../work]}") == []


@pytest.mark.parametrize(
    ("transport", "line", "sentence"),
    [
        ("  cwd: ..", 8, "contains"),
        ("  cwd: ../var", 8, "which holds secrets of the gateway"),
        ("  paths:\n    read: [../work, ../secrets]", 9, "which holds secrets of the gateway"),
        ("  paths:\n    write:\n      - /\n", 10, "contains"),
        ("  paths: {write: [../registry]}", 8, "could change what confines it"),
        ("  paths: {write: [../policies]}", 8, "could change what confines it"),
        ("  paths: {read: [../absent]}", 8, "does not exist"),
        ("  user: nobody-of-that-name", 8, "This system has no user nobody-of-that-name."),
    ],
)
def test_what_would_give_secrets_away_is_an_error_at_its_line(
    tmp_path: Path, transport: str, line: int, sentence: str
) -> None:
    (problem,) = found(tmp_path, transport)
    assert problem.startswith(f"{line} error: ")
    assert sentence in problem


def test_a_path_may_be_a_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPOSITORY", str(tmp_path / "var" / "deep"))
    (tmp_path / "var" / "deep").mkdir(parents=True)
    (problem,) = found(tmp_path, '  paths: {write: ["env:REPOSITORY"]}')
    assert "is in" in problem
    monkeypatch.setenv("REPOSITORY", str(tmp_path / "work"))
    assert found(tmp_path, '  paths: {write: ["env:REPOSITORY"]}') == []


def test_a_folder_in_the_command_that_the_server_may_not_use_is_a_warning(tmp_path: Path) -> None:
    word = str(tmp_path / "work")
    (problem,) = found(tmp_path, "", word=word)
    assert problem.startswith(f"6 warning: The command names the folder {word}")
    assert found(tmp_path, "  paths: {read: [../work]}", word=word) == []


def test_what_the_system_can_not_do_is_said_as_loud_as_it_was_asked_for(tmp_path: Path) -> None:
    (told,) = found(tmp_path, "", support=NONE)
    assert told == "4 warning: The tool server s can't be confined fully here: only Linux has Landlock."
    (told,) = found(tmp_path, "  confinement: required", support=NONE)
    assert "error" in told
    (told,) = found(tmp_path, "", config="stdio: {confinement: required}", support=NONE)
    assert "error" in told
    (told,) = found(tmp_path, "  confinement: off", support=NONE)
    assert "warning: The tool server s is not confined" in told


def test_a_manifest_can_not_take_back_what_the_settings_require(tmp_path: Path) -> None:
    (told,) = found(tmp_path, "  confinement: off", config="stdio: {confinement: required}")
    assert "has no effect" in told


def test_everything_secret_is_guarded_wherever_it_is_referred_to(tmp_path: Path) -> None:
    found(tmp_path, "")
    loaded, _ = settings.load(tmp_path / "gateway.yaml")
    assert loaded is not None
    manifests, _ = read_registry(loaded.tool_registry)
    assert manifests is not None
    process = Process(data_dir=tmp_path / "var", keys_dir=tmp_path / "keys", config=tmp_path / "gateway.yaml")
    environ = {"GATEWAY_DATABASE_URL": "file:/run/secrets/database", "GATEWAY_REDIS_URL": "redis://plain"}
    kept = guarded(process, loaded, manifests, common_dir=tmp_path / "common", environ=environ)
    secret = {tmp_path / name for name in ("var", "keys", "common", "secrets/up", "secrets/own")}
    assert set(kept.secret) == secret | {Path("/run/secrets/database")}
    assert set(kept.fixed) == {tmp_path / name for name in ("gateway.yaml", "registry", "policies")}
