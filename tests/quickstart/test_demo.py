"""`make demo`, played by the official SDKs against a gateway of its own and against one that runs."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SDK = ROOT / ".venv-sdk" / "bin" / "python"
COMMAND = Path(sys.executable).parent / "gateway"
STORY = [
    ("read the balance", "allow"),
    ("ask the model", "allow"),
    ("ask it, streaming", "allow"),
    ("a small transfer", "allow"),
    ("pay a stranger", "deny"),
    ("close the account", "deny"),
    ("a large transfer", "escalate"),
    ("a person approves", "approve"),
    ("the transfer runs", "allow"),
    ("the same call again", "escalate"),
    ("another large one", "escalate"),
    ("a person denies", "deny"),
    ("the agent is told", "deny"),
    ("verify the trail", "-"),
]


@pytest.fixture(autouse=True, scope="module")
def _sdks() -> None:
    if not SDK.exists():
        why = "the current SDKs are not installed: make .venv-sdk/.made"
        if os.environ.get("GATEWAY_TEST_STRICT") == "1":
            pytest.fail(why)
        pytest.skip(why)


def demo(data_dir: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [str(SDK), "-m", "gateway.quickstart.demo", "--gateway", str(COMMAND), *options]
    # As in a shell that sourced the environment of other replicas: the story must not verify their trail.
    of_others = {"GATEWAY_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "GATEWAY_KEYS_DIR": "/nonexistent"}
    environment = {**os.environ, **of_others, "GATEWAY_DATA_DIR": str(data_dir)}
    if (data_dir.parent / "scratch").is_dir():
        environment["TMPDIR"] = str(data_dir.parent / "scratch")
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=110, check=False)


def told(done: subprocess.CompletedProcess[str]) -> list[tuple[str, str]]:
    """The table's steps and decisions."""
    lines = done.stdout.splitlines()
    (at,) = [index for index, line in enumerate(lines) if line.startswith("STEP ")]
    columns = [lines[at].index(heading) for heading in ("STEP", "CLIENT", "DECISION", "RULE")]
    rows = [line for line in lines[at + 1 :] if line and not line.startswith("Everything")]
    return [(line[columns[0] : columns[1]].strip(), line[columns[2] : columns[3]].strip()) for line in rows]


@contextlib.contextmanager
def quickstart(data_dir: Path) -> Iterator[None]:
    """The quickstart as `make run` starts it, on a free port."""
    command = [str(COMMAND), "quickstart", "--port", "0", "--data-dir", str(data_dir)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        ready = threading.Event()

        def read(lines: Iterator[str]) -> None:
            for line in lines:
                if "Stop with Ctrl-C" in line:
                    ready.set()
            ready.set()

        reading = threading.Thread(target=read, args=(running.stdout,), daemon=True)
        reading.start()
        try:
            assert ready.wait(60)
            assert running.poll() is None, "the quickstart did not start"
            yield
        finally:
            running.terminate()
            running.wait(20)
            reading.join(5)


def balance(data_dir: Path) -> int:
    with contextlib.closing(sqlite3.connect(data_dir / "ledger.db")) as ledger:
        (cents,) = ledger.execute("SELECT balance_cents FROM account").fetchone()
    return int(cents)


@pytest.mark.timeout(240)  # three stories, each told by processes of its own
def test_the_story_plays_again_and_again_on_the_gateway_that_runs_and_on_its_own_once_the_money_is_low(
    tmp_path: Path,
) -> None:
    data_dir = tmp_path / "var"
    (tmp_path / "scratch").mkdir()
    with quickstart(data_dir):
        for left in (1_000_000 - 10_200, 1_000_000 - 2 * 10_200):
            done = demo(data_dir)
            assert done.returncode == 0, done.stdout + done.stderr
            assert told(done) == STORY
            assert "Everything is as told." in done.stdout
            assert balance(data_dir) == left
        with contextlib.closing(sqlite3.connect(data_dir / "ledger.db")) as ledger, ledger:
            ledger.execute("UPDATE account SET balance_cents = 500")
        done = demo(data_dir)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "holds 500 cents" in done.stdout
        assert told(done) == STORY
        assert balance(data_dir) == 500
    assert not list((tmp_path / "scratch").iterdir())


def test_what_is_not_as_told_ends_with_one_sentence_and_exit_code_1(tmp_path: Path) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text("version: 1\nmodels: wrong\n")
    done = demo(tmp_path / "nothing-here", "--config", str(config))

    assert done.returncode == 1
    assert done.stderr.startswith("demo: not as told. The demo's own gateway ended while it started. ")
    assert "models" in done.stderr
    assert len(done.stderr.splitlines()) == 1
