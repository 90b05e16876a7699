"""No forward pass that nobody reads, and each row as it would be alone."""

from typing import get_args

import pytest
import torch
from passes_counted import counted
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from raycib.config import Layer, Pooling, Tokens
from raycib.data.chat import Encoded
from raycib.methods.cib import CIB
from raycib.models.adapters import AdapterSlots, LoRAShape
from raycib.models.decoder import attention_blocks
from raycib.models.group_step import GroupStep
from raycib.models.reference import ReferenceCache
from raycib.models.step import steps_of
from raycib.models.tensors import Batch, Totals, collate, together, widen
from raycib.objectives import Objective, Sum
from raycib.objectives.cib import ContrastiveBottleneck
from raycib.objectives.cross_entropy import CrossEntropy

DATA = [Encoded((5, 6, 7), (8, 9)), Encoded((1,), (2, 3, 4))]


@pytest.fixture(scope="module")
def adapters(tiny_folder) -> AdapterSlots:
    """Two slots, both doing something."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_folder / "model")
    shapes = [LoRAShape(4, 8.0, ("q_proj", "down_proj")), LoRAShape(2, 8.0, ("v_proj",))]
    made = AdapterSlots(model.eval(), shapes)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for slot in range(2):
            for parameter in made.parameters_of(slot).values():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return made


def long_rows(count: int) -> list[Encoded]:
    draw = torch.Generator().manual_seed(0)
    made = torch.randint(1, 40, (count, 12), generator=draw).tolist()
    return [Encoded(tuple(row[:5]), tuple(row[5:])) for row in made]


def group_step(
    adapters: AdapterSlots, batches: dict[int, Batch], caches=None, packed: bool = False
) -> GroupStep:
    totals = {slot: Totals(len(batch.ids), 7 * len(batch.ids)) for slot, batch in batches.items()}
    return GroupStep(adapters, *together(batches), totals, caches or {}, packed=packed)


def warm(objective: Objective, dim: int) -> Objective:
    """With a full queue, where there is one, and at the beginning of a step."""
    for part in objective.modules():
        if hasattr(part, "push"):
            vectors = torch.randn(32, dim)
            part.push(0, torch.arange(100, 132), vectors, vectors.flip(0), torch.rand(32))
    objective.begin_step(1, torch.Generator().manual_seed(0))
    return objective


def backward(objective: Objective, step) -> None:
    sum(term.weight * term.value for term in objective(step).values()).backward()


def bank_of(adapters: AdapterSlots, data: list[Encoded]) -> ReferenceCache:
    """References of every reading, computed as the step itself would."""
    batch = collate(data, range(len(data)))
    step = steps_of(group_step(adapters, {0: batch}))[0]
    cache = ReferenceCache(
        {
            (how, layer): step.reference(how, layer)
            for how in get_args(Pooling)
            for layer in get_args(Layer)
        }
    )
    for which in get_args(Tokens):
        counts = (batch.feature if which == "all_states" else batch.predicting).sum(dim=1)
        feature = (which, "final_norm")
        cache.tensors[feature] = step.reference_tokens(which)
        cache.starts[feature] = torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)])
    return cache


def test_nothing_runs_until_it_is_read(adapters):
    with counted(adapters) as calls:
        step = steps_of(group_step(adapters, {0: collate(DATA, [0, 1])}))[0]
        assert (calls.decoder, calls.head) == (0, 0)
        step.pooled("last_token", "final_norm")
        assert (calls.decoder, calls.head) == (1, 0)
        step.pooled("mean_all", "before_norm")
        _ = step.nll, step.row_loss, step.nll
        assert (calls.decoder, calls.head) == (1, 1)
        step.reference("last_token", "final_norm")
        step.reference("mean_all", "before_norm")
        assert (calls.decoder, calls.head) == (2, 1)


def test_slots_share_their_forward_passes(adapters):
    data, dim = long_rows(8), adapters.model.config.hidden_size
    batches = {0: collate(data, [0, 1, 2]), 1: collate(data, [3, 4])}
    with counted(adapters) as calls:
        loss = torch.zeros(())
        for step in steps_of(group_step(adapters, batches)).values():
            objective = warm(ContrastiveBottleneck(CIB(num_negatives=8), dim), dim)
            loss = loss + sum(term.value for term in objective(step).values())
        loss.backward()
    assert (calls.decoder, calls.head) == (2, 1)


def flops(work) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def uneven_rows() -> dict[int, Batch]:
    """Of two slots, 2 to 12 tokens each; two rows of one slot have one length."""
    lengths = (12, 2, 7, 7, 3, 9, 5)
    whole = [one.prompt + one.response for one in long_rows(7)]
    data = [Encoded(row[: n // 2], row[n // 2 : n]) for n, row in zip(lengths, whole, strict=True)]
    return {1: collate(data, [3, 1, 2, 0]), 0: collate(data, [4, 6, 5])}


@pytest.mark.parametrize("mixed", [False, True])
def test_rows_end_to_end_are_read_as_padded_ones_are(adapters, mixed: bool):
    """Losses, every reading of rows and tokens, of the trained and of the aligned model, with a
    perturbation of one slot; and the gradient of all of it. In bfloat16 up to its rounding."""
    batches = uneven_rows()
    shape = (*batches[1].ids.shape, adapters.model.config.hidden_size)
    near = {"rtol": 2e-2, "atol": 5e-2} if mixed else {"rtol": 1e-4, "atol": 1e-5}
    found, slopes = [], []
    parameters = [p for slot in (0, 1) for p in adapters.parameters_of(slot).values()]
    for packed in (False, True):
        torch.manual_seed(0)
        group = group_step(adapters, batches, packed=packed)
        moved = [(0.3 * torch.randn(shape)).requires_grad_() for _ in range(2)]
        steps = steps_of(group)
        steps[1].perturb(moved)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            read = [
                value
                for step in steps.values()
                for value in (
                    step.nll[step.batch.labels >= 0],
                    step.row_loss,
                    *(step.pooled(how, layer) for how in get_args(Pooling)
                      for layer in get_args(Layer)),
                    *(step.reference(how, "before_norm") for how in get_args(Pooling)),
                    *(step.states(which) for which in ("response_states", "all_states")),
                    *(step.reference_tokens(which) for which in get_args(Tokens)),
                )
            ]  # fmt: skip
        loss = sum(one.float().square().mean() for one in read if one.requires_grad)
        slopes.append(torch.autograd.grad(loss, [*parameters, *moved]))
        found.append(read)
    for padded, own in zip(*found, strict=True):
        # Autocast rounds the means of padded rows, not those of rows end to end.
        torch.testing.assert_close(own.float(), padded.float(), **near)
    for padded, own in zip(*slopes, strict=True):
        assert (own - padded).norm() <= (0.05 if mixed else 1e-5) * padded.norm()
    assert len(group.hidden.final_norm) == 45, "nothing is padding"


def test_rows_end_to_end_cost_what_each_costs_alone(adapters):
    """To the last product of weights, forwards and backwards: what padding costs is gone. Attention
    is not among what torch counts on a CPU."""
    batch = uneven_rows()[1]

    def learn(rows: Batch, packed: bool) -> int:
        step = steps_of(group_step(adapters, {0: rows}, packed=packed))[0]
        return flops(lambda: step.nll.sum().backward())

    def only(batch: Batch, row: int) -> Batch:
        length = int(batch.lengths[row])
        return Batch(
            **{name: value[row : row + 1, :length] if value.dim() == 2 else value[row : row + 1]
               for name, value in vars(batch).items()}
        )  # fmt: skip

    alone = sum(learn(only(batch, row), False) for row in range(len(batch.ids)))
    assert learn(batch, True) == alone < 0.65 * learn(batch, False)


def test_cib_costs_what_fine_tuning_costs_and_one_forward_pass_more_without_a_cache(adapters):
    """Counted operations, so no clock is asked. Beside the model, CIB adds one product of z with
    the negatives (16 rows x 8 negatives x 32 numbers, forwards and backwards)."""
    data, dim = long_rows(16), adapters.model.config.hidden_size
    batch, cache = collate(data, range(16)), bank_of(adapters, data)

    def contrast() -> ContrastiveBottleneck:
        return ContrastiveBottleneck(CIB(lam=1, queue_size=32, num_negatives=8), dim)

    def one_step(penalty, cache) -> int:
        objective = Sum([CrossEntropy(), *penalty])
        warm(objective, dim)
        return flops(
            lambda: backward(objective, steps_of(group_step(adapters, {0: batch}, {0: cache}))[0])
        )

    plain = one_step([], None)
    cached = one_step([contrast()], cache)
    live = one_step([contrast()], None)
    with adapters.disabled(), torch.no_grad():
        forward = flops(lambda: adapters.model.get_decoder()(batch.ids, use_cache=False))
    assert 1 < cached / plain <= 1.005
    assert (live - cached) / forward == pytest.approx(1, abs=0.005)


def test_values_of_tokens_follow_their_rows(adapters):
    """Of a bank and live, for any choice and order of examples: row after row, each with the
    tokens that its own response has, or (`all_states`) all that have one before them."""
    data = [*DATA, *long_rows(3)]
    cache = bank_of(adapters, data)
    chosen = [4, 0, 1]
    for which in get_args(Tokens):
        batch = collate(data, chosen)
        live = steps_of(group_step(adapters, {0: batch}))[0].reference_tokens(which)
        cached = steps_of(group_step(adapters, {0: batch}, {0: cache}))[0].reference_tokens(which)
        counts = [11, 4, 3] if which == "all_states" else [7, 2, 3]
        assert len(live) == sum(counts)
        torch.testing.assert_close(cached, live, rtol=1e-5, atol=1e-6)


def test_what_a_token_s_state_predicts_is_what_its_loss_is_of(adapters):
    """states("response_states") through the head, at the labels in order: the step's own nll."""
    batch = collate(DATA, [0, 1])
    step = steps_of(group_step(adapters, {0: batch}))[0]
    scored = batch.labels >= 0
    logits = adapters.model.get_output_embeddings()(step.states("response_states"))
    nll = torch.nn.functional.cross_entropy(logits, batch.labels[scored], reduction="none")
    torch.testing.assert_close(step.nll[scored], nll)
    everything = step.states("all_states")
    assert len(everything) == 4 + 3
    torch.testing.assert_close(everything[2:4], step.states("response_states")[:2])


