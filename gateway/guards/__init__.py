"""guards/: inspectors of what goes in. Each says by name that it did inspect, and is never named where it did not.

Owns: the check of a tool call's arguments against the schema that the tool's server published. Never does: change
what it inspects, ask the network, decide on policy. Fails closed: a schema that cannot be read refuses the call.
"""

from __future__ import annotations

from gateway.guards.arguments import INPUT_SCHEMA, Guards

__all__ = ["INPUT_SCHEMA", "Guards"]
