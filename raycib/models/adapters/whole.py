"""Full-parameter training: the model itself in the place of an adapter."""

import shutil
from collections.abc import Mapping
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

    @property
    def num_slots(self) -> int:
        return 1

    def initialise(self, slot: int, generator: torch.Generator) -> None:
        """Nothing to draw: training starts from the model's own weights."""

    def parameters_of(self, slot: int) -> dict[str, nn.Parameter]:
        """Every weight by its name; tied ones once."""
        self._check_slot(slot)
        return dict(self.model.named_parameters())

    def trained(self, slot: int) -> list[nn.Parameter]:
        """All of them."""
        return list(self.parameters_of(slot).values())

    def begin(self, slot: int) -> None:
        """Forget all gradients."""
        self.model.zero_grad()

    def collect(self, slot: int) -> None:
        """Nothing to do: each gradient is a parameter's own."""

    def take_back(self, slot: int, folder: Path) -> None:
        """Be a stored model again."""
        self._check_slot(slot)
        lacking = {name for name, _ in self.model.named_parameters()}  # tied ones once
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
        return {n: t.to(self._dtype) for n, t in self.model.state_dict().items()}

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
