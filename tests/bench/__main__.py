"""All that docs/performance.md says, measured anew: `make bench`.

    python tests/bench [PART ...] [--quick]

Each part is a program of its own, with a docstring of its own and more options.
"""

import argparse
import os
import platform
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
QUICK = ("--quick",)
PARTS = {
    "steps": ("bench_steps.py", QUICK),
    "methods": ("bench_methods.py", QUICK),
    "tokens": ("bench_micro_batches.py", ()),
    "driver": ("bench_driver.py", ("--cells", "10,100")),
    "grid": ("bench_grid.py", QUICK),
    "gpu": ("bench_gpu.py", ("--rounds", "3")),
}
"""File and options of a quick run, by what is asked for; in this order."""


def machine() -> str:
    """What the figures are of."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = {line.partition(": ")[2] for line in lines if line.startswith("model name")}
    return (
        f"{', '.join(names) or platform.processor()}, {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f}, Python {platform.python_version()}; CPU times, one thread"
    )


def main() -> None:
    """Run the parts one after the other; those that fail do not stop the rest."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=...")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="few rounds and few cells")
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TQDM_DISABLE": "1"}
    print(machine())
    failed = []
    for part in args.parts or PARTS:
        print(f"\n== {part}", flush=True)
        file, quick = PARTS[part]
        command = [sys.executable, str(HERE / file), *(quick if args.quick else ())]
        if subprocess.run(command, env=os.environ | threads | offline).returncode:
            failed.append(part)
    if failed:
        raise SystemExit(f"error: not measured: {', '.join(failed)}")


if __name__ == "__main__":
    main()
