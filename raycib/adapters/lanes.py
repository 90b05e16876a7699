"""LoRA with lanes: several adapters trained side by side on one frozen base model.

Every target linear adds, to the rows of lane g, `scale_g * B_g (A_g x)`. Lanes keep their own
parameters, so each has its own optimiser, clip and schedule from torch as they are; only the
forward pass stacks them. A pack of one lane is plain LoRA (Hu et al. 2021, arXiv:2106.09685).
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"

# Fields of `adapter_config.json` that do not change what a trained adapter computes, or that
# `load` checks by itself. Any other field must hold PEFT's default.
_HARMLESS_FIELDS = {
    *("peft_type", "task_type", "base_model_name_or_path", "revision", "inference_mode"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("r", "lora_alpha", "use_rslora", "lora_dropout", "init_lora_weights", "eva_config"),
    *("auto_mapping", "peft_version"),
}
# Other initialisations (PiSSA, OLoRA, CorDA, LoftQ, ...) also change the base model's weights, so
# such an adapter belongs to another base than the one it names.
_HARMLESS_INITS = (True, False, "gaussian", "orthogonal", "eva")


@dataclass(frozen=True)
class LoRAShape:
    """What one lane's adapter looks like."""

    rank: int
    alpha: float | int
    """Numerator of the scale; PEFT's `lora_alpha`."""
    targets: tuple[str, ...]
    """Suffixes of module names, such as `("q_proj", "v_proj")`, matched at a dot as PEFT does."""

    @property
    def scale(self) -> float:
        """The factor before `B A`."""
        return self.alpha / self.rank

    def includes(self, module: str) -> bool:
        """Whether the lane adapts the linear layer of this full name."""
        return any(_matches(module, target) for target in self.targets)


def _matches(module: str, target: str) -> bool:
    return module == target or module.endswith(f".{target}")


def update_norm_sq(
    lora_a: Float[Tensor, "rank in_dim"], lora_b: Float[Tensor, "out_dim rank"], scale: float | int
) -> Float[Tensor, ""]:
    """Squared Frobenius norm of `scale * B A`, in fp32, without forming `B A`.

    ||B A||² = tr(Aᵀ Bᵀ B A) = sum(BᵀB * AAᵀ), two rank x rank matrices. Its gradient at B = 0
    is 0 (that of the norm itself would be NaN).
    """
    with torch.autocast(lora_a.device.type, enabled=False):
        a, b = lora_a.float(), lora_b.float()
        return scale**2 * ((b.mT @ b) * (a @ a.mT)).sum()


