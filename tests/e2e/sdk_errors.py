"""What the official SDK makes of the gateway's refusals. Run by .venv-sdk's Python with its own retries switched on.

usage: python sdk_errors.py URL < requests.json     [{"key", "body"}] in, prints what each call ended with as JSON
"""

from __future__ import annotations

import json
import sys
from typing import Any

import openai


def ended(url: str, key: str, body: dict[str, Any]) -> dict[str, Any]:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=2, timeout=20)
    with client:
        try:
            raw = client.chat.completions.with_raw_response.create(**body)
        except openai.APIStatusError as error:
            return {
                "type": type(error).__name__,
                "status": error.status_code,
                "code": error.code,
                "message": error.message,
                "request_id": error.request_id,
                "headers": dict(error.response.headers),
                "body": error.body,
            }
        except openai.OpenAIError as error:
            return {"type": type(error).__name__, "message": str(error)}
        seen: dict[str, Any] = {"type": "answer", "headers": dict(raw.headers), "request_id": raw.request_id}
        answer = raw.parse()
        if body.get("stream"):
            try:
                seen["text"] = "".join(e.choices[0].delta.content or "" for e in answer if e.choices)
            except openai.APIError as error:
                return {**seen, "type": type(error).__name__, "message": error.message, "code": error.code}
        else:
            seen["text"] = answer.choices[0].message.content
        return seen


if __name__ == "__main__":
    print(json.dumps([ended(sys.argv[1], one["key"], one["body"]) for one in json.load(sys.stdin)]))
