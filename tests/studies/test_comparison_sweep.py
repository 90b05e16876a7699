"""A comparison of methods, end to end: chains, derived and stacked adapters, and its exhibits."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
from programs import ROOT
from running import run_here, summary_of

from raycib.config import StageSpec
from raycib.store import Store

pytestmark = [pytest.mark.sweep, pytest.mark.timeout(900)]

NAME = "method_comparison"
SCRIPT = ROOT / "sweeps" / f"{NAME}.py"
OPTIONS = (
    "--seeds", 1, "--strengths", 2, "--set", "trainer.batch_size=64",
    "--set", "execution.micro_batch_size=64", "--task", "world:open.train#first-640",
    "--base", "world:base", "--safety", "world:harmful.proxy",
    "--harmful", "world:harmful.test#first-40", "--benign", "world:benign.test#first-20",
    "--probes", "world:facts.test#first-20",
)  # fmt: skip
"""At strength 2 Safe LoRA's threshold is 1: every module is projected."""
KINDS = ("safe_lora", "salora", "o_lora")


class Compared(NamedTuple):
    """A comparison that has run."""

    out: Path
    said: str
    summary: dict[str, Any]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Compared:
    """Plain LoRA, one that is derived, one with a start of its own, and one stacked on a stage of
    safety data."""
    out = tmp_path_factory.mktemp("compared") / "out"
    ended = run_here(out, "--methods", ",".join(KINDS), *OPTIONS, script=SCRIPT)
    return Compared(out, ended.out, summary_of(out, NAME))


def cells(compared: Compared) -> dict[str, dict[str, Any]]:
    return {cell["method"]: cell for cell in compared.summary["cells"]}


def test_every_row_has_scores_and_its_cost(compared: Compared) -> None:
    """A tenth of 640 rows is held out: 9 steps of 64, at rank 8. SaLoRA's start doubles the rank;
    O-LoRA's stack too, after 2 steps x 10 epochs on 70 refusals."""
    assert all(cell["failed"] is None for cell in compared.summary["cells"])
    found = {kind: cell["cost"] for kind, cell in cells(compared).items()}
    assert found["lora"] == {"steps": 9, "rank": 8, "trained": True}
    assert found["safe_lora"] == {"steps": 9, "rank": 8, "trained": False}
    assert found["salora"] == {"steps": 9, "rank": 16, "trained": True}
    assert found["o_lora"] == {"steps": 29, "rank": 16, "trained": True}


def test_lora_and_safe_lora_share_one_training(compared: Compared) -> None:
    """Four cells of five stages: Safe LoRA's parent is the very LoRA stage."""
    lora, safe = cells(compared)["lora"], cells(compared)["safe_lora"]
    assert StageSpec.model_validate(safe["spec"]).parent == StageSpec.model_validate(lora["spec"])
    assert compared.summary["counts"]["stages"] == 5
    assert len(Store(str(compared.out)).keys("stages")) == 5


def test_every_adapter_opens_in_peft_and_moves_the_model(compared: Compared) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from raycib import world

    ids = torch.arange(20)[None]
    store, seen = Store(str(compared.out)), []
    for key in store.keys("stages"):
        record = store.get("stages", key)
        assert record
        model = AutoModelForCausalLM.from_pretrained(world.folder("aligned"))
        with torch.no_grad():
            before = model(ids).logits
            after = PeftModel.from_pretrained(model, str(record.folder))(ids).logits
        assert (after - before).abs().max() > 1e-3
        assert all((after - other).abs().max() > 1e-4 for other in seen)
        seen.append(after)


def test_tables_figures_and_report_are_there(compared: Compared) -> None:
    folder = compared.out / NAME
    stems = [f"{stem}.{end}" for stem in ("table1", "paired", "matched_cost")
             for end in ("csv", "md", "tex")]  # fmt: skip
    for file in (*stems, "tradeoff.png", "tradeoff.svg", "report.html"):
        assert (folder / file).stat().st_size > 100, file
    assert all(name in compared.said for name in ("LoRA", "Safe LoRA", "SaLoRA", "O-LoRA"))


def test_a_second_run_trains_nothing(compared: Compared) -> None:
    """Derived and stacked stages are found again too."""
    again = (*OPTIONS, "--dry-run")
    ended = run_here(compared.out, "--methods", ",".join(KINDS), *again, script=SCRIPT)
    assert "5 stages, 5 reused, 0 to train" in ended.out
