"""Settings of the process, from the environment: what cannot change while it runs.

The only reader of the environment beside `gateway/references.py`, and `gateway/environment.py`, which takes it out of
sight; the `Field` descriptions are the documentation.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from gateway import known_secrets
from gateway.documents import Problem, suggest
from gateway.host_names import host_name, is_loopback
from gateway.references import UnresolvedReference, resolve_text

PREFIX = "GATEWAY_"
_SECRETS = {"database_url", "redis_url"}  # which may be references too: file:/run/secrets/database-url
_PLAIN = {"service_name": "OTEL_SERVICE_NAME"}
_HOST_NAME = r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|\[[0-9A-Fa-f:.]+\]"
_FOR_SCRIPTS = {"GATEWAY_URL", "GATEWAY_KEY", "GATEWAY_CONSOLE"}
"""What a quickstart tells scripts about a gateway; near misses of settings by chance."""


class Process(BaseModel):
    """Process settings; each is an environment variable."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_dir: Path = Field(default=Path("var"), description="Holds everything the embedded default writes.")
    config: Path = Field(default=Path("gateway.yaml"), description="The configuration file.")
    host: str = Field(default="127.0.0.1", min_length=1, description="Address to listen on.")
    port: int = Field(default=8080, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    workers_port: int = Field(
        default=0,
        ge=0,
        le=65535,
        description="With `--workers`: each is reached by itself on 127.0.0.1, the first on this port, the others on"
        " those that follow; 0 takes free ones.",
    )
    public_url: str | None = Field(
        default=None, pattern=r"^https?://[^\s]+$", description="Where people and agents reach the gateway."
    )
    allowed_hosts: str = Field(
        default="",
        pattern=rf"^(\s*({_HOST_NAME})\s*(,|$))*$",
        description="Further names under which requests may come (their Host header), by comma: `gateway-1`,"
        " `*.example.com`. Without them: this machine, the bound address, the public URL's host; IP addresses where it"
        " listens to more than this machine.",
    )
    console_host: str | None = Field(
        default=None,
        pattern=rf"^({_HOST_NAME})$",
        description="The host under which people open the console, where there is no public URL or it is of this"
        " machine only. Absent: a random name below `localhost`, so that no other port of this machine gets its"
        " cookie; `127.0.0.1` gives that up, for browsers that can't open such names.",
    )
    database_url: SecretStr | None = Field(
        default=None,
        description="PostgreSQL, as postgresql://user:password@host/name or file:/path of a file that says so; absent: "
        "SQLite in the data directory.",
    )
    redis_url: SecretStr | None = Field(
        default=None,
        description="Redis, as redis://host:6379/0 or file:/path; with GATEWAY_DATABASE_URL, and only with it.",
    )
    opa_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s]+$",
        description="An OPA server that decides; absent: Rego in the process.",
    )
    keys_dir: Path | None = Field(
        default=None, description="Folder of the keys that all replicas share; absent: keys in the data directory."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least level logged.")
    service_name: str = Field(default="agent-governance-gateway", description="Name of the service in spans.")

    @field_validator("public_url")
    @classmethod
    def _is_url(cls, url: str | None) -> str | None:
        if url is not None and not (urlsplit(url).hostname and (urlsplit(url).port or 1)):
            raise ValueError("it names no host")
        return url

    @property
    def allowed_names(self) -> tuple[str, ...]:
        """`allowed_hosts` one by one."""
        return tuple(name.strip() for name in self.allowed_hosts.split(",") if name.strip())

    @property
    def is_scaled(self) -> bool:
        """Whether state is shared with other replicas (PostgreSQL and Redis), not held in the data directory."""
        return self.database_url is not None


def variable(field: str) -> str:
    """The environment variable of a field of `Process`."""
    return _PLAIN.get(field, PREFIX + field.upper())


def load(environ: Mapping[str, str] = os.environ) -> tuple[Process | None, list[Problem]]:
    """The process settings; None if one is wrong, and all problems found. Empty variables count as unset."""
    names = {variable(field): field for field in Process.model_fields}
    given = {field: environ[name] for name, field in names.items() if environ.get(name)}
    if "log_level" in given:
        given["log_level"] = given["log_level"].lower()
    problems: list[Problem] = []
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in names and name not in _FOR_SCRIPTS:
            # Manifests may refer to any variable, so only a near miss is worth a word.
            near = suggest(name.removeprefix(PREFIX), (known.removeprefix(PREFIX).lower() for known in names))
            if near is not None:
                mend = f"Did you mean {PREFIX}{near.upper()}?"
                problems.append(Problem("environment", 0, f"{name} means nothing.", mend, "warning"))
    for field in _SECRETS & given.keys():
        try:
            given[field] = resolve_text(given[field], environ)
        except UnresolvedReference as error:
            problems.append(Problem("environment", 0, f"{variable(field)}: {error}", "Correct it."))
            continue
        known_secrets.remember_url(variable(field), given[field])
        password = known_secrets.password_in(given[field])
        if password is not None and known_secrets.is_short(password):
            message = (
                f"The password in {variable(field)} has fewer than {known_secrets.LEAST_BYTES} bytes, which is too"
                " short to be redacted from answers, records and the log."
            )
            problems.append(Problem("environment", 0, message, "Use a longer one.", "warning"))
    problems += _half_scaled(given)
    problems += _console(given)
    try:
        process = Process.model_validate(given)
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_input=False):
            name = variable(str(detail["loc"][0]))
            problems.append(Problem("environment", 0, f"{name}: {detail['msg']}.", "Correct or unset it."))
        return None, problems
    failed = any(problem.severity == "error" for problem in problems)
    return (None if failed else process), problems


