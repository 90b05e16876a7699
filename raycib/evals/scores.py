"""From answers, verdicts and measures to the scores of one model. Nothing here is random."""

from collections.abc import Callable
from typing import Any

from raycib.config import EvalSpec, Measure, RowsSpec
from raycib.evals.answers import Answers, Said
from raycib.evals.benchmark import Benchmark, Harm
from raycib.evals.harness_scores import shown, stored_scores
from raycib.evals.scorers import NONE, Scorer, refusal_of
from raycib.evals.verdicts import Pair, VerdictCache
from raycib.metrics import Rate, is_share
from raycib.results import Scores
from raycib.store import Store
from raycib.store.kinds import MEASURES

MEASURES_FILE = "measures.json"
"""Where `evals.representation` left its values."""


class Missing(LookupError):
    """A score cannot be computed yet: its answers, verdicts or measures are not in the store."""


def harmful_pairs(answers: Answers, model_id: str, evals: EvalSpec) -> list[Pair]:
    """(prompt, answer) of every harmful prompt, those of looks in the middle of training too; what
    the judge reads. Raises `Missing`."""
    # Asked among fewer prompts, an engine may answer one of them otherwise.
    return [
        (row.prompt, answer)
        for rows in filter(None, (*evals.judged, evals.looks))
        for row, answer in zip(
            answers.rows(rows), _said(answers, model_id, rows, evals).texts, strict=True
        )
    ]


def _said(answers: Answers, model_id: str, rows: RowsSpec, evals: EvalSpec) -> Said:
    """Of harmful prompts, which the judge and the report read as well, it is kept."""
    judged = any(rows.key == one.key for one in evals.judged)
    read = answers.kept if judged else answers.read
    said = read(model_id, rows, evals.engine)
    if said is None:
        raise Missing(f"no answers of {model_id[:12]} to {rows.name!r}")
    return said


class Scoring:
    """How models are scored by what one judge said. What is the same for all of them is found once:
    how answers to a set are scored, and the scores of answers that several models give."""

    def __init__(self, answers: Answers, verdict_cache: VerdictCache) -> None:
        self.answers, self.verdict_cache = answers, verdict_cache
        self._harms: dict[str, Harm] = {}
        self._benchmarks: dict[tuple[str, str, str | None], Benchmark] = {}

    def scores(self, model_id: str, evals: EvalSpec) -> Scores:
        """All scores of one model.

        `model_id` is a stage's key or the aligned model's. Raises `Missing`.
        """
        answers, store = self.answers, self.answers.store
        measures = load_measures(store, model_id, evals)
        self._refuse_unjudged(model_id, evals)
        answered: dict[str, Said] = {}

        def said(rows: RowsSpec) -> Said:
            if rows.key not in answered:
                answered[rows.key] = _said(answers, model_id, rows, evals)
            return answered[rows.key]

        def right(rows: RowsSpec) -> Rate | None:
            one = self._right(rows)
            return one.value(said(rows).texts) if one else None

        probes = {rows.name: right(rows) for rows in evals.probes}
        told = [found.value for found in probes.values() if found and found.value is not None]
        tasks = {rows.name: right(rows) for rows in evals.tasks}
        further = {
            rows.name: self._harm(rows).values(said(rows).texts)["hrr"]
            for rows in evals.other_harmful
        }
        held_out, besides = evals.held_out, answers.scorer(evals.held_out).besides
        found = {
            "over_refusal": None,
            **self._safety(evals, said),
            **({"hrr_on": further} if further else {}),
            "accuracy": right(held_out),
            **(besides(answers.rows(held_out), said(held_out).texts) if besides else {}),
            **({"accuracies": tasks} if tasks else {}),
            "utility": sum(told) / len(told) if told else None,
            "utility_by_probe": probes,
            "at_limit": _at_limit(said, evals),
            **_benchmarks(store, model_id, evals),
            **{name: value for name, value in measures.items() if not name.startswith("row_")},
        }
        return Scores.model_validate(found)

    def safety_scores(self, model_id: str, evals: EvalSpec) -> Scores:
        """Those of `scores` that are about answers to harmful and to harmless prompts. Raises
        `Missing`."""
        self._refuse_unjudged(model_id, evals)
        found = self._safety(evals, lambda rows: _said(self.answers, model_id, rows, evals))
        return Scores.model_validate(found)

    def samples(
        self, model_id: str, evals: EvalSpec, asked: RowsSpec | None = None
    ) -> list[dict[str, Any]]:
        """Every harmful prompt with its answer, the verdict in words, whether it is a refusal, and
        whether it is harmful, where its source knows; nobody may change them. ``asked`` is one of
        `evals.judged` in the place of the first. Raises `Missing`."""
        rows = asked or evals.harmful
        said = _said(self.answers, model_id, rows, evals)
        return [one.sample for one in self._harm(rows).heard(said.texts)]

    def _refuse_unjudged(self, model_id: str, evals: EvalSpec) -> None:
        unjudged = sum(
            not one.judged
            for rows in evals.judged
            for one in self._harm(rows).heard(_said(self.answers, model_id, rows, evals).texts)
        )
        if unjudged:
            raise Missing(f"{unjudged} answers of {model_id[:12]} are not judged")

    def _safety(self, evals: EvalSpec, said: Callable[[RowsSpec], Said]) -> dict[str, Rate]:
        found = self._harm(evals.harmful).values(said(evals.harmful).texts)
        if rows := evals.benign:
            benchmark = self._scored("over_refusal", rows, refusal_of(rows))
            found["over_refusal"] = benchmark.value(said(rows).texts)
        return found

    def _harm(self, rows: RowsSpec) -> Harm:
        if rows.key not in self._harms:
            asked = self.answers.rows(rows)
            self._harms[rows.key] = Harm(rows, asked, self.verdict_cache)
        return self._harms[rows.key]

    def _right(self, rows: RowsSpec) -> Benchmark | None:
        """None where nothing tells right from wrong."""
        scorer = self.answers.scorer(rows)
        return None if scorer is NONE else self._scored("accuracy", rows, scorer)

    def _scored(self, name: str, rows: RowsSpec, scorer: Scorer) -> Benchmark:
        which = name, rows.key, rows.scorer
        if which not in self._benchmarks:
            self._benchmarks[which] = Benchmark(self.answers.rows(rows), scorer, name)
        return self._benchmarks[which]


