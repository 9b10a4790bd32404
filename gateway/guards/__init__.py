"""guards/: inspectors of what goes in. Each says by name that it did inspect, and is never named where it did not.

Owns: the checks of a tool call's arguments, of their values against the schema that the tool's server published and
of their keys against other spellings. Never does: change what it inspects, ask the network, decide on policy. Fails
closed: a schema that cannot be read refuses the call.
"""

from __future__ import annotations

from gateway.guards.arguments import ARGUMENT_NAMES, INPUT_SCHEMA, Guards
from gateway.guards.spelling import check_keys, check_proposal

__all__ = ["ARGUMENT_NAMES", "INPUT_SCHEMA", "Guards", "check_keys", "check_proposal"]