def _half_scaled(given: Mapping[str, str]) -> Iterator[Problem]:
    """PostgreSQL and Redis come together: replicas that share one and not the other would overspend or not be told."""
    for one, other in (("database_url", "redis_url"), ("redis_url", "database_url")):
        if one in given and other not in given:
            mend = f"Set {variable(other)} too: replicas need both, and a single process needs neither."
            yield Problem("environment", 0, f"{variable(one)} is set without {variable(other)}.", mend)
    for field, schemes in (("database_url", ("postgresql", "postgres")), ("redis_url", ("redis", "rediss", "unix"))):
        scheme = given.get(field, "").partition("://")[0]
        if field in given and scheme not in schemes:
            mend = f"It begins with {schemes[0]}://."
            yield Problem("environment", 0, f"{variable(field)} is no address of that kind of server.", mend)


def _console(given: Mapping[str, str]) -> Iterator[Problem]:
    """What a console host that was chosen gives up, or that it is without effect."""
    host = given.get("console_host", "").lower()
    public = host_name(urlsplit(given.get("public_url", "")).netloc)
    if not host:
        return
    if public is not None and not is_loopback(public):
        mend = f"Unset it: the console is opened at {variable('public_url')}."
        yield Problem("environment", 0, f"{variable('console_host')} has no effect.", mend, "warning")
    elif is_loopback(host):
        message = (
            f"{variable('console_host')}={host}: browsers send the console's cookie to every port of this machine, so"
            " any other server here whose page a signed-in person opens can act as that person."
        )
        mend = "Unset it, unless your browser can't open names below localhost."
        yield Problem("environment", 0, message, mend, "warning")


def secret_files(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """The files that process settings refer to, such as one with the address and password of the database."""
    given = (environ.get(variable(field), "") for field in sorted(_SECRETS))
    return [Path(text.removeprefix("file:")) for text in given if text.startswith("file:/")]


def child_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What a child process gets of our environment: where programs and its home are, and no secret of ours."""
    return {name: environ[name] for name in ("PATH", "HOME") if name in environ}
