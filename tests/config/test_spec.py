"""A key names a result: what changes the result changes it, and nothing else does.

Fields are found by introspection: a new one fails here until someone decides what it is.
"""

import json
import math
import subprocess
import sys
from typing import Any, Literal, get_args, get_origin

import pytest
from menu import METHODS
from spec_examples import (
    ANOTHER,
    DERIVED,
    EXAMPLES,
    LOCATIONS,
    MODEL,
    ON_ANOTHER,
    STAGE,
    TASK,
    changed,
    every_spec,
    key_of,
)

from raycib.config import (
    LoRASpec,
    Method,
    PlainLoRA,
    Spec,
    StageSpec,
    TrainerSpec,
    digest,
)
from raycib.methods.case2_ball import Case2Ball
from raycib.methods.cib import CIB


def example_for(kind: type[Spec], name: str) -> Any:
    """A spec whose field may be changed: only what has a parent can be fresh."""
    return ON_ANOTHER if (kind, name) == (StageSpec, "fresh") else EXAMPLES[kind]


def has_one_value(annotation: Any) -> bool:
    return get_origin(annotation) is Literal and len(get_args(annotation)) == 1


def fields() -> list[Any]:
    return [
        pytest.param(kind, name, id=f"{kind.__name__}.{name}")
        for kind in every_spec()
        for name, field in kind.model_fields.items()
        if not has_one_value(field.annotation)
    ]


@pytest.mark.parametrize(("kind", "name"), fields())
def test_a_result_field_changes_the_key_and_a_location_does_not(kind: type[Spec], name: str):
    spec = example_for(kind, name)
    stays = key_of(changed(spec, name)) == key_of(spec)
    assert stays == (name in LOCATIONS.get(kind, set()))


@pytest.mark.parametrize(
    ("outer", "name", "inner"),
    [
        pytest.param(outer, name, inner, id=f"{type(outer).__name__}.{name}.{inner}")
        for outer in EXAMPLES.values()
        for name, value in outer
        if isinstance(value, Spec)
        for inner, field in type(value).model_fields.items()
        if not has_one_value(field.annotation)
    ],
)
def test_the_same_holds_for_a_spec_inside_another(outer: Any, name: str, inner: str):
    part = getattr(outer, name)
    whole = outer.model_copy(update={name: changed(part, inner)})
    assert (key_of(whole) == key_of(outer)) == (inner in LOCATIONS.get(type(part), set()))


@pytest.mark.parametrize("name", METHODS)
def test_a_method_at_strength_zero_has_the_key_of_plain_lora(name: str):
    method, plain = METHODS[name], STAGE.model_copy(update={"method": PlainLoRA()})
    zero = STAGE.model_copy(update={"method": method.off()})
    own = STAGE.model_copy(update={"method": method})
    assert method.off().is_plain
    assert method.off().strength == (math.inf if isinstance(method, Case2Ball) else 0)
    assert zero.key == plain.key
    # O-LoRA is about what lies below, and here nothing does.
    assert (own.key == plain.key) == (method.strength == 0 or method.stacked)
    assert own.method == method, "what was asked for stays readable"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (TrainerSpec(weight_decay=0.0), TrainerSpec(weight_decay=-0.0)),
        (CIB(lam=5.0), CIB.model_validate({"lam": 5})),
        (CIB(lam=5.0), CIB().model_copy(update={"lam": 5})),  # copies are not validated
        (LoRASpec(alpha=64.0), LoRASpec.model_validate_json('{"alpha": 64}')),
    ],
)
def test_equal_numbers_give_equal_keys_however_they_are_written(one: Spec, other: Spec):
    """JSON writes 5, 5.0 and -0.0 apart."""
    assert one == other
    assert key_of(one) == key_of(other)


def test_parents_enter_by_key():
    """So a parent's name and place do not matter, its content does, and identities stay short."""
    child = STAGE.model_copy(update={"parent": STAGE})
    assert child.identity()["parent"] == STAGE.key
    moved = STAGE.model_copy(update={"model": MODEL.model_copy(update={"source": "else"})})
    assert STAGE.model_copy(update={"parent": moved}).key == child.key
    other = STAGE.model_copy(update={"seed": 9})
    assert STAGE.model_copy(update={"parent": other}).key != child.key
    grandchild = STAGE.model_copy(update={"parent": child})
    assert len({STAGE.key, child.key, grandchild.key}) == 3


@pytest.mark.parametrize("kind", every_spec())
def test_equal_specs_share_a_key_after_a_round_trip_through_json(kind: type[Spec]):
    spec = EXAMPLES[kind]
    others = (changed(example_for(kind, name), name) for name in ANOTHER[kind])
    for one in (spec, *others):
        again = kind.model_validate_json(one.model_dump_json())
        assert again == one
        assert key_of(again) == key_of(one)
    if not isinstance(spec, Method):
        assert len(spec.key) == 64
        assert spec.short == spec.key[:12]


def test_a_key_does_not_depend_on_the_order_of_fields():
    assert digest({"a": 1, "b": [2.5, None]}) == digest({"b": [2.5, None], "a": 1})
    fields = json.loads(STAGE.model_dump_json())
    assert StageSpec.model_validate(dict(reversed(fields.items()))).key == STAGE.key


