"""Every method's loss once more, from the papers alone: plain transformers and PEFT, one row at a
time (no padding, no batches, no slots), in float64, gradients by autograd of that loss.

Nothing here comes from raycib but its token ids. What the other side calls a share of a mean is
here the mean itself.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM

LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
Terms = dict[str, tuple[float, Tensor]]
"""Weight and value of every addend of a loss."""
Gradient = dict[str, Tensor]


class Row(Protocol):
    """Token ids of one example."""

    @property
    def prompt(self) -> tuple[int, ...]: ...
    @property
    def response(self) -> tuple[int, ...]: ...


class Seen(NamedTuple):
    """One row through the model."""

    logits: Tensor  # (tokens, vocabulary)
    before_norm: Tensor  # (tokens, dim)
    final_norm: Tensor  # (tokens, dim)
    row: Row

    def log_p(self) -> Tensor:
        """Of each response token."""
        start, end = len(self.row.prompt), len(self.row.prompt) + len(self.row.response)
        predicted = self.logits[start - 1 : end - 1].log_softmax(-1)
        return predicted[torch.arange(len(predicted)), torch.tensor(self.row.response)]

    def z(self, pooling: str, layer: str) -> Tensor:
        """One vector for the row."""
        states, start = getattr(self, layer), len(self.row.prompt)
        match pooling:
            case "mean_response":
                return states[start - 1 : -1].mean(0)
            case "last_prompt_token":
                return states[start - 1]
            case "last_token":
                return states[-1]
            case "mean_all":
                return states.mean(0)
        raise ValueError(pooling)


class Plain:
    """A Hugging Face model with one PEFT adapter, and another below it if asked."""

    def __init__(
        self, folder: Path, rank: int, alpha: float, below: tuple[int, float] | None = None
    ) -> None:
        base = AutoModelForCausalLM.from_pretrained(folder)
        config = {"lora_dropout": 0.0, "target_modules": list(LINEARS)}
        self.scale = alpha / rank
        self.peft: Any = get_peft_model(base, LoraConfig(r=rank, lora_alpha=alpha, **config))  # type: ignore[arg-type]
        if below:
            self.peft.add_adapter(
                "below",
                LoraConfig(r=below[0], lora_alpha=below[1], **config),  # type: ignore[arg-type]
            )
            self.peft.base_model.set_adapter(["default", "below"])
        self.peft.eval().double().requires_grad_(False)
        named = dict(self.peft.named_parameters())
        self.weights = {short(n): p for n, p in named.items() if ".default." in n}
        self.below = {short(n): p for n, p in named.items() if ".below." in n}
        for parameter in self.weights.values():
            parameter.requires_grad_(True)
        self._norm: list[Tensor] = []
        self._seen: dict[tuple[bool, tuple[int, ...]], Seen] = {}
        """Passes since the weights last changed: losses that share rows share them."""
        self.model = self.peft.get_base_model()
        self.model.model.norm.register_forward_pre_hook(lambda _, a: self._norm.append(a[0]))

    def copy(self, weights: dict[str, Any], below: bool = False) -> None:
        """Take over weights by name."""
        mine = self.below if below else self.weights
        assert mine.keys() == weights.keys()
        self._seen = {key: seen for key, seen in self._seen.items() if key[0]}
        with torch.no_grad():
            for name, parameter in mine.items():
                parameter.copy_(weights[name])

    def run(self, row: Row, tokens: tuple[int, ...]) -> Seen:
        """Anew, as the model now is."""
        self._norm.clear()
        out = self.peft(input_ids=torch.tensor([tokens]), output_hidden_states=True)
        return Seen(out.logits[0], self._norm[0][0], out.hidden_states[-1][0], row)

    def __call__(self, row: Row, tokens: tuple[int, ...] = ()) -> Seen:
        """The row, or its beginning, alone through the model with its adapter."""
        key = (False, tokens or (*row.prompt, *row.response))
        if key not in self._seen:
            self._seen[key] = self.run(row, key[1])
        return self._seen[key]

    def reference(self, row: Row, tokens: tuple[int, ...] = ()) -> Seen:
        """The same in the aligned model: PEFT's own way to switch an adapter off."""
        key = (True, tokens or (*row.prompt, *row.response))
        if key not in self._seen:
            with torch.no_grad(), self.peft.disable_adapter():
                self._seen[key] = self.run(row, key[1])
        return self._seen[key]

    def gradient(self, terms: Terms) -> Gradient:
        """Of the weighted sum."""
        loss = sum((weight * value for weight, value in terms.values() if weight), torch.zeros(()))
        weights = list(self.weights.values())
        found = torch.autograd.grad(loss, weights, allow_unused=True, retain_graph=True)
        pairs = zip(self.weights.items(), found, strict=True)
        return {n: torch.zeros_like(p) if g is None else g for (n, p), g in pairs}

    def product(self, module: str) -> Tensor:
        """B A of a module, dense."""
        return self.weights[f"{module}.lora_B"] @ self.weights[f"{module}.lora_A"]

    @property
    def modules(self) -> list[str]:
        """Names of the adapted linears."""
        return sorted({name.rpartition(".")[0] for name in self.weights})


