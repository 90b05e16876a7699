"""What a reader must know before believing a comparison of methods."""

from collections import Counter

import pandas as pd

from raycib.report.variants import settings, variants


def warnings(frame: pd.DataFrame) -> list[str]:
    """What choosing a method's best strength does to a comparison of methods."""
    found = []
    every = [
        variant for _, part in settings(frame) for variant in variants(part) if not variant.plain
    ]
    tried = Counter(variant.series for variant in every if len(variant.done))
    single = [name for name, count in tried.items() if count == 1]
    if len(single) == len(tried):
        return found
    found.append(
        "A method's best strength is chosen on the same prompts that its rate is then measured on: "
        f"the more strengths were tried (here up to {max(tried.values())}), the more its lowest "
        "rate flatters it."
    )
    if single:
        found.append(
            f"Only one strength was tried of {', '.join(single)}: another may do better, and "
            "methods with several had more chances."
        )
    return found
