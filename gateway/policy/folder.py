"""A folder of policies on disk: which files count, where their data stand, and what the whole is named.

`*.rego` are policies (`*_test.rego` their tests); `data.yaml` and `data.json` are data, and the folder they lie in
decides where: `ledger/data.yaml` is `data.ledger`. Everything else is left alone, as is what begins with a dot; where
somebody may have meant a file to be read, a warning says that it is not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from gateway.documents import Problem
from gateway.policy import tree as trees
from gateway.policy.data import add_data
from gateway.policy.dialect import Module, read
from gateway.policy.places import DataFiles

MAX_REGO_BYTES = 1024 * 1024
MAX_JSON_BYTES = 16 * 1024 * 1024
_DATA_NAMES = ("data.yaml", "data.yml", "data.json")


class Bundle(NamedTuple):
    """What a folder holds, as far as it could be read, and what is wrong with the rest."""

    root: Path
    modules: list[Module]
    tests: list[Module]
    data: dict[str, Any]
    files: DataFiles
    revision: str
    problems: list[Problem]

    def problem(self, file: str, line: int, message: str, mend: str, *, warning: bool = False) -> Problem:
        """A problem of a file of this folder."""
        return Problem(str(self.root / file), line, message, mend, "warning" if warning else "error")


def read_folder(root: str | Path) -> Bundle:
    """Everything in the folder. Raises nothing: what cannot be read is a problem."""
    root = Path(root)
    bundle = Bundle(root, [], [], {}, DataFiles(), "", [])
    if not root.is_dir():
        bundle.problems.append(Problem(str(root), 0, "There is no such folder of policies.", "Check `policy.path`."))
        return bundle
    digest = hashlib.sha256()
    for path in sorted(_files(root), key=lambda path: path.relative_to(root).as_posix()):
        file = path.relative_to(root).as_posix()
        raw = _bytes(path, bundle)
        if raw is None:
            continue
        if not file.endswith("_test.rego"):
            for part in (file.encode(), raw):
                digest.update(len(part).to_bytes(8, "big") + part)
        if path.suffix == ".rego":
            _module(file, raw, bundle)
        else:
            for line, message, mend in add_data(file, raw, into=bundle.data, files=bundle.files):
                bundle.problems.append(bundle.problem(file, line, message, mend))
    bundle.problems.extend(_unread(root))
    if not bundle.modules and not bundle.problems:
        bundle.problems.append(Problem(str(root), 0, "The folder holds no policy.", "Put *.rego files there."))
    return bundle._replace(revision=digest.hexdigest())


def _files(root: Path) -> Iterator[Path]:
    for path in root.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        wanted = path.suffix == ".rego" or path.name in _DATA_NAMES
        if wanted and not hidden and (path.is_symlink() or path.is_file()):
            yield path


def _unread(root: Path) -> Iterator[Problem]:
    """Files that look like data and are none."""
    for path in sorted(root.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        if path.suffix.lower() == ".rego" and path.suffix != ".rego" and not hidden:
            yield Problem(str(path), 0, "The file is not read: policies are named *.rego.", "Rename it.", "warning")
        looks_like_data = path.suffix.lower() in (".yaml", ".yml", ".json") and not path.name.endswith(".schema.json")
        if looks_like_data and path.name not in _DATA_NAMES and not hidden and path.is_file():
            mend = "Rename it to data.yaml or data.json, in a folder that names its place below `data`."
            yield Problem(
                str(path), 0, "The file is not read: only data.yaml, data.yml and data.json are data.", mend, "warning"
            )


def _bytes(path: Path, bundle: Bundle) -> bytes | None:
    limit = MAX_JSON_BYTES if path.suffix == ".json" else MAX_REGO_BYTES
    try:
        with path.open("rb") as stream:
            raw = stream.read(limit + 1)
    except OSError as error:
        reason = error.strerror or "it cannot be read"
        bundle.problems.append(Problem(str(path), 0, f"Cannot be read: {reason}.", "Check its permissions."))
        return None
    if len(raw) > limit:
        bundle.problems.append(Problem(str(path), 0, f"Larger than {limit} bytes.", "Split it."))
        return None
    return raw


def _module(file: str, raw: bytes, bundle: Bundle) -> None:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        bundle.problems.append(bundle.problem(file, line, "Not UTF-8.", "Save the file as UTF-8."))
        return
    module, fault = read(file, text)
    if fault is not None:
        bundle.problems.append(bundle.problem(file, *fault))
    elif module is not None:
        (bundle.tests if module.is_test else bundle.modules).append(module)
        bundle.problems.extend(_tests_that_do_not_run(module, bundle))


def _tests_that_do_not_run(module: Module, bundle: Bundle) -> Iterator[Problem]:
    """Tests in a file that is not named as one: nobody runs them, and they are part of the policy."""
    named = next((head for head in trees.heads(module.tree) if head.name.startswith("test_")), None)
    if named is not None and not module.is_test:
        message = f"{named.name} is not run: tests are run from files named *_test.rego."
        yield bundle.problem(module.file, named.line, message, "Rename the file.", warning=True)
