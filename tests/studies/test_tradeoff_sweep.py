"""A trade-off sweep, end to end: it makes its own aligned model, and measures gaps and theorems."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
from programs import ROOT
from running import run_here, summary_of

from raycib.store import Store
from raycib.training.group import STAGES

pytestmark = [pytest.mark.sweep, pytest.mark.timeout(900)]

NAME = "penalty_grid"
SCRIPT = ROOT / "sweeps" / f"{NAME}.py"
OPTIONS = (
    "--seeds", 1, "--strengths", 0.5, "--set", "trainer.batch_size=64",
    "--set", "execution.micro_batch_size=64", "--task", "open,gsm",
)  # fmt: skip
PROXIES = ("original data", "near outputs", "far outputs", "other inputs")


class Swept(NamedTuple):
    """A sweep that has run."""

    out: Path
    said: str
    summary: dict[str, Any]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """Plain LoRA on two tasks, and Case I at one lambda: four proxies on the first task, the
    original data on the other; 50 steps each."""
    out = tmp_path_factory.mktemp("tradeoff") / "out"
    ended = run_here(out, *OPTIONS, script=SCRIPT)
    return Swept(out, ended.out, summary_of(out, NAME))


def cell(swept: Swept, task: str, label: str | None) -> dict[str, Any]:
    (found,) = (c for c in swept.summary["cells"] if (c["task"], c["label"]) == (task, label))
    return found


def test_the_aligned_model_is_made_first_and_refuses(swept: Swept) -> None:
    """One stage trains all weights, seven fine-tune what it made; before them no harmful prompt is
    answered and no harmless one refused, within the intervals."""
    assert swept.summary["counts"]["stages"] == 8
    models = [
        record for record in Store(str(swept.out)).records(STAGES)
        if "model.safetensors" in record.files
    ]  # fmt: skip
    assert len(models) == 1
    aligned = swept.summary["aligned"]["scores"]
    assert aligned["hrr"]["value"] < 0.05 and aligned["over_refusal"]["value"] < 0.05
    assert swept.summary["model"]["name"] == "world:base aligned on original data"


def test_every_cell_has_both_gaps(swept: Swept) -> None:
    """Against plain LoRA its own capability gap is exactly 0; fine-tuning opens an alignment gap,
    and a penalty on the original data closes most of it."""
    assert {c["label"] for c in swept.summary["cells"]} == {
        None, *(f"Case I, {name}" for name in PROXIES)
    }  # fmt: skip
    for one in swept.summary["cells"]:
        for gap in ("alignment_gap", "capability_gap", "alignment_gap_exact"):
            assert one["scores"][gap]["n"] == 400
    lora, held = cell(swept, "open", None), cell(swept, "open", "Case I, original data")
    assert lora["scores"]["capability_gap"]["value"] == 0 == lora["scores"]["capability_gap"]["se"]
    assert held["scores"]["alignment_gap"]["high"] < lora["scores"]["alignment_gap"]["low"]
    assert held["scores"]["capability_gap"]["low"] > 0


def test_exact_gaps_differ_from_measured_ones_by_what_the_aligned_model_lacks(swept: Swept) -> None:
    """Eq. 3 - Eq. 19 is the aligned model's own exact gap, the same for every cell."""
    own = swept.summary["theory"]["alignment_gap_exact"]
    for one in swept.summary["cells"]:
        exact, measured = (one["scores"][f"alignment_gap{end}"]["value"] for end in ("_exact", ""))
        assert exact - measured == pytest.approx(own, abs=1e-6)


def test_the_theorems_have_their_terms(swept: Swept) -> None:
    theory = swept.summary["theory"]
    assert [proxy["name"] for proxy in theory["proxies"]] == list(PROXIES)
    assert {proxy["how"] for proxy in theory["proxies"]} == {"exact"}
    slopes = [max(one["sampled"], one["ascent"]) for one in theory["lipschitz"]]
    assert slopes == sorted(slopes) and slopes[0] > 0
    assert {one["task"] for one in theory["smoothness"]} == {"open", "gsm"}
    for one in theory["smoothness"]:
        assert 0 < one["gradient_norm"] <= one["gradient_norm_full"]


def test_tables_figures_and_report_are_there(swept: Swept) -> None:
    folder = swept.out / NAME
    names = ["gaps.csv", "bounds_summary.md", "data_terms.tex", "tax.csv", "figure1.png",
             "figure1.svg", "report.html"]  # fmt: skip
    assert [name for name in names if (folder / name).stat().st_size < 100] == []


def test_a_second_run_trains_nothing(swept: Swept) -> None:
    ended = run_here(swept.out, *OPTIONS, script=SCRIPT)
    assert "0 stages trained, 8 reused" in ended.out
    assert "0 engine starts; 0 judge calls" in ended.out
