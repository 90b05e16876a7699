"""Layers that are computed again in the backward pass: the same bytes, and less held for it."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import tiny
import torch
from menu import TRAINED
from torch import Tensor

from raycib.config import StageSpec
from raycib.models.group_step import GroupStep
from raycib.store import Store
from raycib.training.batches import rows_at
from raycib.training.group import load, open_slot
from raycib.training.loop import take_step
from raycib.training.workers import Workers

CPU = torch.device("cpu")


def after_two_steps(
    stages: Sequence[StageSpec], store: Store, checkpointed: bool
) -> tuple[list[dict[str, Tensor]], list]:
    """Adapters and histories of a group whose rows come in micro-batches by length."""
    adapters, slots = tiny.open_slots(list(stages), store)
    adapters.checkpointed = checkpointed
    for _ in range(2):
        take_step(adapters, slots, Workers(), 16, 100)
    return [s.state()[0] for s in slots], [s.history for s in slots]


def same_bytes(one: Sequence[dict[str, Tensor]], other: Sequence[dict[str, Tensor]]) -> bool:
    pairs = [(a[name], b[name]) for a, b in zip(one, other, strict=True) for name in a]
    return all(torch.equal(a, b) for a, b in pairs)


def test_every_method_learns_the_same_bytes_in_one_group(tiny_folder: Path, tmp_path: Path):
    """All methods side by side: each layer that runs again must find the routes of its own
    micro-batch, Vaccine's perturbations, and the slots' frozen and fixed parts."""
    stages = [tiny.make_chain(tiny_folder, method)[-1] for method in TRAINED.values()]
    store = Store(tmp_path)
    (kept, before), (again, after) = (
        after_two_steps(stages, store, checkpointed) for checkpointed in (False, True)
    )
    assert len(kept) > 20
    assert same_bytes(kept, again) and before == after


def test_and_in_bfloat16(tiny_folder: Path, tmp_path: Path):
    """A layer runs again under the autocast of its forward pass."""
    model = tiny.make_stage(tiny_folder).model.model_copy(update={"dtype": "bfloat16"})
    chosen = [TRAINED[name] for name in ("lora", "kl", "cib", "vaccine")]
    stages = [tiny.make_chain(tiny_folder, method, model=model)[-1] for method in chosen]
    kept, again = (after_two_steps(stages, Store(tmp_path), way)[0] for way in (False, True))
    assert same_bytes(kept, again)


def test_a_whole_model_learns_the_same_bytes(tiny_folder: Path, tmp_path: Path):
    stage = tiny.make_stage(tiny_folder, 25, lora=None)
    kept, again = (after_two_steps([stage], Store(tmp_path), way)[0] for way in (False, True))
    assert same_bytes(kept, again)


def bytes_held(work: Callable[[], Tensor]) -> int:
    """What autograd holds between a forward pass and its backward, parameters not counted."""
    held: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if not tensor.is_leaf:
            storage = tensor.untyped_storage()
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = work()
    found = sum(held.values())
    loss.backward()
    return found


@pytest.mark.parametrize("slots", [1, 3])
def test_only_what_enters_each_layer_is_held(tiny_folder: Path, tmp_path: Path, slots: int):
    """Of two layers: their inputs, rows x seq x dim x 4 bytes each, beside what comes after them
    (the final norm and the loss, which is the rest)."""
    stages = [tiny.make_stage(tiny_folder, seed=seed) for seed in range(slots)]
    loaded = load(stages, CPU)
    opened = [open_slot(n, stage, loaded, Store(tmp_path)) for n, stage in enumerate(stages)]

    def work() -> Tensor:
        batches = {n: slot.task.batch(0) for n, slot in enumerate(opened)}
        totals = {n: batch.totals for n, batch in batches.items()}
        step = GroupStep(
            loaded.adapters, *rows_at(batches, dict.fromkeys(batches, range(16))), totals, {}
        )
        seen.append(step.batch.ids.numel() * 32 * 4)
        return step.hidden.final_norm.sum()

    seen: list[int] = []
    kept = bytes_held(work)
    loaded.adapters.checkpointed = True
    again = bytes_held(work)
    entering = seen[0]
    assert kept > 20 * entering, "two layers of some fifteen such tensors each"
    assert again < 6 * entering
