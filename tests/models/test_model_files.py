"""A model's folder is loaded as it is hashed, whole and without code, or refused in one line."""

import json
import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from spoilt_models import (
    CPU,
    IDS,
    INDEX,
    WEIGHTS,
    Spoil,
    both,
    header,
    instead,
    logits,
    shards,
    with_bytes,
    with_fields,
    with_tensors,
)
from transformers import AutoModelForCausalLM

from raycib.errors import UserError
from raycib.evals.generate import ENGINE_READS
from raycib.model_files import checked, context_length, describe, find
from raycib.models import check_architecture, load_model


def first(places: dict[str, str], file: str) -> None:
    places[min(places)] = file


EMBEDDINGS = "model.embed_tokens.weight"
NORM, UP = "model.norm.weight", "model.layers.1.mlp.up_proj.weight"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
REFUSED_AT_ONCE: dict[str, tuple[Spoil, str]] = {
    "git-lfs pointer": (with_bytes(WEIGHTS, lambda _: POINTER), "git lfs pull"),
    "half a file": (with_bytes(WEIGHTS, lambda raw: raw[: len(raw) // 2]), "fetch it again"),
    "a byte less": (with_bytes(WEIGHTS, lambda raw: raw[:-1]), "fetch it again"),
    "a byte more": (with_bytes(WEIGHTS, lambda raw: raw + b"x"), "fetch it again"),
    "an empty file": (with_bytes(WEIGHTS, lambda _: b""), "cut off"),
    "a web page": (with_bytes(WEIGHTS, lambda _: b"<html>404</html>"), "cut off"),
    "a header of nonsense": (
        with_bytes(WEIGHTS, lambda raw: header(raw, lambda h: h.update(x=5))), "no safetensors"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), r"no \*.safetensors"),
    "pickled weights": (
        lambda f: (f / WEIGHTS).rename(f / "pytorch_model.bin"), r"no \*.safetensors"),
    "a missing shard": (
        both(shards(lambda p: None), lambda f: (f / "model-2.safetensors").unlink()), "missing"),
    "an index out of the folder": (
        shards(lambda p: first(p, "../mine/model-1.safetensors")), "no safetensors file beside"),
    "an index to an absolute path": (
        shards(lambda p: first(p, "/dev/zero.safetensors")), "no safetensors file beside"),
    "an index that is wrong": (shards(lambda p: p.pop(min(p))), "is wrong about"),
    "an index of tensors that are not there": (
        shards(lambda p: p.update(more="model-1.safetensors")), "is wrong about 'more'"),
    "an index of nothing": (shards(lambda p: p.clear()), "no weight_map"),
    "one file and an index": (
        lambda f: (f / INDEX).write_text(json.dumps({"weight_map": {"x": WEIGHTS}})), "remove one"),
    "more weights beside": (
        lambda f: shutil.copy(f / WEIGHTS, f / "more.safetensors"), "more.safetensors beside"),
    "another format beside": (
        lambda f: shutil.copy(f / WEIGHTS, f / "consolidated.safetensors"), "beside its weights"),
    "a left-over adapter": (
        lambda f: (f / "adapter_config.json").write_text("{}"), "second time"),
    "a left-over adapter's weights": (
        lambda f: shutil.copy(f / WEIGHTS, f / "adapter_model.safetensors"), "second time"),
    "a pipe": (instead(WEIGHTS, os.mkfifo), "no file that can be read"),
    "a pipe beside": (lambda f: os.mkfifo(f / "a.safetensors"), "a.safetensors beside"),
    "a folder": (instead(WEIGHTS, Path.mkdir), "no file that can be read"),
    "a device": (instead(WEIGHTS, lambda p: p.symlink_to("/dev/zero")), "no file that can be"),
    "a link to nowhere": (instead(WEIGHTS, lambda p: p.symlink_to("gone")), "cannot be read"),
    "a template that is a pipe": (
        lambda f: os.mkfifo(f / "chat_template.extra"), "no file that can be read"),
    "NaN": (with_tensors(lambda t: t[NORM][3:4].fill_(torch.nan)), f"{NORM} holds NaN"),
    "infinity": (with_tensors(lambda t: t[UP][1, 2:3].fill_(-torch.inf)), f"{UP} holds NaN"),
    "infinity in bfloat16": (
        with_tensors(lambda t: t.update({UP: (t[UP] / 0).bfloat16()})), f"{UP} holds NaN"),
    "a missing projection": (with_tensors(lambda t: t.pop(UP)), f"lacks the tensor {UP}"),
    "a renamed projection": (
        with_tensors(lambda t: t.update(other=t.pop(UP))), f"lacks the tensor {UP}"),
    "a projection of another size": (
        with_tensors(lambda t: t.update({UP: t[UP][1:].clone()})), f"{UP} is 63 x 32.*64 x 32"),
    "integers": (with_tensors(lambda t: t.update({UP: t[UP].to(torch.int8)})), f"{UP} is I8"),
    "two heads": (
        with_tensors(lambda t: t.update({"lm_head.weight": t[EMBEDDINGS] + 1})),
        "ties lm_head.weight.*differ"),
    "no head": (with_fields(tie_word_embeddings=False), "lacks the tensor lm_head.weight"),
    "fewer layers": (with_fields(num_hidden_layers=1), "weights of 2 layers.*names 1"),
    "more layers": (with_fields(num_hidden_layers=10**9), "weights of 2 layers.*1000000000"),
    "negative layers": (with_fields(num_hidden_layers=-1), "num_hidden_layers is -1"),
    "layers in words": (with_fields(num_hidden_layers="2"), "num_hidden_layers is '2'"),
    "another size": (with_fields(hidden_size=64), "32, but config.json asks for 45 x 64|64"),
    "other heads": (with_fields(num_attention_heads=4, head_dim=32), "asks for"),
    "another vocabulary": (with_fields(vocab_size=46), "45 x 32, but config.json asks for 46 x 32"),
    "no type": (with_fields(model_type=None), "names no model_type"),
    "a type that is a list": (with_fields(model_type=["llama"]), "names no model_type"),
    "a billion labels": (with_fields(num_labels=10**9), "num_labels is 1000000000"),
    "a classifier": (
        with_fields(architectures=["LlamaForSequenceClassification"]), "language models"),
    "quantised": (with_fields(quantization_config={"bits": 4}), "quantised"),
    "images": (with_fields(vision_config={}), "images"),
    "an encoder": (with_fields(is_encoder_decoder=True), "decoder alone"),
    "weights elsewhere": (with_fields(transformers_weights="x.safetensors"), "elsewhere"),
    "an end beyond the vocabulary": (with_fields(eos_token_id=45), "eos_token_id is 45"),
    "ends that are words": (
        with_fields("generation_config.json", eos_token_id=["<eos>"]), "eos_token_id is"),
    "no JSON": (with_bytes("config.json", lambda _: b"{"), "is not JSON"),
    "deep JSON": (with_bytes("config.json", lambda _: b"[" * 10**5), "is not JSON"),
    "a list": (with_bytes("config.json", lambda _: b"[]"), "holds no object"),
    "other settings that are no JSON": (
        lambda f: (f / "generation_config.json").write_text("<html>"), "is not JSON"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer"),
    "words without embeddings": (
        with_bytes("tokenizer.json", lambda raw: raw.replace(b'"w39":40', b'"w39":40,"w99":45')
                   .replace(b'"w39": 40', b'"w39": 40, "w99": 45')), "token id 45.*45 embeddings"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED_AT_ONCE)
def test_a_folder_that_does_not_fit_itself_is_refused_before_anything_starts(
    folder: Path, name: str
) -> None:
    spoil, says = REFUSED_AT_ONCE[name]
    spoil(folder)
    with pytest.raises(UserError, match=says) as refused:
        describe(str(folder))
    assert str(folder) in str(refused.value)
    assert "\n" not in str(refused.value)


REFUSED_WHEN_LOADED: dict[str, tuple[Spoil, str]] = {
    "a missing norm": (with_tensors(lambda t: t.pop(NORM)), f"missing: {NORM}"),
    "a stranger": (with_tensors(lambda t: t.update(odd=torch.ones(1))), "not part of it: odd"),
    "a norm of another size": (
        with_tensors(lambda t: t.update({NORM: torch.ones(9)})), f"of another shape: {NORM}.*9"),
    "a bias that it should have": (with_fields(attention_bias=True), "missing: .*bias"),
    "another type": (with_fields(model_type="mistral"), "MistralForCausalLM; correct one"),
    "an unknown type": (with_fields(model_type="llama9"), "llama9"),
    "an unknown activation": (with_fields(hidden_act="selu9"), "cannot be loaded"),
    "words for numbers": (with_fields(attention_dropout="much"), "attention_dropout"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED_WHEN_LOADED)
def test_weights_that_do_not_fit_the_architecture_are_refused_at_load(
    folder: Path, name: str
) -> None:
    spoil, says = REFUSED_WHEN_LOADED[name]
    spoil(folder)
    with pytest.raises(UserError, match=says) as refused:
        load_model(describe(str(folder)), CPU)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", list(REFUSED_WHEN_LOADED)[-4:])
def test_a_configuration_that_makes_no_model_is_refused_without_its_weights(
    folder: Path, name: str
) -> None:
    check_architecture(str(folder))
    spoil, says = REFUSED_WHEN_LOADED[name]
    spoil(folder)
    with pytest.raises(UserError, match=says):
        check_architecture(str(folder))


@pytest.mark.parametrize(
    "harmless",
    [
        shards(lambda places: None, parts=3),
        both(shards(lambda places: None), lambda f: (f / "consolidated.safetensors").touch()),
        instead("generation_config.json", lambda path: None),
        with_tensors(lambda t: t.update({"lm_head.weight": t[EMBEDDINGS].clone()})),
        with_tensors(lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": IDS / 1})),
        with_fields(pad_token_id=-1, torch_dtype="float32", return_dict=False, use_cache=False),
        lambda f: (f / "pytorch_model.bin").write_bytes(b"\x80\x04."),
        lambda f: (f / "original").mkdir(),
        lambda f: (f / "README.md").write_text("mine"),
    ],
    ids=[
        "shards", "another format", "no settings", "both tied", "old buffers", "odd but usual",
        "a pickle", "a folder", "a note",
    ],
)  # fmt: skip
def test_other_forms_of_the_same_model_give_the_same_logits(
    folder: Path, tiny_folder: Path, harmless: Spoil
) -> None:
    harmless(folder)
    assert torch.equal(logits(describe(str(folder))), logits(describe(str(tiny_folder / "model"))))


def test_links_into_a_cache_are_followed_and_their_contents_hashed(
    folder: Path, tmp_path: Path
) -> None:
    plain = describe(str(folder))
    (tmp_path / "blobs").mkdir()
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(tmp_path / "blobs" / str(number))
        path.symlink_to(tmp_path / "blobs" / str(number))
    assert describe(str(folder)) == plain
    assert torch.isfinite(logits(plain)).all()
    blob = (folder / WEIGHTS).resolve()
    blob.write_bytes(blob.read_bytes()[:-1] + b"\x01")
    assert describe(str(folder)).weights != plain.weights


@pytest.mark.parametrize("file", [WEIGHTS, "config.json", "tokenizer_config.json"])
def test_what_changed_since_the_plan_is_not_loaded(folder: Path, file: str) -> None:
    spec = describe(str(folder))
    change = {
        WEIGHTS: with_tensors(lambda t: t[NORM].mul_(1.5)),
        "config.json": with_fields(rms_norm_eps=1e-5),
        "tokenizer_config.json": with_fields("tokenizer_config.json", chat_template="{{ 1 }}"),
    }
    change[file](folder)
    with pytest.raises(UserError, match="changed since the plan was made"):
        load_model(spec, CPU)


def test_only_ends_of_a_text_are_read_from_the_generation_settings(folder: Path) -> None:
    """The engine is told to take nothing else, and the key holds them."""
    key = describe(str(folder)).key
    with_fields("generation_config.json", repetition_penalty=1.3, max_new_tokens=3)(folder)
    assert describe(str(folder)).key == key
    with_fields("generation_config.json", eos_token_id=[42, 7])(folder)
    assert describe(str(folder)).key != key
    named = describe(str(folder)).key
    with_fields("generation_config.json", eos_token_id=None)(folder)
    assert describe(str(folder)).key not in (key, named), "config.json's end is read no more"
    model = load_model(describe(str(folder)), CPU)
    assert model.config.eos_token_id is not None and model.generation_config.eos_token_id is None
    assert ENGINE_READS["generation_config"] == "vllm"


MADE_FOR = {"original_max_position_embeddings": 64}


@pytest.mark.parametrize(
    ("fields", "most", "expected"),
    [
        ({}, 4096, 128),
        ({}, 100, 100),
        ({"max_position_embeddings": None}, 4096, 4096),
        ({"max_position_embeddings": None, "n_positions": 77}, 4096, 77),
        ({"max_position_embeddings": None, "max_sequence_length": 99}, 4096, 99),
        ({"max_position_embeddings": None, "text_config": {"n_positions": 64}}, 4096, 64),
        ({"max_position_embeddings": 10**30}, 4096, 4096),
        ({"max_position_embeddings": 1e30}, 4096, 4096),
        ({"max_position_embeddings": 131072.0, "text_config": 5}, 10**9, 131072),
        ({"rope_scaling": {"rope_type": "linear", "factor": 8.0}}, 4096, 128),
        ({"rope_scaling": {"rope_type": "longrope", **MADE_FOR}}, 4096, 64),
        ({"rope_scaling": {"type": "longrope"}, **MADE_FOR}, 4096, 64),
        *(({"max_position_embeddings": odd}, 4096, None) for odd in ("128", 0, -1, True, [1], 0.5)),
    ],
)  # fmt: skip
def test_context_lengths_are_read_or_refused(
    folder: Path, fields: dict[str, Any], most: int, expected: int | None
) -> None:
    with_fields(**fields)(folder)
    if expected is not None:
        assert context_length(str(folder), most) == expected
        return
    with pytest.raises(UserError, match=r"max_position_embeddings is .*; expected"):
        context_length(str(folder), most)


def test_a_judge_may_be_what_cannot_be_trained_but_not_half_a_download(folder: Path) -> None:
    with_fields(quantization_config={"quant_method": "awq"}, vision_config={})(folder)
    assert checked(str(folder), trained=False) == folder
    with_bytes(WEIGHTS, lambda raw: raw[:-1])(folder)
    with pytest.raises(UserError, match="fetch it again"):
        checked(str(folder), trained=False)


@pytest.mark.parametrize(
    "source",
    ["", "~nobody-of-that-name/x", "a/" * 3000, "x" * 5000, "/dev/null", "stage:../..@/tmp",
     "stage:x", "stage:" + "0" * 64, "world:../..", "mine\0", "/root\0", "a/b/c"],
)  # fmt: skip
def test_sources_that_are_no_model_are_refused_in_one_line(source: str) -> None:
    with pytest.raises(UserError) as refused:
        find(source)
    assert "\n" not in str(refused.value)


def test_what_is_loaded_is_what_transformers_loads(tiny_folder: Path) -> None:
    """The independent way: no check of ours in between."""
    own = AutoModelForCausalLM.from_pretrained(tiny_folder / "model")(IDS).logits
    assert torch.equal(logits(describe(str(tiny_folder / "model"))), own)


def test_attention_is_what_is_asked_for_and_computes_the_same(tiny_folder: Path):
    spec = describe(str(tiny_folder / "model"))
    found = {}
    for name in ("eager", "sdpa"):
        model = load_model(spec, CPU, name)
        assert model.config._attn_implementation == name
        with torch.no_grad():
            found[name] = model(IDS).logits
    torch.testing.assert_close(found["eager"], found["sdpa"], rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(find_spec("flash_attn") is not None, reason="flash_attn is installed")
def test_attention_that_is_not_there_is_refused_in_one_line(tiny_folder: Path):
    with pytest.raises(UserError, match="cannot be loaded: FlashAttention2") as refused:
        load_model(describe(str(tiny_folder / "model")), CPU, "flash_attention_2")
    assert "\n" not in str(refused.value)
