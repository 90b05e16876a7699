"""Acceptance cards: whether a sweep is evidence that a method defends, in four parts.

After Acceptance Cards (Konrad, Tanyel and Ayvaz 2026, arXiv:2605.10575), which asks of a defence
that its effect is reliable, holds on fresh material, transfers to another task and comes from the
mechanism that it is said to have. Only the abstract, the introduction and summaries by others were
at hand, so every threshold and every statistic here is our own.
"""
