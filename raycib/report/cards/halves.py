"""Which prompts a strength is chosen on, and which its figures are of."""

import hashlib

SEED = 0
"""Another one would draw other halves; it is fixed, so that nobody can choose it."""


def is_tuning(prompt: str) -> bool:
    """Whether a prompt belongs to the half that strengths are chosen on. It depends on the prompt
    alone: neither on the others, nor on their order, nor on who asks."""
    return hashlib.sha256(f"raycib half {SEED}: {prompt}".encode()).digest()[0] % 2 == 0
