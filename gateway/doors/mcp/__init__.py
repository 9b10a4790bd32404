"""The MCP door: tools of every governed server, for clients of the revisions 2025-03-26 to 2026-07-28.

Owns the wire: JSON-RPC over streamable HTTP, both eras (the handshake and the stateless envelope), and the words in
which a refusal reaches a model. Speaks raw JSON, so unknown fields survive, and imports no SDK: a start and a call
stay cheap. Never decides, records by itself or talks to a tool server; keeps no session in memory.

Fails closed: what it can't read, or what isn't governed yet (prompts, resources, sampling, tasks, ...), is refused.
"""

from gateway.doors.mcp.door import McpDoor
from gateway.doors.mcp.origins import Origins
from gateway.doors.mcp.sessions import Sessions
from gateway.doors.mcp.waiting import Ladder

__all__ = ["Ladder", "McpDoor", "Origins", "Sessions"]
