"""The loss on proxy safety data beside the task's (Trade-offs paper, Case I, Eq. 2)."""

from raycib.models.step import Step
from raycib.objectives import LossTerm, LossTerms, Objective
from raycib.objectives.cross_entropy import CrossEntropy, Reduction


class AlignmentPenalty(Objective):
    """`task_weight` * task loss + `weight` * alignment loss, each a mean over the tokens, or the
    rows, of its own effective batch. Needs safety rows beside the task's."""

    def __init__(
        self, weight: float, task_weight: float = 1.0, reduction: Reduction = "token"
    ) -> None:
        super().__init__()
        self.weight, self.task_weight = weight, task_weight
        self.loss = CrossEntropy(reduction)

    def forward(self, step: Step) -> LossTerms:
        terms = {name: LossTerm(t.value, self.task_weight) for name, t in self.loss(step).items()}
        if step.safety is not None:  # else this micro-batch got none of them
            (alignment,) = self.loss(step.safety).values()
            terms["alignment"] = LossTerm(alignment.value, self.weight)
        return terms
