"""How far two data sets are apart, as the Trade-offs paper's theorems measure it: exactly where
both laws are known (the embedded world), else estimated from the rows, and always saying which.

Distances are in [0, 1] (total variation) or nats (Kullback-Leibler).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from raycib.data.origins import origin
from raycib.data.rows import Row, load_rows

if TYPE_CHECKING:
    from raycib.world import Law

Distribution = Mapping[str, float]
How = Literal["exact", "estimated"]
FOLDS = 2
"""Of the rows, to tell two sources apart."""


class Mismatch(NamedTuple):
    """Theorem 1's terms: how a proxy differs from the original alignment data."""

    tv_inputs: float | None
    """||D^ - D_s||_TV."""
    tv_outputs: float | None
    """E over D_s of ||mu_s(x) - mu^(x)||_TV; mu^ is taken as mu_s where the proxy has no such x."""
    kl_outputs: float | None
    """E over D_s of KL(mu_s(x) | mu^(x)), nats; infinite where mu^ lacks an answer of mu_s."""
    how: How
    note: str = ""


class Overlap(NamedTuple):
    """Theorem 2's terms: how far proxy and task ask the same and are answered differently."""

    overlap: float
    """D^'s probability of the prompts that the task has as well."""
    divergence: float | None
    """Sum over shared x of D^(x) KL(mu^(x) | mu_f(x)), nats; None where it cannot be known."""
    how: How
    note: str = ""


def total_variation(p: Distribution, q: Distribution) -> float:
    """Half the sum of absolute differences: (.8, .2) and (.2, .8) are .6 apart."""
    return math.fsum(abs(p.get(x, 0.0) - q.get(x, 0.0)) for x in {*p, *q}) / 2  # in any order


def kl(p: Distribution, q: Distribution) -> float:
    """KL(p | q) in nats; infinite where q has no mass and p has some."""
    terms = ((share, q.get(x, 0.0)) for x, share in p.items() if share > 0)
    return sum(share * math.log(share / other) if other > 0 else math.inf for share, other in terms)


def entropy(source: str) -> float | None:
    """Mean entropy of an answer given its prompt, in nats, under the law of the rows at `source`;
    None where no law is known. It is the least loss that any model can have on them."""
    law = origin(source).law
    if law is None:
        return None
    parts = [(part.share, part.answers.values()) for part in law.values()]
    return sum(share * -sum(p * math.log(p) for p in ps if p > 0) for share, ps in parts)


def mismatch(original: str, proxy: str) -> Mismatch:
    """Theorem 1's terms for the rows at two sources."""
    law, other = origin(original).law, origin(proxy).law
    if law is None or other is None:
        return _estimated_mismatch(load_rows(original), load_rows(proxy))
    inputs = total_variation(
        {name: part.share for name, part in law.items()},
        {name: part.share for name, part in other.items()},
    )
    shared = list(_shared(law, other))
    return Mismatch(
        tv_inputs=inputs,
        tv_outputs=sum(share * total_variation(p, q) for share, p, q in shared),
        kl_outputs=sum(share * kl(p, q) for share, p, q in shared),
        how="exact",
    )


def overlap(proxy: str, task: str) -> Overlap:
    """Theorem 2's terms for the rows at two sources."""
    law, other = origin(proxy).law, origin(task).law
    if law is None or other is None:
        return _estimated_overlap(load_rows(proxy), load_rows(task))
    shared = list(_shared(law, other))
    return Overlap(
        overlap=sum(share for share, _, _ in shared),
        divergence=sum(share * kl(p, q) for share, p, q in shared),
        how="exact",
    )


def _shared(law: "Law", other: "Law") -> Iterator[tuple[float, Distribution, Distribution]]:
    """Share in the first law and both distributions of answers, for each part that both have."""
    for name, part in law.items():
        if name in other:
            yield part.share, part.answers, other[name].answers


def _estimated_mismatch(original: Sequence[Row], proxy: Sequence[Row]) -> Mismatch:
    """Classifiers that tell the two apart: one with balanced accuracy a shows that the total
    variation is at least 2 a - 1, and no classifier can show more than there is."""
    inputs = told_apart([r.prompt for r in original], [r.prompt for r in proxy])
    outputs, note = None, "KL is not known from rows alone"
    asked = {row.prompt for row in proxy}
    share = sum(row.prompt in asked for row in original) / len(original)
    if share:
        pairs = _answers_to_the_same(original, proxy)
        outputs = share * told_apart([ours for ours, _ in pairs], [theirs for _, theirs in pairs])
        note = f"TV of outputs on the {share:.0%} of prompts that are shared; {note}"
    else:
        note = f"no shared prompts, so nothing is known of the outputs; {note}"
    return Mismatch(inputs, outputs, None, "estimated", f"TV: lower bounds by classifiers. {note}")


def _answers_to_the_same(first: Sequence[Row], second: Sequence[Row]) -> list[tuple[str, str]]:
    """Answers of both to every prompt that both have, equally many of each: else how often a prompt
    is asked would tell their answers apart."""
    answers: dict[str, tuple[list[str], list[str]]] = {row.prompt: ([], []) for row in first}
    for which, rows in enumerate((first, second)):
        for row in rows:
            if row.prompt in answers:
                answers[row.prompt][which].append(row.response)
    return [pair for both in answers.values() for pair in zip(*both, strict=False)]


def _estimated_overlap(proxy: Sequence[Row], task: Sequence[Row]) -> Overlap:
    asked = {row.prompt for row in task}
    shared = [row for row in proxy if row.prompt in asked]
    note = "shared prompts counted word for word"
    if shared:
        note += "; their divergence is not known from rows alone"
    return Overlap(len(shared) / len(proxy), None if shared else 0.0, "estimated", note)


def told_apart(first: Sequence[str], second: Sequence[str]) -> float:
    """A lower bound of the total variation of two sources of text: 2 a - 1 with a the held-out
    balanced accuracy of a classifier of their words, or 0 where it is no better than chance.

    An estimate: it falls short where the classifier does, and is noisy by about 1/sqrt(rows).
    """
    if min(len(first), len(second)) < 2 * FOLDS:
        return 0.0
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline

    words = HashingVectorizer(ngram_range=(1, 2), n_features=2**16, alternate_sign=False)
    classifier = make_pipeline(words, LogisticRegression(max_iter=1000, class_weight="balanced"))
    truth = np.repeat([0, 1], [len(first), len(second)])
    cut = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    said = cross_val_predict(classifier, [*first, *second], truth, cv=cut)
    return max(0.0, 2 * float(balanced_accuracy_score(truth, said)) - 1)
