"""LoRA with slots: several adapters trained side by side on one frozen base model.

Every target linear adds, to the rows of slot g, `scale_g * B_g (A_g x)`. Slots of one shape lie
in one tensor, so that a product serves them all; each slot's parameters are views of it, and as
good as its own. A group of one slot is plain LoRA (Hu et al. 2021, arXiv:2106.09685).
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from raycib.errors import UserError
from raycib.model_files.adapter_targets import matches
from raycib.models.adapters.linear import Joint, SlotLinear, check_linear
from raycib.models.adapters.peft_format import PeftAdapter, read_adapter, write_adapter
from raycib.models.adapters.routes import Router, Routes
from raycib.models.adapters.shape import LoRAShape, Update, update_norm_sq
from raycib.models.adapters.stack import Stack
from raycib.models.quantized import retrieval

SHARED_INPUT = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Layers of one block that are given the same input. One that is given another after all computes
by itself: this decides speed alone."""


class AdapterSlots:
    """LoRA adapters ("slots") on one frozen model, whose target linears become `SlotLinear`.

    New slots hold zeros: call `initialise` or `load` for each.

    Raises `UserError` if a target of a slot matches no `nn.Linear` of the model.
    """

    in_parts: ClassVar[Literal["", "rows", "flat"]] = ""
    """How weights are cut, where each worker trains a part of them, and not all of them alike."""

    def __init__(self, model: PreTrainedModel, shapes: Sequence[LoRAShape]):
        self.model = model
        self.checkpointed = False
        """Whether a training pass keeps only what enters each decoder layer."""
        self.apart = False
        """Whether each slot's rows have training passes of their own."""
        self.shapes = tuple(shapes)
        self._router = Router(self.shapes)
        everything = model.named_modules()
        linears = {name: module for name, module in everything if isinstance(module, nn.Linear)}
        for slot, shape in enumerate(self.shapes):
            for target in shape.targets:
                if not any(matches(name, target) for name in linears):
                    kinds = sorted({name.rpartition(".")[2] for name in linears})
                    raise UserError(
                        f"slot {slot}: no linear layer is named {target!r}; this model's linear "
                        f"layers are named {kinds}"
                    )
        model.requires_grad_(False)
        self.modules: dict[str, SlotLinear] = {}
        for name, linear in linears.items():
            here = {g: shape for g, shape in enumerate(self.shapes) if shape.includes(name)}
            if here:
                check_linear(name, linear)
                self.modules[name] = SlotLinear(linear, here, self._router)
                model.set_submodule(name, self.modules[name])
        joints = self._join()
        for shape in dict.fromkeys(self.shapes):
            slots = [slot for slot, one in enumerate(self.shapes) if one == shape]
            adapting = [joint for joint in joints if joint.adapted(slots[0])]
            self._router.stacks |= dict.fromkeys(slots, Stack(shape, slots, adapting, model.device))

    def _join(self) -> list[Joint]:
        """All adapted layers, those that share their input together."""
        found: dict[tuple[str, ...], list[SlotLinear]] = {}
        for name, module in self.modules.items():
            block, _, kind = name.rpartition(".")
            kinds = next((kinds for kinds in SHARED_INPUT if kind in kinds), (kind,))
            found.setdefault((block, *kinds), []).append(module)
        return [Joint(layers) for layers in found.values()]

    def remove(self) -> None:
        """Give the model its own linear layers back; the slots are gone."""
        for name, module in self.modules.items():
            self.model.set_submodule(name, module.base)
        self.modules = {}

    @property
    def num_slots(self) -> int:
        return len(self.shapes)

    def initialise(self, slot: int, generator: torch.Generator) -> None:
        """Draw A as PEFT does, kaiming_uniform(a=√5) = U(±1/√in_dim), and set B to zero.

        The draws come from the CPU `generator` in module order, so a slot's start depends on
        its own generator and shape only.
        """
        with torch.no_grad():
            for name, parameter in self.parameters_of(slot).items():
                start = torch.zeros(parameter.shape)
                if name.endswith(".lora_A"):
                    nn.init.kaiming_uniform_(start, a=math.sqrt(5), generator=generator)
                parameter.copy_(start)

    def parameters_of(self, slot: int) -> dict[str, nn.Parameter]:
        """The slot's fp32 parameters by name, `<module>.lora_A` (rank, in_dim) and `.lora_B`
        (out_dim, rank), in module order."""
        self._check_slot(slot)
        return {
            f"{name}.{factor}": getattr(module, factor)[str(slot)]
            for name, module in self.modules.items()
            if slot in module.shapes
            for factor in ("lora_A", "lora_B")
        }

    def trained(self, slot: int) -> list[nn.Parameter]:
        """The same parameters as the fewest tensors: what an optimiser needs to know of them."""
        self._check_slot(slot)
        return [self._router.stacks[slot].row(slot)]

    def begin(self, slot: int) -> None:
        """Forget the slot's gradients."""
        self._router.stacks[slot].clear(slot)

    def collect(self, slot: int) -> None:
        """After its parameters' gradients may have been replaced: have `trained` see those."""
        self._router.stacks[slot].collect(slot)

    @contextmanager
    def route(
        self, rows: Mapping[int, int] | Sequence[tuple[int, int]], stacked: bool = False
    ) -> Iterator[None]:
        """Within it, a batch's rows belong to slots in contiguous groups: `[(0, 4), (2, 4)]` says
        that the first four rows are slot 0's and the next four slot 2's. Where all rows of a batch
        lie one after the other on one axis, (1, tokens, ...), the counts are tokens.

        Groups of equal size are fastest; a slot may be absent, and may own several groups. With
        `stacked` a backward pass adds to the gradients of several slots at a time, of which those
        of `parameters_of` are views: fast, but `torch.autograd.grad` does not know parameters then.
        """
        groups = tuple(rows.items() if isinstance(rows, Mapping) else rows)
        if not groups:
            raise ValueError("route() was given no rows; use disabled() for the base alone")
        for slot, count in groups:
            self._check_slot(slot)
            if count < 1:
                raise ValueError(f"slot {slot} was given {count} rows; leave it out instead")
        before, self._router.routes = self._router.routes, Routes(groups, stacked)
        try:
            yield
        finally:
            self._router.routes = before

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Within it, the model is the frozen base alone, whatever `route` says."""
        before, self._router.disabled = self._router.disabled, True
        try:
            yield
        finally:
            self._router.disabled = before

    @property
    def mixed(self) -> bool:
        """Whether passes run in torch's autocast: float32 adapters on a base in bfloat16."""
        return self.model.dtype == torch.bfloat16

    def passing(self, compute: Callable[[], Tensor]) -> Tensor:
        """What `compute` gives, all passes of a micro-batch with its loss."""
        return compute()

    def backward(self, value: Tensor) -> None:
        """The gradients of what `passing` gave are added to those that there are."""
        value.backward()

    def sum_gradients(
        self, trained: Sequence[nn.Parameter], sum_: Callable[[Sequence[Tensor]], None]
    ) -> None:
        """Have what is trained hold the gradients of all workers. Shares add up: no division by
        the number of workers or micro-batches anywhere."""
        gradients: list[Tensor] = []
        for parameter in trained:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        sum_(gradients)

    def update_norm_sq(self, slot: int) -> Float[Tensor, ""]:
        """Squared Frobenius norm of the slot's update `scale * B A`, summed over modules, fp32."""
        return torch.stack([update_norm_sq(*one) for one in self.updates(slot).values()]).sum()

    def updates(self, slot: int) -> dict[str, Update]:
        """The slot's update, module by module, in their order."""
        return {name: module.factors(slot) for name, module in self.modules_of(slot).items()}

    def modules_of(self, slot: int) -> dict[str, SlotLinear]:
        """The linear layers that the slot adapts, by full name, in module order."""
        self._check_slot(slot)
        return {name: module for name, module in self.modules.items() if slot in module.shapes}

    def freeze(self, slot: int, folder: Path) -> None:
        """Put a stored PEFT adapter under the slot's own, for good: it stays in the forward pass
        and is never trained. The slot then exports both as one adapter, rank above rank.

        Raises as `load`, but for the rank and the scale, which may be any.
        """
        for module, a, b, scale in self._stored(slot, folder):
            module.freeze(slot, a, b, scale)

    def take_back(self, slot: int, folder: Path) -> None:
        """Have the slot compute what it did when it was exported to `folder`, bit for bit: its own
        rank is its own again, and what lay below it is frozen. Raises as `freeze`."""
        shape = self.shapes[slot]
        for module, a, b, scale in self._stored(slot, folder):
            if len(a) < shape.rank or not math.isclose(scale, shape.scale):
                raise ValueError(f"{folder} was not exported by a slot of rank {shape.rank}")
            with torch.no_grad():
                module.lora_A[str(slot)].copy_(a[: shape.rank])
                module.lora_B[str(slot)].copy_(b[:, : shape.rank])
            if len(a) > shape.rank:
                module.freeze(slot, a[shape.rank :], b[:, shape.rank :], shape.scale)

    def _stored(
        self, slot: int, folder: Path
    ) -> Iterator[tuple[SlotLinear, Tensor, Tensor, float]]:
        """A stored adapter's factors and scale at each layer of the slot. Raises as `load`, but for
        the rank and the scale."""
        adapter, parameters = read_adapter(folder), self.parameters_of(slot)
        if adapter.factors.keys() != parameters.keys():
            raise ValueError(
                f"{folder} adapts other layers than slot {slot} with targets "
                f"{self.shapes[slot].targets}: among others, found only in one of the two "
                f"{sorted(adapter.factors.keys() ^ parameters.keys())[:3]}"
            )
        for name, module in self.modules_of(slot).items():
            a, b = (adapter.factors[f"{name}.lora_{factor}"] for factor in "AB")
            yield module, a, b, adapter.scale

    def thaw(self, slot: int) -> None:
        """Take away what `freeze` put under the slot."""
        for module in self.modules_of(slot).values():
            module.frozen.pop(slot, None)

    def gather(self) -> None:
        """Before `export`, by all workers: what the first then writes is there whole."""

    def export(self, slot: int, folder: Path, base_model_name: str) -> None:
        """Write the slot as an ordinary PEFT adapter folder, which PEFT and vLLM load: what it
        computes in all, frozen slices and fixed directions included."""
        factors, rank = {}, 0
        with torch.no_grad():
            for name, module in self.modules_of(slot).items():
                a, b, _ = module.factors(slot)
                factors |= {f"{name}.lora_A": a, f"{name}.lora_B": b}
                rank = len(a)
        shape = self.shapes[slot]
        alpha = shape.alpha if rank == shape.rank else shape.scale * rank
        adapter = PeftAdapter(factors, rank, alpha, shape.scale)
        write_adapter(folder, adapter, shape.targets, base_model_name, retrieval(self.model))

    def load(self, slot: int, folder: Path) -> None:
        """Copy a PEFT LoRA adapter into the slot.

        Raises FileNotFoundError if `folder` holds no safetensors adapter, and ValueError if the
        adapter has another rank, scale or set of modules than the slot, or uses a feature of
        PEFT that would make it compute something else here.
        """
        adapter, shape = read_adapter(folder), self.shapes[slot]
        if adapter.rank != shape.rank or not math.isclose(adapter.scale, shape.scale):
            raise ValueError(
                f"{folder} has rank {adapter.rank} and scale {adapter.scale:g} (lora_alpha "
                f"{adapter.alpha}), but slot {slot} has rank {shape.rank} and scale {shape.scale:g}"
            )
        parameters = self.parameters_of(slot)
        expected = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
        found = {name: tuple(tensor.shape) for name, tensor in adapter.factors.items()}
        if found != expected:
            extra = sorted(found.items() - expected.items())[:3]
            missing = sorted(expected.items() - found.items())[:3]
            raise ValueError(
                f"{folder} does not fit slot {slot} with targets {shape.targets}: among others, "
                f"found {extra} and expected {missing}"
            )
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(adapter.factors[name])

    def _check_slot(self, slot: int) -> None:
        if not 0 <= slot < self.num_slots:
            raise IndexError(f"slot {slot} of a group with slots 0 to {self.num_slots - 1}")
