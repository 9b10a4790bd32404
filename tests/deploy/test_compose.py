"""docker-compose.yml and the Dockerfile: by the schema of Compose, and by what we promise of them.

No container engine runs here, so nothing is built; what they start is started as processes by tests/quickstart.
"""

from __future__ import annotations

import importlib.resources
import json
import os
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import psycopg
import pytest
import yaml

from gateway import settings
from gateway.config import Config
from gateway.doors.hosts import Hosts
from gateway.identity.console_site import ConsoleSite
from gateway.process import Process, load, variable
from gateway.quickstart.servers import PostgresServer, find_postgres
from gateway.telemetry import settings as telemetry
from tests.servers import missing

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
INSTRUCTIONS = [
    (match[1], " ".join(match[2].replace("\\\n", " ").split()))
    for match in re.finditer(r"^([A-Z]+) ((?:[^\n\\]|\\.|\\\n)+)$", DOCKERFILE, re.MULTILINE)
]


def said(instruction: str) -> list[str]:
    """What the final stage says with an instruction."""
    last = max(index for index, (name, _) in enumerate(INSTRUCTIONS) if name == "FROM")
    return [text for name, text in INSTRUCTIONS[last:] if name == instruction]


def test_it_is_a_compose_file() -> None:
    vendor = importlib.resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    schema = json.loads(vendor.read_text())
    jsonschema.validators.validator_for(schema)(schema).validate(COMPOSE)


def test_it_has_what_the_gateway_stands_on_and_what_watches_it() -> None:
    assert set(SERVICES) == {
        *("balancer", "migrate", "gateway-1", "gateway-2", "postgres", "redis", "opa"),
        *("otel-collector", "prometheus", "grafana"),
    }


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_closed(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert set(service.get("cap_add", [])) <= {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"}
    assert ("cap_add" in service) == (name == "postgres")


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_has_a_version(name: str) -> None:
    _, _, tag = SERVICES[name]["image"].partition(":")
    assert re.match(r"v?\d+\.\d+", tag), SERVICES[name]["image"]


def test_opas_image_is_the_version_that_the_tests_compare_with() -> None:
    built = re.search(r"opa@v([\d.]+)", (ROOT / "Makefile").read_text())
    assert built is not None
    assert SERVICES["opa"]["image"] == f"openpolicyagent/opa:{built[1]}-static"


@pytest.mark.parametrize("name", ["migrate", "gateway-1", "gateway-2"])
def test_our_own_image_is_built_and_looked_for_nowhere(name: str) -> None:
    assert (SERVICES[name]["image"], SERVICES[name]["build"]) == (SERVICES["migrate"]["image"], ".")


@pytest.mark.parametrize("name", ["migrate", "gateway-1", "gateway-2"])
def test_gateways_are_told_what_exists(name: str) -> None:
    service = SERVICES[name]
    ours = {name for name in service["environment"] if not name.startswith("OTEL_")}
    assert ours <= {variable(field) for field in Process.model_fields}
    assert telemetry.read(service["environment"])  # raises for what it does not understand
    own = {"CONFIG", "DATA_DIR", "HOST", "PORT"}
    assert {f"GATEWAY_{one}" for one in own} == set(re.findall(r"GATEWAY_[A-Z_]+", " ".join(said("ENV"))))
    for volume in service["volumes"]:
        source, target, *_ = volume.split(":")
        assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]
        assert target.startswith(("/etc/gateway", "/var/lib/gateway"))
    writable = {volume.split(":")[1] for volume in service["volumes"] if not volume.endswith(":ro")}
    assert writable == {"/var/lib/gateway-keys"} if name == "migrate" else {"/var/lib/gateway"}


def test_replicas_share_everything_but_their_data_directory() -> None:
    one, two = ({**SERVICES[f"gateway-{number}"]} for number in (1, 2))
    assert [volume.replace("gateway-1", "gateway-2") for volume in one.pop("volumes")] == two.pop("volumes")
    assert one == two


def test_replicas_start_after_the_schema_and_have_their_grace() -> None:
    service = SERVICES["gateway-1"]
    assert service["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    assert SERVICES["migrate"]["command"] == ["migrate"]
    assert SERVICES["migrate"]["restart"] == "no"
    grace_s = Config(version=1, models=()).server.shutdown_grace_s
    for name in ("gateway-1", "gateway-2", "balancer"):
        assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) > grace_s
    assert service["healthcheck"]["test"][1:] == json.loads(said("HEALTHCHECK")[0].partition("CMD ")[2])


def test_what_is_mounted_and_what_is_secret_is_there(tmp_path: Path) -> None:
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], (name, volume)
        assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"])
        assert set(service["networks"]) <= set(COMPOSE["networks"])
    secrets = made_secrets(tmp_path)
    for secret in COMPOSE["secrets"].values():
        assert Path(secret["file"]).name in secrets
    for path in re.findall(r"/run/secrets/(\w+)", "".join(file.read_text() for file in mounted())):
        assert path in COMPOSE["secrets"] or path == "openai_api_key"


