"""lm-eval's benchmarks on adapters in memory: what its own command says of the same files."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lm_eval
import pytest
import torch
import yaml
from lm_eval.api.group import Group, GroupConfig
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from lm_eval_tasks import CHOICE, TEXT, WORDS, make_task
from tiny import WORDS as VOCABULARY
from tiny import make_model

from raycib.config import LmEvalSpec
from raycib.errors import UserError
from raycib.evals.harness.models import AdapterLM
from raycib.evals.harness.run import entries_of, scores_of
from raycib.evals.harness_scores import shown
from raycib.evals.in_process import InProcessGenerator
from raycib.model_files import describe
from raycib.models import load_model, load_tokenizer
from raycib.models.adapters import AdapterSlots, LoRAShape
from raycib.runtime.read_benchmarks import resolved

CLOSE = 1e-4
"""Nats: PEFT adds the product of a layer's factors in another order, in fp32."""
KINDS = {"choice": CHOICE, "words": WORDS, "text": TEXT}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model, two adapters of it in PEFT's form, and a task of each kind."""
    folder = tmp_path_factory.mktemp("harness")
    make_model(folder / "model")
    draw = random.Random(0)

    def words(low: int, high: int) -> str:
        return " ".join(draw.choices(VOCABULARY, k=draw.randint(low, high)))

    rows = [
        {"question": words(3, 30), "choices": [words(1, 4) for _ in range(4)],
         "label": draw.randrange(4), "answer": draw.choice(VOCABULARY)}
        for _ in range(40)
    ]  # fmt: skip
    for name, kind in KINDS.items():
        make_task(folder, name, kind, rows)
    adapters = slots(folder)
    for slot in range(2):
        generator = torch.Generator().manual_seed(slot)
        for parameter in adapters.parameters_of(slot).values():
            parameter.data.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        adapters.export(slot, folder / f"adapter{slot}", str(folder / "model"))
    return folder


def slots(folder: Path) -> AdapterSlots:
    """The model with room for both."""
    model = load_model(describe(str(folder / "model")), torch.device("cpu"))
    shape = LoRAShape(4, 8.0, ("q_proj", "v_proj", "down_proj"))
    return AdapterSlots(model, [shape, shape])


def tokenizer(folder: Path) -> Any:
    return load_tokenizer(str(folder / "model"))


def spec(folder: Path, *names: str, **options: Any) -> list[LmEvalSpec]:
    """Benchmarks as a sweep resolves them."""
    asked = {
        "source": str(folder / "model"), "template": "own", "context": 128, "folder": str(folder),
        "names": [str(folder / f"{name}.yaml") for name in names],
        "shots": None, "limit": None, "chat": False,
    }  # fmt: skip
    return [LmEvalSpec(**one) for one in resolved(asked | options)]


def in_memory(folder: Path) -> Callable[[int | None], Any]:
    """lm-eval's model for each adapter, on one model in memory; None is the base."""
    adapters = slots(folder)
    for slot in range(2):
        adapters.load(slot, folder / f"adapter{slot}")
    return lambda slot: AdapterLM(adapters, tokenizer(folder), slot)