def short(name: str) -> str:
    """Of PEFT's name of a parameter, in memory or in a file: `<module>.lora_A`."""
    for tail in (".default.weight", ".below.weight", ".weight"):
        name = name.removesuffix(tail)
    return name.removeprefix("base_model.model.")


def tokens_of(rows: Sequence[Row]) -> int:
    """Response tokens."""
    return sum(len(row.response) for row in rows)


def task_loss(model: Callable[[Row], Seen], rows: Sequence[Row]) -> Tensor:
    """-log p of a response token of the batch, on average."""
    return -torch.stack([model(row).log_p().sum() for row in rows]).sum() / tokens_of(rows)


def mean_of_rows(model: Callable[[Row], Seen], rows: Sequence[Row]) -> Tensor:
    """-log p of a response token of a row, on average, and that on average over the rows."""
    return -torch.stack([model(row).log_p().mean() for row in rows]).mean()


class Batch(NamedTuple):
    """What one optimiser step sees."""

    step: int
    rows: Sequence[Row]
    examples: Sequence[int]
    safety: Sequence[Row]


Method = Callable[[Plain, Batch], tuple[Terms, Gradient]]
"""The terms of a step and its gradient before clipping."""


def of_loss(loss: Callable[[Plain, Batch], Terms]) -> Method:
    """A method that is a loss and nothing else."""

    def method(model: Plain, batch: Batch) -> tuple[Terms, Gradient]:
        terms = loss(model, batch)
        return terms, model.gradient(terms)

    return method


@of_loss
def lora(model: Plain, batch: Batch) -> Terms:
    """Cross-entropy."""
    return {"task": (1.0, task_loss(model, batch.rows))}


def kl_of(p: Tensor, q: Tensor) -> Tensor:
    """KL(p, q) of two sets of logits, a value for each position."""
    log_p, log_q = p.log_softmax(-1), q.log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def mean_kl(model: Plain, rows: Sequence[Row], direction: str, tokens: str) -> Tensor:
    """Over the predictions of response tokens, or of all tokens but the first."""
    values = []
    for row in rows:
        own, reference = model(row).logits, model.reference(row).logits
        first = len(row.prompt) - 1 if tokens == "response" else 0
        pair = (reference, own) if direction == "forward" else (own, reference)
        values.append(kl_of(*pair)[first:-1])
    return torch.cat(values).mean()


def kl(lam: float, direction: str, tokens: str) -> Method:
    """lambda times the divergence."""
    return of_loss(
        lambda model, batch: {
            "task": (1.0, task_loss(model, batch.rows)),
            "kl": (lam, mean_kl(model, batch.rows, direction, tokens)),
        }
    )