def mounted() -> list[Path]:
    """The files beside the Compose file, which it mounts."""
    return [
        ROOT / "docker-compose.yml",
        *(file for file in DEPLOY.rglob("*") if file.suffix in (".yaml", ".conf", ".sh")),
    ]


def made_secrets(folder: Path) -> dict[str, str]:
    """What deploy/make-secrets.sh makes."""
    script = folder / "make-secrets.sh"
    script.write_bytes((DEPLOY / "make-secrets.sh").read_bytes())
    subprocess.run(["sh", str(script)], check=True, capture_output=True)
    return {file.name: file.read_text() for file in (folder / "secrets").iterdir()}


def test_secrets_are_made_once_and_are_nobodys_guess(tmp_path: Path) -> None:
    first = made_secrets(tmp_path)
    assert made_secrets(tmp_path) == first
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    for name in ("postgres_password", "gateway_database_password", "opa_bundle_token", "grafana_password"):
        assert re.fullmatch(r"[0-9a-f]{64}", first[name])
    assert re.fullmatch(r"requirepass [0-9a-f]{64}", first["redis_auth"])
    assert len(set(first.values())) == len(first)
    assert first["database_url"].endswith(f":{first['gateway_database_password']}@postgres:5432/gateway")
    assert first["redis_url"].endswith(f":{first['redis_auth'].split()[1]}@redis:6379/0")
    found, problems = load(
        {f"GATEWAY_{name.upper()}": f"file:{tmp_path / 'secrets' / name}" for name in ("database_url", "redis_url")}
    )
    assert not problems
    assert found is not None
    assert found.is_scaled


def test_no_password_stands_in_a_file() -> None:
    for file in mounted():
        for line in file.read_text().splitlines():
            if re.search(r"passw|token|secret", line, re.IGNORECASE) and not line.lstrip().startswith("#"):
                assert not re.search(r"[0-9a-f]{16,}|: *['\"]?(admin|postgres|changeme|password)['\"]?$", line), line
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert "deploy/secrets/" in ignored


def test_only_the_balancer_is_published_beyond_this_machine_if_at_all() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"balancer", "prometheus", "grafana"}
    for ports in published.values():
        assert all(port.startswith(("127.0.0.1:", "${PUBLISH_ADDRESS:-127.0.0.1}:")) for port in ports)
    assert COMPOSE["networks"]["data"] == {"internal": True}
    for name in ("postgres", "redis", "opa"):
        assert SERVICES[name]["networks"] == ["data"]


