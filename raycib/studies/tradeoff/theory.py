"""What a sweep measured of the theorems' own quantities: data, answer lengths, loss landscape."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from raycib.report.text import plain
from raycib.results import Part


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Number = Annotated[float | None, BeforeValidator(_finite)]
"""A finite number; None where it is infinite or not known."""
Name = Annotated[str, AfterValidator(plain)]
"""As data frames have it."""


class Proxy(Part):
    """How far one set of safety data is from the original (Theorem 1).

    ``tv_inputs`` and ``tv_outputs`` are total variation distances in [0, 1], ``kl_outputs`` is in
    nats; ``how`` says whether they are exact or estimated.
    """

    name: Name
    rows: int | None = None
    tv_inputs: Number = None
    tv_outputs: Number = None
    kl_outputs: Number = None
    how: str = ""
    note: str = ""

    @property
    def terms(self) -> tuple[float | None, float | None, float | None]:
        """The distances, in the order of Theorem 1."""
        return self.tv_inputs, self.tv_outputs, self.kl_outputs

    @property
    def original(self) -> bool:
        """Whether these are the original data: every distance is 0."""
        return self.terms == (0, 0, 0)


class Overlap(Part):
    """Prompts that safety data and a task share (Theorem 2).

    ``overlap`` is their share of the safety data; ``divergence`` the sum over them of their share
    times KL(safety answers | task answers), in nats.
    """

    proxy: Name
    task: Name
    overlap: Number = None
    divergence: Number = None
    how: str = ""
    note: str = ""


class Slope(Part):
    """The largest slopes of the alignment loss found within a distance: lower bounds of Theorem 3's
    L_s(theta_s, epsilon), in nats per unit of ||Delta||."""

    epsilon: float
    sampled: Number = None
    """By random directions."""
    ascent: Number = None
    """By ascent; not below the gradient's norm, the limit for epsilon -> 0."""

    @property
    def largest(self) -> float:
        """0 where none was found."""
        return max(self.sampled or 0.0, self.ascent or 0.0)


class Landscape(Part):
    """The task loss around the aligned model (Theorem 4), in nats an answer, by distance."""

    task: Name = ""
    gradient_norm: Number = None
    """Of the gradient's best approximation of the adapter's rank: all an adapter can follow."""
    gradient_norm_full: Number = None
    """Of the gradient with respect to the adapted layers' whole weights."""
    smoothness: Number = None
    """Lower bound of L'_f(theta_s, radius): the largest curvature found; negative if nothing tried
    curves upward."""
    n: int | None = None
    """Rows."""


class AlignedTask(Part):
    """Of one task under the aligned model."""

    capability_nll: Number = None
    """Mean -log p of its answers, in nats per answer."""
    capability_gap_exact: Number = None


class Theory(Part):
    """The theorems' quantities in a sweep; whatever was not measured is None or empty."""

    aligned: Mapping[Name, AlignedTask] = {}
    alignment_gap_exact: Number = None
    """Of the aligned model."""
    answer_tokens: Mapping[Name, float] = {}
    """Mean length of answers, by task and by "proxy:" and the proxy's name."""
    proxies: Sequence[Proxy] = ()
    overlaps: Sequence[Overlap] = ()
    lipschitz: Sequence[Slope] = ()
    smoothness: Sequence[Landscape] = ()

    @property
    def aligned_nll(self) -> dict[str, float]:
        """By task, where it was measured."""
        known = {task: one.capability_nll for task, one in self.aligned.items()}
        return {task: nll for task, nll in known.items() if nll is not None}

    @property
    def slopes(self) -> list[Slope]:
        """Those that were found, from the smallest ball."""
        return sorted((one for one in self.lipschitz if one.largest), key=lambda one: one.epsilon)

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
        return next((found for found in self.smoothness if found.task == task), None)

    def slope(self, distance: float) -> float | None:
        """L_s within the smallest ball measured that holds ``distance``, in nats per unit.

        The largest slope found there or in a smaller ball, which lies within it. None beyond the
        largest ball.
        """
        reach = next((one.epsilon for one in self.slopes if one.epsilon >= distance), None)
        if reach is None:
            return None
        return max(one.largest for one in self.slopes if one.epsilon <= reach)


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