def vaccine(rho: float, steps: int, whole_batch: bool) -> Method:
    """Ascend on the attention blocks' outputs, then train through what was found."""

    def perturbed_loss(model: Plain, row: Row, added: list[Tensor], count: int) -> Tensor:
        handles = [
            layer.self_attn.register_forward_hook(
                lambda _, __, out, extra=extra: (out[0] + extra, *out[1:])
            )
            for layer, extra in zip(model.model.model.layers, added, strict=True)
        ]
        loss = -model.run(row, (*row.prompt, *row.response)).log_p().sum() / count
        for handle in handles:
            handle.remove()
        return loss

    def method(model: Plain, batch: Batch) -> tuple[Terms, Gradient]:
        count, layers = tokens_of(batch.rows), len(model.model.model.layers)
        dim = model.model.config.hidden_size
        found = [
            [torch.zeros(1, len(r.prompt + r.response), dim).double() for _ in range(layers)]
            for r in batch.rows
        ]
        for _ in range(steps):
            slopes = []
            for row, now in zip(batch.rows, found, strict=True):
                leaves = [one.clone().requires_grad_() for one in now]
                loss = perturbed_loss(model, row, leaves, count)
                slopes.append(torch.autograd.grad(loss, leaves))
            sizes = [sum(float((g**2).sum()) for g in one) for one in slopes]
            if whole_batch:
                sizes = [sum(sizes)] * len(sizes)
            for now, slope, size in zip(found, slopes, sizes, strict=True):
                for layer, g in zip(now, slope, strict=True):
                    layer += rho / steps * g / size**0.5
        losses = [
            perturbed_loss(model, row, now, count)
            for row, now in zip(batch.rows, found, strict=True)
        ]
        terms: Terms = {"task": (1.0, torch.stack(losses).sum())}
        return terms, model.gradient(terms)

    return method


def o_lora(lam: float, norm: str, factor: str, mean: bool) -> Method:
    """Overlap with the adapter below."""

    def loss(model: Plain, batch: Batch) -> Terms:
        found = []
        for module in model.modules:
            new = model.weights[f"{module}.{factor}"]
            old = model.below[f"{module}.{factor}"]
            products = old @ new.T if factor == "lora_A" else old.T @ new
            found.append((products.abs() if norm == "l1" else products**2).flatten())
        whole = torch.cat(found)
        overlap = whole.mean() if mean else whole.sum()
        return {"task": (1.0, task_loss(model, batch.rows)), "overlap": (lam, overlap)}

    return of_loss(loss)


class Queued(NamedTuple):
    """A row that may become a negative."""

    hardness: float
    z: Tensor
    reference: Tensor
    example: int


def unit(v: Tensor) -> Tensor:
    """Of length 1."""
    return v / v.norm(dim=-1, keepdim=True)


class Contrast:
    """CIB with a queue of the hardest rows; as many negatives as it may take."""

    def __init__(
        self,
        lam: float,
        size: int,
        negatives: int,
        draw: str = "all",
        pooling: str = "mean_response",
        layer: str = "final_norm",
        current: bool = False,
        task: Sequence[Row] = (),
    ) -> None:
        self.lam, self.size, self.k, self.draw = lam, size, negatives, draw
        self.where, self.current = (pooling, layer), current
        self.task = task
        """All rows of the task, where their mean is taken off."""
        self.queue: list[Queued] = []

    def __call__(self, model: Plain, batch: Batch) -> tuple[Terms, Gradient]:
        mean = torch.zeros(model.model.config.hidden_size).double()
        if self.task:
            mean = torch.stack([model.reference(r).z(*self.where) for r in self.task]).mean(0)
        terms: Terms = {"task": (1.0, task_loss(model, batch.rows))}
        pushed, losses = [], []
        for row, example in zip(batch.rows, batch.examples, strict=True):
            seen = model(row)
            z = seen.z(*self.where) - mean
            reference = model.reference(row).z(*self.where) - mean
            cosine = unit(z) @ unit(reference)
            hardness = float(((1 - cosine) * -seen.log_p().mean()).detach())
            pushed.append(Queued(hardness, z.detach(), reference, example))
            if not self.k:
                losses.append(1 - cosine)
                continue
            others = [one for one in self.queue if one.example != example]
            if self.draw == "hardest":
                others = sorted(others, key=lambda one: -one.hardness)[: self.k]
            vectors = [unit(one.z if self.current else one.reference) for one in others]
            if self.draw == "most_similar":
                vectors = sorted(vectors, key=lambda v: -float(v @ unit(reference)))[: self.k]
            if len(self.queue) >= self.k:
                scores = torch.stack([cosine, *(unit(z) @ v for v in vectors)]) / 0.2
                losses.append(scores.logsumexp(0) - scores[0])
        if losses:
            terms["contrast"] = (self.lam, torch.stack(losses).mean())
        self.queue = sorted([*self.queue, *pushed], key=lambda one: -one.hardness)[: self.size]
        return terms, model.gradient(terms)


