"""`--set model.quantization=nf4`: in every key, and told; what cannot go with it is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from raycib.config import StageSpec
from raycib.errors import UserError
from raycib.evals.answers import answers_key
from raycib.methods.cib import CIB
from raycib.model_files import describe
from raycib.models.reference import reference_key
from raycib.runtime.answering import Answering, with_transformers
from raycib.runtime.build import build_config
from raycib.runtime.engines import Engines
from raycib.runtime.options import Options
from raycib.runtime.settings import settings_of
from raycib.store import Store
from raycib.store.kinds import GENERATIONS
from raycib.studies.strength import Strength
from raycib.studies.tradeoff import Tradeoff

FOUR_BITS = ["model.quantization=nf4"]
HERE = Options(local=True)


def test_it_is_part_of_all_that_is_trained_read_measured_and_answered():
    setups = [build_config(options, Strength()) for options in (HERE, replace(HERE, set=FOUR_BITS))]
    usual, bits = (setup.runs_of([CIB(lam=1)])[0] for setup in setups)
    plain, quantised = usual.final, bits.final
    assert quantised.model == plain.model.model_copy(update={"quantization": "nf4"})
    for key in (
        lambda stage, evals: stage.key,
        lambda stage, evals: stage.model.key,  # of the aligned model's answers and scores
        lambda stage, evals: evals.measures_key(stage.key),
        lambda stage, evals: answers_key(stage.key, evals.harmful, evals.engine),
        lambda stage, evals: reference_key(
            stage.model, stage.task.rows, stage.task.max_length, ("mean_response", "final_norm")
        ),
    ):
        assert key(plain, usual.evals) != key(quantised, bits.evals)
    assert bits.evals.key == usual.evals.key
    told = {one.name: one for one in settings_of(setups[1], [bits])}
    named = told["linear layers of the base"]
    assert (named.value, named.origin) == ("NF4 by bitsandbytes", "--set model.quantization")
    assert setups[1].model_name == "world:aligned in NF4"
    assert "linear layers of the base" not in {o.name for o in settings_of(setups[0], [usual])}


def test_transformers_answers_for_it_on_ray_too():
    setup = build_config(Options(set=FOUR_BITS), Strength())
    (run, *_) = setup.runs_of([CIB(lam=1)])
    assert run.evals.engine == "transformers"
    told = {one.name: (one.value, one.origin) for one in settings_of(setup, [run])}
    assert told["answers by"] == ("transformers", "--set model.quantization")
    here = build_config(replace(HERE, set=FOUR_BITS), Strength()).runs_of([CIB(lam=1)])[0]
    asked = run.evals.harmful
    assert run.final.key == here.final.key
    assert answers_key(run.final.key, asked, run.evals.engine) == answers_key(
        here.final.key, asked, here.evals.engine
    )


def test_rays_engine_gives_the_answers_of_this_process(tmp_path: Path):
    """Its class, without Ray: of the base and of an adapter on it."""
    model = describe(str(tiny.make_model(tmp_path / "model"))).model_copy(
        update={"quantization": "nf4"}
    )
    (stage,) = tiny.make_chain(tmp_path, CIB(lam=1, num_negatives=8), rows=16, model=model)
    evals, cpu = tiny.make_evals(tmp_path, 6), torch.device("cpu")
    assert stage.lora
    found = []
    for name in ("on ray", "here"):
        store = Store(str(tmp_path / name))
        tiny.train_chain((stage,), store)
        asked = {key: [evals] for key in (model.key, stage.key)}
        targets = [stage.lora.targets]
        if name == "on ray":
            new = Engines(model, 4, 64, 0.0, False, targets).answer(store, asked)
        else:
            engine = with_transformers(model, cpu, 64, targets)
            new = Answering(store, model, *engine).answer(asked)
        assert new == 12
        keys = [answers_key(one, evals.harmful, "transformers") for one in asked]
        records = [store.get(GENERATIONS, key) for key in keys]
        found.append([one.path("answers.json").read_bytes() for one in records if one])
    assert found[0] == found[1] and len(found[0]) == 2


def test_all_weights_are_trained_in_full():
    stage = build_config(replace(HERE, set=FOUR_BITS), Strength()).runs_of([CIB(lam=1)])[0].final
    with pytest.raises(ValueError, match="cannot train those of a model in nf4"):
        StageSpec(model=stage.model, task=stage.task, lora=None)


@pytest.mark.parametrize(
    ("study", "options", "says"),
    [
        (
            Strength(),
            {
                "set": [
                    *FOUR_BITS,
                    "execution.batch_invariant=true",
                    "execution.engine_gpus=1",
                ]
            },
            "of a base in 4 bits transformers answers",
        ),
        (Tradeoff(), {"local": True}, "4 bits have no gradient; leave it out"),
        (
            Strength(),
            {"workers": 2, "set": [*FOUR_BITS, "execution.strategy=fsdp2"]},
            "by rows of its weights, which 4 bits have not",
        ),
        (Strength(), {"set": [*FOUR_BITS, "execution.engine_gpus=2"]}, "on one GPU"),
        (Strength(), {"set": ["model.quantization=fp5"], "local": True}, "'nf4'"),
        (Strength(), {"set": ["model.weights=x"]}, "model has no 'weights'; it has quantization"),
    ],
)
def test_what_does_not_go_with_it_is_refused(study: Any, options: dict[str, Any], says: str):
    with pytest.raises((UserError, ValueError)) as refused:
        build_config(Options(**{"set": FOUR_BITS, **options}), study)
    assert says in str(refused.value)


def test_it_is_refused_where_bitsandbytes_is_not(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("raycib.runtime.execution.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install 'raycib\[nf4\]', or leave it out"):
        build_config(replace(HERE, set=FOUR_BITS), Strength())