def test_the_configuration_is_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (DEPLOY / "gateway.yaml").read_text()
    token = tmp_path / "token"
    token.write_text("x" * 64)
    for folder in ("policies", "tools_registry"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    file = tmp_path / "gateway.yaml"
    file.write_text(text.replace("/run/secrets/opa_bundle_token", str(token)))
    config, problems = settings.load(file, {})
    assert config is not None, problems
    assert not problems


def test_the_databases_role_is_made_as_the_script_says(tmp_path: Path) -> None:
    if find_postgres() is None:
        missing("PostgreSQL is not installed (Debian: postgresql)")
    secret = tmp_path / "secret"
    secret.write_text("quo'ted")
    script = tmp_path / "init.sh"
    text = (DEPLOY / "postgres-init.sh").read_text()
    script.write_text(text.replace("/run/secrets/gateway_database_password", str(secret)))
    with PostgresServer(tmp_path / "postgres", durable=False) as server:
        with psycopg.connect(server.admin_url, autocommit=True) as admin:
            admin.execute("DROP DATABASE gateway")
            admin.execute("DROP ROLE gateway")
            at = admin.info
            environment = {"PGHOST": at.host, "PGPORT": str(at.port), "PGPASSWORD": at.password}
        given = os.environ | environment | {"POSTGRES_USER": "postgres"}
        done = subprocess.run(["sh", str(script)], env=given, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        with psycopg.connect(server.url, password="quo'ted") as client:
            client.execute("CREATE TABLE mine (value int)")
            row = client.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()
            assert row == (False,)


# ---------------------------------------------------------------- the Dockerfile


def test_images_it_is_built_from_have_a_version() -> None:
    bases = [text.split()[0] for name, text in INSTRUCTIONS if name == "FROM"]
    assert len(bases) == 2
    assert all(re.fullmatch(r"python:3\.1\d\.\d+-slim-bookworm", base) for base in bases)
    lowest = re.search(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert lowest is not None
    assert all(base.startswith(f"python:{lowest[1]}.") for base in bases)


def test_the_image_runs_as_a_fixed_user_without_rights_and_looks_after_its_health() -> None:
    assert said("USER") == ["10001:10001"]
    assert json.loads(said("ENTRYPOINT")[0]) == ["gateway"]
    assert json.loads(said("CMD")[0]) == ["serve"]
    assert json.loads(said("HEALTHCHECK")[0].partition("CMD ")[2])[:2] == ["gateway", "healthcheck"]
    assert said("STOPSIGNAL") == ["SIGTERM"]
    assert said("VOLUME") == ["/var/lib/gateway"]
    names = {label.partition("=")[0] for label in re.findall(r"[\w.]+=", said("LABEL")[0])}
    assert {"org.opencontainers.image.licenses", "org.opencontainers.image.version"} <= names
    version = re.search(r'^version = "([^"]+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert f'image.version="{version[1]}"' in said("LABEL")[0]
    assert SERVICES["gateway-1"]["image"].endswith(f":{version[1]}")


def test_everything_is_installed_by_its_hash_and_nothing_builds_in_the_end() -> None:
    runs = [text for name, text in INSTRUCTIONS if name == "RUN"]
    installs = [part for run in runs for part in run.split("&&") if re.search(r"pip install", part)]
    assert all("--require-hashes" in one or "--no-deps --no-build-isolation" in one for one in installs)
    assert "pip uninstall hatchling editables trove-classifiers pluggy pathspec" in " ".join(runs)
    assert "python -m pip uninstall" in " ".join(said("RUN"))


def test_what_the_image_is_made_of_is_let_in_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    let_in = {line[1:] for line in lines if line.startswith("!")}
    assert lines[1] == "*"
    assert all((ROOT / path).exists() for path in let_in)
    copied = [text for name, text in INSTRUCTIONS if name == "COPY" and not text.startswith("--from")]
    sources = {word for text in copied for word in text.split()[:-1]}
    assert sources == let_in


def test_the_gateways_answer_to_the_names_by_which_their_neighbours_call_them() -> None:
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    called = [target for job in scraped for static in job["static_configs"] for target in static["targets"]]
    fetched = yaml.safe_load((DEPLOY / "opa.yaml").read_text())["services"]["gateway"]["url"]
    environment = SERVICES["gateway-1"]["environment"]
    hosts = Hosts(bound_host="0.0.0.0", allowed=environment["GATEWAY_ALLOWED_HOSTS"].split(","))
    for host in [*called, fetched.removeprefix("http://"), "gateway-2:8080"]:
        assert hosts.refusal([(b"host", host.encode())]) is None, host


def test_the_console_of_the_published_address_has_a_host_of_its_own() -> None:
    default = SERVICES["gateway-1"]["environment"]["GATEWAY_PUBLIC_URL"].partition(":-")[2].rstrip("}")
    site = ConsoleSite.of(public_url=default, console_host=None, port=8080, secret=b"k" * 32)
    assert site.shares_host is None
    assert site.base.endswith(".localhost:8080")
