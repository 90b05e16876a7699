"""A store in a bucket keeps the promises of one on a disk. A real S3 server (moto) on loopback."""

import json
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from session import NIGHTLY, Ask
from store_child import SIZE, asking, content, is_whole, put, sweep

from raycib.store import Store, StoreError

obstore = pytest.importorskip("obstore", reason="pip install 'raycib[s3]'")
pytest.importorskip("moto", reason="pip install 'raycib[dev]'")
pytest.importorskip("flask", reason="pip install 'moto[server]'")


class Server:
    """moto's S3 server, with faults in front of it."""

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Silent(WSGIRequestHandler):
            def log_request(self, code: int | str = "-", size: int | str = "-") -> None: ...

        self.moto = DomainDispatcherApplication(create_backend_app)
        self.http = make_server("127.0.0.1", 0, self, threaded=True, request_handler=Silent)
        self.heal()

    def heal(self) -> None:
        """No faults from here on; the count of requests begins again."""
        self.requests = 0
        self.refused_at = 0
        self.forgets_conditions = False

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        self.requests += 1
        if self.requests == self.refused_at:
            start_response("403 Forbidden", [("Content-Type", "application/xml")])
            return [b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"]
        if self.forgets_conditions:
            environ.pop("HTTP_IF_NONE_MATCH", None)
        return self.moto(environ, start_response)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The server and the environment that leads to it, for this process and its children."""
    server = Server()
    Thread(target=server.http.serve_forever, daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.http.port}")
        patch.setenv("AWS_ALLOW_HTTP", "true")  # for the tests' own client
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("NO_PROXY", "127.0.0.1")
        yield server
    server.http.shutdown()


@pytest.fixture
def bucket(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an empty store, with an empty folder for local copies."""
    import boto3

    server.heal()
    monkeypatch.setenv("RAYCIB_CACHE", str(tmp_path / "cache"))
    name = f"b{abs(hash(tmp_path))}"
    boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"]).create_bucket(Bucket=name)
    yield f"s3://{name}/some/where"
    server.heal()


@pytest.fixture
def ask(bucket: str) -> Iterator[Ask]:
    """Ask a light process, in this test's environment, to do something to the store."""
    with asking() as ask:
        yield ask


def objects(root: str) -> dict[str, bytes]:
    """All objects below a store's prefix."""
    store = obstore.store.from_url(root)
    paths = [entry["path"] for entry in obstore.list(store).collect()]
    return {path: bytes(obstore.get(store, path).bytes()) for path in paths}


def replace(root: str, path: str, data: bytes) -> None:
    """Overwrite one object."""
    obstore.put(obstore.store.from_url(root), path, data)


def is_tidy(root: str, key: str = "k") -> bool:
    """Whether the bucket holds one record, its three files, and nothing else."""
    found = objects(root)
    writer = json.loads(found[f"stages/{key}/record.json"])["writer"]
    files = {f"stages/{key}/{writer}/{name}" for name in content(key, SIZE)}
    return found.keys() == files | {f"stages/{key}/record.json"}


def test_what_one_machine_puts_another_gets(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    here = Store(bucket)
    assert here.get("stages", "k") is None
    assert here.keys("stages") == []
    assert is_whole(put(here, "k", SIZE))
    assert is_tidy(bucket)
    monkeypatch.setenv("RAYCIB_CACHE", str(tmp_path / "another machine"))
    there = pickle.loads(pickle.dumps(here))
    assert Store(Path(bucket)).root == there.root == bucket
    assert is_whole(there.get("stages", "k"))
    assert there.keys("stages") == ["k"]
    assert [record.about for record in there.records("stages")] == [
        {"key": "k", "size": SIZE, "salt": ""}
    ]
    there.discard("stages", "k")
    there.discard("stages", "k")
    assert here.get("stages", "k") is None
    assert objects(bucket) == {}


def test_a_file_larger_than_one_part_comes_back(bucket: str, tmp_path: Path):
    data = bytes(range(256)) * 50_000  # 12.8 MB: three parts of an upload
    Store(bucket).put("stages", "big", lambda folder: _write(folder / "big.bin", data), {})
    for copy in (tmp_path / "cache").rglob("big.bin"):
        copy.unlink()
    record = Store(bucket).get("stages", "big")
    assert record
    assert record.path("big.bin").read_bytes() == data


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def test_the_second_writer_gets_the_first_ones_result(bucket: str):
    def late(folder: Path) -> None:
        put(Store(bucket), "k", SIZE, "first")
        (folder / "weights.bin").write_bytes(b"second")

    store = Store(bucket)
    record = store.put("stages", "k", late, {"salt": "second"})
    assert record.about["salt"] == "first"
    assert is_tidy(bucket)
    assert record.path("weights.bin").read_bytes() == content("k", SIZE, "first")["weights.bin"]


def test_several_writers_of_the_same_keys_leave_one_result_each(
    bucket: str, tmp_path: Path, ask: Ask
):
    keys = [f"key{n}" for n in range(20)]
    done = ask(how="race", root=bucket, notes=str(tmp_path), keys=keys, processes=4)
    assert done["statuses"] == [0] * 4
    told = [json.loads((tmp_path / f"{n}.json").read_text()) for n in range(4)]
    assert all(seen == told[0] for seen in told[1:])
    assert len({seen.split()[0] for seen in told[0].values()}) > 1, "they did not race"
    assert len(objects(bucket)) == 4 * len(keys)


def test_a_writer_that_dies_at_any_line_leaves_a_whole_result_or_none(
    bucket: str, ask: Ask, capsys: pytest.CaptureFixture[str]
):
    deaths = 0
    for line in range(0, 1_000, 40 // NIGHTLY or 1):
        done = ask(how="dying_at_line", do="put", root=bucket, key="k", size=SIZE, line=line)
        deaths += done["status"] != 0
        store = Store(bucket)
        if store.keys("stages"):
            assert is_whole(store.get("stages", "k")), line
        assert is_whole(put(store, "k", SIZE)), line
        sweep(bucket)
        assert is_tidy(bucket), (line, objects(bucket).keys())
        assert not store.damaged, line
        store.discard("stages", "k")
        if done["status"] == 0:
            break
    with capsys.disabled():
        print(f"\nbucket: 0 of {deaths} deaths, spread over all lines of a put, tore a result")
    assert deaths > 8


def test_a_request_that_is_refused_leaves_nothing_half_written(
    bucket: str, server: Server, monkeypatch: pytest.MonkeyPatch
):
    server.heal()
    put(Store(bucket), "k", SIZE)
    needed = server.requests
    for n in range(1, needed + 1):
        Store(bucket).discard("stages", "k")
        server.heal()
        server.refused_at = n
        with pytest.raises(StoreError, match="Access Denied; check the bucket's name") as error:
            put(Store(bucket), "k", SIZE)
        assert "\n" not in str(error.value)
        server.heal()
        if Store(bucket).keys("stages"):
            assert is_whole(Store(bucket).get("stages", "k")), n
        assert is_whole(put(Store(bucket), "k", SIZE)), n
        with monkeypatch.context() as ended:  # this process, which made the request
            ended.setattr("raycib.store.buckets.is_dead", lambda _: True)
            sweep(bucket)
        assert is_tidy(bucket), (n, objects(bucket).keys())
    assert needed > 8


@pytest.mark.parametrize("name", ["record.json", "weights.bin", "more/x.bin"])
@pytest.mark.parametrize("fault", ["flipped", "truncated", "removed"])
def test_damage_in_the_bucket_is_noticed(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, fault: str
):
    put(Store(bucket), "other", SIZE)
    put(Store(bucket), "k", SIZE)
    path = next(p for p in objects(bucket) if p.startswith("stages/k/") and p.endswith(name))
    data = bytearray(objects(bucket)[path])
    data[len(data) // 2] ^= 1
    if fault == "removed":
        obstore.delete(obstore.store.from_url(bucket), path)
    else:
        replace(bucket, path, bytes(data) if fault == "flipped" else bytes(data[:3]))
    monkeypatch.setenv("RAYCIB_CACHE", str(tmp_path / "another machine"))
    store = Store(bucket)
    assert store.get("stages", "k") is None
    if (name, fault) != ("record.json", "removed"):  # without a record it is only absent
        assert "stages/k" in store.damaged[0]
        assert f"{bucket}/.damaged/" in store.damaged[0]
    assert is_whole(store.get("stages", "other"), "other")
    assert store.keys("stages") == ["other"]
    assert is_whole(put(store, "k", SIZE))


def test_a_damaged_local_copy_is_fetched_again(bucket: str, tmp_path: Path):
    record = put(Store(bucket), "k", SIZE)
    record.path("weights.bin").write_bytes(b"damaged")
    store = Store(bucket)
    assert is_whole(store.get("stages", "k"))
    assert store.damaged == []


def test_a_bucket_that_cannot_keep_the_promises_is_refused(bucket: str, server: Server):
    with pytest.raises(StoreError, match="bucket does not exist; check the bucket's name"):
        Store("s3://no-such-bucket/prefix")
    with pytest.raises(StoreError, match="a folder or in s3://"):
        Store("gopher://bucket")
    server.forgets_conditions = True
    for write in (lambda store: put(store, "k", SIZE), Store.check_writable):
        with pytest.raises(StoreError, match="overwrites what is created only if absent"):
            write(Store(bucket))


def test_whether_a_bucket_takes_anything_is_asked_and_leaves_nothing(bucket: str, server: Server):
    store = Store(bucket)
    store.check_writable()
    assert objects(bucket) == {}
    server.refused_at = server.requests + 1
    with pytest.raises(StoreError, match="Access Denied"):
        store.check_writable()
