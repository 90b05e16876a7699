"""Case I of the Trade-offs paper: its optima are mixtures and its rows a slot's own."""

import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from menu import METHODS
from torch import Tensor

from raycib.config import PlainLoRA, StageSpec, TaskSpec
from raycib.methods.case1 import Case1
from raycib.models.tensors import Totals
from raycib.objectives.alignment_penalty import AlignmentPenalty
from raycib.store import Store
from raycib.studies.tradeoff.divergence import kl
from raycib.training.loop import train
from raycib.training.workers import Workers

SAFETY = TaskSpec(name="refusals", source="nowhere.jsonl", rows="e" * 64, num_rows=12)


# Case I: a table of probabilities


class Source:
    """Rows (x, y), each as often as it occurs in the data: an exact law."""

    def __init__(self, counts: dict[int, tuple[int, ...]]) -> None:
        self.counts = np.zeros((3, 2))
        for x, of_answers in counts.items():
            self.counts[x] = of_answers
        self.rows = [(x, y) for x, n in counts.items() for y in range(2) for _ in range(n[y])]
        self.inputs = self.counts.sum(1) / self.counts.sum()

    def step(self, table: Tensor, **more: Any) -> Any:
        """All rows in one micro-batch; an answer is one token."""
        log_p = table.log_softmax(-1)
        nll = torch.stack([-log_p[x, y] for x, y in self.rows])[:, None]
        return SimpleNamespace(nll=nll, totals=Totals(len(self.rows), len(self.rows)), **more)

    def loss(self, p: np.ndarray) -> float:
        """-E log p(y|x), over the rows."""
        share = self.counts / self.counts.sum()
        return -sum(share[x, y] * math.log(p[x, y]) for x, y in zip(*share.nonzero(), strict=True))

    @property
    def entropy(self) -> float:
        """The least loss there is."""
        totals = self.counts.sum(1, keepdims=True)
        return self.loss(self.counts / np.where(totals > 0, totals, 1))


