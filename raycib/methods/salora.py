"""LoRA that cannot move the directions in which harmful prompts are answered (SaLoRA)."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, PositiveInt

from raycib.config.data import ModelSpec, TaskSpec
from raycib.config.method import About, Method
from raycib.hooks import Hooks


class SaLoRA(Method):
    """LoRA whose output cannot move the directions in which harmful prompts are answered."""

    about: ClassVar[About] = About(
        name="SaLoRA",
        paper="Li et al. 2025, arXiv:2501.01765",
        strength="safety_rank: directions kept fixed; at 0 only init=default is plain LoRA",
        passes="none; one calibration pass over a few rows for the whole grid",
        needs="safety data: harmful prompts with the aligned model's refusals",
        deviations="calibrated in one pass over the unchanged model, on the response tokens that "
        "the official code takes too; that one runs the model once for each layer, and its task "
        "pass has subtracted B0 A0 from the layers before, so that later layers start elsewhere "
        "(by .3 relative; without that ours is its start to 6e-6); its SVD is randomised "
        "(projector off by 3e-3 to 6e-2 where singular values are close), ours exact; its training "
        "text is not masked, ours is; exported as an ordinary adapter of twice the rank, on the "
        "unchanged base",
        color="#56B4E9",
        mark="X",
        acts_by="features of harmful prompts that the adapter cannot move (abstract); that holds "
        "by construction and is not measured",
    )
    strength_field: ClassVar[str] = "safety_rank"
    zero: ClassVar = {"safety_rank": 0, "init": "default"}
    starts_itself: ClassVar[bool] = True
    kind: Literal["salora"] = "salora"
    safety: TaskSpec
    """Harmful prompts with the aligned model's refusals."""
    safety_rank: Annotated[int, Field(ge=0, le=128)] = 16
    """r_s: dimension of the fixed safety subspace of each module's output."""
    init: Literal["task", "default"] = "task"
    """Start in the task's own directions (then subtracted from the base), or as LoRA does."""
    task_rank: Annotated[int, Field(ge=1, le=128)] = 32
    """t: dimension of the task subspace that the start lies in."""
    calibration_rows: PositiveInt = 128
    """Rows of each kind that the subspaces are computed from."""

    @property
    def is_plain(self) -> bool:
        """Without a safety subspace, and without the task's start."""
        return self.safety_rank == 0 and self.init == "default"

    def exported_rank(self, rank: int) -> int:
        """The start is subtracted by as many columns again."""
        return 2 * rank if self.init == "task" else rank

    def faint(self) -> None:
        """The smallest subspace has a dimension."""
        return None

    @classmethod
    def examples(cls, safety: TaskSpec, base: ModelSpec) -> dict[str, Self]:
        """Few directions, with both starts."""
        return {
            "": cls(safety=safety, safety_rank=4, task_rank=8),
            "default start": cls(safety=safety, safety_rank=4, init="default"),
        }

    def build(self) -> Hooks:
        """The fixed directions and the start."""
        from raycib.hooks.salora import start_off_safety

        return Hooks(start=start_off_safety(self))
