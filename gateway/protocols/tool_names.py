"""Which names a tool may have: in manifests, in `tools/list` of a server, in requests and in proposed calls alike.

Letters, digits, `_`, `.`, `:`, `/` and `-`: every name that MCP (2026-07-28, server/tools, "Tool Names") and the
providers of models accept, and nothing that could hide in a log, a path or a terminal.
"""

from __future__ import annotations

import re

MAX_TOOL_NAME = 128  # characters
TOOL_NAME_PATTERN = r"[A-Za-z0-9_.:/-]{1,128}"
TOOL_NAME_RULE = f"a name has 1 to {MAX_TOOL_NAME} of the characters A-Z a-z 0-9 _ . : / -"

_matches = re.compile(TOOL_NAME_PATTERN).fullmatch


def is_tool_name(name: str) -> bool:
    """Whether a tool may have this name."""
    return _matches(name) is not None
