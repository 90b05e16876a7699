"""Full-parameter training: the model itself in the place of an adapter."""

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from raycib.errors import UserError
from raycib.model_files import TOKENIZER, find, matching
from raycib.model_files.weights import weight_files
from raycib.models.adapters.slots import AdapterSlots


class WholeModel(AdapterSlots):
    """A model as the only slot, all of whose weights are trained, in fp32; it exports a model
    folder in the dtype that it came in, with the tokenizer it came with."""

    def __init__(self, model: PreTrainedModel):
        super().__init__(model, [])
        self._dtype = model.dtype
        model.float().requires_grad_(True)
        self._own = dict(model.named_parameters())  # tied ones once

    @property
    def num_slots(self) -> int:
        return 1

    def initialise(self, slot: int, generator: torch.Generator) -> None:
        """Nothing to draw: training starts from the model's own weights."""

    def parameters_of(self, slot: int) -> dict[str, nn.Parameter]:
        """Every weight by its name; tied ones once."""
        self._check_slot(slot)
        return self._own

    def trained(self, slot: int) -> list[nn.Parameter]:
        """All of them."""
        return list(self.parameters_of(slot).values())

    @property
    def mixed(self) -> bool:
        """What is computed with has one precision."""
        return False

    def begin(self, slot: int) -> None:
        """Forget all gradients."""
        for one in self._own.values():
            one.grad = None

    def collect(self, slot: int) -> None:
        """Nothing to do: each gradient is a parameter's own."""

    def take_back(self, slot: int, folder: Path) -> None:
        """Be a stored model again."""
        self._check_slot(slot)
        lacking = set(self._own)
        known = self.model.state_dict().keys()
        for file in weight_files(folder):
            tensors = load_file(file)
            if strange := sorted(tensors.keys() - known):
                raise UserError(f"{file} holds {strange[0]}, which the model does not have")
            self._take(tensors)
            lacking -= tensors.keys()
        if lacking:
            raise UserError(f"{folder} lacks {min(lacking)} of the model")

    def _take(self, weights: Mapping[str, Tensor]) -> None:
        self.model.load_state_dict(weights, strict=False)

    def _weights(self) -> dict[str, Tensor]:
        """All that the model's folder holds, in the dtype that it came in."""
        names = {id(one): name for name, one in self.model.named_parameters()}
        found = dict(self.model.state_dict(keep_vars=True))
        own = {n: self._whole(names[id(t)]) if id(t) in names else t for n, t in found.items()}
        return {name: tensor.detach().to(self._dtype) for name, tensor in own.items()}

    def _whole(self, name: str) -> Tensor:
        """A trained weight."""
        return self._own[name]

    def export(self, slot: int, folder: Path, base_model_name: str) -> None:
        """Write a Hugging Face model folder, which transformers and vLLM load."""
        self._check_slot(slot)
        self.model.save_pretrained(folder, state_dict=self._weights())
        self.model.config.dtype = self._dtype  # which the line above took from the model
        self.model.config.save_pretrained(folder)
        base = find(base_model_name)
        for file in matching(base, TOKENIZER):
            copy = folder / file.relative_to(base)
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, copy)


class RoundedModel(WholeModel):
    """The same, computed with in bfloat16: a step's passes read its float32 weights rounded, and
    what each pass gives for a weight is added to its gradient in float32. FSDP2's mixed precision
    and DeepSpeed's do so."""

    def __init__(self, model: PreTrainedModel):
        super().__init__(model)
        self._read = self._own
        self._own = {name: nn.Parameter(one.detach().clone()) for name, one in self._read.items()}
        for name, one in self._read.items():
            one.data = one.data.bfloat16()
            one.register_post_accumulate_grad_hook(partial(_add_to, self._own[name]))

    def begin(self, slot: int) -> None:
        """Forget all gradients, and read what the weights are now."""
        super().begin(slot)
        with torch.no_grad():
            for name, one in self._read.items():
                one.copy_(self._own[name])

    def _take(self, weights: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name in weights.keys() & self._own.keys():
                self._own[name].copy_(weights[name])


def _add_to(own: Tensor, read: Tensor) -> None:
    """Move a pass's gradient from the weight that it read to its own."""
    assert read.grad is not None
    own.grad = read.grad.float() if own.grad is None else own.grad.add_(read.grad)
    read.grad = None
