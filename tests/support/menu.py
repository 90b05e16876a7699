"""The methods that every invariance is tested for: the examples that each gives of itself.

Safety data and base models are placeholders: `tiny.grounded` puts the tiny ones in their place.
"""

from raycib.config import Method, ModelSpec, TaskSpec
from raycib.config.menu import menu

SAFETY = TaskSpec(name="refusals", source="refusals.jsonl", rows="e" * 64, num_rows=12)
BASE = ModelSpec(source="before alignment", weights="b" * 64, tokenizer="t" * 64)

METHODS: dict[str, Method] = {
    kind.replace("_", " ") + (f", {example}" if example else ""): method
    for kind, cls in menu().items()
    for example, method in cls.examples(SAFETY, BASE).items()
}
TRAINED = {name: method for name, method in METHODS.items() if not method.derived}
"""Those that take optimiser steps."""