def own_run(
    folder: Path, name: str, slot: int | None, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> Any:
    """What lm-eval's own Hugging Face backend says, with PEFT."""
    monkeypatch.chdir(folder)
    peft = None if slot is None else str(folder / f"adapter{slot}")
    model = HFLM(pretrained=str(folder / "model"), peft=peft, batch_size=7, device="cpu")
    return lm_eval.simple_evaluate(
        model=model, tasks=[str(folder / f"{name}.yaml")], bootstrap_iters=1000,
        task_manager=TaskManager(include_defaults=False), **options,
    )  # fmt: skip


def remembering(model: Any, asked: dict[Any, Any]) -> Any:
    """The same model, whose answers are put into `asked` by document and place."""
    for kind in ("loglikelihood", "loglikelihood_rolling", "generate_until"):
        said = getattr(model, kind)

        def remember(requests: Any, said: Any = said, **named: Any) -> Any:
            answers = said(requests, **named)
            for request, answer in zip(requests, answers, strict=True):
                asked[request.doc_id, request.idx] = answer
            return answers

        setattr(model, kind, remember)
    return model


@pytest.mark.parametrize("slot", [None, 0, 1])
@pytest.mark.parametrize("name", KINDS)
def test_scores_are_those_of_lm_evals_own_run(
    place: Path, name: str, slot: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every request's likelihood to 1e-4 nats, every answer to the letter, every accuracy and
    standard error exactly; and the adapters differ from the base and from each other."""
    (one,) = spec(place, name)
    theirs = own_run(place, name, slot, monkeypatch)
    asked: dict[Any, Any] = {}
    mine = scores_of(one, lambda: remembering(in_memory(place)(slot), asked))
    results = theirs["results"][name]
    for score in mine:
        expected = results[f"{score['metric']},{score['filter']}"]
        assert score["value"] == pytest.approx(expected, rel=CLOSE if name == "text" else 0)
        error = results[f"{score['metric']}_stderr,{score['filter']}"]
        assert score["stderr"] == (error if isinstance(error, float) else None)
    for sample in theirs["samples"][name]:
        for number, (answer,) in enumerate(sample["resps"]):
            here = asked[sample["doc_id"], number]
            if name == "choice":
                assert here[0] == pytest.approx(answer[0], abs=CLOSE)
                assert here[1] == answer[1]
            else:
                assert here == (answer if name == "words" else pytest.approx(answer, abs=CLOSE))
    assert {score["n"] for score in mine} == {40}


def test_adapters_of_one_model_are_told_apart(place: Path) -> None:
    (one,) = spec(place, "text")
    model = in_memory(place)
    values = {scores_of(one, lambda slot=slot: model(slot))[0]["value"] for slot in (None, 0, 1)}
    assert len(values) == 3


@pytest.mark.parametrize("adapter", [None, "adapter1"])
def test_an_engine_that_answers_here_answers_lm_eval_alike(
    place: Path, adapter: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With few-shot rows and chat templates, as lm-eval's own generation."""
    options = {"shots": 3, "chat": True, "limit": 9}
    (one,) = spec(place, "words", **options)
    assert one.in_words
    assert (one.documents, one.available) == (9, 40)
    engine = InProcessGenerator(
        load_model(describe(str(place / "model")), torch.device("cpu")), tokenizer(place),
        max_model_len=128, targets=[("q_proj", "v_proj", "down_proj")],
    )  # fmt: skip
    folder = place / adapter if adapter else None
    asked: dict[Any, Any] = {}
    (mine,) = scores_of(
        one, lambda: remembering(engine.for_lm_eval(tokenizer(place), folder), asked)
    )
    slot = 1 if adapter else None
    theirs = own_run(
        place, "words", slot, monkeypatch, num_fewshot=3, limit=9, apply_chat_template=True
    )
    assert mine["value"] == theirs["results"]["words"]["exact_match,none"]
    assert mine["n"] == 9
    samples = theirs["samples"]["words"]
    assert {sample["doc_id"]: asked[sample["doc_id"], 0] for sample in samples} == {
        sample["doc_id"]: sample["resps"][0][0] for sample in samples
    }


def test_a_padding_token_without_an_embedding_changes_no_answer(place: Path) -> None:
    """Added to the tokenizer alone. Prompts of a batch are padded with it, and no pass sees it."""
    (one,) = spec(place, "words", limit=9)
    found = []
    for pad in ("<pad>", "<more>"):
        padding, asked = tokenizer(place), {}
        padding.add_special_tokens({"pad_token": pad})
        model = remembering(AdapterLM(slots(place), padding, None), asked)
        found.append((scores_of(one, lambda model=model: model)[0]["value"], asked))
    assert padding.convert_tokens_to_ids("<more>") == 45
    assert found[0] == found[1]


def test_a_key_is_of_all_that_is_asked_and_of_nothing_else(place: Path, tmp_path: Path) -> None:
    """The same task and rows elsewhere are the same benchmark; another row, wording, number of
    few-shot rows or documents is another, and so is the chat template."""
    (one,) = spec(place, "choice")
    for file in ("choice.yaml", "choice.jsonl"):
        (tmp_path / file).write_text((place / file).read_text())
    (tmp_path / "model").symlink_to(place / "model")
    (moved,) = spec(tmp_path, "choice")
    assert moved.source != one.source
    assert moved.key == one.key
    keys = {one.key}
    for options in ({"shots": 2}, {"limit": 7}, {"chat": True}):
        keys.add(spec(place, "choice", **options)[0].key)
    yaml = tmp_path / "choice.yaml"
    yaml.write_text(yaml.read_text().replace('"{{question}}"', '"Q: {{question}}"'))
    keys.add(spec(tmp_path, "choice")[0].key)
    yaml.write_text(yaml.read_text().replace("acc_norm", "acc_bytes"))
    keys.add(spec(tmp_path, "choice")[0].key)
    rows = (tmp_path / "choice.jsonl").read_text().splitlines()
    last = json.loads(rows[-1])
    rows[-1] = json.dumps(last | {"label": (last["label"] + 1) % 4})
    (tmp_path / "choice.jsonl").write_text("\n".join(rows))
    keys.add(spec(tmp_path, "choice")[0].key)
    assert len(keys) == 7
    assert one.stored_key("m", "vllm") == one.stored_key("m", "transformers")
    (words,) = spec(place, "words")
    assert words.stored_key("m", "vllm") != words.stored_key("m", "transformers")


def test_what_a_model_has_to_read_is_counted(place: Path, tmp_path: Path) -> None:
    """By hand: the tiny tokenizer has a token for each word. Answers of one token to one prompt
    share a pass; a generated answer has all of its 12 tokens."""
    (tmp_path / "model").symlink_to(place / "model")
    row = {"question": "w1 w2 w3", "choices": ["w4", "w5", "w6 w7"], "label": 0, "answer": "w4"}
    make_task(tmp_path, "choice", CHOICE, [row])
    make_task(tmp_path, "words", WORDS.replace("num_fewshot: 1", "num_fewshot: 0"), [row])
    choice, words = spec(tmp_path, "choice", "words")
    assert (choice.longest, choice.tokens, choice.square_tokens) == (5, 4 + 5, 16 + 25)
    assert choice.scored == choice.tokens
    assert (words.longest, words.tokens, words.square_tokens, words.scored) == (15, 15, 225, 12)
    assert (choice.cut, words.cut) == (0, 0)
    assert spec(tmp_path, "choice", context=4)[0].cut == 1
    other = WORDS.replace("num_fewshot: 1", "num_fewshot: 0")
    make_task(tmp_path, "other", other.replace("max_gen_toks", "max_new_tokens"), [row])
    assert spec(tmp_path, "other")[0].longest == words.longest, "by another of its names"
    warm = WORDS.replace("max_gen_toks: 12", "max_gen_toks: 12, do_sample: true, temperature: 0.7")
    make_task(tmp_path, "warm", warm, [row])
    assert [one.sampled for one in (choice, words, *spec(tmp_path, "warm"))] == [False, False, True]
    asked = spec(tmp_path, "choice", "words", shots=1)
    assert [one.few_shot for one in asked] == ["1", "0"], "a file that says none is not overruled"


def test_what_changed_since_the_plan_is_not_scored(place: Path) -> None:
    (one,) = spec(place, "choice")
    other = one.model_copy(update={"asked": "0" * 64})
    with pytest.raises(UserError, match="choice: its data or its code are not those"):
        scores_of(other, lambda: in_memory(place)(None))


def test_random_states_are_as_before(place: Path) -> None:
    before = random.getstate(), torch.random.get_rng_state()
    (one,) = spec(place, "choice")
    scores_of(one, lambda: in_memory(place)(None))
    assert random.getstate() == before[0]
    assert torch.equal(torch.random.get_rng_state(), before[1])


def test_of_a_group_its_own_score_is_shown_and_of_a_task_acc_norm() -> None:
    def entry(task: str, metric: str, value: float, error: float | None, group: bool) -> Any:
        return {"task": task, "metric": metric, "filter": "none", "value": value,
                "stderr": error, "n": 100, "group": group}  # fmt: skip

    tasks = [entry("a", "acc", 0.5, 0.05, False), entry("a", "acc_norm", 1.0, 0.0, False),
             entry("b", "acc", 0.99, 0.01, False),
             entry("b", "word_perplexity", 9, 1, False)]  # fmt: skip
    main, others = shown(tasks)
    assert list(main) == ["a acc_norm", "b acc"]
    assert list(others) == ["a acc", "b word_perplexity"]
    assert (main["a acc_norm"]["low"], main["a acc_norm"]["high"]) == (None, None)
    assert others["a acc"]["low"] == pytest.approx(0.5 - 1.984217 * 0.05), "t(.975, 99)"
    assert main["b acc"]["high"] == 1.0, "a share"
    assert others["b word_perplexity"]["high"] == pytest.approx(10.984217)
    alone, _ = shown([entry("c", "acc", 0.5, 0.05, False) | {"n": 1}])
    assert (alone["c acc"]["low"], alone["c acc"]["high"]) == (None, None), "one document"
    groups = [entry("g", "acc", 0.7, 0.02, True), entry("part of g", "acc", 0.6, 0.02, True)]
    main, others = shown([*groups, *tasks])
    assert list(main) == ["g acc"]
    assert len(others) == 5


@pytest.mark.parametrize(
    ("score", "main", "others"),
    [({}, ["inner acc", "c acc_norm"], 5),
     ({"aggregate_metric_list": [{"metric": "acc"}]}, ["whole acc"], 7)],
)  # fmt: skip
def test_of_a_group_without_a_score_every_part_is_shown(
    place: Path, monkeypatch: pytest.MonkeyPatch, score: Any, main: list[str], others: int
) -> None:
    """As of `openllm`, which has the score of `mmlu` and five tasks besides, but none of all."""
    monkeypatch.chdir(place)
    config = yaml.safe_load((place / "choice.yaml").read_text())
    tasks = {name: ConfigurableTask(config=config | {"task": name}) for name in "abc"}
    scores = {"whole": score, "inner": {"aggregate_metric_list": [{"metric": "acc"}]}}
    groups = {n: Group.from_config(GroupConfig(group=n, **one)) for n, one in scores.items()}
    for child in (tasks["a"], tasks["b"]):
        groups["inner"].add(child)
    for child in (groups["inner"], tasks["c"]):
        groups["whole"].add(child)
    found: Any = {"tasks": tasks, "groups": groups, "group_map": {}}
    told: Any = lm_eval.evaluate(in_memory(place)(None), found, limit=4, log_samples=False)
    seen = shown(entries_of(found, told["results"]))
    assert ([*seen[0]], len(seen[1])) == (main, others)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no_such_task", "lm-eval has no such task"),
        ("arc_challenge", "its data are not on this machine and the hub is out of reach"),
        ("mine.yaml", "its data are not on this machine and the hub is out of reach"),
    ],
)
def test_what_cannot_be_asked_is_told_in_one_line(place: Path, name: str, says: str) -> None:
    """The file is a group of one's own of a task that lm-eval knows."""
    (place / "mine.yaml").write_text("group: mine\ntask: [arc_challenge]\n")
    asked = {
        "source": str(place / "model"), "template": "own", "context": 128, "folder": str(place),
        "names": [name], "shots": None, "limit": None, "chat": False,
    }  # fmt: skip
    with pytest.raises(UserError) as raised:
        resolved(asked)
    error = str(raised.value)
    assert error.startswith(f"--evals {name}: ")
    assert says in error
    assert "\n" not in error