def test_a_perturbation_moves_the_rows_of_its_slot_alone(adapters):
    """Those of the others stay to the bit; one of zeros moves nothing."""
    data = long_rows(5)
    batches = {0: collate(data, [0, 1, 2]), 1: collate(data, [3, 4])}
    plain, still, moved = (steps_of(group_step(adapters, batches)) for _ in range(3))
    shape = (2, 12, adapters.model.config.hidden_size)
    still[1].perturb([torch.zeros(shape)] * 2)
    moved[1].perturb([torch.full(shape, 0.5)] * 2)
    for slot in (0, 1):
        assert torch.equal(plain[slot].nll, still[slot].nll)
    assert torch.equal(plain[0].nll, moved[0].nll)
    assert (plain[1].row_loss - moved[1].row_loss).abs().min() > 1e-4


def test_rows_alone_give_what_they_give_in_their_group(adapters):
    data = long_rows(5)
    batches = {0: collate(data, [0, 1, 2]), 1: collate(data, [3, 4])}
    for step in steps_of(group_step(adapters, batches)).values():
        with counted(adapters) as calls:
            torch.testing.assert_close(step.alone().nll, step.nll)
            assert calls.decoder <= 2


def test_every_decoder_layer_has_one_attention_block_that_can_be_perturbed(adapters):
    blocks = attention_blocks(adapters.model)
    assert [type(block).__name__ for block in blocks] == ["LlamaAttention"] * 2


