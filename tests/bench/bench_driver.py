"""What does a cell cost the driver, in time and in bytes, as a sweep grows?

    OMP_NUM_THREADS=1 python tests/bench/bench_driver.py [--cells 10,100,1000] [--profile PART]

Finished lambda grids, made up in a store; every part is done as a sweep does it when nothing is
left to train. CPU time of this process; bytes are what the part leaves on the disk. The last line
is what a further cell costs, from the two largest sweeps: starts and fixed parts are not in it.
10,000 cells (--cells 1000,10000) take a quarter of an hour and 5 GB of disk.
"""

import argparse
import contextlib
import cProfile
import io
import pstats
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import synthetic_sweep

from raycib.config.plan import Plan
from raycib.importing import collect_seldom
from raycib.results import FILE, as_text
from raycib.runtime.capacity import groups_here
from raycib.runtime.labelled import with_correction
from raycib.runtime.planning.estimate import estimate
from raycib.runtime.planning.machine import machine_of
from raycib.runtime.shown import print_plan
from raycib.runtime.summary import all_samples, stored_histories, summarise

PARTS = ("plan", "summary", "report", "mlflow")
FIRST = 8
"""Cells of a sweep that is run before the clock: imports are not a cell's."""


def main() -> None:
    """Print a table, a row for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", default="10,100,1000")
    parser.add_argument("--profile", choices=PARTS, help="print what the largest spends here")
    parser.add_argument("--keep", type=Path, help="make the stores here, or find them")
    given = parser.parse_args()
    collect_seldom()  # as every program of ours does
    sizes = [int(one) for one in given.cells.split(",")]
    with tempfile.TemporaryDirectory() as temporary:
        root = given.keep or Path(temporary)
        measured(root, FIRST, None)
        print(f"{'cells':>6} " + " ".join(f"{part:>9} ms {'kB':>7}" for part in PARTS), "  GiB")
        rows = []
        for size in sizes:
            profiled = given.profile if size == sizes[-1] else None
            rows.append(measured(root, size, profiled))
            show(f"{size:>6}", rows[-1], size)
    if len(sizes) > 1:
        (a, b), (m, n) = rows[-2:], sizes[-2:]
        show("  each", {p: [y - x for x, y in zip(a[p], b[p], strict=True)] for p in PARTS}, n - m)


def show(head: str, spent: dict[str, list[float]], cells: int) -> None:
    """Milliseconds and kilobytes a cell."""
    said = " ".join(f"{ms / cells:12.2f} {kb / cells:7.1f}" for ms, kb in spent.values())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{head} {said}  {peak:5.2f}", flush=True)


def measured(root: Path, cells: int, profiled: str | None) -> dict[str, list[float]]:
    """CPU milliseconds and kilobytes on the disk of each part of a sweep of so many cells."""
    out = root / f"cells-{cells}"
    few = 2 if cells < 10 else len(synthetic_sweep.STRENGTHS)
    asked, options = synthetic_sweep.question(cells // few, synthetic_sweep.STRENGTHS[:few])
    if not out.exists():
        synthetic_sweep.fill(out, asked, options)
    folder = out / asked.name
    folder.mkdir(exist_ok=True)
    spent: dict[str, list[float]] = {}

    def part(name: str, do: Callable[[], Any]) -> Any:
        before = _kilobytes(out, asked.name)
        with _profile(name == profiled), contextlib.redirect_stdout(io.StringIO()):
            began = time.process_time()
            found = do()
            took = 1000 * (time.process_time() - began)
        spent[name] = [took, _kilobytes(out, asked.name) - before]
        return found

    for file in [*folder.iterdir(), *out.glob("mlflow.db")]:
        file.unlink()
    sweep, plan = part("plan", lambda: _planned(out, asked, options))
    results, samples, histories = part("summary", lambda: _summary(sweep, plan, asked, folder))
    part("report", lambda: _report(sweep, results, samples, histories, folder))
    part("mlflow", lambda: _mlflow(results, histories, folder))
    return spent


def _planned(out: Path, asked: Any, options: dict[str, Any]) -> Any:
    sweep = synthetic_sweep.sweep_in(out, asked, options)
    plan = sweep.plan(groups_here(sweep.setup.execution))
    machine = machine_of(sweep.setup.options, sweep.setup.execution)
    print_plan(sweep, plan, estimate(sweep, plan, machine))
    return sweep, plan


def _summary(sweep: Any, plan: Plan, asked: Any, folder: Path) -> Any:
    from raycib.report.writing import write_text

    assert sweep.finished or sweep.jobs or not sweep.prepared
    results = summarise(sweep, (asked.name, asked.question), plan, {}, {}, {"total": 0.0})
    samples = all_samples(sweep)
    results = with_correction(sweep, results, samples)
    assert not any(cell.failed for cell in results.cells)
    write_text(folder / FILE, as_text(results))
    return results, samples, stored_histories(sweep.store, sweep.stages)


def _report(sweep: Any, results: Any, samples: Any, histories: Any, folder: Path) -> None:
    from raycib.report.page import write_report

    report = sweep.setup.study.report(results, samples, histories)
    print(report.terminal())
    write_report(report, samples, folder)


def _mlflow(results: Any, histories: Any, folder: Path) -> None:
    from raycib.tracking import track

    assert track(results, histories, folder)


@contextlib.contextmanager
def _profile(wanted: bool) -> Iterator[None]:
    if not wanted:
        yield
        return
    with cProfile.Profile() as profile:
        yield
    pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(35)


def _kilobytes(out: Path, name: str) -> float:
    """What stands in the sweep's folder and in MLflow's file; artifacts are copies."""
    files = [*(out / name).rglob("*"), *out.glob("mlflow.db*")]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1000


if __name__ == "__main__":
    main()
