"""The menu: every method of the spec can be built, and strength zero is plain fine-tuning."""

from typing import get_args

import pytest
from menu import METHODS, at_zero

from raycib.methods import build_method
from raycib.objectives.cross_entropy import CrossEntropy
from raycib.spec import CIB, MethodSpec, PlainLoRA

DIM = 8


def test_every_method_of_the_spec_is_tested():
    """A new one must be added to tests/menu.py, and so to every invariance."""
    (union, *_) = get_args(MethodSpec)
    assert {type(method) for method in METHODS.values()} == set(get_args(union))


@pytest.mark.parametrize("name", METHODS)
def test_strength_zero_trains_the_task_loss_alone_and_reads_no_reference(name: str):
    method = build_method(at_zero(METHODS[name]), DIM)
    assert type(method.objective) is CrossEntropy
    assert method.references == ()


@pytest.mark.parametrize("name", METHODS)
def test_a_method_names_the_references_that_it_reads(name: str):
    match METHODS[name]:
        case PlainLoRA():
            expected = ()
        case CIB() as options:
            expected = ((options.pooling, options.layer),)
    assert build_method(METHODS[name], DIM).references == expected


def test_a_method_s_memory_has_the_size_of_the_spec_and_of_the_model():
    state = build_method(CIB(queue_size=5, num_negatives=2), DIM).objective.state_dict()
    shapes = {name.rpartition(".")[2]: tuple(value.shape) for name, value in state.items()}
    assert shapes == {
        "reference": (5, 8),
        "current": (5, 8),
        "example": (5,),
        "hardness": (5,),
        "pushed": (5,),
    }


def test_lanes_do_not_share_a_memory():
    spec = CIB(queue_size=5, num_negatives=2)
    assert build_method(spec, DIM).objective is not build_method(spec, DIM).objective
