"""A few refusals among the task's rows (Safety-Tuned LLaMAs)."""

from collections.abc import Sequence
from typing import ClassVar, Literal, Self

from pydantic import NonNegativeFloat

from raycib.config.data import ModelSpec, TaskSpec
from raycib.config.method import About, Method
from raycib.data.chat import Encoded
from raycib.hooks import Hooks


class SafetyMix(Method):
    """Plain LoRA on the task's rows and a few refusals among them."""

    about: ClassVar[About] = About(
        name="Safety mix",
        paper="Bianchi et al. 2024 (Safety-Tuned LLaMAs), arXiv:2309.07875",
        strength="share: refusals for every row of the task",
        passes="none; `share` more steps",
        needs="safety data: harmful prompts with refusals",
        deviations="none known",
        color="#1B7A3D",
        mark="s",
        acts_by="refusals among the rows (abstract); what they change within the model is not said",
    )
    strength_field: ClassVar[str] = "share"
    kind: Literal["safety_mix"] = "safety_mix"
    share: NonNegativeFloat = 0.05
    """Safety rows added for every row of the task; repeated where there are too few."""
    safety: TaskSpec
    """Harmful prompts, with refusals."""

    def rows_trained(self, task_rows: int) -> int:
        """The task's rows and the ones added."""
        return task_rows + round(self.share * task_rows)

    def faint(self) -> Self:
        """Less than a row."""
        return self.model_copy(update={"share": 0.001})

    @classmethod
    def examples(cls, safety: TaskSpec, base: ModelSpec) -> dict[str, Self]:
        """Three refusals for ten rows."""
        return {"": cls(share=0.3, safety=safety)}

    def build(self) -> Hooks:
        """More rows."""
        return Hooks(rows=self._mixed)

    def _mixed(
        self, task: Sequence[Encoded], safety: Sequence[Encoded], seed: int
    ) -> list[Encoded]:
        """The task's rows and `share` times as many safety rows, drawn without repetition as long
        as there are new ones; the order of training mixes them."""
        import torch

        from raycib.randomness import generator

        count = self.rows_trained(len(task)) - len(task)
        drawn: list[int] = []
        while len(drawn) < count:
            again = generator(seed, "safety mix", len(drawn))
            drawn += torch.randperm(len(safety), generator=again).tolist()
        return [*task, *(safety[i] for i in drawn[:count])]
