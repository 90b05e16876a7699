"""What the documents say that sweeps cost, against what `raycib plan` says."""

import json
import re
from pathlib import Path

import pytest
from programs import RAYCIB, ROOT, SWEEPS, Program

SHARDS = ("--workers", "2", "--set", "execution.strategy=fsdp2")
ROUNDED = ("--set", "alignment.precision=bfloat16")


def rows_of(file: str, header: str) -> list[list[str]]:
    """Cells of the table under a header, without the marks of code."""
    _, _, below = (ROOT / file).read_text().partition(f"\n{header}\n")
    table, _, _ = below.partition("\n\n")
    lines = table.replace("`", "").splitlines()[1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


PLANNED = rows_of(
    "docs/plan.md",
    "| sweep | preset | GPU | stages | GiB of a group's worker | hours | dollars |",
)
TOLD = rows_of("cluster/README.md", "| preset | sweep | on | GPU hours | dollars |")


def shown(number: float, like: str) -> str:
    """Rounded to as many digits after the point as are written."""
    return f"{number:.{len(like.partition('.')[2])}f}"


@pytest.mark.parametrize("row", [one for one in PLANNED if "CPU" not in one[2]], ids=" ".join)
def test_a_row_of_the_plans_table_is_what_a_plan_says(
    row: list[str], tmp_path: Path, program: Program
) -> None:
    sweep, preset, gpu, stages, size, hours, dollars = row
    options = ["--json", "--out", str(tmp_path)]
    if "in shards" in sweep:  # as the text under the table has it
        sweep, preset, _ = next(one for one in PLANNED if one[1] == "llama2-7b-tradeoffs")[:3]
        options += [*SHARDS, *ROUNDED]
    options += ["--preset", preset, "--gpu", gpu.split()[-1]]
    told = json.loads(program(RAYCIB, "plan", SWEEPS / f"{sweep}.py", *options).out)
    number, aligns, _ = size.partition(", to align the base")
    worker = told["memory"]["the worker that aligns the base" if aligns else "a group's worker"]
    held = sum(worker.values()) / 2**30
    found = told["to_train"], told["hours"], told["dollars"], held
    assert [shown(*pair) for pair in zip(found, (stages, hours, dollars, number), strict=True)] == [
        stages, hours, dollars, number,
    ]  # fmt: skip


def test_the_clusters_table_says_the_same() -> None:
    """Each of its rows has one preset or several, or several sweeps of one."""
    known = {
        (preset, sweep): (hours, dollars) for sweep, preset, _, _, _, hours, dollars in PLANNED
    }
    [(hours, dollars)] = [(one[5], one[6]) for one in PLANNED if "in shards" in one[0]]
    known |= {("llama2-7b-tradeoffs", "penalty_grid"): (hours, dollars)}
    seen = 0
    for presets, sweeps, _, hours, dollars in TOLD[:-1]:
        pairs = [
            (preset, sweep)
            for preset in presets.split(", ")
            for sweep in re.split("; ", sweeps.partition(",")[0])
        ]
        expected = [known[pair] for pair in pairs]
        for column, said in enumerate((hours, dollars)):
            values = [one[column] for one in expected]
            several = re.split("[;,] ", said)
            assert several == (values if len(several) > 1 else sorted(set(values))), presets
        seen += len(pairs)
    assert seen == 8