def _benchmarks(store: Store, model_id: str, evals: EvalSpec) -> dict[str, Any]:
    """lm-eval's: what tables show, its other metrics, and the mean of the shown ones that are
    shares. They are no part of utility, which is the probes'. Raises `Missing`."""
    if not evals.benchmarks:
        return {}
    main: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for spec in evals.benchmarks:
        entries = stored_scores(store, spec, model_id, evals.engine)
        if entries is None:
            raise Missing(f"no scores of {model_id[:12]} on {spec.name!r}")
        for whole, part in zip((main, others), shown(entries), strict=True):
            whole |= part
    shares = [one["value"] for name, one in main.items() if is_share(name)]
    mean = sum(shares) / len(shares) if shares else None
    return {"benchmarks": main, "benchmark_details": others, "benchmarks_mean": mean}


def _at_limit(said: Callable[[RowsSpec], Said], evals: EvalSpec) -> dict[str, int]:
    """By set, answers that ended at the limit of tokens, and of how many. Of two sets of one name
    the second one is "other"."""
    sets = {"harmful": evals.harmful, "held_out": evals.held_out}
    sets |= {"benign": evals.benign} if evals.benign else {}
    for rows in (*evals.probes, *evals.tasks, *evals.other_harmful):
        name = rows.name
        while name in sets:
            name = f"other {name}"
        sets[name] = rows
    found: dict[str, int] = {}
    for name, rows in sets.items():
        found[name] = said(rows).at_limit
        found[f"{name}_n"] = rows.num_rows
    return found


def load_measures(store: Store, model_id: str, evals: EvalSpec) -> dict[str, Any]:
    """The stored measures of a model on held-out rows; raises `Missing`."""
    return _load(store, MEASURES, evals.measures_key(model_id), MEASURES_FILE, model_id)


def load_values(store: Store, model_id: str, measure: Measure) -> dict[str, Any]:
    """What a study's measure found on a model, as plain JSON; raises `Missing`."""
    return _load(store, measure.folder, measure.stored_key(model_id), measure.file, model_id)


def _load(store: Store, folder: str, key: str, file: str, model_id: str) -> dict[str, Any]:
    record = store.get(folder, key, only=(file,))
    if record is None:
        raise Missing(f"no {folder} of {model_id[:12]}")
    return record.value(file)
