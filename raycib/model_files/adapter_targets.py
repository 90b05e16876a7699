"""Whether the adapters and perturbations of a plan find their places in its models, by the names
of the stored tensors: known before anything starts. No torch here."""

import json
from collections.abc import Iterable
from pathlib import Path

from raycib.config import EngineName, RunSpec
from raycib.errors import UserError
from raycib.model_files import find
from raycib.model_files.config import experts_of, read_config
from raycib.model_files.engine import LARGEST_RANK, check_engine
from raycib.model_files.weights import LAYER, stored_tensors

_TRANSPOSED = {"gpt2", "openai-gpt"}
"""Architectures whose layers are products with the transposed weight (Conv1D), which slots of
linear layers cannot adapt."""


def check_places(runs: Iterable[RunSpec], engine: EngineName = "vllm") -> None:
    """Raise `UserError` where a stage's adapter or its method finds no place in its model, or in
    the `engine` that answers."""
    runs = list(runs)
    for stage in (stage for run in runs for stage in run.adapters):
        if engine == "vllm" and stage.exported_rank > LARGEST_RANK:
            raise UserError(
                f"an adapter of rank {stage.exported_rank} could be trained, but vLLM answers with "
                f"{LARGEST_RANK} at most; choose a smaller lora.rank"
            )
    asked = {
        (run.stages[0].model.source, stage.lora.targets, stage.method.perturbs_attention)
        for run in runs
        for stage in run.stages
        if stage.lora is not None
    }
    for source, targets, perturbs in sorted(asked):
        check_targets(source, targets)
        if engine == "vllm":
            check_engine(source, targets)
        if perturbs:
            check_attention(source)


def check_targets(source: str, targets: Iterable[str]) -> None:
    """Raise `UserError` unless each target is the name of linear layers of the model at
    `source`."""
    folder = find(source)
    linears, experts = _linears(folder)
    tensors, count = stored_tensors(folder), experts_of(read_config(folder))
    # Routers have an output for each expert; transformers keeps them as no linear layers.
    linears = [name for name in linears if tensors[f"{name}.weight"].shape[0] != count]
    names = {name.rpartition(".")[2] for name in linears}
    names = sorted(one for one in names if not any(matches(name, one) for name in experts))
    mend = f"choose from these: --set 'lora.targets={json.dumps(names)}'" if names \
        else "it cannot be adapted"  # fmt: skip
    for target in targets:
        if any(matches(name, target) for name in experts):
            raise UserError(
                f"model {source!r}: {target!r} names weights of its experts, which transformers "
                f"joins and raycib does not adapt; {mend}"
            )
        if not any(matches(name, target) for name in linears):
            raise UserError(
                f"model {source!r} has no linear layer named {target!r} (lora.targets); {mend}"
            )


def check_attention(source: str) -> None:
    """Raise `UserError` unless every layer of the model at `source` has one attention block."""
    linears, experts = _linears(find(source), adaptable=False)
    blocks: dict[str, set[str]] = {}
    for name in (*linears, *experts):
        layer, rest = LAYER.search(name).groups()  # type: ignore[union-attr]
        block = rest.partition(".")[0]
        blocks.setdefault(layer, set()).update({block} if "att" in block.lower() else ())
    if bad := [layer for layer, found in blocks.items() if len(found) != 1]:
        raise UserError(
            f"model {source!r}: layer {bad[0]} has {len(blocks[bad[0]])} attention blocks, and "
            "the method perturbs one in each; leave it out (--methods)"
        )


def linears_of(folder: Path) -> list[str]:
    """Full names of the linear layers that an adapter may have a place in."""
    return _linears(folder)[0]


def _linears(folder: Path, adaptable: bool = True) -> tuple[list[str], list[str]]:
    """Full names of the linear layers within the decoder's layers, and of the experts'."""
    if adaptable and read_config(folder).get("model_type") in _TRANSPOSED:
        return [], []
    names = [
        name.removesuffix(".weight")
        for name, one in stored_tensors(folder).items()
        if name.endswith(".weight") and len(one.shape) == 2 and LAYER.search(name)
    ]
    experts = [name for name in names if ".experts." in name]
    return [name for name in names if ".experts." not in name], experts


def matches(module: str, target: str) -> bool:
    """Whether a linear layer of this full name is meant by a target."""
    return module == target or module.endswith(f".{target}")
