"""`quickstart.env`: what a running quickstart tells scripts, as lines for a shell that only its user may read.

The demo imports this with nothing but the standard library around.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

NAME = "quickstart.env"
_ONLY_SHOWN = frozenset(("GATEWAY_URL", "GATEWAY_KEY", "GATEWAY_CONSOLE"))
_PLAIN = re.compile(r"[\w@%+=:,./?-]*", re.ASCII)


def write(folder: Path, values: dict[str, str]) -> None:
    """Replace the note in `folder`. What the command line reads is exported too, for a shell that sources the note."""
    note = folder / NAME
    new = note.with_suffix(".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.writelines(f"{name}={_quoted(value)}\n" for name, value in values.items())
        file.writelines(f"export {name}={_quoted(values[name])}\n" for name in values if name not in _ONLY_SHOWN)
    new.replace(note)


def read(folder: Path) -> dict[str, str]:
    """What stands in the note in `folder`; nothing where there is none."""
    try:
        lines = (folder / NAME).read_text().splitlines()
    except OSError:
        return {}
    found = (line.partition("=") for line in lines)
    return {name: "".join(shlex.split(value)) for name, sign, value in found if sign and " " not in name}


def replicas_of(data_dir: Path) -> Path | None:
    """The folder of the replicas of which `data_dir` is one, where their note says so: in a shell that sourced it."""
    folder = data_dir.absolute().parent
    told = read(folder)
    is_one = "GATEWAY_DATABASE_URL" in told and Path(told.get("GATEWAY_DATA_DIR", "")) == data_dir.absolute()
    return folder if is_one else None


def _quoted(value: str) -> str:
    """For a shell; an address stays as it is, since scripts also read these lines without one."""
    return value if _PLAIN.fullmatch(value) else shlex.quote(value)