GOLDEN = {
    "CIB": "faf7abf113173c267c3647503c9c2298ed34be59711966ca3605a3541a673666",
    "Case1": "85797d20a6c2e149d7d57361613028fa7da89cb28c29f2487f520dcca8efd09a",
    "Case2": "448751992395c6613519229e0db6b1a22b18f4872a5c3e05f921f457dedce8d1",
    "Case2Ball": "411fb49791756478016f7497d1328d29c7526a84d77233605840e8f8b563575d",
    "ConstrainedToken": "63b03733fc8dd0cb2a9f884484753b8858098b4c6a005ea27cbd1bdebe8eaa27",
    "EMA": "4af142c2e7c6d93bab934f5b76b91a8585e0e5ecc761d521157833c7c207647c",
    "EvalSpec": "01bb232fcbbc0d7a279cd40ca5a5f463682899c21ae02637c3e764c1064e0394",
    "GapSpec": "75977cb54bedfad0620cbdbde90d356f3deea89dc8316925784634998f7bac13",
    "JudgeSpec": "9e301a7c0f2c89b759b67b7b088ef7c5e64df60322352f813b54b962260d0b6c",
    "LmEvalSpec": "8bc41f363de8a54d9d5ea3a0c52ba8a66bb02daec293c9c2097b0afd243f229f",
    "KL": "fa222c62313e7a1d5400d270d98ae26e5908e4bba6b5c92740cd37b8a820c6c2",
    "LandscapeSpec": "bf0a992a50b08b96c2bbc2ae1c3f62ad440887acf79424a4ca579464864a77e2",
    "LoRASpec": "bebf9c85df9eb7df2050ec2d4235136e238bf5f9e7312c4e7e84f938c4f78bc0",
    "ModelSpec": "c5290de83127c00f3c7777a4d4116da8c32068018b1d1b57fb2c793edfa40f72",
    "OLoRA": "29f81073f2c40cb634ea132bec7387c4fbd4e0845b750e4abffa19ac44f51d13",
    "PlainLoRA": "8699de4098e293da81084a4408a775cc3b51e89ac89fd17e41e7dbf6ac550932",
    "RandomSubset": "5d81af13b2d55da53b44e9ddceb05de2eacb6073c688adc6e2b68c6c01ca7f3e",
    "RowsSpec": "445a3b71dc62376542f16bfd3b49cd7e7771deef9adc36f643fdd3449b77069f",
    "RunSpec": "bf354293ae264fd2dcd94711cbc0f05183b43819321c60d29086ea3e4ef7919c",
    "SBR": "d8faaa66c57f879c492bc24e49deddb5d214182a34b46a6dfcdcf7095e1b874b",
    "SaLoRA": "df6311737484401ac052da005f964ca1bffb2941f44d1073340fe2f591bf7725",
    "SafeGrad": "ae2e8dd8fbd4647bbe67ad4daf054c91616458c09891f35181152eb55f625273",
    "SafeLoRA": "e3edae1d42ffe321cb84d3f6d0820fb972abf35980bbc453268b221ffb019c16",
    "SafetyMix": "f1f287ffaa0ce2b964980fbc9037012705e2e89cb32b92a98fed0a892ac32d73",
    "StageSpec": "bb7a0936567ae74e26d0299c40a308ca1446ec7b9c741e8315dfec6637aaf038",
    "TaskSpec": "3171fd4cf94919cd94b074b72217653ebf0e0720e2ef9623ac1fc47a92bde9a4",
    "TrainerSpec": "1e46964de6ad98f1eaf04ae8fb6067e56056207e3703d2ab189f833a1c09f279",
    "Vaccine": "39ac78c4249150c6d9a51bb98dab3160fabf10e9a60b70c67ab0b80e9cc57347",
    "child at zero": "1fb1a487759be58f17a5360a7d7fbf8a4d2143db6aceb036c715493e606088eb",
    "derived": "833c9e21605afa491c463638f270fed0a903bd5e31726ad14e196056c28d4bc6",
    "a whole model": "4ea58005eaff813a5e479e3b329810cf4e654f4f4c180203561bd9c84ae4de70",
    "fresh child": "f2992867309ff829baae89a2b16d4f1e6dcf8e9b9a6f994a525244703db40717",
}
"""Keys of EXAMPLES (RESULTS_VERSION 2). A store outlives its raycib: if one of these moves, every
result of every user is lost to them. Raise RESULTS_VERSION only when results really change."""


def test_keys_never_move():
    keys = {kind.__name__: key_of(EXAMPLES[kind]) for kind in every_spec()}
    child = STAGE.model_copy(update={"parent": STAGE, "method": CIB(lam=0)})
    fresh = ON_ANOTHER.model_copy(update={"fresh": True})
    chained = {"child at zero": child.key, "fresh child": fresh.key, "derived": DERIVED.key}
    chained["a whole model"] = StageSpec(model=MODEL, task=TASK, lora=None).key
    assert {name: (keys | chained).get(name) for name in GOLDEN} == GOLDEN


def test_specs_plans_grids_and_rows_need_no_torch_and_no_ray():
    """The command line and the analysis read them: they start in a moment."""
    program = (
        "import sys, raycib.config, raycib.config.plan, raycib.config.grid, "
        "raycib.data.rows, raycib.model_files\n"
        "heavy = {'torch', 'ray', 'mlflow', 'transformers', 'datasets', 'pandas', 'numpy'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (run.stdout.strip(), run.stderr) == ("[]", "")
