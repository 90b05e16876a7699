"""How safe a base was before it was aligned: it answers the same harmful and harmless prompts, once
and in one process, whatever engine answers for the models made of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from raycib.config import EngineName, EvalSpec, ModelSpec, RowsSpec
from raycib.evals.answers import answers_key
from raycib.store import Store
from raycib.store.kinds import GENERATIONS

ENGINE: EngineName = "transformers"


@dataclass(frozen=True)
class BaseAnswers:
    """A job on the accelerator (`raycib.runtime.study.AlignedJob`)."""

    folder: ClassVar[str] = GENERATIONS

    model: ModelSpec
    rows: RowsSpec
    room: int
    """Tokens of a prompt and its answer together."""

    @property
    def stored_key(self) -> str:
        """That of the answers."""
        return answers_key(self.model.key, self.rows, ENGINE)

    def run(self, store: Store, device: Any) -> None:
        """Answer, and store the answers."""
        from raycib.evals.answers import Answers, generate_answers
        from raycib.runtime.answering import with_transformers

        tokenizer, engine = with_transformers(self.model, device, self.room)
        subject = self.model.key, None, [self.rows]
        generate_answers(Answers(store), engine, tokenizer, [subject])


def in_process(evals: EvalSpec) -> EvalSpec:
    """The evaluation as a base is asked it."""
    return evals.model_copy(update={"engine": ENGINE, "other_harmful": (), "looks": None})


def jobs_of(model: ModelSpec, evals: EvalSpec, room: int) -> Iterator[BaseAnswers]:
    """What is asked of a base: harmful prompts, and harmless ones where there are some."""
    for rows in filter(None, (evals.harmful, evals.benign)):
        yield BaseAnswers(model, rows, room)