@pytest.mark.parametrize(("extra", "found"), [(True, 2), (False, 0)])
def test_an_architecture_without_just_one_attention_in_each_layer_is_refused(
    tiny_folder, extra: bool, found: int
):
    """Else a method that perturbs them would silently do something else."""
    from transformers import AutoModelForCausalLM

    class CrossAttention(torch.nn.Module): ...

    class Mixer(torch.nn.Module): ...

    model = AutoModelForCausalLM.from_pretrained(tiny_folder / "model")
    layer = model.get_decoder().layers[1]
    if extra:
        layer.cross_attn = CrossAttention()
    else:
        layer.self_attn = Mixer()
    with pytest.raises(ValueError, match=f"layer 1 of LlamaForCausalLM has {found} attention"):
        attention_blocks(model)


def test_a_group_s_rows_go_through_their_own_adapter(adapters):
    """Each slot's losses, and the aligned model's for none, as when the slot is alone."""
    data = long_rows(5)
    batches = {1: collate(data, [0, 1, 2]), 0: collate(data, [3, 4])}
    together = steps_of(group_step(adapters, batches))
    alone = {slot: steps_of(group_step(adapters, {slot: b}))[slot] for slot, b in batches.items()}
    for slot in batches:
        torch.testing.assert_close(together[slot].nll, alone[slot].nll)
    same = {slot: collate(data, [0, 1]) for slot in (0, 1)}
    first, second = steps_of(group_step(adapters, same)).values()
    assert (first.row_loss - second.row_loss).abs().min() > 1e-4
    how = ("mean_all", "final_norm")
    torch.testing.assert_close(first.reference(*how), second.reference(*how))


def test_padding_on_the_right_does_not_change_a_row(adapters):
    """Attention is causal, so no row sees it. Only the shapes of the products differ: two sums of
    32 float32 terms in another order differ by about sqrt(32) * 6e-8 = 3e-7 of their size, and
    two layers later by less than 1e-5."""

    def losses(batch: Batch) -> Tensor:
        return steps_of(group_step(adapters, {0: batch}))[0].row_loss

    own = losses(collate(DATA, [0, 1]))
    for width in (6, 17, 64):
        torch.testing.assert_close(
            losses(widen(collate(DATA, [0, 1]), width)), own, rtol=1e-5, atol=0
        )
    alone = torch.cat([losses(collate(DATA, [row])) for row in (0, 1)])
    torch.testing.assert_close(alone, own, rtol=1e-5, atol=0)


def test_the_mean_reference_of_a_task_needs_the_cache(adapters):
    data = long_rows(4)
    cache = bank_of(adapters, data)
    how = ("mean_all", "final_norm")
    step = steps_of(group_step(adapters, {0: collate(data, [1, 2])}, {0: cache}))[0]
    torch.testing.assert_close(step.reference_mean(*how), cache.rows(*how).mean(dim=0))
    torch.testing.assert_close(step.reference(*how), cache.rows(*how)[[1, 2]])
    live = steps_of(group_step(adapters, {0: collate(data, [1, 2])}))[0]
    with pytest.raises(ValueError, match="only known from cached references"):
        live.reference_mean(*how)
