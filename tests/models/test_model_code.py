"""No code of a model runs, and damage at random is told or changes the key."""

import ast
import random
import shutil
from pathlib import Path

import pytest
import torch
from spoilt_models import (
    ROW,
    WEIGHTS,
    Spoil,
    logits,
    with_bytes,
    with_fields,
)

import raycib
from raycib.data.chat import encode
from raycib.errors import UserError
from raycib.evals.generate import ENGINE_READS
from raycib.model_files import describe
from raycib.models import load_tokenizer

# No code of a model


def evil(folder: Path) -> str:
    """Python that leaves a trace where it runs."""
    return f"open({str(folder / 'touched')!r}, 'w')\nclass Evil: pass\n"


CODE = {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}
ZOO: dict[str, Spoil] = {
    "configuration": with_fields(auto_map=CODE, trust_remote_code=True),
    "unknown architecture": with_fields(auto_map=CODE, model_type="evil"),
    "deep in the configuration": with_fields(text_config={"auto_map": CODE}),
    "tokenizer": with_fields(
        "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", None]}
    ),
    "generation": with_fields("generation_config.json", custom_generate="."),
    "attention kernel": with_fields(_attn_implementation="someone/kernel"),
    "attention kernel, internal": with_fields(_attn_implementation_internal="someone/kernel"),
}


@pytest.mark.parametrize("name", ZOO)
def test_a_folder_that_names_code_is_refused_and_nothing_of_it_runs(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("evil.py", "modeling_evil.py", "custom_generate/generate.py", "__init__.py"):
        (folder / place).parent.mkdir(exist_ok=True)
        (folder / place).write_text(evil(folder))
    asked = []
    monkeypatch.setattr("builtins.input", lambda *_: asked.append(1) or "y")
    untouched = logits(describe(str(folder)))  # code that nothing names is only a file
    load_tokenizer(str(folder))
    assert torch.isfinite(untouched).all()
    ZOO[name](folder)
    with pytest.raises(UserError, match="would run the model's own code"):
        describe(str(folder))
    assert not (folder / "touched").exists()
    assert not asked


def test_every_load_in_the_package_refuses_code_of_the_model() -> None:
    """A call without the word leaves it to a default, or to a question on the terminal."""
    loads, engines = [], []
    for path in Path(raycib.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            if called in ("from_pretrained", "from_config", "pipeline", "snapshot_load"):
                words = {keyword.arg: keyword.value for keyword in node.keywords}
                said = words.get("trust_remote_code")
                named = isinstance(said, ast.Constant) and said.value is False
                loads.append((f"{path.name}:{node.lineno}", named))
            if isinstance(node.func, ast.Name) and node.func.id == "LLM":
                spread = [k.value for k in node.keywords if k.arg is None]
                names = {value.id for value in spread if isinstance(value, ast.Name)}
                engines.append((path.name, "ENGINE_READS" in names))
    assert len(loads) >= 4
    assert [place for place, named in loads if not named] == []
    assert engines == [("generate.py", True)]
    assert ENGINE_READS["trust_remote_code"] is False


# Damage at random


def damages() -> list[tuple[str, Spoil]]:
    """Each key of each JSON file with odd values; each file cut, emptied and with flipped bits."""
    draw = random.Random(7)
    found: list[tuple[str, Spoil]] = []
    keys = ["num_hidden_layers", "hidden_size", "rope_parameters", "head_dim", "hidden_act",
            "num_key_value_heads", "dtype", "layer_types", "id2label", "text_config"]  # fmt: skip
    odd = [None, 0, -1, 3, 10**9, 1e30, True, "x", [], {"a": 1}]
    for key in keys:
        value = draw.choice(odd)
        found.append((f"config {key}={value}", with_fields(**{key: value})))
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json", WEIGHTS):
        for share in (0.0, 0.3, 0.9):
            cut = with_bytes(file, lambda raw, share=share: raw[: int(share * len(raw))])
            found.append((f"{file} cut at {share}", cut))
        for place in draw.sample(range(700), 4):

            def flip(raw: bytes, place: int = place) -> bytes:
                at = place % len(raw)
                return raw[:at] + bytes([raw[at] ^ 1 << place % 8]) + raw[at + 1 :]

            found.append((f"{file} bit {place}", with_bytes(file, flip)))
    return found  # fmt: skip


def test_a_damaged_folder_gives_the_same_answers_under_another_key_or_one_line(
    tiny_folder: Path, tmp_path: Path
) -> None:
    """Never a traceback, and never other numbers under the key of the undamaged one."""
    whole = describe(str(tiny_folder / "model"))
    expected = logits(whole)
    chat = encode(load_tokenizer(whole.source), ROW, 64)
    refused: list[str] = []
    for number, (name, damage) in enumerate(damages()):
        folder = Path(shutil.copytree(tiny_folder / "model", tmp_path / str(number)))
        damage(folder)
        try:
            spec = describe(str(folder))
            found, said = logits(spec), encode(load_tokenizer(str(folder)), ROW, 64)
        except UserError as error:
            refused.append(str(error))
            continue
        if not torch.equal(found, expected) or said != chat:
            assert spec.key != whole.key, name
    assert 10 < len(refused) < number
    assert not [message for message in refused if "\n" in message]
