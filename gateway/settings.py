"""The front door of configuration: `load` for gateway.yaml, `Process` for the environment, `Secret` for references.

Paths in gateway.yaml are relative to the file and absolute once loaded. `load` tells every problem with its line
and fails closed: one error, no configuration.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gateway import documents
from gateway.config import (
    Agent,
    Approvals,
    Audit,
    Budget,
    Config,
    DemoProvider,
    Limits,
    LimitSet,
    LitellmProvider,
    Model,
    OpenAIProvider,
    Owners,
    Policy,
    Price,
    Provider,
    Server,
)
from gateway.documents import Document, Problem, Step
from gateway.known_secrets import LEAST_BYTES
from gateway.process import Process, child_environment
from gateway.references import (
    Secret,
    UnresolvedReference,
    follow,
    is_reference,
    is_short_secret,
    resolve,
    resolve_text,
    resolve_value,
)

__all__ = [
    "Agent",
    "Approvals",
    "Audit",
    "Budget",
    "Config",
    "DemoProvider",
    "LimitSet",
    "Limits",
    "LitellmProvider",
    "Model",
    "OpenAIProvider",
    "Owners",
    "Policy",
    "Price",
    "Process",
    "Provider",
    "Secret",
    "Server",
    "UnresolvedReference",
    "child_environment",
    "follow",
    "is_reference",
    "is_short_secret",
    "load",
    "resolve",
    "resolve_text",
    "resolve_value",
    "short_secret",
]


def load(
    path: str | Path, environ: Mapping[str, str] = os.environ, *, defaults: Path | None = None
) -> tuple[Config | None, list[Problem]]:
    """The configuration at `path` with absolute paths; None if there is an error, and all problems found.

    Warnings may come beside a configuration. Secret references are followed once, so that a missing one is
    told now; their values are redacted from then on. `defaults` is another file, if it is there: its top-level keys
    apply where `path` has none.
    """
    document, problems = documents.load(path)
    if document is None:
        return None, problems
    if defaults is not None and defaults.exists():
        below, problems = documents.load(defaults)
        if below is None:
            return None, problems
        document = document.over(below)
    config, problems = documents.validate(document, Config)
    if config is None:
        return None, problems
    config = _absolute(config, Path(path).absolute().parent)
    problems = [
        *_twice(document, config),
        *_unknown_names(document, config),
        *_missing_paths(document, config),
        *_references(document, config, environ),
        *_observed(document, config),
    ]
    problems.sort(key=lambda problem: problem.line)
    return (None if documents.errors(problems) else config), problems


def _absolute(config: Config, folder: Path) -> Config:
    providers = {
        name: provider.model_copy(update={"script": folder / provider.script})
        if isinstance(provider, DemoProvider) and provider.script is not None
        else provider
        for name, provider in config.providers.items()
    }
    return config.model_copy(
        update={
            "providers": providers,
            "tool_registry": folder / config.tool_registry,
            "policy": config.policy.model_copy(update={"path": folder / config.policy.path}),
        }
    )


def _twice(document: Document, config: Config) -> list[Problem]:
    problems = []
    for section, key, names in (
        ("models", "alias", [model.alias for model in config.models]),
        ("agents", "id", [agent.id for agent in config.agents]),
    ):
        for index, name in enumerate(names):
            if name in names[:index]:
                first = document.line(section, names.index(name), key)
                message = f"The {key} {name!r} stands twice in {section}; first on line {first}."
                problems.append(document.problem((section, index, key), message, "Rename or remove one."))
    return problems


def _unknown_names(document: Document, config: Config) -> list[Problem]:
    problems = []
    for index, model in enumerate(config.models):
        if model.provider not in config.providers:
            near = documents.suggest(model.provider, config.providers)
            mend = f"Did you mean {near!r}?" if near else "Add it under providers."
            message = f"The model {model.alias!r} names the unknown provider {model.provider!r}."
            problems.append(document.problem(("models", index, "provider"), message, mend))
    agents = {agent.id for agent in config.agents}
    aliases = {model.alias for model in config.models}
    for section, noun, names, known, otherwise in (
        ("agents", "an agent", config.limits.agents, agents, "Fine if it was created through the API."),
        ("models", "a model", config.limits.models, aliases, "Correct the alias."),
    ):
        for name in names:
            if name not in known:
                near = documents.suggest(name, known)
                mend = f"Did you mean {near!r}?" if near else otherwise
                message = f"Limits are set for {name!r}, which is not {noun} of this file."
                problems.append(document.problem(("limits", section, name), message, mend, warning=True))
    return problems


def _observed(document: Document, config: Config) -> Iterator[Problem]:
    """Observing lets every undeclared tool pass, which is meant for a look at one's own machine."""
    if config.undeclared_client_tools == "observe" and config.environment != "dev":
        yield document.problem(
            ("undeclared_client_tools",),
            f"undeclared_client_tools is observe in the environment {config.environment}: every tool that no manifest"
            " declares is allowed.",
            "Use deny or escalate, and declare the tools that agents need (`gateway tools adopt`).",
            warning=True,
        )


def _missing_paths(document: Document, config: Config) -> list[Problem]:
    wanted: list[tuple[tuple[str, ...], Path, bool]] = [
        (("tool_registry",), config.tool_registry, True),
        (("policy", "path"), config.policy.path, True),
    ]
    for name, provider in config.providers.items():
        if isinstance(provider, DemoProvider) and provider.script is not None:
            wanted.append((("providers", name, "script"), provider.script, False))
    return [
        document.problem(place, f"There is no {'folder' if folder else 'file'} {path}.", "Correct the path.")
        for place, path, folder in wanted
        if not (path.is_dir() if folder else path.is_file())
    ]


def _references(document: Document, config: Config, environ: Mapping[str, str]) -> list[Problem]:
    found: list[tuple[tuple[str, ...], str]] = []
    for name, secret in (("token", config.policy.opa.token), ("bundle_token", config.policy.opa.bundle_token)):
        if secret is not None:
            found.append((("policy", "opa", name), secret.reference))
    for name, provider in config.providers.items():
        if isinstance(provider, DemoProvider):
            continue
        if provider.api_key is not None:
            found.append((("providers", name, "api_key"), provider.api_key.reference))
        texts: dict[str, Any] = {}
        if isinstance(provider, OpenAIProvider):
            found.append((("providers", name, "base_url"), provider.base_url))
            section, texts = "headers", dict(provider.headers)
        else:
            section, texts = "params", provider.params
        found += [(("providers", name, section, key), value) for key, value in texts.items() if isinstance(value, str)]
    problems = []
    for place, reference in found:
        try:
            if place[-1] == "base_url":
                resolve_text(reference, environ)
            elif is_reference(reference):
                resolve(reference, environ)
                problems += short_secret(document, place, reference, environ)
        except UnresolvedReference as error:
            problems.append(document.problem(place, f"{'.'.join(place)}: {error}", "Set it, or correct it."))
    return problems


def short_secret(
    document: Document, place: tuple[Step, ...], reference: str, environ: Mapping[str, str] = os.environ
) -> list[Problem]:
    """A warning if a reference leads to a secret that is too short to be redacted. Raises `UnresolvedReference`."""
    if not is_short_secret(reference, environ):
        return []
    message = (
        f"{'.'.join(map(str, place))}: {reference} leads to fewer than {LEAST_BYTES} bytes, which is too short to be"
        " redacted: an upstream that repeats it discloses it to agents, records and the log."
    )
    return [document.problem(place, message, "Use a longer secret.", warning=True)]
