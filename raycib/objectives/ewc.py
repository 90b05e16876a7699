"""Distance from the aligned model, weighted by its Fisher information (EWC, Eq. 3)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from raycib.data.chat import Encoded
from raycib.errors import UserError
from raycib.models.adapters import AdapterSlots
from raycib.models.adapters.linear import SlotLinear
from raycib.models.decoder import hidden_states
from raycib.models.head import token_loss
from raycib.models.step import Step
from raycib.models.tensors import collate, to_device
from raycib.objectives import LossTerm, LossTerms, Objective


def fisher(
    adapters: AdapterSlots, modules: Mapping[str, SlotLinear], rows: Sequence[Encoded]
) -> dict[str, Tensor]:
    """Of each weight of `modules` in the aligned model: the mean over `rows` of the squared
    gradient of log p(response | prompt), nats an answer. (out_dim, in_dim) each, float32.

    A row at a time, as squares of sums over its tokens are wanted. A frozen weight has no gradient
    of its own: it is the product of its output's with its input.
    """
    model = adapters.model
    found = {
        name: torch.zeros(module.base.weight.shape, device=model.device)
        for name, module in modules.items()
    }
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}

    def keep(name: str):
        def hook(module: torch.nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
            inputs[name], outputs[name] = given[0].detach(), output

        return hook

    handles = [module.base.register_forward_hook(keep(n)) for n, module in modules.items()]
    embed = model.get_input_embeddings()
    handles.append(embed.register_forward_hook(lambda *call: call[-1].requires_grad_()))
    try:
        for number in range(len(rows)):
            batch = to_device(collate(rows, [number]), model.device)
            with adapters.disabled():
                states = hidden_states(model, batch.ids).final_norm
                scored = batch.labels >= 0
                loss = token_loss(model, states[:, :-1][scored[:, 1:]], batch.labels[scored]).sum()
            slopes = torch.autograd.grad(loss, list(outputs.values()), allow_unused=True)
            for name, slope in zip(outputs, slopes, strict=True):
                if slope is not None:
                    x, g = inputs[name].flatten(0, -2).float(), slope.flatten(0, -2).float()
                    found[name] += (g.T @ x).square() / len(rows)
    finally:
        for handle in handles:
            handle.remove()
    if not all(torch.isfinite(value).all() for value in found.values()):
        raise UserError("EWC: the aligned model's gradients on the safety data are not finite")
    return {name: value.cpu() for name, value in found.items()}


class FisherDistance(Objective):
    """1/2 sum_ij F_ij (scale * B A)_ij² over all adapted weights, F (out_dim, in_dim) for each
    module; weight lambda. It counts once an optimiser step."""

    def __init__(self, weights: Mapping[str, Tensor], lam: float) -> None:
        super().__init__()
        self.lam = lam
        for name, value in weights.items():
            self.register_buffer(name.replace(".", "/"), value, persistent=False)

    def forward(self, step: Step) -> LossTerms:
        total = []
        for name, (a, b, scale) in step.updates.items():
            with torch.autocast(a.device.type, enabled=False):
                moved = scale * b.float() @ a.float()
                total.append((self.get_buffer(name.replace(".", "/")) * moved.square()).sum())
        return {"fisher": LossTerm(torch.stack(total).sum() / 2 * step.share, self.lam)}
