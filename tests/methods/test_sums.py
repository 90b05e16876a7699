"""Several objectives of one slot: their terms and memories stay apart."""

import pytest
import torch
from fake_step import FakeStep

from raycib.models.step import Step
from raycib.objectives import LossTerm, LossTerms, Objective, Observations, Sum

NO_STEP = FakeStep(*[torch.ones(1, 1)] * 2, torch.ones(1), [0], torch.ones(1), 1)


class Named(Objective):
    """A term of a given name, and a memory of what it was shown."""

    def __init__(self, name: str, value: float) -> None:
        super().__init__()
        self.name, self.value = name, value
        self.shown: list[Observations] = []

    def forward(self, step: Step) -> LossTerms:
        return {self.name: LossTerm(torch.tensor(self.value), weight=2.0)}

    def observations(self) -> Observations:
        return {"positions": torch.arange(2), self.name: torch.full((2,), self.value)}

    def end_step(self, step: int, seen: Observations) -> None:
        self.shown.append(seen)


def test_a_sum_keeps_terms_apart_and_gives_each_part_its_own_observations():
    """Twelve parts, so that the prefixes "1/" and "11/" both occur."""
    parts = [Named(f"term {n}", float(n)) for n in range(12)]
    whole = Sum(parts)
    terms = whole(NO_STEP)
    assert {name: float(term.value) for name, term in terms.items()} == {
        f"term {n}": n for n in range(12)
    }
    whole.end_step(0, whole.observations())
    for number, part in enumerate(parts):
        (seen,) = part.shown
        assert sorted(seen) == ["positions", f"term {number}"]
        assert seen[f"term {number}"].tolist() == [number, number]


def test_two_terms_of_one_name_are_refused():
    with pytest.raises(ValueError, match=r"both name a term .*'task'"):
        Sum([Named("task", 1.0), Named("task", 2.0)])(NO_STEP)
