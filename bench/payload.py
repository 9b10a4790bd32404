"""The request bodies of the bench: 1.7 kB, four messages, two tools; as agents send them."""

from __future__ import annotations

import json
from pathlib import Path


def chat(model: str, *, stream: bool = False) -> bytes:
    """A chat completion request for `model`."""
    tools = [
        {
            "type": "function",
            "function": {
                "name": name,
                "description": f"Look up or change a record in {name}",
                "parameters": {
                    "type": "object",
                    "properties": {"id": {"type": "string"}, "amount": {"type": "number"}},
                    "required": ["id"],
                },
            },
        }
        for name in ("crm_lookup", "mail_send")
    ]
    call = {"id": "call_1", "type": "function", "function": {"name": "crm_lookup", "arguments": '{"id":"c-42"}'}}
    body = {
        "model": model,
        "messages": [
            {"role": "system", "content": "You are a careful assistant of the finance department. " * 8},
            {"role": "user", "content": "Please look up customer c-42 and draft a refund mail. " * 6},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": '{"id":"c-42","name":"Ada","status":"active"}'},
        ],
        "tools": tools,
        "temperature": 0.2,
        "max_tokens": 256,
    }
    if stream:
        body["stream"] = True
    return json.dumps(body).encode()


BODIES = {
    "chat": chat("mock"),
    "chat-d20": chat("mock-d20"),
    "stream": chat("mock-i10", stream=True),
    "stream-tools": chat("mock-tools-i10", stream=True),
}


def write(folder: Path) -> dict[str, Path]:
    """Write every body into `folder`; gives name -> file."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for name, body in BODIES.items():
        files[name] = folder / f"{name}.json"
        files[name].write_bytes(body)
    return files
