"""Each architecture is read as it reads itself, or refused in one line."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import transformers
from architectures import PADDED, READ, WORDS
from torch.nn import functional as F

from raycib.errors import UserError
from raycib.model_files import describe
from raycib.model_files.adapter_targets import check_attention
from raycib.models import check_architecture, load_model
from raycib.models.decoder import attention_blocks, checkpointed, hidden_states, perturbed
from raycib.models.gate import check_model
from raycib.models.head import token_loss

CPU = torch.device("cpu")
CHANGES_LOGITS = {
    "Gemma2",
    "Gemma3Text",
    "Gemma4Text",
    "Granite",
    "Cohere",
    "Cohere2",
    "HyperCLOVAX",
}


def ids() -> torch.Tensor:
    return torch.randint(3, WORDS, (3, 12))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", READ | PADDED)
def test_log_probabilities_and_states_are_the_models_own(saved: Any, name: str, dtype: str):
    model = load_model(describe(str(saved(name)), dtype), CPU)
    rows, targets = ids(), ids().flatten()
    with torch.no_grad():
        own = model(input_ids=rows, output_hidden_states=True, use_cache=False)
        read = hidden_states(model, rows)
        states = read.final_norm.flatten(0, 1)
        loss = token_loss(model, states, targets)
        bare = F.cross_entropy(model.get_output_embeddings()(states).float(), targets)
    expected = F.cross_entropy(own.logits.flatten(0, 1).float(), targets, reduction="none")
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-5)
    assert torch.equal(read.final_norm, own.hidden_states[-1])
    assert not torch.equal(read.before_norm, read.final_norm)
    if name in READ:
        assert (abs(float(bare - expected.mean())) > 1e-2) == (name in CHANGES_LOGITS)


@pytest.mark.parametrize("name", READ)
def test_layers_and_attention_blocks_are_found_in_each(saved: Any, name: str):
    """Perturbations reach their rows alone; layers that run again give the same gradient."""
    check_attention(str(saved(name)))
    model = load_model(describe(str(saved(name))), CPU)
    assert len(attention_blocks(model)) == 2
    rows = ids()
    with torch.no_grad():
        before = hidden_states(model, rows).final_norm
        for moved in (0, 1):
            added = [torch.zeros(1, 12, 32) for _ in range(2)]
            added[moved] += torch.randn(1, 12, 32)
            with perturbed(model, [(slice(1, 2), added)]):
                after = hidden_states(model, rows).final_norm
            # Experts sum over whichever rows chose them: up to rounding.
            torch.testing.assert_close(after[[0, 2]], before[[0, 2]], rtol=1e-5, atol=1e-5)
            assert not torch.allclose(after[1], before[1], rtol=1e-3, atol=1e-3)
    weight = model.get_input_embeddings().weight.requires_grad_()
    slopes = []
    for way in (nullcontext(), checkpointed(model, nullcontext)):
        with way:
            states = hidden_states(model, rows).final_norm
        slopes += torch.autograd.grad(states.square().sum(), weight)
    assert torch.equal(*slopes)
    assert slopes[0].norm() > 0


@pytest.mark.parametrize(
    ("name", "overrides", "says"),
    [
        ("Bert", {}, "BertLMHeadModel.*no final norm"),
        ("Mamba", {"state_size": 4}, "MambaForCausalLM.*none of its layers has attention"),
        (
            "Llama4Text",
            {"intermediate_size_mlp": 48, "num_local_experts": 2},
            "Llama4ForCausalLM.*no decoder with an output head",
        ),
        # Its passes see all tokens; transformers' `generate` saw the last four.
        ("Llama", {"sliding_window": 4}, "sliding_window of 4 tokens.*set it to null"),
    ],
)
def test_what_is_read_otherwise_than_a_causal_decoder_is_refused(
    saved: Any, name: str, overrides: Any, says: str
):
    """Without its weights, before anything starts, and with them."""
    source = str(saved(name, **overrides))
    for refusing in (check_architecture, lambda source: load_model(describe(source), CPU)):
        with pytest.raises(UserError, match=says) as refused:
            refusing(source)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("name", "window"), [("Mistral", 4), ("Granite", 64)])
@torch.no_grad()
def test_a_window_that_the_architecture_knows_or_that_cuts_nothing_is_taken(
    saved: Any, name: str, window: int
):
    """What `generate` says next is what a whole pass says."""
    model = load_model(describe(str(saved(name, sliding_window=window))), CPU)
    rows = ids()
    answers = model.generate(rows, max_new_tokens=6, do_sample=False, eos_token_id=None)
    assert torch.equal(model(answers).logits.argmax(-1)[:, 11:-1], answers[:, 12:])


def test_the_gate_sees_another_head_another_norm_and_a_token_that_looks_ahead(tiny_folder: Path):
    """Each is made by changing a model in memory."""

    def model() -> Any:
        return load_model(describe(str(tiny_folder / "model")), CPU)

    check_model(model(), "it")
    scaled = model()
    forward = scaled.forward

    def longer(*args: Any, **options: Any) -> Any:
        out = forward(*args, **options)
        factor = 1 + 1e-4 * (out.logits.shape[0] == 2)  # a row at a time, as the head runs
        return type(out)(logits=out.logits * factor)

    scaled.forward = longer
    with pytest.raises(UserError, match="logits differ"):
        check_model(scaled, "it")
    odd = model()
    odd.get_decoder().register_forward_hook(
        lambda _, __, out: type(out)(last_hidden_state=out.last_hidden_state + 1)
    )
    with pytest.raises(UserError, match="not what its final norm gives"):
        check_model(odd, "it")
    ahead = model()
    for block in attention_blocks(ahead):
        block.register_forward_hook(lambda _, __, out: (out[0] + out[0].mean(1, True), *out[1:]))
    with pytest.raises(UserError, match="a token sees the ones after it"):
        check_model(ahead, "it")


def test_scores_are_capped_as_the_model_says(saved: Any):
    """Against its own eager pass; transformers' choice for it, SDPA, leaves the cap out."""
    folder, rows = saved("Gemma2"), ids()

    def states(model: Any) -> torch.Tensor:
        with torch.no_grad():
            return hidden_states(model, rows).final_norm

    own = transformers.AutoModelForCausalLM.from_pretrained
    eager, usual = (own(folder, attn_implementation=how) for how in ("eager", None))
    spec = describe(str(folder))
    assert spec.key != spec.model_copy(update={"capped": False}).key, "stored without the cap"
    found = states(load_model(spec, CPU))
    assert torch.equal(found, states(eager))
    assert (found - states(usual)).norm() > 0.01 * found.norm()
    with pytest.raises(UserError, match=r"caps its attention scores.*execution\.attention=sdpa"):
        load_model(describe(str(folder)), CPU, "sdpa")


def test_a_model_keeps_its_own_dtype(tmp_path: Path, tiny_folder: Path):
    for kept, then in (("bfloat16", "bfloat16"), ("float16", "float32"), ("float32", "float32")):
        folder = tiny.make_model(tmp_path / kept)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, kept)
        )
        model.save_pretrained(folder)
        spec = describe(str(folder))
        assert spec.dtype == then
        loaded = load_model(spec, CPU)
        assert torch.equal(loaded.lm_head.weight, model.lm_head.weight.to(loaded.dtype)), kept