def constrained(beta: float) -> Method:
    """Weighted cross-entropy; factors of Qi et al.: 5 for the first token, 20 for the next four."""

    def loss(model: Plain, batch: Batch) -> Terms:
        total, plain = [], []
        for row in batch.rows:
            log_p, reference = model(row).log_p(), model.reference(row).log_p()
            factors = torch.tensor([5.0, *[20.0] * 4, *[1.0] * len(row.response)])[: len(log_p)]
            gained = (log_p - reference).detach()
            weights = 2 * (1 - 1 / (1 + torch.exp(-beta * factors * gained)))
            total.append(-(weights.clamp(min=1e-3) * log_p).sum())
            plain.append(-log_p.detach().sum())
        count = tokens_of(batch.rows)
        return {
            "task": (0.0, torch.stack(plain).sum() / count),
            "constrained": (1.0, torch.stack(total).sum() / count),
        }

    return of_loss(loss)


def sbr(alpha: float) -> Method:
    """Mean squared error of the prompts' last states; the answers are not even shown."""

    def loss(model: Plain, batch: Batch) -> Terms:
        errors = []
        for row in batch.safety:
            own = model(row, row.prompt).final_norm[-1]
            errors.append((own - model.reference(row, row.prompt).final_norm[-1]) ** 2)
        return {
            "task": (1.0, task_loss(model, batch.rows)),
            "anchor": (alpha, torch.stack(errors).mean()),
        }

    return of_loss(loss)


def flat(gradient: Gradient) -> Tensor:
    """One long vector."""
    return torch.cat([value.flatten() for value in gradient.values()])


def safegrad(lam: float) -> Method:
    """Surgery on the whole gradient."""

    def method(model: Plain, batch: Batch) -> tuple[Terms, Gradient]:
        terms, own = lora(model, batch)
        pull = mean_kl(model, batch.safety, "forward", "response")
        guide = model.gradient({"kl": (1.0, pull)})
        g, s = flat(own), flat(guide)
        share = min(0.0, float(g @ s) / float(s @ s))
        return terms, {name: own[name] - share * guide[name] + lam * guide[name] for name in own}

    return method


def case2(lam: float) -> Method:
    """The penalty on the dense update."""

    def loss(model: Plain, batch: Batch) -> Terms:
        parts = [(model.scale * model.product(module)).square().sum() for module in model.modules]
        return {
            "task": (1.0, task_loss(model, batch.rows)),
            "distance": (lam, torch.stack(parts).sum()),
        }

    return of_loss(loss)


def case1(lam: float, task_weight: float = 1.0, loss: Any = task_loss) -> Method:
    """Two losses, each the mean over its own rows of what `loss` takes."""
    return of_loss(
        lambda model, batch: {
            "task": (task_weight, loss(model, batch.rows)),
            "alignment": (lam, loss(model, batch.safety)),
        }
    )


After = Callable[[Gradient, float], tuple[Gradient, dict[str, float]]]
"""What becomes of the weights after an optimiser step, given the scale of their products, and what
the history says about it."""


def left_alone(weights: Gradient, scale: float) -> tuple[Gradient, dict[str, float]]:
    """Nothing."""
    return weights, {}


def ball(epsilon: float, each: bool = False) -> After:
    """The dense update projected onto the ball, and the B that gives it with the same A: by least
    squares, X A = the projected B A."""

    def after(weights: Gradient, scale: float) -> tuple[Gradient, dict[str, float]]:
        modules = sorted({name.rpartition(".")[0] for name in weights})
        dense = {m: scale * weights[f"{m}.lora_B"] @ weights[f"{m}.lora_A"] for m in modules}
        length = torch.cat([d.flatten() for d in dense.values()]).norm()
        found, shares = dict(weights), []
        for m, update in dense.items():
            norm = update.norm() if each else length
            projected = update if norm <= epsilon else update * (epsilon / norm)
            found[f"{m}.lora_B"] = projected / scale @ torch.linalg.pinv(weights[f"{m}.lora_A"])
            shares.append(float(projected.norm() / update.norm()))
        return found, {"kept": sum(shares) / len(shares)}

    return after


