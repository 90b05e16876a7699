"""`--set execution.*`: how the work is spread, in no key."""

import json
from typing import Any

import pytest

from raycib.config.presets import Execution, preset
from raycib.errors import UserError
from raycib.methods.cib import CIB
from raycib.runtime.build import build_config
from raycib.runtime.execution import execution_of
from raycib.runtime.options import Options
from raycib.runtime.overrides import read_changes
from raycib.runtime.settings import settings_of
from raycib.runtime.swept import refuse_swept
from raycib.studies.strength import Strength

EVERY: dict[str, Any] = {
    "workers": 2,
    "strategy": "fsdp2",
    "cpus_per_worker": 0.25,
    "gpus_per_worker": 0.5,
    "micro_batch_size": 4,
    "micro_batch_tokens": 2048,
    "checkpoint_activations": True,
    "slots_apart": True,
    "attention": "eager",
    "compile": False,  # for a base that is whole on each worker
    "checkpoint_every": 7,
    "group_size": 3,
    "most_slots": 5,
    "groups_at_once": 2,
    "engine_cpus": 2.0,
    "engine_gpus": 0.25,
    "engine_replicas": 2,
    "judge_replicas": 3,
    "judge_cpus": 3.0,
    "judge_gpus": 1.0,
    "asked_alone": 0,
    "batch_invariant": True,
    "judge_starts_early": False,
}


def changes(**values: Any) -> list[str]:
    return [f"execution.{name}={json.dumps(value)}" for name, value in values.items()]


def test_every_setting_may_be_set_and_none_is_in_a_key():
    assert EVERY.keys() == Execution.model_fields.keys()
    cells = lambda setup: setup.runs_of([CIB(lam=1)])  # noqa: E731
    usual = build_config(Options(), Strength())
    rest = {name: value for name, value in EVERY.items() if name != "micro_batch_size"}
    setup = build_config(Options(set=changes(**rest)), Strength())
    assert setup.execution == Execution(**{**EVERY, "micro_batch_size": 16})
    assert setup.execution != usual.execution
    assert [run.key for run in cells(setup)] == [run.key for run in cells(usual)]
    refuse_swept(cells, setup, cells(setup))  # no cell has any of it, and none is refused
    told = [one for one in settings_of(setup, cells(setup)) if one.name.startswith("execution.")]
    assert {one.name.removeprefix("execution."): one.value for one in told} == {
        name: str(value) for name, value in rest.items()
    }


def test_rows_at_a_time_are_set_where_nothing_is_cut_by_tokens():
    def chosen(name: str, *texts: str) -> Execution:
        return execution_of(preset(name).execution, Options(), read_changes(texts))

    assert chosen("world", "execution.micro_batch_size=4").micro_batch_size == 4
    with pytest.raises(UserError, match=r"cut by tokens; set execution\.micro_batch_tokens"):
        chosen("llama31-8b", "execution.micro_batch_size=4")
    by_rows = ("execution.micro_batch_size=4", "execution.micro_batch_tokens=null")
    assert chosen("llama31-8b", *by_rows).micro_batch_tokens is None


def test_a_compiler_is_looked_for_first(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match="needs the compiler 'no-such-compiler', which is not"):
        execution_of(Execution(), Options(), {"execution": {"compile": True}})
    in_shards = {"execution": {"compile": True, "strategy": "fsdp2", "workers": 2}}
    with pytest.raises(UserError, match="for a base that is whole on each worker"):
        execution_of(Execution(), Options(), in_shards)


def test_zero3_is_refused_where_deepspeed_is_not(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("raycib.runtime.execution.find_spec", lambda _: None)
    for strategy in ("fsdp2", "zero3"):
        asked = {"execution": {"strategy": strategy, "workers": 2}}
        if strategy == "zero3":
            with pytest.raises(UserError, match=r"pip install 'raycib\[zero3\]', or set fsdp2"):
                execution_of(Execution(), Options(), asked)
        else:
            assert execution_of(Execution(), Options(), asked).strategy == strategy


@pytest.mark.parametrize(
    ("options", "values", "says"),
    [
        ({"workers": 2}, {"workers": 3}, "--workers is given too"),
        ({"group_size": 2}, {"group_size": 3}, "--group-size is given too"),
        ({"local": True}, {"workers": 2}, "with --local there is this process alone"),
        ({"local": True}, {"judge_replicas": 2}, "with --local there is this process alone"),
        ({}, {"strategy": "fsdp2"}, "give --workers 2 or more"),
        ({}, {"attention": "flash_attention_2"}, "needs a GPU; here choose eager or sdpa"),
        ({}, {"attention": "flex_attention"}, "needs a GPU"),
        ({}, {"engine_gpus": 1.5}, "a part of one GPU, or a whole number of them"),
        ({}, {"batch_invariant": True}, "vLLM's kernels on a GPU, and none answers here"),
        (
            {},
            {"attention": "flash_attention_3", "gpus_per_worker": 1},
            "needs the package flash_attn_interface",
        ),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], values: dict[str, Any], says: str):
    with pytest.raises(UserError) as refused:
        execution_of(Execution(), Options(**options), {"execution": values})
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