def optimum(task: Source, safety: Source, objective: AlignmentPenalty) -> np.ndarray:
    """P(y|x) that minimises the objective, by Newton's kind of descent from the uniform table."""
    table = torch.zeros(3, 2, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS(
        [table],
        max_iter=500,
        tolerance_grad=1e-12,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        solver.zero_grad()
        terms = objective(task.step(table, safety=safety.step(table)))
        loss = torch.stack([term.weight * term.value for term in terms.values()]).sum()
        loss.backward()
        return float(loss.detach())

    solver.step(closure)  # type: ignore[arg-type]
    return table.detach().softmax(-1).numpy()


SHARED = Source({0: (8, 2)}), Source({0: (2, 8)})
"""One x, mu_f = (.8, .2), mu^ = (.2, .8)."""
MIXED = Source({0: (27, 3), 1: (16, 4)}), Source({1: (2, 8), 2: (5, 5)})
"""x = 0 is the task's alone, 2 the proxy's; 1 has D_f = .4 and D^ = .5."""
DISJOINT = Source({0: (27, 3), 1: (16, 4)}), Source({2: (5, 15)})


@pytest.mark.parametrize("data", [SHARED, MIXED])
@pytest.mark.parametrize("lam", [0.1, 0.5, 1.0, 9.0])
def test_the_optimum_of_case_1_is_the_mixture_of_both_laws(data: Any, lam: float):
    """P*(y|x) = (D_f(x) mu_f(y|x) + lam D^(x) mu^(y|x)) / (D_f(x) + lam D^(x))."""
    task, safety = data
    found = optimum(task, safety, AlignmentPenalty(lam))
    asked = task.inputs + lam * safety.inputs > 0
    joint = task.counts / task.counts.sum() + lam * safety.counts / safety.counts.sum()
    closed = joint[asked] / joint[asked].sum(1, keepdims=True)
    np.testing.assert_allclose(found[asked], closed, atol=1e-6)


@pytest.mark.parametrize(
    ("lam", "p", "gap"), [(1.0, (0.5, 0.5), 0.192745), (0.5, (0.6, 0.4), 0.091516)]
)
def test_case_1_by_hand(lam: float, p: tuple[float, float], gap: float):
    """P = (.8 + .2 lam, .2 + .8 lam) / (1 + lam). G_f = KL(mu_f | P): for lam = 1 it is .8 ln 1.6 +
    .2 ln .4 = .192745, for lam = .5 .8 ln 4/3 + .2 ln .5 = .091516. Theorem 2 bounds it by
    lam KL(mu^ | mu_f) = lam (.8 - .2) ln 4 = .831777 lam."""
    task, safety = SHARED
    found = optimum(task, safety, AlignmentPenalty(lam))
    np.testing.assert_allclose(found[0], p, atol=1e-6)
    lost = task.loss(found) - task.entropy
    assert lost == pytest.approx(gap, abs=1e-6)
    bound = lam * kl({"a": 0.2, "b": 0.8}, {"a": 0.8, "b": 0.2})
    assert bound == pytest.approx(0.831777 * lam, abs=1e-6)
    assert lost <= bound


@pytest.mark.parametrize("lam", [0.1, 1.0, 9.0])
def test_safety_costs_nothing_where_no_prompt_is_shared(lam: float):
    task, safety = DISJOINT
    found = optimum(task, safety, AlignmentPenalty(lam))
    assert task.loss(found) - task.entropy == pytest.approx(0, abs=1e-8)
    assert safety.loss(found) - safety.entropy == pytest.approx(0, abs=1e-8)


def test_a_larger_lambda_buys_safety_with_capability():
    """At the optimum L_s never rises with lambda and L_f never falls (here: strictly)."""
    task, safety = MIXED
    tables = [optimum(task, safety, AlignmentPenalty(lam)) for lam in (0.1, 0.3, 0.9, 3, 9)]
    on_task, on_safety = [task.loss(p) for p in tables], [safety.loss(p) for p in tables]
    assert all(np.diff(on_task) > 1e-4)
    assert all(np.diff(on_safety) < -1e-4)


@pytest.mark.parametrize("w", [0.1, 0.5, 0.9])
def test_a_convex_penalty_has_the_optimum_of_an_additive_one(w: float):
    """(1 - w) L_f + w L_s = (1 - w) (L_f + w/(1-w) L_s): .9 is 9."""
    spec = Case1(lam=w, form="convex", safety=SAFETY)
    objective: Any = spec.build().objective
    assert (objective.task_weight, objective.weight) == (1 - w, w)
    additive = AlignmentPenalty(w / (1 - w))
    np.testing.assert_allclose(
        optimum(*MIXED, objective)[:2], optimum(*MIXED, additive)[:2], atol=1e-6
    )


def test_the_two_losses_are_means_over_their_own_tokens():
    """Task: 6 nats of a whole batch of 4 tokens; alignment: 5 of 10. Values stay unweighted."""
    safety = SimpleNamespace(nll=torch.tensor([[5.0]]), totals=Totals(2, 10))
    step: Any = SimpleNamespace(nll=torch.tensor([[2.0, 4.0]]), totals=Totals(3, 4), safety=safety)
    terms = AlignmentPenalty(0.3, 0.7)(step)
    assert {n: (t.weight, float(t.value)) for n, t in terms.items()} == {
        "task": (0.7, 1.5),
        "alignment": (0.3, 0.5),
    }
    step.safety = None
    assert AlignmentPenalty(0.3)(step).keys() == {"task"}, "another micro-batch has them"


def test_means_over_rows_weigh_a_short_answer_like_a_long_one():
    """A batch of 3 rows, of which two are here: 4 nats of 1 token and 6 of 3, so (4 + 2) / 3 = 2;
    one safety row of 2: 5 nats of 10 tokens, so .5 / 2 = .25. By tokens it is 10 / 9 and 5 / 20."""
    safety = SimpleNamespace(
        nll=torch.tensor([[5.0]]), row_loss=torch.tensor([0.5]), totals=Totals(2, 20)
    )
    step: Any = SimpleNamespace(
        nll=torch.tensor([[4.0, 0, 0], [1, 2, 3]]), row_loss=torch.tensor([4.0, 2.0]),
        totals=Totals(3, 9), safety=safety,
    )  # fmt: skip
    found = {
        reduction: {n: float(t.value) for n, t in AlignmentPenalty(0.3, 1, reduction)(step).items()}
        for reduction in ("row", "token")
    }
    assert found["row"] == {"task": 2.0, "alignment": 0.25}
    assert found["token"] == pytest.approx({"task": 10 / 9, "alignment": 0.25})


def test_a_mean_over_rows_changes_the_key():
    rows = Case1(safety=SAFETY, reduction="row")
    assert rows.identity() != Case1(safety=SAFETY).identity()
    assert rows.off().is_plain


@pytest.mark.parametrize("form", ["additive", "convex"])
def test_a_lambda_of_zero_draws_no_safety_rows(form: Any, tiny_folder: Path, tmp_path: Path):
    """Nor does it read them: here they are nowhere."""
    method = Case1(lam=0, form=form, safety=SAFETY)
    stage = tiny.make_stage(tiny_folder, method=method)
    adapters, (slot,) = tiny.open_slots([stage], Store(tmp_path))
    assert slot.safety is None
    train(adapters, [slot], Workers(), 16)
    assert all("alignment" not in entry for entry in slot.history)


def drawn(stage: StageSpec, store: Store, steps: int) -> Sequence[list[int]]:
    _, (slot,) = tiny.open_slots([stage], store)
    assert slot.safety is not None
    return [slot.safety.rows(step) for step in range(steps)]


def test_safety_rows_come_in_an_order_of_their_own(tiny_folder: Path, tmp_path: Path):
    """Five of twelve a step: 5, 5, 2, then all twelve anew. The task's batches are plain LoRA's."""
    (stage,) = tiny.make_chain(tiny_folder, METHODS["case1"])
    batches = drawn(stage, Store(tmp_path), 6)
    assert [len(batch) for batch in batches] == [5, 5, 2, 5, 5, 2]
    for epoch in (batches[:3], batches[3:]):
        assert sorted(example for batch in epoch for example in batch) == list(range(12))
    assert batches[:3] != batches[3:]
    assert drawn(stage.model_copy(update={"seed": 1}), Store(tmp_path), 6) != batches
    orders = []
    for method in (METHODS["case1"], PlainLoRA()):
        (one,) = tiny.make_chain(tiny_folder, method)
        _, (slot,) = tiny.open_slots([one], Store(tmp_path))
        orders.append([slot.task.rows(step) for step in range(6)])
    assert orders[0] == orders[1]


def test_case_1_reads_nothing_of_the_aligned_model(tiny_folder: Path, tmp_path: Path):
    method = tiny.grounded(METHODS["case1"], tiny_folder)
    assert method.features == method.safety_features == ()
    own = Store(tmp_path)
    tiny.open_slots([tiny.make_stage(tiny_folder, method=method)], own)
    assert own.keys("references") == []
