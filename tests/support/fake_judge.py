"""A judge's server whose behaviour a test decides."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeJudge:
    """A real HTTP server on loopback whose replies a test decides; says unsafe to w1."""

    def __init__(self) -> None:
        self.asked: list[list[Any]] = []
        self.trouble: Callable[[int, BaseHTTPRequestHandler], bool] = lambda number, handler: False
        self.lock = threading.Lock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: Any) -> None:
                """Silence."""

            def do_GET(self) -> None:
                self.reply({"data": [{"id": "their-model"}]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with fake.lock:
                    fake.asked.append([body["messages"]])
                    number = len(fake.asked)
                if fake.trouble(number, self):
                    return
                text = "unsafe\nS2" if "w1" in body["messages"][0]["content"] else "safe"
                self.reply({"choices": [{"index": 0, "message": {"content": text}}]})

            def reply(self, body: Any, status: int = 200, cut: bool = False) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[: len(data) // 2] if cut else data)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
