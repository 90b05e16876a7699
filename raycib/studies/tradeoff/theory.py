"""What a sweep measured of the theorems' own quantities: data, answer lengths, loss landscape."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raycib.report.text import one_line


@dataclass(frozen=True)
class Proxy:
    """How far one set of safety data is from the original (Theorem 1); None: not known.

    ``tv_inputs`` and ``tv_outputs`` are total variation distances in [0, 1], ``kl_outputs`` is in
    nats; ``how`` says whether they are exact or estimated.
    """

    name: str
    rows: int | None
    tv_inputs: float | None
    tv_outputs: float | None
    kl_outputs: float | None
    how: str
    note: str

    @property
    def terms(self) -> tuple[float | None, float | None, float | None]:
        """The distances, in the order of Theorem 1."""
        return self.tv_inputs, self.tv_outputs, self.kl_outputs

    @property
    def original(self) -> bool:
        """Whether these are the original data: every distance is 0."""
        return self.terms == (0, 0, 0)


@dataclass(frozen=True)
class Overlap:
    """Prompts that safety data and a task share (Theorem 2).

    ``overlap`` is their share of the safety data; ``divergence`` the sum over them of their share
    times KL(safety answers | task answers), in nats, None where infinite or not known.
    """

    proxy: str
    task: str
    overlap: float | None
    divergence: float | None
    how: str
    note: str


@dataclass(frozen=True)
class Landscape:
    """The task loss around the aligned model (Theorem 4), in nats per answer and unit of distance.

    ``gradient`` is the norm of the part of the gradient that an adapter of the rank used can
    follow; ``smoothness`` the largest curvature found, so at most the true constant.
    """

    task: str
    gradient: float | None
    gradient_full: float | None
    smoothness: float | None
    n: int | None


@dataclass(frozen=True)
class Theory:
    """A summary's ``theory``; whatever it lacks is None or empty here."""

    aligned_nll: Mapping[str, float]
    """Mean -log p of each task's answers under the aligned model, in nats per answer."""
    aligned_alignment_gap: float | None
    answer_tokens: Mapping[str, float]
    proxies: Sequence[Proxy]
    overlaps: Sequence[Overlap]
    lipschitz: Sequence[tuple[float, float, float]]
    """Within which distance; the largest slope of the alignment loss by sampling, by ascent."""
    landscapes: Sequence[Landscape]

    def lambda_in_nats(
        self, strength: float, task: str, proxy: str, form: str = "additive",
        reduction: str = "token",
    ) -> float | None:  # fmt: skip
        """Case I's λ in the theorems' units; None where it has no finite value in them.

        Training minimises L_f / T_f + λ L_s / T_s with T the mean tokens of an answer, since
        losses are means over tokens; per answer that is L_f + (λ T_f / T_s) L_s. The convex form's
        weight w is λ = w / (1 - w). Means over rows (``reduction`` "row") weigh each answer by its
        own length, which no λ undoes.
        """
        if reduction == "row" or (form == "convex" and strength >= 1):
            return None
        if form == "convex":
            strength /= 1 - strength
        of_task = self.answer_tokens.get(task)
        of_proxy = self.answer_tokens.get(f"proxy:{proxy}")
        return strength * of_task / of_proxy if of_task and of_proxy else None

    def proxy(self, name: str) -> Proxy | None:
        """The data terms of the proxy called ``name``."""
        return next((proxy for proxy in self.proxies if proxy.name == name), None)

    def overlap(self, proxy: str, task: str) -> Overlap | None:
        """What the proxy's prompts share with the task's."""
        found = (o for o in self.overlaps if (o.proxy, o.task) == (proxy, task))
        return next(found, None)

    def landscape(self, task: str) -> Landscape | None:
        """The task's loss around the aligned model."""
        return next((found for found in self.landscapes if found.task == task), None)

    def slope(self, distance: float) -> float | None:
        """L_s within the smallest ball measured that holds ``distance``, in nats per unit.

        The largest slope found there or in a smaller ball, which lies within it. None beyond the
        largest ball.
        """
        balls = sorted(self.lipschitz)
        reach = next((epsilon for epsilon, *_ in balls if epsilon >= distance), None)
        if reach is None:
            return None
        return max(max(slopes) for epsilon, *slopes in balls if epsilon <= reach)


def theory_of(summary: Mapping[str, Any]) -> Theory | None:
    """The theorems' quantities in ``summary``; None where none were measured."""
    data = summary.get("theory")
    if not data:
        return None
    aligned = {one_line(k): number((v or {}).get("capability_nll"))
               for k, v in (data.get("aligned") or {}).items()}  # fmt: skip
    tokens = {one_line(k): number(v) for k, v in (data.get("answer_tokens") or {}).items()}
    return Theory(
        {task: nll for task, nll in aligned.items() if nll is not None},
        number(data.get("alignment_gap_exact")),
        {name: mean for name, mean in tokens.items() if mean},
        [
            Proxy(
                one_line(row["name"]), row.get("rows"), number(row.get("tv_inputs")),
                number(row.get("tv_outputs")), number(row.get("kl_outputs")), *_said(row),
            )
            for row in data.get("proxies") or ()
        ],
        [
            Overlap(
                one_line(row["proxy"]), one_line(row["task"]), number(row.get("overlap")),
                number(row.get("divergence")), *_said(row),
            )
            for row in data.get("overlaps") or ()
        ],
        [
            (float(row["epsilon"]), number(row.get("sampled")) or 0.0,
             number(row.get("ascent")) or 0.0)
            for row in data.get("lipschitz") or ()
            if number(row.get("sampled")) or number(row.get("ascent"))
        ],
        [
            Landscape(
                one_line(row["task"]), number(row.get("gradient_norm")),
                number(row.get("gradient_norm_full")), number(row.get("smoothness")), row.get("n"),
            )
            for row in data.get("smoothness") or ()
        ],
    )  # fmt: skip


def by_similarity(proxies: Sequence[Proxy]) -> list[Proxy]:
    """Proxies from the most similar to the original data to the least, by total variation and
    then by divergence; unknown terms count as 0 and as infinite."""
    return sorted(
        proxies,
        key=lambda p: (
            (p.tv_inputs or 0) + (p.tv_outputs or 0),
            math.inf if p.kl_outputs is None else p.kl_outputs,
        ),
    )


def more_similar(one: Proxy, other: Proxy) -> bool:
    """Whether ``one`` is nearer the original data: farther in no known term, nearer in one."""
    pairs = [
        (a, b)
        for a, b in zip(one.terms, other.terms, strict=True)
        if a is not None and b is not None
    ]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def number(value: Any) -> float | None:
    """A finite number, or None."""
    return float(value) if value is not None and math.isfinite(value) else None


def _said(row: Mapping[str, Any]) -> tuple[str, str]:
    return one_line(row.get("how") or ""), one_line(row.get("note") or "", 300)
