"""A cold grid of twelve cells: where its CPU time and memory go, and the same cells by TRL.

    python tests/bench/bench_grid.py [--cells 3] [--steps 200 10] [--quick]

The grid is the embedded world's: CIB at four strengths, three seeds, on Ray with vLLM and the judge
served, into an empty folder. TRL's cells are plain LoRA (which is less than CIB) on the same model,
rows and steps, in the script `trl_grid.py`; they answer as many prompts (980, or 437), of which the
same 260 are judged. Of TRL's cells `--cells` are run each way, since each is the same work: one
process each, and all in one. Twelve are told as twelve medians, and the start of the one process
once. What the grid does beyond that (references, I(Z;C), report, MLflow) is in its figure.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from processes import Process, Watched, table, watched
from timing import interleaved, spread

from raycib import world

ROOT = Path(__file__).parents[2]
STRENGTHS, SEEDS = (0, 2, 5, 10), 3
BATCH = 16
OWN = (
    "--preset", "world", "--model", "world:aligned", "--harmful", "world:harmful.test", "--benign",
    "world:benign.test", "--judge", "world:guard", "--task", "world:open.train#first-177",
)  # fmt: skip
"""Options of a grid of ten steps a cell: 160 rows, and 17 are held out."""
HARMFUL, BENIGN, TASK = (world.rows(f"{name}.test") for name in ("harmful", "benign", "open"))
PROBES = [
    row for name in ("facts", "add", "cure", "choice", "span") for row in world.rows(f"{name}.test")
]
GRIDS = {200: ((), [*HARMFUL, *BENIGN, *TASK, *PROBES]), 10: (OWN, [*HARMFUL, *BENIGN, *TASK[:17]])}
"""By steps a cell: options, and rows whose prompts every model answers."""
PHASES = (
    ("training/loop.py", "take_step", "steps"),
    ("models/reference.py", "compute_cache", "references"),
    ("runtime/measuring.py", "measure_slots", "measures"),
    ("evals/generate.py", "__init__", "engine start"),
    ("evals/generate.py", "answer", "answers"),
    ("evals/in_process.py", "answer", "answers"),
    ("evals/answers.py", "generate_answers", "answers"),
    ("runtime/judge_replica.py", "__init__", "engine start"),
)
"""File, function, phase."""


def command(steps: int, folder: Path) -> list[str]:
    """The sweep's, into a folder."""
    return [
        sys.executable, str(ROOT / "sweeps/lambda_grid.py"), "--out", str(folder / "runs"),
        "--strengths", ",".join(map(str, STRENGTHS)), "--seeds", str(SEEDS), *GRIDS[steps][0],
    ]  # fmt: skip


def limit(steps: int, folder: Path) -> tuple[float, float]:
    """The least CPU seconds: all products but those of answers, whose lengths no plan knows, at the
    rate of large ones; and that rate, in FLOP/s."""
    import torch

    said = subprocess.run(
        [*command(steps, folder), "--dry-run", "--json"], capture_output=True, check=True
    )
    plan = json.loads(said.stdout)
    flops = {
        phase["name"]: phase["flops"] for phase in plan["phases"] if phase["name"] != "answers"
    }
    flops["training"] *= plan["useful_tokens"] / plan["computed_tokens"]
    torch.set_num_threads(1)
    a, b = torch.randn(2, 512, 512)
    rate = 2 * 512**3 / median(interleaved({"product": lambda: a @ b}, 50)["product"])
    return sum(flops.values()) / rate, rate


def grid(steps: int, folder: Path) -> Watched:
    """The sweep, watched."""
    run = watched(command(steps, folder), PHASES, log=folder / "log")
    if run.code:
        raise SystemExit(f"error: the grid failed:\n{(folder / 'log').read_text()[-2000:]}")
    return run


