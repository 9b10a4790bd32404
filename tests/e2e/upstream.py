"""A model provider that tests play: it speaks chat completions, and says exactly what a test tells it to, when.

It runs in threads of its own, so that a test can hold an answer back while it looks at the gateway. What it is asked
is matched to a `Play` by a word in the first user message.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple, Self

PATIENCE_S = 20.0
SECRET = "sk-upstream-secret-0123456789abcdef"


class Received(NamedTuple):
    """One request as it came in."""

    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw)


class Exchange:
    """The provider's side of one request."""

    def __init__(self, handler: BaseHTTPRequestHandler, received: Received) -> None:
        self._handler = handler
        self.received = received

    def answer(self, body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """A complete answer; bytes go out as they are."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._handler.send_response(status)
        for name, value in {"content-type": "application/json", **(headers or {})}.items():
            self._handler.send_header(name, value)
        self._handler.send_header("content-length", str(len(raw)))
        self._handler.end_headers()
        self._handler.wfile.write(raw)

    def begin(self) -> None:
        """The head of a stream."""
        self._handler.send_response(200)
        self._handler.send_header("content-type", "text/event-stream")
        self._handler.send_header("transfer-encoding", "chunked")
        self._handler.end_headers()

    def send(self, data: bytes) -> None:
        """Bytes of a stream."""
        self._handler.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self._handler.wfile.flush()

    def event(self, value: object) -> None:
        self.send(b"data: " + json.dumps(value).encode() + b"\n\n")

    def end(self) -> None:
        self._handler.wfile.write(b"0\r\n\r\n")

    def hang_up(self) -> None:
        self._handler.close_connection = True
        self._handler.connection.close()

    def client_left(self) -> bool:
        """Wait until the gateway closed the connection; False if it did not in time."""
        self._handler.connection.settimeout(PATIENCE_S)
        try:
            return not self._handler.connection.recv(1)
        except ConnectionError:
            return True
        except TimeoutError:
            return False


class Play:
    """What the provider does when it is asked with `word` in the first user message."""

    def __init__(self, word: str, player: Callable[[Exchange, Play], None]) -> None:
        self.word = word
        self.player = player
        self.received: list[Received] = []
        self.arrived = threading.Event()
        self.go = threading.Event()  # a player may wait for it
        self.ended = threading.Event()
        self.client_left = False

    def wait_arrived(self) -> None:
        assert self.arrived.wait(PATIENCE_S), "the provider was not asked in time"

    def wait_go(self) -> None:
        assert self.go.wait(PATIENCE_S), "the test did not let the provider go on"

    def wait_ended(self) -> None:
        assert self.ended.wait(PATIENCE_S), "the provider is still being asked"


class Upstream:
    """`with Upstream() as upstream`: serves on `upstream.url` until the block ends."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self._plays: dict[str, Play] = {}
        self._count = itertools.count(1)
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["content-length"]))
                received = Received({name.lower(): value for name, value in self.headers.items()}, raw)
                try:
                    upstream._answer(Exchange(self, received))
                except (ConnectionError, OSError, ValueError):  # the gateway went away
                    self.close_connection = True

            def handle(self) -> None:
                try:
                    super().handle()
                except (ConnectionError, OSError, ValueError):
                    return

            def finish(self) -> None:
                try:
                    super().finish()
                except (ConnectionError, OSError, ValueError):
                    return

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
                return

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False
            request_queue_size = 256

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def plays(self, player: Callable[[Exchange, Play], None]) -> Play:
        """A new play; ask for it with its `word` in the message."""
        word = f"play-{next(self._count)}."
        play = self._plays[word] = Play(word, player)
        return play

    def answers(self, body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Play:
        """A play that always gives this answer."""
        return self.plays(lambda exchange, _: exchange.answer(body, status, headers))

    def holds(self, body: object) -> Play:
        """A play that gives this answer when the test says `play.go.set()`."""

        def player(exchange: Exchange, play: Play) -> None:
            play.wait_go()
            exchange.answer(body)

        return self.plays(player)

    def streams(self, *events: object, done: bool = True) -> Play:
        """A play that streams these events, all at once."""

        def player(exchange: Exchange, _: Play) -> None:
            exchange.begin()
            for event in events:
                exchange.event(event)
            if done:
                exchange.send(b"data: [DONE]\n\n")
            exchange.end()

        return self.plays(player)

    def _answer(self, exchange: Exchange) -> None:
        received = exchange.received
        self.received.append(received)
        text = received.raw.decode("utf-8", "replace")
        play = next((play for word, play in self._plays.items() if word in text), None)
        if play is None:
            exchange.answer(completion("Hello."))
            return
        play.received.append(received)
        play.arrived.set()
        try:
            play.player(exchange, play)
        finally:
            play.ended.set()


def usage(prompt: int, completed: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completed, "total_tokens": prompt + completed}


def completion(
    text: str | None, *, calls: list[dict[str, Any]] | None = None, used: object = None, **more: Any
) -> dict[str, Any]:
    """A complete chat completion."""
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if calls:
        message["tool_calls"] = calls
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop", "logprobs": None}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "served"}
    return {**head, "choices": [choice], "usage": usage(10, 5) if used is None else used, **more}


def call(name: str, arguments: dict[str, Any] | str, call_id: str = "call_1") -> dict[str, Any]:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": text}}


def chunk(delta: dict[str, Any] | None, *, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """One event of a stream; without a delta it has no choices."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "served"}
    return {**head, "choices": choices, **more}


def words(*texts: str, used: object = None) -> list[dict[str, Any]]:
    """The events of a streamed text with its usage."""
    deltas = [chunk({"role": "assistant", "content": ""}), *(chunk({"content": text}) for text in texts)]
    return [*deltas, chunk({}, finish="stop"), chunk(None, usage=usage(10, 5) if used is None else used)]
