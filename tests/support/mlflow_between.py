"""A real MLflow server, and what stands between it and its clients: it passes requests on until a
file says what else it does with them."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from programs import Ended
from ray_head import free_ports

TROUBLES = ("hangs", "hangs up", "500")


class Between(NamedTuple):
    """Where clients ask, and the file: "" passes on, else one of `TROUBLES`."""

    url: str
    file: Path


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """An MLflow server on loopback; its address."""
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--port", str(port)]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        try:
            for _ in range(600):
                try:
                    httpx.get(f"{url}/health", trust_env=False).raise_for_status()
                    break
                except httpx.HTTPError:
                    assert process.poll() is None, (folder / "log").read_text()
                    time.sleep(0.5)
            yield url
        finally:
            process.terminate()
            process.wait()


@contextmanager
def between(url: str, file: Path) -> Iterator[Between]:
    """Stand between clients and the server at `url`."""
    file.write_text("")
    over = threading.Event()
    client = httpx.Client(base_url=url, trust_env=False, timeout=60)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            """Silence."""

        def do_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            match file.read_text().strip():
                case "hangs":
                    over.wait()
                case "hangs up":
                    self.close_connection = True
                case "500":
                    self.answer(500, b"{}")
                case _:
                    kept = {n: self.headers[n] for n in ("Content-Type",) if n in self.headers}
                    reply = client.request(self.command, self.path, content=body, headers=kept)
                    self.answer(reply.status_code, reply.content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_any

        def answer(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield Between(f"http://127.0.0.1:{http.server_address[1]}", file)
    finally:
        over.set()
        http.shutdown()
        http.server_close()
        client.close()


def told_without_mlflow(ended: Ended) -> None:
    """It has all it has without MLflow, and one line says what is missing."""
    assert ended.code == 0, ended
    assert "(not reached)" in ended.out.splitlines()[-1]
    (line,) = [line for line in ended.err.splitlines() if "MLflow" in line]
    assert "results are stored, `raycib track` shows it later" in line
    assert "Traceback" not in ended.err
