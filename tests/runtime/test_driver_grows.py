"""What the driver does grows with the cells and no faster, and reads everything once.

Nothing is timed: what is counted are reads of the store, and of rows."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import synthetic_sweep
from synthetic_sweep import Models, Rule, question, sweep_in

from raycib.config.plan import AdapterGroup, Plan
from raycib.data import rows
from raycib.evals.alone import Pick
from raycib.evals.verdicts import Pair, Told
from raycib.runtime.labelled import with_correction
from raycib.runtime.leases import Ended, Task
from raycib.runtime.named_judges import NamedJudge
from raycib.runtime.pieces import Piece
from raycib.runtime.progress import ProgressView
from raycib.runtime.run import Work
from raycib.runtime.summary import all_samples, stored_histories, summarise
from raycib.runtime.sweep import Sweep
from raycib.store import Store
from raycib.store.kinds import GENERATIONS, MEASURES, STAGES, VERDICTS

SEEDS = (2, 4, 8)
STRENGTHS = (0, 1)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, ...]]:
    """Counts (kind, key, what of it is checked) of the store's records, and readings of rows."""
    found: Counter[tuple[str, ...]] = Counter()
    get, listed, read = Store.get, Store.keys, rows.read_rows

    def counted(self: Store, kind: str, key: str, only: Any = None) -> Any:
        found[kind, key, "whole" if only is None else "part"] += 1
        return get(self, kind, key, only)

    def counted_keys(self: Store, kind: str) -> list[str]:
        found["listed", kind] += 1
        return listed(self, kind)

    def counted_rows(source: str) -> Any:
        found["rows", source] += 1
        return read(source)

    monkeypatch.setattr(Store, "get", counted)
    monkeypatch.setattr(Store, "keys", counted_keys)
    monkeypatch.setattr(rows, "read_rows", counted_rows)
    return found


def by_kind(found: Mapping[tuple[str, ...], int]) -> Counter[str]:
    sums: Counter[str] = Counter()
    for (kind, *rest), count in found.items():
        sums[" ".join([kind, *rest[1:]])] += count
    return sums


def test_a_finished_sweep_reads_every_answer_and_adapter_once(
    tmp_path: Path, reads: Counter[tuple[str, ...]]
) -> None:
    sizes = []
    for seeds in SEEDS:
        asked, options = question(seeds, STRENGTHS)
        synthetic_sweep.fill(tmp_path / str(seeds), asked, options)
        reads.clear()
        sweep = sweep_in(tmp_path / str(seeds), asked, options)
        assert sweep.plan(1).levels == () and not sweep.unanswered and not sweep.unheard
        results = summarise(sweep, ("grid", ""), sweep.plan(1), {}, {}, {"total": 0})
        samples = all_samples(sweep)
        results = with_correction(sweep, results, samples)
        assert len(results.cells) == 2 * seeds and all(cell.scores for cell in results.cells)
        curves = stored_histories(sweep.store, sweep.stages)
        assert len(curves) == len(samples) - 1 == 2 * seeds
        once = {key: n for key, n in reads.items() if key[0] in (GENERATIONS, MEASURES)}
        assert set(once.values()) == {1} and len(once) >= len(sweep.asked) * 7
        adapters = [n for key, n in reads.items() if key[::2] == (STAGES, "whole")]
        assert adapters == [1] * 2 * seeds
        sizes.append(by_kind({key: n for key, n in reads.items() if key[0] != VERDICTS}))
    assert_linear(sizes)


def test_work_that_goes_on_looks_at_what_is_new_alone(
    tmp_path: Path, reads: Counter[tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = []
    for seeds in SEEDS:
        asked, options = question(seeds, STRENGTHS)
        sweep = sweep_in(tmp_path / str(seeds), asked, options | {"group_size": 2})
        reads.clear()
        work = Work(sweep, Overlapping(sweep), tmp_path)
        with synthetic_sweep.no_fsync():
            work.run()
        assert sweep.finished and work.counts["stages_trained"] == 2 * seeds
        looked = [n for key, n in reads.items() if key[0] == STAGES and key[1] in sweep.stages]
        assert sum(looked) == 3 * 2 * seeds, "before it is put, as it is, and when it is there"
        sizes.append(by_kind({key: n for key, n in reads.items() if key[0] != VERDICTS}))
    assert_linear(sizes)


def assert_linear(sizes: Sequence[Counter[str]]) -> None:
    """Twice as many more cells are twice as much more of everything, or as much as before."""
    few, some, many = sizes
    for what in many:
        first, second = some[what] - few[what], many[what] - some[what]
        assert second == 2 * first, what


class Overlapping:
    """A runtime of made-up models, which answer and are judged while others are trained."""

    groups_at_once, engines, overlaps, has_room, engine_starts = 2, 1, True, False, 0
    models_at_once = 8

    def __init__(self, sweep: Sweep) -> None:
        self.sweep, self.models = sweep, Models()

    def expect(self, plan: Plan) -> None:
        pass

    def view(self, folder: Path, steps: int) -> ProgressView:
        return ProgressView(folder, steps)

    def train(
        self, tasks: Sequence[Task], pieces: Mapping[str, Piece], ended: Callable[[Ended], None]
    ) -> None:
        store, evals = self.sweep.store, next(iter(self.sweep.evals.values()))
        self.models.measures(store, self.sweep.setup.model.key, evals)
        for task in tasks:
            piece = pieces[task.name]
            for job in piece.jobs if isinstance(piece, AdapterGroup) else ():
                self.models.stage(store, job.stage)
                self.models.measures(store, job.stage.key, evals)
            ended(Ended(name=task.name))

    def ask(self, model_ids: Sequence[str]) -> Callable[[], None]:
        def answer() -> None:
            for model_id in model_ids:
                for one in self.sweep.asked[model_id].values():
                    self.models.answers(self.sweep.store, model_id, one)

        return answer

    def ask_judge(self, judge: NamedJudge, pairs: Sequence[Pair], told: Told) -> int:
        return self.sweep.verdict_caches[judge.name].ask(Rule(), pairs, told)

    def ask_alone(self, picks: Sequence[Pick]) -> Callable[[], None]:
        return lambda: None

    def start_engine(self) -> None: ...
    def stop_engine(self) -> None: ...
    def start_judge(self, judge: NamedJudge) -> None: ...
    def close(self) -> None: ...
