"""A tokenizer is the one that its tokenizer.json describes, or refused by name."""

import json
import shutil
from pathlib import Path

import pytest
import tiny
from chat_templates import CHATML, LLAMA2, byte_level, sentencepiece
from tokenizers import Tokenizer

from raycib.data.tokenizer import open_tokenizer
from raycib.errors import UserError
from raycib.models import load_tokenizer
from raycib.runtime.judge import describe_judge, guard_prompt


def saved(tokenizer: object, folder: Path, kind: str, model_type: str = "llama") -> Path:
    """The tokenizer's files, which name this class."""
    tokenizer.save_pretrained(folder)  # type: ignore[attr-defined]
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text()) | {"tokenizer_class": kind}
    path.write_text(json.dumps(config))
    return folder


def test_a_turn_s_mark_without_an_embedding_is_refused_of_model_and_guard(tmp_path: Path):
    """Added to the tokenizer alone: of 45 embeddings the last is that of `<assistant>`, id 44. A
    token that no template writes, as many a padding token, may lack one."""
    folder = tiny.make_model(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    assert config["vocab_size"] == len(load_tokenizer(str(folder))) == 45
    tokenizer = load_tokenizer(str(folder))
    tokenizer.add_tokens(["<more>"])
    tokenizer.save_pretrained(folder)
    assert load_tokenizer(str(folder)).convert_tokens_to_ids("<more>") == 45
    guard = describe_judge(str(folder), None, "world")
    guard_prompt(guard)
    tokenizer.chat_template = tokenizer.chat_template.replace(" <eos>", " <more>")
    tokenizer.save_pretrained(folder)
    with pytest.raises(UserError, match=r"writes the token of id 45, .* has 45 embeddings"):
        load_tokenizer(str(folder))
    with pytest.raises(UserError, match=r"writes the token of id 45, .* has 45 embeddings"):
        guard_prompt(guard)


@pytest.mark.parametrize("kind", ["LlamaTokenizerFast", "LlamaTokenizer", "GemmaTokenizer"])
def test_a_class_that_would_lose_spaces_is_refused_and_the_line_mends_it(kind: str, tmp_path: Path):
    """As DeepSeek-R1-Distill-Llama and deepseek-llm name it: transformers then splits text by
    SentencePiece's rule, for which a vocabulary of bytes has no words."""
    folder = saved(byte_level(CHATML), tmp_path / "model", kind)
    with pytest.raises(UserError, match=r"set tokenizer_class to PreTrainedTokenizerFast") as told:
        open_tokenizer(folder)
    assert "\n" not in str(told.value)
    path = folder / "tokenizer_config.json"
    mended = json.loads(path.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    path.write_text(json.dumps(mended))
    text = "here is  sand,\n\nI say 12"
    ids = open_tokenizer(folder)(text, add_special_tokens=False)["input_ids"]
    described = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert ids == described.encode(text, add_special_tokens=False).ids
    assert described.decode(ids) == text


def test_the_class_that_fits_is_taken_whatever_its_file_would_cut(tmp_path: Path):
    """SentencePiece's own; a limit left in tokenizer.json is none of the model's."""
    folder = saved(sentencepiece(LLAMA2), tmp_path / "model", "LlamaTokenizer")
    path = folder / "tokenizer.json"
    cut = {"max_length": 4, "stride": 0, "strategy": "LongestFirst", "direction": "Right"}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"truncation": cut}))
    tokenizer = open_tokenizer(folder)
    assert type(tokenizer).__name__ == "LlamaTokenizer"
    assert len(tokenizer("how are these", add_special_tokens=False)["input_ids"]) > 4


def test_mistral_s_own_format_beside_a_tokenizer_is_refused_by_name(tmp_path: Path):
    """transformers and vLLM would read it instead, and it writes no finished turn."""
    mistral = pytest.importorskip("mistral_common")
    folder = saved(byte_level(CHATML), tmp_path / "model", "PreTrainedTokenizerFast", "mistral")
    assert open_tokenizer(folder).chat_template == CHATML
    tekken = next((Path(mistral.__file__).parent / "data").glob("tekken*.json"))
    shutil.copy(tekken, folder / "tekken.json")
    with pytest.raises(UserError, match=r"move .*tekken.json elsewhere"):
        open_tokenizer(folder)