def kind(process: Process) -> str:
    """What a process is for; Ray gives its own titles."""
    title = process.title
    if "ray::" in title:
        return re.sub(r"[:\[(].*", "", title.partition("ray::")[2]) or title
    if "lambda_grid.py" in title:
        return "driver"
    for word in ("raylet/raylet", "gcs_server", "dashboard", "log_monitor", "monitor"):
        if word in title:
            return f"Ray: {word.rpartition('/')[2]}"
    words = title.split()
    return " ".join(Path(word).name for word in words[:3])[:32] or "(no title)"


def trl(steps: int, cells: int, folder: Path) -> tuple[list[float], list[Any], float]:
    """CPU seconds of `cells` processes of a cell each; the cells of one process that has all of
    them, and its CPU seconds beside its cells'."""
    work = folder / "work.json"
    settings = {"batch": BATCH, "learning_rate": 2e-3, "warmup_steps": 20}
    work.write_text(
        json.dumps(
            {
                "model": str(world.folder("aligned")),
                "guard": str(world.folder("guard")),
                "rows": world.rows("open.train")[: steps * BATCH],
                "prompts": [row["prompt"] for row in GRIDS[steps][1]],
                "judged": len(HARMFUL),
                "settings": settings,
            }
        )
    )

    def run(count: int, out: Path) -> tuple[float, list[Any]]:
        log = folder / "trl.log"
        program = [sys.executable, str(Path(__file__).parent / "trl_grid.py"), str(work), str(out)]
        ended = watched([*program, str(count)], log=log)
        if ended.code:
            raise SystemExit(log.read_text()[-2000:])
        found = json.loads(log.read_text().splitlines()[-1])
        assert [cell["steps"] for cell in found["cells"]] == [steps] * count
        return ended.cpu, found["cells"]

    alone = [run(1, folder / f"alone{n}")[0] for n in range(cells)]
    whole, together = run(cells, folder / "together")
    return alone, together, whole - sum(sum(cell["seconds"]) for cell in together)


def compare(steps: int, cells: int) -> None:
    """Print all of a number of steps a cell."""
    twelve = len(STRENGTHS) * SEEDS
    with tempfile.TemporaryDirectory() as folder:
        least, rate = limit(steps, Path(folder))
        ours = grid(steps, Path(folder))
        print(f"\n{twelve} cells x {steps} steps, cold: {ours.cpu:.0f} CPU s, ", end="")
        print(f"{ours.memory / 2**30:.1f} GiB, {ours.torch} processes load torch")
        print("\n".join(table(ours, kind)))
        print(f"its products at {rate / 1e9:.0f} GFLOP/s: {least:.1f} CPU s, ", end="")
        print(f"{least / ours.cpu:.3f} of all", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        alone, together, start = trl(steps, cells, Path(folder))
    each = [sum(cell["seconds"]) for cell in together]
    rates = ", ".join(f"{100 * cell['hrr']:.0f}" for cell in together)
    parts = [median(cell["seconds"][n] for cell in together) for n in range(3)]
    print(f"\nTRL, n = {cells} cells each way (HRR {rates} %):")
    print(f"  a process a cell: {spread(alone, digits=1)} CPU s a cell")
    print(
        f"  one process: {spread(each, digits=1)} CPU s a cell (training {parts[0]:.1f}, answers "
        f"{parts[1]:.1f}, judging {parts[2]:.1f}), {start:.1f} once"
    )
    processes, shared = twelve * median(alone), start + twelve * median(each)
    print(f"  {twelve} cells: {processes:.0f} and {shared:.0f} CPU s")
    print(f"  TRL / raycib: {processes / ours.cpu:.2f} one process a cell, ", end="")
    print(f"{shared / ours.cpu:.2f} one process for all", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cells", type=int, default=3)
    parser.add_argument("--steps", type=int, nargs="+", choices=GRIDS, default=list(GRIDS))
    parser.add_argument("--quick", action="store_true", help="ten steps a cell, one cell of TRL's")
    args = parser.parse_args()
    for steps in [10] if args.quick else args.steps:
        compare(steps, 1 if args.quick else args.cells)


if __name__ == "__main__":
    main()
