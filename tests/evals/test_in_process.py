"""How transformers is asked for answers."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM

from raycib import world
from raycib.evals.engine import GenerationRequest
from raycib.evals.in_process import InProcessGenerator
from raycib.models import load_tokenizer


class Inputs(TorchDispatchMode):
    """Of the products with weights, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[torch.Tensor] = []

    def __torch_dispatch__(
        self, function: Any, types: object, given: Any = (), named: Any = None
    ) -> Any:
        if function is torch.ops.aten.linear.default:
            self.found.append(given[0])
        return function(*given, **(named or {}))


def test_the_rows_of_a_batch_are_multiplied_with_weights_together() -> None:
    """As one matrix: what torch cannot see as one it multiplies row by row, the head's input above
    all, which is a slice of all tokens' states. In bfloat16 it copied the head for each row."""
    folder = str(world.folder("aligned"))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    engine = InProcessGenerator(model, load_tokenizer(folder, "own"), max_model_len=64)
    asked = [GenerationRequest(str(n), (*range(5, 9 + n),), None, 3) for n in range(4)]
    with Inputs() as inputs:
        engine.answer(asked)
    prompts = [one for one in inputs.found if len(one) == len(asked)]
    assert {tuple(one.shape[:2]) for one in prompts} == {(4, 7), (4, 1)}
    assert all(one.is_contiguous() for one in prompts)
