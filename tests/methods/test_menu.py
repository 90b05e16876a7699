"""The menu finds methods where they are written: in raycib's folder, in installed packages, and in
files of a person's own, whose code is part of the key."""

import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from raycib.config import ModelSpec, PlainLoRA, StageSpec, TaskSpec
from raycib.config import menu as menu_module
from raycib.config.menu import from_place, menu, named
from raycib.config.plan import AdapterGroup, Job
from raycib.errors import UserError

STAGE = StageSpec(
    model=ModelSpec(source="here", weights="w" * 64, tokenizer="t" * 64),
    task=TaskSpec(name="sums", source="sums.jsonl", rows="r" * 64, num_rows=100),
)
OWN = '''
from typing import ClassVar, Literal

from raycib.config import About, Method


class Anchor(Method):
    """Nothing much."""

    about: ClassVar[About] = About("Anchor", "none", "lam", "none", "nothing", "none")
    kind: Literal["anchor"] = "anchor"
    lam: float = 0.1
'''


@pytest.fixture(autouse=True)
def _forgotten():
    yield
    menu_module._GIVEN.clear()


def written(folder: Path, text: str = OWN, name: str = "my_methods.py") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def in_a_process(program: str, given: str = "") -> str:
    run = subprocess.run(
        [sys.executable, "-c", program], input=given, capture_output=True, text=True
    )
    return run.stdout.strip() or run.stderr


PAPERS: dict[str, dict[str, object]] = {
    "random_subset": {"fraction": 0.8},
    "kl": {"lam": 0.1},
    "vaccine": {"rho": 0.01, "ascent_steps": 3},
    "safe_lora": {"threshold": 0.5, "number": 10, "projector": "approximate"},
    "salora": {"safety_rank": 16, "task_rank": 32, "calibration_rows": 128, "init": "task"},
    "o_lora": {"lam": 0.5, "norm": "l1", "factor": "lora_A", "mean": False},
    "cib": {"lam": 5, "temperature": 0.2, "queue_size": 512, "num_negatives": 64,
            "queue": "hardest", "negatives": "reference"},
    "constrained_token": {"beta": 0.1, "first_factor": 5, "early_factor": 20},
    "sbr": {"lam": 50, "anchors": 8},
}  # fmt: skip
"""What the papers, or their official code, train with."""


@pytest.mark.parametrize("kind", PAPERS)
def test_a_method_is_by_default_as_its_paper_has_it(kind: str):
    """It could move, and every table with it."""
    default = menu()[kind].model_construct()
    assert {name: getattr(default, name) for name in PAPERS[kind]} == PAPERS[kind]


def test_every_file_is_on_the_menu_under_its_own_name_and_none_imports_torch():
    folder = Path(menu_module.__file__).parents[1] / "methods"
    files = {file.stem for file in folder.glob("*.py")} - {"__init__"}
    assert set(menu()) == {"lora", *files}


def test_a_method_of_one_s_own_is_known_by_its_code(tmp_path: Path):
    """An edited loss is another method; where the file lies does not matter."""
    kind, anchor = named(f"{written(tmp_path)}:Anchor")
    assert kind == "anchor" and menu()["anchor"] is anchor
    first = STAGE.model_copy(update={"method": anchor(lam=2)})
    assert first.key != STAGE.key
    assert first.model_copy(update={"method": anchor(lam=0)}).key == STAGE.key, "plain LoRA"
    (tmp_path / "moved").mkdir()
    menu_module._GIVEN.clear()
    moved = from_place(written(tmp_path / "moved"))
    assert first.model_copy(update={"method": moved(lam=2)}).key == first.key
    menu_module._GIVEN.clear()
    edited = from_place(written(tmp_path, OWN + "\nA_COMMENT = 1\n"))
    assert first.model_copy(update={"method": edited(lam=2)}).key != first.key


def test_a_group_brings_the_code_and_a_stored_stage_does_not(tmp_path: Path):
    """A worker elsewhere lacks the file. What a store holds is never run."""
    anchor = from_place(written(tmp_path))
    parent = STAGE.model_copy(update={"method": anchor(lam=2)})
    child = STAGE.model_copy(update={"parent": parent})
    group = AdapterGroup(name="p", jobs=(Job(stage=child, evals=()),))
    (tmp_path / "my_methods.py").unlink()
    read = "import sys; from {0} import {1}; print({1}.model_validate_json(sys.stdin.read()){2})"
    program = read.format("raycib.config.plan", "AdapterGroup", ".jobs[0].stage.key")
    assert in_a_process(program, group.model_dump_json()) == child.key
    program = read.format("raycib.config", "StageSpec", "")
    assert "no method 'anchor'" in in_a_process(program, parent.model_dump_json())


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        (OWN.replace('"anchor"', '"cib"'), "", "its kind 'cib' is that of a method of raycib"),
        (OWN.replace('"Anchor"', '"KL"'), "", "'anchor' and 'kl' are both called 'KL', and tables"),
        (OWN, ":Other", "which method?"),
        (OWN + "\n1 / 0\n", "", "ZeroDivisionError"),
        ("", "", "which method?"),
        (OWN.replace("about: ClassVar[About] = ", "said: ClassVar[About] = "), "", "needs a kind"),
    ],
)
def test_what_is_no_method_is_refused(text: str, place: str, message: str, tmp_path: Path):
    with pytest.raises(UserError, match=message):
        from_place(written(tmp_path, text) + place)
    assert "anchor" not in menu()


def test_a_missing_file_and_an_unknown_kind_are_refused():
    nowhere = Path("nowhere.py").absolute()
    told = f"nowhere.py:Anchor: cannot read {nowhere}: No such file or directory; give a file that"
    with pytest.raises(UserError, match=f"^{re.escape(told)} is there$"):
        named("nowhere.py:Anchor")
    with pytest.raises(UserError, match="no method 'ibc'; there is lora"):
        named("ibc")


def test_an_installed_package_adds_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    written(tmp_path, name="their_methods.py")
    monkeypatch.syspath_prepend(tmp_path)
    point = EntryPoint("anchor", "their_methods:Anchor", "raycib.methods")
    monkeypatch.setattr(menu_module, "entry_points", lambda group: [point])
    menu_module._installed.cache_clear()
    try:
        assert menu()["anchor"].source.place == "their_methods:Anchor"  # type: ignore[union-attr]
        own = STAGE.model_copy(update={"method": menu()["anchor"](lam=1)})
        assert StageSpec.model_validate_json(own.model_dump_json()) == own
    finally:
        monkeypatch.undo()
        menu_module._installed.cache_clear()
    assert PlainLoRA is menu()["lora"]
