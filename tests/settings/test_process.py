"""Settings of the process: from the environment, all problems at once, near misses told."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway import process
from gateway.process import Process, child_environment, load


def test_nothing_set_gives_the_defaults() -> None:
    assert load({}) == (Process(), [])


def test_variables_are_read_and_empty_ones_ignored() -> None:
    found, problems = load(
        {"GATEWAY_DATA_DIR": "/data", "GATEWAY_PORT": "0", "GATEWAY_LOG_LEVEL": "DEBUG", "GATEWAY_HOST": ""}
    )
    assert problems == []
    assert found == Process(data_dir=Path("/data"), port=0, log_level="debug")


def test_all_wrong_values_are_told_without_repeating_them() -> None:
    found, problems = load({"GATEWAY_PORT": "hunter2", "GATEWAY_PUBLIC_URL": "ftp://hunter2"})
    assert found is None
    assert len(problems) == 2
    assert not any("hunter2" in str(problem) for problem in problems)


def test_a_misspelt_variable_is_a_warning() -> None:
    found, (problem,) = load({"GATEWAY_DATADIR": "/data"})
    assert found is not None
    assert problem.mend == "Did you mean GATEWAY_DATA_DIR?"


def test_variables_of_manifests_are_left_alone() -> None:
    assert load({"GATEWAY_GIT_SERVER": "x", "GATEWAY_GIT_REPOSITORY": "y", "GATEWAY_TEST_STRICT": "1"})[1] == []


@pytest.mark.parametrize("name", ["GATEWAY_DATABASE_URL", "GATEWAY_REDIS_URL", "GATEWAY_OPA_URL"])
def test_engines_that_are_not_there_yet_are_refused_not_ignored(name: str) -> None:
    assert load({name: "x"})[0] is None


def test_every_field_has_a_variable() -> None:
    assert {process.variable(name) for name in Process.model_fields} >= {
        "GATEWAY_DATA_DIR",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    }


def test_children_get_no_secret_of_ours() -> None:
    assert child_environment({"PATH": "/bin", "HOME": "/h", "OPENAI_API_KEY": "s"}) == {"PATH": "/bin", "HOME": "/h"}