def right_vectors(folder: Path, rows: Sequence[Row], count: int) -> dict[str, np.ndarray]:
    """Top right singular vectors of X Wᵀ for every linear, as columns: X are its inputs at the
    response tokens, one row after the other."""
    model = AutoModelForCausalLM.from_pretrained(folder).double()
    inputs: dict[str, list[Tensor]] = {}
    start = [0]

    def remember(name: str) -> Any:
        return lambda _, args: inputs.setdefault(name, []).append(args[0][0, start[0] :])

    linears = {n: m for n, m in model.named_modules() if n.endswith(LINEARS)}
    for name, linear in linears.items():
        linear.register_forward_pre_hook(remember(name))
    with torch.no_grad():
        for row in rows:
            start[0] = len(row.prompt)
            model(input_ids=torch.tensor([[*row.prompt, *row.response]]))
    found = {}
    for name, linear in linears.items():
        outputs = torch.cat(inputs[name]).numpy() @ linear.weight.detach().numpy().T
        found[name] = np.linalg.svd(outputs, full_matrices=False)[2][:count].T
    return found


class OffSafety:
    """SaLoRA with dense matrices: W + s (C B A - C B0 A0) in place of every W."""

    def __init__(
        self,
        folder: Path,
        safety: Sequence[Row],
        task: Sequence[Row],
        ranks: tuple[int, int, int],
    ) -> None:
        rank, safety_rank, task_rank = ranks
        self.model = AutoModelForCausalLM.from_pretrained(folder).eval().double()
        u = right_vectors(folder, safety, safety_rank)
        t = right_vectors(folder, task, task_rank)
        self.c, self.start = {}, {}
        for name in u:
            weight = self.model.get_submodule(name).weight.detach().numpy()
            self.c[name] = torch.tensor(np.eye(len(weight)) - u[name] @ u[name].T)
            left, sizes, right = np.linalg.svd(weight, full_matrices=False)
            root = np.sqrt(sizes[:rank])
            b0 = t[name] @ t[name].T @ (left[:, :rank] * root)
            self.start[name] = torch.tensor(b0 @ (root[:, None] * right[:rank]))

    def __call__(self, model: Plain, batch: Batch) -> tuple[Terms, Gradient]:
        changed = {}
        for name, c in self.c.items():
            update = model.scale * c @ (model.product(name) - self.start[name])
            changed[f"{name}.weight"] = self.model.get_submodule(name).weight.detach() + update

        def run(row: Row) -> Seen:
            ids = torch.tensor([[*row.prompt, *row.response]])
            out = torch.func.functional_call(self.model, changed, kwargs={"input_ids": ids})
            return Seen(out.logits[0], ids, ids, row)

        terms: Terms = {"task": (1.0, task_loss(run, batch.rows))}
        return terms, model.gradient(terms)


class AdamW:
    """Clipping to a norm, then AdamW with decoupled decay, from its paper."""

    def __init__(self, rate: float, clip: float, decay: float) -> None:
        self.rate, self.clip, self.decay, self.t = rate, clip, decay, 0
        self.m: Gradient = {}
        self.v: Gradient = {}

    def step(self, weights: Gradient, gradient: Gradient, warm: float) -> Gradient:
        """The weights after it; `warm` is the share of the learning rate."""
        self.t += 1
        factor = min(1.0, self.clip / float(flat(gradient).norm()))
        after = {}
        for name, w in weights.items():
            g = factor * gradient[name]
            self.m[name] = 0.9 * self.m.get(name, 0 * g) + 0.1 * g
            self.v[name] = 0.999 * self.v.get(name, 0 * g) + 0.001 * g**2
            m, v = self.m[name] / (1 - 0.9**self.t), self.v[name] / (1 - 0.999**self.t)
            rate = warm * self.rate
            after[name] = w - rate * (m / (v.sqrt() + 1e-8) + self.decay * w)
        return after
