"""A chat endpoint whose replies a test decides: a real HTTP server on loopback."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, Any]
"""Status, and what is sent as JSON; a `bytes` is sent as it is."""


class FakeEndpoint:
    """Replies what `reply` makes of a request's body; remembers bodies and headers."""

    def __init__(
        self,
        reply: Callable[[dict[str, Any]], Reply],
        models: Any = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        listed = models if models is not None else (200, {"data": [{"id": "theirs"}]})
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None:
                """Silence."""

            def do_GET(self) -> None:
                fake.paths.append(self.path)
                fake.headers.append(dict(self.headers))
                self.answer(*listed)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                fake.paths.append(self.path)
                fake.headers.append(dict(self.headers))
                fake.asked.append(body)
                self.answer(*reply(body))

            def answer(self, status: int, content: Any) -> None:
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def __enter__(self) -> "FakeEndpoint":
        return self

    def __exit__(self, *problem: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def says(text: Any, ended: str = "stop", **message: Any) -> Reply:
    """A chat completion."""
    message = {"role": "assistant", "content": text, **message}
    return 200, {"choices": [{"index": 0, "finish_reason": ended, "message": message}]}


def refuses(message: str, code: str = "", status: int = 400, **fields: Any) -> Reply:
    """An error in OpenAI's form."""
    return status, {"error": {"message": message, "code": code, **fields}}
