"""A Hugging Face hub on this machine: what its clients ask for, served from folders."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = hashlib.sha1(b"the only one").hexdigest()


@contextmanager
def hub(root: Path, gated: frozenset[str] = frozenset()) -> Iterator[tuple[str, list[str]]]:
    """Serve `root/models/ORG/NAME` and `root/datasets/ORG/NAME`; those that are `gated` refuse
    whoever has no token. Gives the address, and what was asked of it so far."""
    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Hub, root, gated, asked))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


class _Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, root: Path, gated: frozenset[str], asked: list[str], *given: Any) -> None:
        self.root, self.gated, self.asked = root, gated, asked
        super().__init__(*given)

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        """`paths-info`: what a repository holds at some paths."""
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.asked.append(f"POST {self.path}")
        given = json.loads(body) if body.startswith("{") else parse_qs(body)
        repo, kind, _ = self._repo(unquote(self.path).split("/api/", 1)[1])
        found = [self._entry(repo, path) for path in given["paths"] if (repo / path).exists()]
        self._json(found) if kind else self._missing()

    def do_GET(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        url = urlsplit(self.path)
        path = unquote(url.path).lstrip("/")
        if path.startswith("api/"):
            return self._api(path.removeprefix("api/"), parse_qs(url.query))
        if not path.startswith("datasets/"):
            path = f"models/{path}"
        repo, kind, rest = self._repo(path)
        parts = rest.split("/", 2)  # resolve, revision, file
        if not kind or parts[0] != "resolve":
            return self._missing()
        if self._refused(repo):
            return None
        return self._file(repo / parts[2])

    def _api(self, path: str, query: dict[str, list[str]]) -> None:
        repo, kind, rest = self._repo(path)
        if not kind:
            return self._missing()
        if rest.startswith("tree/"):
            folder = repo / "/".join(rest.split("/")[2:])
            if not folder.exists():
                return self._missing("EntryNotFound")
            deep = query.get("recursive", ["false"])[0].lower() in ("true", "1")
            paths = sorted(folder.rglob("*") if deep else folder.iterdir())
            return self._json([self._entry(repo, one.relative_to(repo)) for one in paths])
        name = f"{repo.parent.name}/{repo.name}"
        if rest == "auth-check":
            return None if self._refused(repo) else self._json({})
        files = [one for one in sorted(repo.rglob("*")) if one.is_file()]
        siblings = [
            {"rfilename": str(one.relative_to(repo)), "size": one.stat().st_size} for one in files
        ]
        return self._json(
            {"_id": "1", "id": name, "sha": COMMIT, "private": False, "disabled": False,
             "gated": "manual" if name in self.gated else False, "downloads": 0, "likes": 0,
             "tags": [], "siblings": siblings, "cardData": {"license": "a-licence"},
             "createdAt": "2026-01-01T00:00:00.000Z", "lastModified": "2026-01-01T00:00:00.000Z"}
        )  # fmt: skip

    def _repo(self, path: str) -> tuple[Path, str, str]:
        """Folder of the repository that a path begins with, its kind ("" for none), the rest."""
        kind, org, name, *rest = [*path.split("/"), "", ""][:99]
        repo = self.root / kind / org / name
        there = kind in ("models", "datasets") and name and repo.is_dir()
        return repo, kind if there else "", "/".join(rest).rstrip("/")

    def _refused(self, repo: Path) -> bool:
        name = f"{repo.parent.name}/{repo.name}"
        if name not in self.gated or self.headers.get("Authorization"):
            return False
        said = f"Access to {name} is restricted"
        self._answer(401, said.encode(), {"X-Error-Code": "GatedRepo", "X-Error-Message": said})
        return True

    def _file(self, path: Path) -> None:
        if not path.is_file():
            return self._missing("EntryNotFound")
        content = path.read_bytes()
        head = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT,
                "Accept-Ranges": "bytes"}  # fmt: skip
        if wanted := self.headers.get("Range"):
            first, last = wanted.removeprefix("bytes=").split("-")
            start, end = int(first), min(int(last or len(content) - 1), len(content) - 1)
            head["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            return self._answer(206, content[start : end + 1], head)
        return self._answer(200, content, head)

    def _entry(self, repo: Path, path: Any) -> dict[str, Any]:
        file = repo / path
        if file.is_dir():
            return {"type": "directory", "path": str(path), "oid": "0" * 40, "size": 0}
        oid = hashlib.sha1(file.read_bytes()).hexdigest()
        return {"type": "file", "path": str(path), "oid": oid, "size": file.stat().st_size}

    def _missing(self, code: str = "RepoNotFound") -> None:
        self._answer(404, b"{}", {"X-Error-Code": code})

    def _json(self, value: Any) -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, body: bytes, head: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in head.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
