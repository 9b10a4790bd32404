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


def test_what_a_quickstart_tells_scripts_is_no_misspelt_setting() -> None:
    assert load({"GATEWAY_URL": "http://x", "GATEWAY_KEY": "y", "GATEWAY_CONSOLE": "http://x/z"})[1] == []


def test_variables_of_manifests_are_left_alone() -> None:
    assert load({"GATEWAY_GIT_SERVER": "x", "GATEWAY_GIT_REPOSITORY": "y", "GATEWAY_TEST_STRICT": "1"})[1] == []


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"GATEWAY_DATABASE_URL": "postgresql://db/gateway"}, "GATEWAY_DATABASE_URL is set without GATEWAY_REDIS_URL."),
        ({"GATEWAY_REDIS_URL": "redis://cache"}, "GATEWAY_REDIS_URL is set without GATEWAY_DATABASE_URL."),
        (
            {"GATEWAY_DATABASE_URL": "mysql://db/x", "GATEWAY_REDIS_URL": "redis://cache"},
            "GATEWAY_DATABASE_URL is no address of that kind of server.",
        ),
    ],
)
def test_half_a_footing_is_refused(given: dict[str, str], told: str) -> None:
    found, problems = load(given)
    assert found is None
    assert told in [problem.message for problem in problems]


def test_engines_are_named_by_address_and_their_secrets_are_not_shown() -> None:
    given = {
        "GATEWAY_DATABASE_URL": "postgresql://gateway:hush-hush@db/gateway",
        "GATEWAY_REDIS_URL": "redis://:hush-hush@cache",
    }
    found, problems = load(given)
    assert found is not None
    assert not problems
    assert found.is_scaled
    assert "hush" not in repr(found)
    assert load({"GATEWAY_OPA_URL": "not an address"})[0] is None


def test_every_field_has_a_variable() -> None:
    assert {process.variable(name) for name in Process.model_fields} >= {
        "GATEWAY_DATA_DIR",
        "OTEL_SERVICE_NAME",
    }


def test_children_get_no_secret_of_ours() -> None:
    assert child_environment({"PATH": "/bin", "HOME": "/h", "OPENAI_API_KEY": "s"}) == {"PATH": "/bin", "HOME": "/h"}


@pytest.mark.parametrize("host", ["127.0.0.1", "LOCALHOST", "127.0.0.9", "[::1]"])
def test_a_console_that_shares_its_host_is_told_of(host: str) -> None:
    found, (problem,) = load({"GATEWAY_CONSOLE_HOST": host})
    assert found is not None
    assert (problem.severity, "every port of this machine" in problem.message) == ("warning", True)
    assert load({"GATEWAY_CONSOLE_HOST": host, "GATEWAY_PUBLIC_URL": "http://127.0.0.1:1"})[1] == [problem]
    assert load({"GATEWAY_CONSOLE_HOST": "gateway.internal"})[1] == []


def test_a_console_host_beside_a_public_url_has_no_effect() -> None:
    _, (problem,) = load({"GATEWAY_CONSOLE_HOST": "127.0.0.1", "GATEWAY_PUBLIC_URL": "https://gate.example"})
    assert (problem.severity, "no effect" in problem.message) == ("warning", True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("GATEWAY_ALLOWED_HOSTS", value) for value in ("http://a", "a:80", "a/b", "*", "a.*", "a b", "*.*.b")),
        *(("GATEWAY_CONSOLE_HOST", value) for value in ("127.0.0.1:8080", "http://x", "a,b", "")),
        *(("GATEWAY_PUBLIC_URL", value) for value in ("http://:80", "http://host:99999", "http://host:x")),
    ],
)
def test_names_of_hosts_are_names_only(name: str, value: str) -> None:
    found, problems = load({name: value})
    assert (found is None) == bool(value)
    assert [name in str(problem) for problem in problems] == [True] * bool(value)


def test_allowed_hosts_are_a_list() -> None:
    found, _ = load({"GATEWAY_ALLOWED_HOSTS": "gateway-1, *.Example.com,[fd00::1], 10.0.0.1,"})
    assert found is not None
    assert found.allowed_names == ("gateway-1", "*.Example.com", "[fd00::1]", "10.0.0.1")
