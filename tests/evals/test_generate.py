"""Greedy answers of both engines equal those of transformers and PEFT alone, token for token."""

import json
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from judge_tokenizers import byte_level, word_level
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from raycib.data.chat import Encoded
from raycib.errors import UserError
from raycib.evals.engine import GenerationRequest
from raycib.evals.generate import Generator, set_vllm_environment, share_of
from raycib.evals.in_process import InProcessGenerator, continuation, targets_of

LENGTH = 64


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama with heads of 32, the smallest that vLLM's CPU attention knows."""
    folder = word_level(tmp_path_factory.mktemp("model"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=LENGTH,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.3,  # large: no two next words are nearly equally likely
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(
    scope="module", params=[pytest.param("vllm", marks=pytest.mark.real), "transformers"]
)
def engine(request: pytest.FixtureRequest, model: Path, adapters: list[Path]) -> Any:
    """vLLM with fewer places than there are adapters, or the model in this process."""
    if request.param == "vllm":
        return Generator(
            model,
            max_lora_rank=4,
            max_model_len=LENGTH,
            adapters_at_once=2,
            targets=targets_of(adapters[0]),
        )
    return in_process(model, adapters)


def in_process(model: Path, adapters: list[Path]) -> InProcessGenerator:
    return InProcessGenerator(
        AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
        AutoTokenizer.from_pretrained(model),
        max_model_len=LENGTH,
        targets=[tuple(targets_of(folder)) for folder in adapters],
    )


def greedy(model: Path, adapter: Path | None, asked: list[GenerationRequest]) -> list[list[int]]:
    """What transformers and PEFT say to each, one after the other."""
    reference = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    if adapter is not None:
        reference = PeftModel.from_pretrained(reference, adapter)
    said = [
        reference.generate(
            input_ids=torch.tensor([one.prompt_ids]), max_new_tokens=one.max_tokens, do_sample=False
        )[0].tolist()
        for one in asked
    ]
    return [ids[len(one.prompt_ids) :] for one, ids in zip(asked, said, strict=True)]


@pytest.fixture(scope="module")
def adapters(model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three random adapters of one name in three folders, one more than share a batch."""
    folders = []
    for seed in range(3):
        torch.manual_seed(seed)
        config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False)
        folders.append(tmp_path_factory.mktemp(f"stage{seed}") / "adapter")
        get_peft_model(AutoModelForCausalLM.from_pretrained(model), config).save_pretrained(
            folders[-1]
        )
    return folders


def test_models_that_share_a_batch_answer_as_if_alone(
    model: Path, engine: Any, adapters: list[Path]
) -> None:
    """vLLM's own LoRA on CPU gives the base model's requests the last adapter in such a batch."""
    prompts = [(2, 10 + i, 20 + i) for i in range(12)]
    requests = [
        GenerationRequest(f"{i}", prompt, adapter, 8)
        for i, prompt in enumerate(prompts)
        for adapter in (*adapters, None)
    ]
    answers = engine.answer(requests)
    for adapter in (*adapters, None):
        mine = [n for n, request in enumerate(requests) if request.adapter == adapter]
        expected = greedy(model, adapter, [requests[n] for n in mine])
        assert [list(answers[n].token_ids) for n in mine] == expected
    by_model = {a.token_ids for r, a in zip(requests, answers, strict=True) if r.id == "0"}
    assert len(by_model) == 4, "four models, four answers"


def test_greedy_answers_are_those_of_transformers(model: Path, engine: Any) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model)
    requests = [
        GenerationRequest(
            id=f"r{i}",
            prompt_ids=tuple(
                tokenizer(f"<bos> w{i} w{i * 7 % 40}", add_special_tokens=False).input_ids
            ),
            adapter=None,
            max_tokens=5 + i % 20,
        )
        for i in range(40)
    ]
    answers = engine.answer(requests)
    assert [answer.id for answer in answers] == [request.id for request in requests]
    reasons = set()
    for expected, answer in zip(greedy(model, None, requests), answers, strict=True):
        assert list(answer.token_ids) == expected
        assert answer.text.split() == tokenizer.decode(expected, skip_special_tokens=True).split()
        ended = expected[-1] == tokenizer.eos_token_id
        assert answer.finish_reason == ("stop" if ended else "length")
        reasons.add(answer.finish_reason)
    assert "length" in reasons


@pytest.mark.real
@pytest.mark.faults
def test_a_model_split_over_processes_answers_as_whole_and_listens_to_nobody_else(
    model: Path, adapters: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensor parallelism as `share_of` asks vLLM for it, with two CPU processes as its GPUs."""
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    set_vllm_environment()
    import vllm

    monkeypatch.setattr(vllm, "LLM", partial(vllm.LLM, **share_of(2)))
    split = Generator(model, max_lora_rank=4, max_model_len=LENGTH, targets=targets_of(adapters[0]))
    children = psutil.Process().children(recursive=True)
    open_ = [one for child in children for one in child.net_connections() if one.status == "LISTEN"]
    assert {one.laddr.ip for one in open_} == {"127.0.0.1"}
    for adapter in (None, adapters[0]):
        requests = [GenerationRequest(f"{i}", (2, 10 + i, 20 + i), adapter, 8) for i in range(6)]
        answers = [list(answer.token_ids) for answer in split.answer(requests)]
        assert answers == greedy(model, adapter, requests)


@pytest.mark.parametrize("chosen", [None, 1])
def test_lm_eval_is_told_what_an_engine_answers(
    model: Path, engine: Any, adapters: list[Path], chosen: int | None
) -> None:
    """Its own transformers backend with PEFT says the same, and finds it as likely: to 1e-3 nats,
    since the engine's kernels sum in another order."""
    folder = None if chosen is None else adapters[chosen]
    theirs = HFLM(
        pretrained=str(model), peft=folder and str(folder), device="cpu", max_length=LENGTH
    )
    mine = engine.for_lm_eval(AutoTokenizer.from_pretrained(model), folder)
    texts = [f"w{i} w{i * 7 % 40}" for i in range(12)]
    settings = {"until": ["w9"], "max_gen_toks": 6}
    asked = [Instance("generate_until", {}, (text, settings), 0) for text in texts]

    def words(answers: list[str]) -> list[list[str]]:
        """Without control tokens, which lm-eval's transformers backend alone leaves out."""
        return [[word for word in said.split() if word[0] != "<"] for said in answers]

    assert words(mine.generate_until(asked)) == words(theirs.generate_until(asked))
    pairs = [(text, f" w{i} w{i + 1}") for i, text in enumerate(texts)]
    scored = [Instance("loglikelihood", {}, pair, 0) for pair in pairs]
    for (mine_, greedy), (theirs_, theirs_greedy) in zip(
        mine.loglikelihood(scored), theirs.loglikelihood(scored), strict=True
    ):
        assert mine_ == pytest.approx(theirs_, abs=1e-3)
        assert greedy == theirs_greedy


def test_losses_of_answers_are_those_of_transformers_and_peft(
    model: Path, engine: Any, adapters: list[Path]
) -> None:
    """In nats a token of the answer, whoever shares the batch."""
    rows = [Encoded((2, 10 + i, 20), (30 + i, 5, 9 + i)[: 1 + i % 3]) for i in range(6)]
    asked = [(row, adapter) for row in rows for adapter in (*adapters, None)]
    found = engine.losses(asked)
    for adapter in (*adapters, None):
        reference: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        if adapter is not None:
            reference = PeftModel.from_pretrained(reference, adapter)
        for (row, under), loss in zip(asked, found, strict=True):
            if under == adapter:
                with torch.no_grad():
                    logits = reference(torch.tensor([[*row.prompt, *row.response]])).logits[0]
                told = logits[2:-1].log_softmax(-1).gather(1, torch.tensor([row.response]).T)
                assert loss == pytest.approx(-float(told.mean()), abs=1e-4)


def test_the_same_question_twice_has_one_answer(engine: Any) -> None:
    one = GenerationRequest("a", (1, 2, 3), None, 8)
    first, second = engine.answer([one, one])
    assert first == second == engine.answer([one])[0]
    assert engine.answer([]) == []


@pytest.mark.parametrize("engine", [pytest.param("vllm", marks=pytest.mark.real)], indirect=True)
def test_the_class_of_a_model_new_to_vllm_is_looked_at_in_this_process(
    engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm.model_executor.models.registry import _LazyRegisteredModel

    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("another process")

    monkeypatch.setattr(_LazyRegisteredModel, "_get_cache_dir", lambda _: tmp_path)
    monkeypatch.setattr(subprocess, "run", refused)
    llama = _LazyRegisteredModel("vllm.model_executor.models.llama", "LlamaForCausalLM")
    assert llama.inspect_model_cls().architecture == "LlamaForCausalLM"
    assert len([*tmp_path.iterdir()]) == 1  # it was new


@pytest.mark.parametrize("engine", [pytest.param("vllm", marks=pytest.mark.real)], indirect=True)
def test_an_adapter_that_vllm_would_leave_out_in_part_is_refused(
    engine: Any, adapters: list[Path], tmp_path: Path
) -> None:
    """One of a layer that the model does not have, which vLLM takes for one that it has."""
    folder = Path(shutil.copytree(adapters[0], tmp_path / "adapter"))
    own, other = "model.layers.1.self_attn.o_proj", "model.layers.9.self_attn.o_proj"
    file = folder / "adapter_model.safetensors"
    save_file({name.replace(own, other): one for name, one in load_file(file).items()}, file)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["target_modules"].append("another")
    (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=f"vLLM has no layer '{other}'.*leave out 1 of its layers"):
        engine.answer([GenerationRequest("a", (2, 10), folder, 4)])


def test_what_cannot_be_answered_is_refused_before_any_work(engine: Any, tmp_path: Path) -> None:
    full = GenerationRequest("full", (1,) * LENGTH, None, 4)
    with pytest.raises(ValueError, match=r"request full.*max_model_len 64"):
        engine.answer([full])
    with pytest.raises(ValueError, match="request none"):
        engine.answer([GenerationRequest("none", (), None, 4)])
    with pytest.raises(FileNotFoundError, match="PEFT adapter"):
        engine.answer([GenerationRequest("a", (1,), tmp_path, 4)])


def test_an_answer_stops_at_the_models_context(engine: Any) -> None:
    (answer,) = engine.answer([GenerationRequest("long", (1,) * (LENGTH - 3), None, 50)])
    assert len(answer.token_ids) <= 3
    if answer.finish_reason == "length":
        assert len(answer.token_ids) == 3


def test_an_answer_ends_at_a_token_that_ends_a_turn(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the model's own end of sequence is: the same answer, up to the first such token."""
    request = GenerationRequest("turn", (2, 11, 21), None, 8)
    (whole,) = engine.answer([request])
    end = whole.token_ids[3]
    monkeypatch.setattr(engine, "stop", [end])
    (answer,) = engine.answer([request])
    assert answer.token_ids == whole.token_ids[: whole.token_ids.index(end) + 1]
    assert answer.finish_reason == "stop"


@pytest.mark.parametrize(
    "answer", ["two words", " a space", "\n\nlines", "gr\u00fc\u00dfe \u2192 \U0001f600"]
)
def test_a_text_goes_on_after_its_prompt(answer: str, tmp_path: Path) -> None:
    """Its first space and its characters of several tokens are kept: prompt and answer are decoded
    as they stand together."""
    tokenizer = AutoTokenizer.from_pretrained(byte_level(tmp_path))
    prompt = tokenizer("a question:", add_special_tokens=False).input_ids
    ids = tokenizer(answer, add_special_tokens=False).input_ids
    assert continuation(tokenizer, prompt, ids) == answer
    assert continuation(tokenizer, prompt, [*ids, tokenizer.eos_token_id]) == answer


def test_a_batch_without_memory_is_answered_in_parts(
    model: Path, adapters: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a GPU has none for more than 5 rows; the answers, and their order, are the same."""
    engine = in_process(model, adapters)
    asked = [GenerationRequest(f"{n}", (2, 10 + n, 3 + n), adapters[0], 8) for n in range(12)]
    expected = engine.answer(asked)
    generate, rows = engine._adapters.model.generate, []

    def generate_few(ids: torch.Tensor, **how: Any) -> Any:
        rows.append(len(ids))
        if len(ids) > 5:
            raise torch.OutOfMemoryError
        return generate(ids, **how)

    monkeypatch.setattr(engine._adapters.model, "generate", generate_few)
    assert engine.answer(asked) == expected
    assert rows == [12, 6, 3, 3, 6, 3, 3]
    monkeypatch.setattr(
        engine._adapters.model,
        "generate",
        lambda *_, **__: (_ for _ in ()).throw(torch.OutOfMemoryError),
    )
    with pytest.raises(torch.OutOfMemoryError):
        engine.answer(asked[:1])
