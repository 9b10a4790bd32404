"""What `make run` prints."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

from gateway.quickstart import note
from gateway.quickstart.page import page as page_of


def page(data_dir: str) -> str:
    return page_of("http://127.0.0.1:1", "key", "link", Path(data_dir))


def test_the_trail_commands_name_a_data_directory_that_is_not_the_default() -> None:
    assert "gateway audit query; .venv/bin/gateway audit verify\n" in page("var")
    told = page("/tmp/my var")
    assert (
        "gateway audit query --data-dir '/tmp/my var'; .venv/bin/gateway audit verify --data-dir '/tmp/my var'\n"
        in told
    )


def test_of_replicas_they_are_told_all_of_the_environment_first(tmp_path: Path) -> None:
    """Pasted into a shell, they run with it, whatever the folder is called."""
    folder = tmp_path / "my var"
    folder.mkdir()
    url = "postgresql://gateway:secret@127.0.0.1:1/gateway?a=b&c=$d"
    given = {"GATEWAY_DATA_DIR": str(folder / "gateway-1"), "GATEWAY_DATABASE_URL": url}
    note.write(folder, given)
    assert note.read(folder) == given
    told = page_of("http://127.0.0.1:1", "key", "link", folder / "gateway-1", environment=folder / note.NAME)
    (line,) = [line for line in told.splitlines() if "audit verify" in line]
    commands = line.partition("in the trail: ")[2]
    assert commands.endswith("; .venv/bin/gateway audit query; .venv/bin/gateway audit verify")
    program = tmp_path / ".venv" / "bin" / "gateway"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\necho "$*: $GATEWAY_DATA_DIR $GATEWAY_DATABASE_URL"\n')
    program.chmod(0o755)
    said = subprocess.run(["sh", "-c", commands], cwd=tmp_path, env={}, capture_output=True, text=True, check=True)
    assert said.stdout.splitlines() == [
        f"audit {command}: {folder / 'gateway-1'} {url}" for command in ("query", "verify")
    ]


def test_an_address_stands_in_the_note_as_it_is_for_scripts_that_read_it_without_a_shell(tmp_path: Path) -> None:
    console = "http://127.0.0.1:8080/console/login?token=abc_-"
    note.write(tmp_path, {"GATEWAY_CONSOLE": console, "GATEWAY_DATA_DIR": "a b"})
    lines = (tmp_path / note.NAME).read_text().splitlines()
    assert lines == [f"GATEWAY_CONSOLE={console}", "GATEWAY_DATA_DIR='a b'", "export GATEWAY_DATA_DIR='a b'"]
    assert note.read(tmp_path)["GATEWAY_DATA_DIR"] == "a b"
    sourced = f". {shlex.quote(str(tmp_path / note.NAME))}; env | grep -c ^GATEWAY_; env | grep ^GATEWAY_DATA_DIR="
    said = subprocess.run(
        ["sh", "-c", sourced], capture_output=True, text=True, check=True, env={"PATH": os.environ["PATH"]}
    )
    assert said.stdout.split("\n")[:2] == ["1", "GATEWAY_DATA_DIR=a b"]


def test_a_shell_that_sourced_the_replicas_note_is_known(tmp_path: Path) -> None:
    one = tmp_path / "replicas" / "gateway-1"
    one.mkdir(parents=True)
    assert note.replicas_of(one) is None
    note.write(one.parent, {"GATEWAY_DATA_DIR": str(one), "GATEWAY_DATABASE_URL": "postgresql://x"})
    assert note.replicas_of(one) == one.parent
    assert note.replicas_of(one.parent) is None


def test_the_first_block_of_the_readme_can_be_pasted_whole() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    blocks = [block.splitlines() for block in re.findall(r"```bash\n(.*?)```", readme, re.DOTALL)]
    assert blocks[0] == ["make run"]
    serving = ("make run", "make replicas")
    assert not [block for block in blocks if len(block) > 1 and any(line.startswith(serving) for line in block)]
