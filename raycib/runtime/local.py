"""A sweep's phases in this process: no Ray, no server, no vLLM. A breakpoint in a loss stops.

Adapters are trained as a worker of a group trains them, byte for byte, one group after the other.
Answers and verdicts are transformers'.
"""

import bdb
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path

import torch
from transformers.utils import logging

from raycib.config import ModelSpec
from raycib.config.plan import Plan
from raycib.data.tokenizer import open_tokenizer
from raycib.errors import UserError
from raycib.evals.alone import Pick
from raycib.evals.in_process import InProcessGenerator
from raycib.evals.judges import Judge
from raycib.evals.verdicts import Pair, Told
from raycib.model_files import context_length, find
from raycib.model_files.config import own_dtype, read_config
from raycib.models import load_model
from raycib.models.device import device_of
from raycib.runtime import worker
from raycib.runtime.answering import Answering, with_transformers
from raycib.runtime.capacity import groups_here
from raycib.runtime.judge import guard_judge, unserved_judge
from raycib.runtime.leases import LOOK_S, Ended, Leases, Outcome, Task, Undone
from raycib.runtime.named_judges import NamedJudge
from raycib.runtime.pieces import Pending, Piece
from raycib.runtime.progress import ProgressView
from raycib.runtime.sweep import Sweep
from raycib.store import StoreError
from raycib.training.memory import give_back

HERE = "this process"


class LocalRuntime:
    """This process. Work that has begun is done when it is waited for."""

    engines, overlaps, has_room = 1, False, False
    models_at_once = 1
    """Who answer together: none, by transformers."""
    lost: tuple[type[Exception], ...] = ()

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        execution = sweep.setup.execution
        if execution.gpus_per_worker and not torch.cuda.is_available():
            raise UserError("these settings are for a GPU, and there is none here")
        # The groups that Ray would make on this machine, so that it goes on with them, and back.
        self.groups_at_once = groups_here(execution)
        self.engine_starts = 0
        logging.disable_progress_bar()
        logging.set_verbosity_error()
        self._device = device_of(execution.gpus_per_worker)
        self._answering: Answering | None = None
        self._view: ProgressView

    def __str__(self) -> str:
        return "one after the other in this process"

    def expect(self, plan: Plan) -> None:
        """It is done one by one, however much it is."""

    def view(self, folder: Path, steps: int) -> ProgressView:
        """Lines, without a thread."""
        self._view = ProgressView(folder, steps)
        return self._view

    def train(
        self, tasks: Sequence[Task], pieces: Mapping[str, Piece], ended: Callable[[Ended], None]
    ) -> None:
        """One after the other. What goes wrong in one fails its stages; with `--fail-fast` the
        error itself comes out, as does the end of a debugger."""
        setup = self.sweep.setup
        trainer = worker.TrainWorker(self.sweep.store, setup.execution, self._view)
        leases = Leases(tasks, fail_fast=setup.options.fail_fast)
        number = leases.join(HERE)
        while (name := leases.take(HERE, number)) is not None:
            try:
                outcome = trainer.do(pieces[name])
            except bdb.BdbQuit:
                raise
            except (UserError, StoreError) as error:
                outcome = Outcome(error=error)
            except Exception as error:
                if setup.options.fail_fast:
                    raise
                outcome = Outcome(error=Undone("".join(traceback.format_exception(error))))
            leases.finish(HERE, outcome)
            number += 1
            if outcome.elsewhere:
                self._view.wait(leases.awaited())
                time.sleep(LOOK_S)
            for one in leases.ended():
                ended(one)
        leases.abandon()
        for one in leases.ended():
            ended(one)
        del trainer
        give_back()

    def start_engine(self) -> None:
        """The base model, with room for any of the adapters."""
        if self._answering is not None:
            return
        sweep, model = self.sweep, self.sweep.setup.model
        base = model, self._device, sweep.engine_length, sweep.targets
        self._answering = Answering(sweep.store, model, *with_transformers(*base))
        self.engine_starts += 1

    def ask(self, model_ids: Sequence[str]) -> Pending:
        """Their answers, given when they are waited for."""
        return cache(partial(self._answer, model_ids))

    def _answer(self, model_ids: Sequence[str]) -> None:
        self.start_engine()
        assert self._answering is not None
        self._answering.answer(self.sweep.evaluations(model_ids))

    def ask_alone(self, picks: Sequence[Pick]) -> Pending:
        """The same."""
        self.start_engine()
        assert self._answering is not None
        return cache(partial(self._answering.ask_alone, picks))

    def stop_engine(self) -> None:
        """Its memory is free for the judge."""
        self._answering = None
        give_back()

    def start_judge(self, judge: NamedJudge) -> None:
        """Nothing to start: a judge is loaded when it is asked."""

    def ask_judge(self, judge: NamedJudge, pairs: Sequence[Pair], told: Told) -> int:
        """Have the judge in this process, or an endpoint, read what is missing."""
        reader = judge.reading(self._reader(judge))
        return self.sweep.verdict_caches[judge.name].ask(reader, pairs, told)

    def _reader(self, judge: NamedJudge) -> Judge:
        if judge.spec.kind == "guard":
            self.engine_starts += 1
        return judge_here(judge, self._device)

    def close(self) -> None:
        """Free the engine, whatever it was doing."""
        self.stop_engine()


def judge_here(judge: NamedJudge, device: torch.device) -> Judge:
    """A judge that reads in this process, or an endpoint."""
    spec = judge.spec
    if spec.kind != "guard":
        return unserved_judge(spec, judge.url, judge.key_env)
    # As it is served: on a CPU in float32, on a GPU as its weights are stored.
    own = own_dtype(read_config(find(spec.source)))
    model = ModelSpec(
        source=spec.source,
        weights=spec.weights,
        tokenizer=spec.tokenizer,
        dtype="float32" if device.type == "cpu" else own,  # type: ignore[arg-type]
    )
    engine = InProcessGenerator(
        load_model(model, device),
        open_tokenizer(find(spec.source)),
        max_model_len=context_length(spec.source),
    )
    return guard_judge(spec, engine)
