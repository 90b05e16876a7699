"""A key names a result: what changes the result changes it, and nothing else does.

Fields are found by introspection: a new one fails here until someone decides what it is.
"""

import json
import math
from typing import Any, Literal, get_args, get_origin

import pytest
from menu import METHODS
from spec_examples import (
    ANOTHER,
    EXAMPLES,
    LOCATIONS,
    MODEL,
    ON_ANOTHER,
    STAGE,
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
