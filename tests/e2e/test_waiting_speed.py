"""How long an agent waits once the person has decided: the bench's own figure, held to its bound."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.e2e.gateway_process import ROOT


@pytest.mark.drill
@pytest.mark.timeout(180)
def test_an_agent_hears_of_the_vote_within_100_ms_while_a_thousand_cases_are_open() -> None:
    command = [sys.executable, "-m", "bench.approvals", "--open", "1000", "--votes", "60"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["open_cases"] == 1000
    assert figures["approve_ms"]["n"] + figures["deny_ms"]["n"] == 60
