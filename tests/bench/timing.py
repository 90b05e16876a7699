"""How benchmarks time and tell it: process CPU time, because wall-clock on a shared machine is
useless, in interleaved rounds; medians and quartiles."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

Work = Callable[[], object]
WARM = 6
"""Rounds before anything counts: caches are warm, and CIB's queue holds enough."""


def cpu_seconds(work: Work) -> float:
    """Of this process, while it does some work."""
    began = time.process_time()
    work()
    return time.process_time() - began


def interleaved(works: Mapping[str, Work], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of every work in each round, all of them once a round."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for round_ in range(WARM + rounds):
        for name, work in works.items():
            seconds = cpu_seconds(work)
            if round_ >= WARM:
                times[name].append(seconds)
    return times


def spread(values: Sequence[float], scale: float = 1.0, digits: int = 2) -> str:
    """Median [quartiles]."""
    low, middle, high = (
        f"{scale * value:.{digits}f}"
        for value in (statistics.quantiles(values, n=4) if len(values) > 1 else [*values] * 3)
    )
    return f"{middle} [{low}, {high}]"


def ratio(over: Sequence[float], under: Sequence[float], digits: int = 2) -> str:
    """Median [quartiles] of the ratios round by round."""
    return spread([a / b for a, b in zip(over, under, strict=True)], digits=digits)
