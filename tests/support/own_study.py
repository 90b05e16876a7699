"""A study of a third party: how far a model moved from the aligned one, by a measure of its own."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel

from raycib.config import Measure, RunSpec, TaskSpec, digest
from raycib.config.measure import InMemory
from raycib.evals.scores import load_values
from raycib.results import Scores
from raycib.runtime.study import Inputs
from raycib.runtime.sweep import Sweep
from raycib.studies.strength import Strength


class Moved(BaseModel):
    """Of one model."""

    norm: float


class UpdateNorm(Measure):
    """The Frobenius norm of all that fine-tuning added."""

    folder: ClassVar[str] = "update_norms"

    def stored_key(self, model_id: str) -> str:
        """Of a model."""
        return digest({"update norm": 1, "subject": model_id})

    def measure(self, models: InMemory, slots: Sequence[int]) -> Mapping[int, BaseModel]:
        """By adapter slot."""
        square = models.adapters.update_norm_sq
        return {slot: Moved(norm=float(square(slot).detach().sqrt())) for slot in slots}


class MovedScores(Scores):
    """With what is measured besides."""

    moved: float


class Distance(Strength):
    """A strength study that also says how far each model moved."""

    name = "distance"

    def measures(self, task: TaskSpec, inputs: Inputs, sets: Any) -> tuple[Measure, ...]:
        """On every model."""
        return (UpdateNorm(),)

    def scores(self, scores: Scores, sweep: Sweep, model_id: str, run: RunSpec) -> MovedScores:
        """Beside all other scores of a model."""
        (measure,) = run.evals.measures
        moved = load_values(sweep.store, model_id, measure)["norm"]
        return MovedScores(**scores.given(), moved=moved)