@dataclass(frozen=True)
class Routes:
    """Which lanes own the rows of a batch: equal groups of rows, in order."""

    rows: int
    lanes: tuple[int, ...]
    """The distinct lanes, in order of appearance."""
    num_groups: int
    owners: Tensor | None
    """Position in `lanes` of each group's lane; None if group i is simply `lanes[i]`'s."""

    @classmethod
    def of(cls, groups: Sequence[tuple[int, int]], device: torch.device) -> "Routes":
        """Unequal (lane, row count) groups are cut to the greatest common divisor of their counts,
        so that one batched product serves them all."""
        unit = math.gcd(*(count for _, count in groups))
        owners = [lane for lane, count in groups for _ in range(count // unit)]
        lanes = tuple(dict.fromkeys(owners))
        rows = unit * len(owners)
        if lanes == tuple(owners):
            return cls(rows, lanes, len(lanes), None)
        positions = torch.tensor([lanes.index(lane) for lane in owners], device=device)
        return cls(rows, lanes, len(owners), positions)


class Router:
    """The routes of the batch now in the model; shared by all its LaneLinears."""

    def __init__(self, num_lanes: int):
        self.num_lanes = num_lanes
        self.routes: Routes | None = None
        self.disabled = False

    def routes_of(self, rows: int) -> Routes | None:
        """The routes of a batch of `rows`; None if the base works alone."""
        if self.disabled:
            return None
        if self.routes is None:
            if self.num_lanes == 1:
                return Routes(rows, (0,), 1, None)
            raise RuntimeError(
                f"{self.num_lanes} lanes share this model: say whose rows these are with "
                "`with adapters.route([(lane, rows), ...]):`, or use `adapters.disabled()`"
            )
        if self.routes.rows != rows:
            raise ValueError(f"a batch of {rows} rows, but route() was given {self.routes.rows}")
        return self.routes


class LaneLinear(nn.Module):
    """A frozen linear layer plus one low-rank update per lane that targets it.

    The update is computed in the dtype of the base layer's output, so bf16 under bf16 autocast;
    its weights and their gradients are fp32.
    """

    def __init__(self, base: nn.Linear, shapes: Mapping[int, LoRAShape], router: Router):
        super().__init__()
        self.base = base
        self.shapes = dict(shapes)
        self.router = router
        self.lora_A = nn.ParameterDict()
        self.lora_B = nn.ParameterDict()
        place = {"dtype": torch.float32, "device": base.weight.device}
        for lane, shape in shapes.items():
            self.lora_A[str(lane)] = torch.zeros(shape.rank, base.in_features, **place)
            self.lora_B[str(lane)] = torch.zeros(base.out_features, shape.rank, **place)

    def factors(self, lane: int) -> tuple[Tensor, Tensor, float]:
        """What the lane's rows go through: A (rank, in_dim), B (out_dim, rank) and their scale.

        A lane that does not target this layer has rank 0.
        """
        if lane not in self.shapes:
            nothing = torch.zeros(0, device=self.base.weight.device)
            return (
                nothing.view(0, self.base.in_features),
                nothing.view(self.base.out_features, 0),
                0.0,
            )
        return self.lora_A[str(lane)], self.lora_B[str(lane)], self.shapes[lane].scale

    def forward(self, x: Float[Tensor, "rows *any in_dim"]) -> Float[Tensor, "rows *any out_dim"]:
        routes = self.router.routes_of(x.shape[0])
        if routes is None or self.shapes.keys().isdisjoint(routes.lanes):
            return self.base(x)
        a, b, scale = _stack([self.factors(lane) for lane in routes.lanes])
        if routes.owners is not None:
            a, b = a[routes.owners], b[routes.owners]
        grouped = x.reshape(routes.num_groups, -1, x.shape[-1])  # groups tokens in_dim
        y = self.base(grouped)
        h = torch.bmm(grouped, a.to(y.dtype).mT)  # groups tokens rank
        # In place: nothing needs the base's output alone, and a copy of it is what costs here.
        y.baddbmm_(h, b.to(y.dtype).mT, alpha=scale)
        return y.view(*x.shape[:-1], -1)


def _stack(factors: Sequence[tuple[Tensor, Tensor, float]]) -> tuple[Tensor, Tensor, float]:
    """A (lanes, rank, in_dim), B (lanes, out_dim, rank) and one scale for all of them.

    Smaller ranks are padded with zeros; scales that differ move into B.
    """
    all_a, all_b, scales = zip(*factors, strict=True)
    ranks = [a.shape[0] for a in all_a]
    if len(set(ranks)) > 1:
        gaps = [max(ranks) - rank for rank in ranks]
        all_a = [F.pad(a, (0, 0, 0, gap)) for a, gap in zip(all_a, gaps, strict=True)]
        all_b = [F.pad(b, (0, gap)) for b, gap in zip(all_b, gaps, strict=True)]
    if len(set(scales)) > 1:
        all_b = [scale * b for b, scale in zip(all_b, scales, strict=True)]
        scales = [1.0]
    return torch.stack(all_a), torch.stack(all_b), scales[0]


class LaneAdapters:
    """LoRA adapters ("lanes") on one frozen model, whose target linears become `LaneLinear`.

    New lanes hold zeros: call `initialise` or `load` for each. Backward passes of a model with
    gradient checkpointing must also happen within `route`, as they run the forward pass again.

    Raises ValueError if a target of a lane matches no `nn.Linear` of the model.
    """

    def __init__(self, model: PreTrainedModel, shapes: Sequence[LoRAShape]):
        self.model = model
        self.shapes = tuple(shapes)
        self._router = Router(len(self.shapes))
        everything = model.named_modules()
        linears = {name: module for name, module in everything if isinstance(module, nn.Linear)}
        for lane, shape in enumerate(self.shapes):
            for target in shape.targets:
                if not any(_matches(name, target) for name in linears):
                    kinds = sorted({name.rpartition(".")[2] for name in linears})
                    raise ValueError(
                        f"lane {lane}: no linear layer is named {target!r}; this model's linear "
                        f"layers are named {kinds}"
                    )
        model.requires_grad_(False)
        self.modules: dict[str, LaneLinear] = {}
        for name, linear in linears.items():
            here = {g: shape for g, shape in enumerate(self.shapes) if shape.includes(name)}
            if here:
                self.modules[name] = LaneLinear(linear, here, self._router)
                model.set_submodule(name, self.modules[name])

    @property
    def num_lanes(self) -> int:
        return len(self.shapes)

    def initialise(self, lane: int, generator: torch.Generator) -> None:
        """Draw A as PEFT does, kaiming_uniform(a=√5) = U(±1/√in_dim), and set B to zero.

        The draws come from the CPU `generator` in module order, so a lane's start depends on
        its own generator and shape only.
        """
        with torch.no_grad():
            for name, parameter in self.parameters_of(lane).items():
                start = torch.zeros(parameter.shape)
                if name.endswith(".lora_A"):
                    nn.init.kaiming_uniform_(start, a=math.sqrt(5), generator=generator)
                parameter.copy_(start)

    def parameters_of(self, lane: int) -> dict[str, nn.Parameter]:
        """The lane's fp32 parameters by name, `<module>.lora_A` (rank, in_dim) and `.lora_B`
        (out_dim, rank), in module order."""
        self._check_lane(lane)
        return {
            f"{name}.{factor}": getattr(module, factor)[str(lane)]
            for name, module in self.modules.items()
            if lane in module.shapes
            for factor in ("lora_A", "lora_B")
        }

    @contextmanager
    def route(self, rows: Mapping[int, int] | Sequence[tuple[int, int]]) -> Iterator[None]:
        """Within it, a batch's rows belong to lanes in contiguous groups: `[(0, 4), (2, 4)]` says
        that the first four rows are lane 0's and the next four lane 2's.

        Groups of equal size are fastest; a lane may be absent, and may own several groups.
        """
        groups = tuple(rows.items() if isinstance(rows, Mapping) else rows)
        if not groups:
            raise ValueError("route() was given no rows; use disabled() for the base alone")
        for lane, count in groups:
            self._check_lane(lane)
            if count < 1:
                raise ValueError(f"lane {lane} was given {count} rows; leave it out instead")
        routes = Routes.of(groups, self.model.device)
        before, self._router.routes = self._router.routes, routes
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

    def update_norm_sq(self, lane: int) -> Float[Tensor, ""]:
        """Squared Frobenius norm of the lane's update `scale * B A`, summed over modules, fp32."""
        self._check_lane(lane)
        here = (module for module in self.modules.values() if lane in module.shapes)
        return torch.stack([update_norm_sq(*module.factors(lane)) for module in here]).sum()

    def export(self, lane: int, folder: Path, base_model_name: str) -> None:
        """Write the lane as an ordinary PEFT adapter folder, which PEFT and vLLM load."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {
            _peft_key(name): parameter.detach().cpu().contiguous()
            for name, parameter in self.parameters_of(lane).items()
        }
        save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
        shape = self.shapes[lane]
        config = LoraConfig(task_type="CAUSAL_LM", inference_mode=True).to_dict() | {
            "base_model_name_or_path": base_model_name,
            "r": shape.rank,
            "lora_alpha": int(shape.alpha) if shape.alpha == int(shape.alpha) else shape.alpha,
            "target_modules": list(shape.targets),
        }
        (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True))

    def load(self, lane: int, folder: Path) -> None:
        """Copy a PEFT LoRA adapter into the lane.

        Raises FileNotFoundError if `folder` holds no safetensors adapter, and ValueError if the
        adapter has another rank, scale or set of modules than the lane, or uses a feature of
        PEFT that would make it compute something else here.
        """
        for file in (CONFIG_FILE, WEIGHTS_FILE):
            if not (folder / file).is_file():
                raise FileNotFoundError(f"{folder} is not a PEFT adapter folder: it has no {file}")
        config: dict[str, Any] = json.loads((folder / CONFIG_FILE).read_text())
        _refuse_unsupported(config, folder)
        shape, rank, alpha = self.shapes[lane], config["r"], config["lora_alpha"]
        scale = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
        if rank != shape.rank or not math.isclose(scale, shape.scale):
            raise ValueError(
                f"{folder} has rank {rank} and scale {scale:g} (lora_alpha {alpha}), but lane "
                f"{lane} has rank {shape.rank} and scale {shape.scale:g}"
            )
        parameters = {_peft_key(n): p for n, p in self.parameters_of(lane).items()}
        expected = {key: tuple(parameter.shape) for key, parameter in parameters.items()}
        tensors = load_file(folder / WEIGHTS_FILE)
        found = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
        if found != expected:
            extra = sorted(found.items() - expected.items())[:3]
            missing = sorted(expected.items() - found.items())[:3]
            raise ValueError(
                f"{folder} does not fit lane {lane} with targets {shape.targets}: among others, "
                f"found {extra} and expected {missing}"
            )
        with torch.no_grad():
            for key, parameter in parameters.items():
                parameter.copy_(tensors[key])

    def _check_lane(self, lane: int) -> None:
        if not 0 <= lane < self.num_lanes:
            raise IndexError(f"lane {lane} of a pack with lanes 0 to {self.num_lanes - 1}")


def _peft_key(name: str) -> str:
    return f"base_model.model.{name}.weight"


def _refuse_unsupported(config: Mapping[str, Any], folder: Path) -> None:
    if (kind := config.get("peft_type")) != "LORA":
        raise ValueError(f"{folder} holds a {kind} adapter; only LORA can be loaded")
    defaults = LoraConfig().to_dict()
    unsupported = {
        field: value
        for field, value in config.items()
        if field not in _HARMLESS_FIELDS and value and value != defaults.get(field)
    }
    if (init := config.get("init_lora_weights", True)) not in _HARMLESS_INITS:
        unsupported["init_lora_weights"] = init
    if unsupported:
        raise ValueError(f"{folder} uses features of PEFT that lanes do not have: {unsupported}")
