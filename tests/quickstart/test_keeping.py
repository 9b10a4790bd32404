"""Servers that are started again: each by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.quickstart.child import START_S, Server, free_port
from gateway.quickstart.keeping import Keeping


class Sleeper(Server):
    """A program that does nothing, and answers when told to."""

    def __init__(self, folder: Path, name: str, command: str = "exec sleep 600") -> None:
        self.name = name
        super().__init__(folder, port=free_port())
        self.is_up = True
        self.command = command

    def _prepare(self) -> list[str]:
        return ["/bin/sh", "-c", self.command]

    def answers(self) -> bool:
        return self.is_up and self.runs


class Watch:
    """A clock that is set by hand, and what was said."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.said: list[str] = []

    def keeping(self, *servers: Server) -> Keeping:
        return Keeping(servers, now_s=lambda: self.now_s, say=self.said.append)

    def heard(self) -> list[str]:
        said = list(self.said)
        self.said.clear()
        return said


@pytest.fixture
def watch() -> Watch:
    return Watch()


def test_what_runs_is_left_alone(tmp_path: Path, watch: Watch) -> None:
    with Sleeper(tmp_path, "One") as one:
        pid = one.pid
        watch.keeping(one).look()
        assert (one.pid, watch.heard()) == (pid, [])


def test_one_that_does_not_come_up_holds_up_no_other(tmp_path: Path, watch: Watch) -> None:
    with Sleeper(tmp_path / "1", "One") as one, Sleeper(tmp_path / "2", "Two") as two:
        keeping = watch.keeping(one, two)
        one.kill()
        one.is_up = False
        keeping.look()
        assert watch.heard() == ["One ended; starting it again."]
        two.kill()
        keeping.look()
        keeping.look()
        assert watch.heard() == ["Two ended; starting it again.", "Two answers again."]
        one.is_up = True
        keeping.look()
        assert watch.heard() == ["One answers again."]


def test_one_that_never_answers_is_ended_and_tried_again_later(tmp_path: Path, watch: Watch) -> None:
    with Sleeper(tmp_path, "One") as one:
        keeping = watch.keeping(one)
        one.kill()
        one.is_up = False
        keeping.look()
        watch.now_s += START_S
        keeping.look()
        assert watch.heard()[1].startswith("One did not answer within 60 s; ")
        assert not one.runs
        keeping.look()
        assert not one.runs, "not at once"
        watch.now_s += 5.0
        one.is_up = True
        keeping.look()
        keeping.look()
        assert watch.heard() == ["One ended; starting it again.", "One answers again."]


def test_one_that_ends_while_it_starts_says_why_and_is_tried_again_later(tmp_path: Path, watch: Watch) -> None:
    with Sleeper(tmp_path, "One") as one:
        keeping = watch.keeping(one)
        one.kill()
        one.command = "echo no such setting >&2; exit 3"
        keeping.look()
        assert one._child is not None
        one._child.wait(30)
        keeping.look()
        assert "One ended while it started; " in watch.said[1]
        assert "no such setting" in watch.said[1]
        watch.now_s += 5.0
        one.command = "exec sleep 600"
        keeping.look()
        keeping.look()
        assert watch.heard()[-1] == "One answers again."
