"""MLflow as `cluster/mlflow.yaml` runs it: on PostgreSQL, with the password in files."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from programs import ROOT
from ray_head import free_ports
from running import Running, environment, ray_folder, summary_of

pytest.importorskip("psycopg2", reason="pip install psycopg2-binary")
pytestmark = [pytest.mark.real, pytest.mark.faults]

SERVICES = yaml.safe_load((ROOT / "cluster" / "mlflow.yaml").read_text())["services"]
OWNER = SERVICES["postgres"]["environment"]["POSTGRES_USER"]


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that the database's owner may enter, too."""
    if not shutil.which("initdb") or not shutil.which("postgres"):
        pytest.skip("no PostgreSQL is installed")
    with ray_folder() as folder:
        folder.chmod(0o755)
        yield folder


@pytest.fixture
def database(place: Path) -> Iterator[tuple[int, Path]]:
    """Its port, and the file with what MLflow needs to enter it."""
    (port,) = free_ports(1)
    word, files = secrets.token_hex(16), place / "secrets"
    files.mkdir()
    data, given = place / "data", files / "postgres_password"
    given.write_text(word)
    (files / "pgpass").write_text(f"127.0.0.1:{port}:mlflow:{OWNER}:{word}")
    (files / "pgpass").chmod(0o600)
    data.mkdir()
    who = {"user": "postgres"} if os.geteuid() == 0 else {}  # it refuses to run as root
    if who:
        shutil.chown(data, "postgres")
    data.chmod(0o700)
    made = ["initdb", f"--pgdata={data}", f"--username={OWNER}", f"--pwfile={given}"]
    subprocess.run([*made, "--auth=scram-sha-256"], check=True, capture_output=True, cwd="/", **who)
    served = ["postgres", "-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", str(data)]
    server = subprocess.Popen(served, cwd="/", stderr=subprocess.DEVNULL, **who)
    environ = os.environ | {"PGPASSFILE": str(files / "pgpass")}
    create = ["createdb", "-h", "127.0.0.1", "-p", str(port), "-U", OWNER, "--no-password"]
    entry = files / "entry"
    entry.write_text(f"127.0.0.1:{port}:*:{OWNER}:{word}")
    entry.chmod(0o600)
    try:
        for _ in range(100):
            done = subprocess.run(
                [*create, "--maintenance-db=postgres", "mlflow"],
                env=environ | {"PGPASSFILE": str(entry)}, capture_output=True, check=False,
            )  # fmt: skip
            if done.returncode == 0:
                break
            time.sleep(0.5)
        assert done.returncode == 0, done.stderr
        yield port, files / "pgpass"
    finally:
        server.send_signal(signal.SIGINT)  # it does not wait for those who are connected
        server.wait(30)


def test_a_sweep_is_shown_by_mlflow_on_postgres(
    place: Path, database: tuple[int, Path], local_sweep: tuple[Path, str]
) -> None:
    """Every cell's rate is there; the database's password is in no command line."""
    port, pgpass = database
    (http,) = free_ports(1)
    command = [
        one.replace("@postgres/", f"@127.0.0.1:{port}/")
        .replace("=0.0.0.0", "=127.0.0.1").replace("=5000", f"={http}")
        .replace("=/artifacts", f"={place / 'artifacts'}")
        .replace("localhost:5000,HOST:5000", f"127.0.0.1:{http}").replace("workers=2", "workers=1")
        for one in SERVICES["mlflow"]["command"]
    ]  # fmt: skip
    own = SERVICES["mlflow"]["environment"] | {"PGPASSFILE": str(pgpass)}
    command[0] = str(Path(sys.executable).with_name("mlflow"))
    server = Running(command, place, place / "mlflow", **own)
    where = f"http://127.0.0.1:{http}"

    def answers() -> bool:
        try:
            return httpx.get(f"{where}/health", trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    try:
        server.until(answers, 240)
        word = pgpass.read_text().rpartition(":")[2]
        said = Path("/proc").glob("[0-9]*/cmdline")
        assert not any(word.encode() in one.read_bytes() for one in said if one.exists())
        environ = environment(place) | {"MLFLOW_TRACKING_URI": where}
        tracked = subprocess.run(
            [str(Path(sys.executable).with_name("raycib")), "track", str(local_sweep[0])],
            env=environ, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert tracked.returncode == 0, tracked.stdout + tracked.stderr
        import mlflow

        client = mlflow.MlflowClient(where)
        (experiment,) = (one for one in client.search_experiments() if one.name != "Default")
        runs = client.search_runs([experiment.experiment_id])
        rates = sorted(run.data.metrics["hrr"] for run in runs if "hrr" in run.data.metrics)
        cells = summary_of(local_sweep[0])["cells"]
        assert {cell["scores"]["hrr"]["value"] for cell in cells} < set(rates)
        assert len(rates) == len(cells) + 1, "and the aligned model's"
    finally:
        server.clean()
