"""The alignment tax of the CIB paper (Definition 2, Proposition 1), by probes, in nats.

    Tax(Y, C) = I(Z;Y) - I(Z;Y|C) = I(Y;C) - I(Y;C|Z) <= I(Y;C)

Z is a row's representation in the fine-tuned model, C in the aligned reference, Y the answer's
first token: the decision. Each term is a difference of cross-entropies CE of held-out rows, under
multinomial logistic probes fitted to the others: I(X;Y) >= H(Y) - CE(Y|X), as no probe predicts
better than the truth; a linear probe misses, for one, Y = Z xor C. A tax is a difference of such
bounds, and itself no bound.

What the paper leaves unsaid: the bound is only small where C says little of the task. With C the
whole representation of the aligned model, from which it predicts answers, I(Y;C) comes near H(Y);
with C a safety label, which is constant on harmless rows, it is exactly 0, and so is the tax.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from raycib.randomness import generator

FOLDS = 2
RIDGES = (1e-4, 1e-2, 1e-1, 10.0)
"""Weight r of the penalty r/2 ||W||² beside the mean loss; features have variance 1. A probe takes
the one with the lowest held-out loss: a choice of four, so hardly optimistic. The largest leaves
the class frequencies alone, so that features without information cost nothing."""
MOST_ITERATIONS = 100


@dataclass(frozen=True)
class AlignmentTax:
    """Information in nats about the labels of `n` rows."""

    tax: float
    """I(Z;Y) - I(Z;Y|C); below 0 where Z tells more of Y once C is known."""
    tax_bound: float
    """I(Y;C). The tax is never above it: Proposition 1 is the chain rule, which these estimates
    obey too, since the joint probe may ignore a representation."""
    information_zy: float
    """I(Z;Y) = H(Y) - CE(Y|Z)."""
    conditional_information: float
    """I(Z;Y|C) = CE(Y|C) - CE(Y|Z,C)."""
    label_entropy: float
    """H(Y), from the labels' frequencies."""
    tax_se: float
    """Standard error of `tax`, over rows; what other rows to fit to would change is not in it."""
    slack_se: float
    """The same of `tax_bound - tax` = CE(Y|Z) - CE(Y|Z,C)."""
    n: int
    labels: int
    """Classes told apart, the one of the rare labels included."""


def alignment_tax(
    z: Float[Tensor, "rows dim"],
    c: Float[Tensor, "rows reference_dim"],
    y: Int[Tensor, " rows"],
) -> AlignmentTax:
    """The tax of the rows' labels `y`, given their representations.

    Labels that occur fewer than 2 * FOLDS times are one class together, and are left out if they
    are still fewer. Where one class remains (or none) all information is 0. Rows keep their share
    of each class in every fold, so a probe that knows nothing has a loss of H(Y).
    """
    kept, labels = _classes(y.cpu())
    n, counts = len(labels), labels.bincount().double()
    if len(counts) < 2:
        return AlignmentTax(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, n, len(counts))
    z, c = z.detach().cpu().double()[kept], c.detach().cpu().double()[kept]
    folds = _folds(labels)
    surprise = (n / counts).log()[labels]  # its mean is H(Y)
    given_z, given_c, joint = (
        probe_losses(features, labels, folds) for features in (z, c, torch.cat([z, c], dim=1))
    )
    # With more to fit, the joint probe may predict worse than either; it may ignore one.
    given_both = min((joint, given_z, given_c), key=lambda losses: float(losses.mean()))
    tax = surprise - given_z - given_c + given_both
    return AlignmentTax(
        tax=float(tax.mean()),
        tax_bound=float((surprise - given_c).mean()),
        information_zy=float((surprise - given_z).mean()),
        conditional_information=float((given_c - given_both).mean()),
        label_entropy=float(surprise.mean()),
        tax_se=float(tax.std()) / math.sqrt(n),
        slack_se=float((given_z - given_both).std()) / math.sqrt(n),
        n=n,
        labels=len(counts),
    )


def probe_losses(
    features: Float[Tensor, "rows dim"], labels: Int[Tensor, " rows"], folds: Int[Tensor, " rows"]
) -> Float[Tensor, " rows"]:
    """-log p(label | features) of each row in nats, under the probe fitted to the other folds."""
    losses = features.new_empty(len(RIDGES), len(labels))
    prior = (labels.bincount() / len(labels)).to(features).log()
    for fold in folds.unique():
        held_out = folds == fold
        training, testing = _standardised(features[~held_out], features[held_out])
        weights = features.new_zeros(training.shape[1], len(prior))
        for number in reversed(range(len(RIDGES))):  # from the flattest; each starts at the last
            weights = _fit(training, labels[~held_out], prior, RIDGES[number], weights)
            logits = testing @ weights + prior
            losses[number, held_out] = F.cross_entropy(logits, labels[held_out], reduction="none")
    return losses[losses.mean(dim=1).argmin()]


def _fit(
    features: Float[Tensor, "rows dim"],
    labels: Int[Tensor, " rows"],
    prior: Float[Tensor, " classes"],
    ridge: float,
    start: Float[Tensor, "dim classes"],
) -> Float[Tensor, "dim classes"]:
    """W of the probe softmax(features W + prior) with the lowest mean loss + ridge/2 ||W||²."""
    weights = start.clone().requires_grad_(True)
    optimiser = torch.optim.LBFGS(
        [weights], max_iter=MOST_ITERATIONS, tolerance_grad=1e-5, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        fit = F.cross_entropy(features @ weights + prior, labels)
        total = fit + ridge / 2 * weights.square().sum()
        total.backward()
        return total

    with torch.enable_grad():
        optimiser.step(loss)  # type: ignore[arg-type]
    return weights.detach()


def _standardised(
    training: Float[Tensor, "rows dim"], testing: Float[Tensor, "others dim"]
) -> tuple[Tensor, Tensor]:
    """Both with the training rows' mean 0 and variance 1 and a constant feature, in axes of the
    space that the training rows span: the best weights lie in it, so nothing is lost, and there
    are never more features than rows."""
    mean, std = training.mean(dim=0), training.std(dim=0)
    std = std.where(std > 0, 1.0)
    both = [F.pad((rows - mean) / std, (0, 1), value=1.0) for rows in (training, testing)]
    axes = torch.linalg.svd(both[0], full_matrices=False).Vh
    return both[0] @ axes.mT, both[1] @ axes.mT


def _classes(y: Int[Tensor, " rows"]) -> tuple[Tensor, Int[Tensor, " kept"]]:
    """Which rows are kept, and their classes from 0: frequent labels in order, then rare ones."""
    _, classes, counts = y.unique(return_inverse=True, return_counts=True)
    frequent = counts >= 2 * FOLDS
    rare = ~frequent[classes]
    kept = ~rare | (rare.sum() >= 2 * FOLDS)
    places = torch.where(frequent, frequent.cumsum(0) - 1, frequent.sum())
    return kept, places[classes][kept]


def _folds(labels: Int[Tensor, " rows"]) -> Int[Tensor, " rows"]:
    """A fold for each row, with equal shares of every class up to one row: a shuffled deal, class
    after class."""
    shuffled = torch.randperm(len(labels), generator=generator(0, "alignment tax"))
    order = shuffled[labels[shuffled].argsort(stable=True)]
    folds = torch.empty_like(labels)
    folds[order] = torch.arange(len(labels)) % FOLDS
    return folds
