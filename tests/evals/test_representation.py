"""I(Z;C) against numbers derived by hand, and the aligned model measured against itself."""

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from torch import Tensor

import raycib.evals.passes
import raycib.evals.representation
from raycib.config import EvalSpec
from raycib.evals.passes import readings, slot_steps
from raycib.evals.representation import MOST_NEGATIVES, Measures, measure, mutual_information
from raycib.models.reference import compute_cache, load_cache
from raycib.store import Store
from raycib.training.group import Loaded, load

TAU = 0.2
CPU = torch.device("cpu")


def rows(count: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("count", [2, 5, 40])
def test_orthogonal_rows_equal_to_their_references(count: int):
    """cos+ = 1, every cos- = 0, K = rows - 1: L = ln(e^{1/tau} + K) - 1/tau, so
    I = ln(K + 1) - ln(1 + K e^{-1/tau}), just below the ceiling."""
    information, negative, k = mutual_information(torch.eye(count), 3 * torch.eye(count))
    assert k == count - 1
    by_hand = math.log(k + 1) - math.log(1 + k * math.exp(-1 / TAU))
    assert information == pytest.approx(by_hand, abs=1e-6)
    assert information < math.log(k + 1)
    assert negative == 0


def test_collapsed_representations_hold_no_information():
    """All rows alike: the positive is one of K + 1 equals, L = ln(K + 1), I = 0."""
    same = torch.ones(7, 4)
    information, negative, _ = mutual_information(same, same)
    assert information == pytest.approx(0, abs=1e-6)
    assert negative == pytest.approx(1)


def test_swapped_representations_give_a_negative_estimate():
    """z of each of two rows is the other's reference: cos+ = 0, cos- = 1, K = 1.
    L = ln(1 + e^{1/tau}) = 5.00672 nats; I = ln 2 - L = -4.31357: a bound may be useless."""
    information, negative, _ = mutual_information(torch.eye(2).flip(0), torch.eye(2))
    assert information == pytest.approx(math.log(2) - math.log1p(math.exp(5)), abs=1e-5)
    assert information == pytest.approx(-4.31357, abs=1e-5)
    assert negative == 1


def by_numpy(z: Tensor, reference: Tensor) -> tuple[float, float]:
    """I, whose negatives are all other rows' references, and the mean cosine to these."""
    a, b = (v.numpy() / np.linalg.norm(v.numpy(), axis=1, keepdims=True) for v in (z, reference))
    cosines, n = a @ b.T, len(z)
    losses = np.log(np.exp(cosines / TAU).sum(axis=1)) - cosines.diagonal() / TAU
    return math.log(n) - losses.mean(), cosines[~np.eye(n, dtype=bool)].mean()


def test_with_few_rows_all_others_are_negatives():
    z, reference = rows(9, 5), rows(9, 5, seed=1)
    information, negative, k = mutual_information(z, reference)
    assert (information, negative) == pytest.approx(by_numpy(z, reference), abs=1e-5)
    assert k == 8


def test_with_few_rows_their_order_does_not_matter():
    z, reference = rows(40, 5), rows(40, 5, seed=1)
    order = torch.randperm(40)
    shuffled = mutual_information(z[order], reference[order])
    assert shuffled == pytest.approx(mutual_information(z, reference), abs=1e-5)


def test_with_many_rows_negatives_are_drawn_alike_every_time(monkeypatch):
    """K of the others, from a fixed seed: another order of rows is another draw of the same size,
    within the noise of drawing 8 of 299 for 300 rows."""
    monkeypatch.setattr(raycib.evals.representation, "MOST_NEGATIVES", 8)
    z = rows(300, 16)
    reference = z + rows(300, 16, seed=1)
    information, _, k = mutual_information(z, reference)
    torch.rand(3)  # the global generator plays no part
    assert mutual_information(z, reference)[0] == information
    assert k == 8
    assert 0 < information < math.log(9)
    order = torch.randperm(300)
    assert mutual_information(z[order], reference[order])[0] == pytest.approx(information, abs=0.1)


def test_the_estimate_is_that_of_the_paper():
    assert (MOST_NEGATIVES, raycib.evals.representation.TEMPERATURE) == (512, TAU)


def test_one_row_has_no_negative():
    with pytest.raises(ValueError, match="at least 2 held-out rows, found 1"):
        mutual_information(torch.ones(1, 3), torch.ones(1, 3))


# Measures of slots


@pytest.fixture(scope="module")
def loaded(tiny_folder: Path) -> Loaded:
    """Slot 0 is the aligned model (B = 0), slot 1 has moved."""
    stage = tiny.make_stage(tiny_folder)
    made = load([stage, stage], CPU)
    generator = torch.Generator().manual_seed(0)
    for slot in (0, 1):
        made.adapters.initialise(slot, generator)
    with torch.no_grad():
        for name, parameter in made.adapters.parameters_of(1).items():
            if name.endswith("lora_B"):
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return made


@pytest.fixture(scope="module")
def evals(tiny_folder: Path) -> EvalSpec:
    return tiny.make_evals(tiny_folder)


def measured(
    loaded: Loaded, evals: EvalSpec, folder: Path, slots: list[int], order: list[int] | None = None
) -> dict[int, Measures]:
    data = loaded.encode(evals.held_out)
    if order is not None:
        data = [data[i] for i in order]
    store, model = Store(folder), tiny.make_stage(folder.parent / "same").model
    where = (model, f"rows {order}", 64, evals.features)
    compute_cache(store, loaded.adapters, model, data, *where[1:])
    cache = load_cache(store, *where, CPU)
    assert cache is not None
    return measure(loaded.adapters, slots, data, cache, evals)


@pytest.fixture(scope="module")
def both(loaded, evals, tmp_path_factory) -> dict[int, Measures]:
    folder = tmp_path_factory.mktemp("measures")
    (folder / "same").mkdir()
    return measured(loaded, evals, folder / "store", [0, 1])


def test_the_aligned_model_is_at_distance_zero_from_itself(both):
    aligned = both[0]
    assert aligned.distance == 0
    assert aligned.cosine == pytest.approx(1, abs=1e-6)
    assert min(aligned.row_cosines) == pytest.approx(1, abs=1e-6)


def test_a_moved_model_is_not(both):
    assert both[1].distance > 0.1
    assert both[1].cosine < 0.999
    assert both[1].eval_loss != both[0].eval_loss


def test_information_is_of_the_moved_states_about_the_aligned_ones(loaded, evals, both):
    """Rows are anchors and references their negatives, not the other way round; slot 0 is the
    aligned model."""
    with torch.no_grad():
        _, states = readings(loaded.adapters, [0, 1], loaded.encode(evals.held_out), evals.features)
    (pooling, _), (decision, _) = evals.features
    found = both[1].mutual_information, both[1].negative_cosine
    assert found == pytest.approx(by_numpy(states[1, pooling], states[0, pooling]), abs=1e-5)
    at_decision, _ = by_numpy(states[1, decision], states[0, decision])
    assert both[1].mutual_information_last_prompt == pytest.approx(at_decision, abs=1e-5)


def test_distance_is_the_norm_of_the_update(loaded, both):
    """Over all layers: sqrt(sum ||s B A||^2), with s = alpha / rank = 8 / 4."""
    parameters = loaded.adapters.parameters_of(1)
    parameters = {name: value.detach() for name, value in parameters.items()}
    names = [name.removesuffix(".lora_A") for name in parameters if name.endswith(".lora_A")]
    squares = [
        (2 * parameters[f"{name}.lora_B"] @ parameters[f"{name}.lora_A"]).square().sum()
        for name in names
    ]
    assert both[1].distance == pytest.approx(float(sum(squares)) ** 0.5, rel=1e-5)


def test_the_ceiling_is_log_k_plus_1_and_holds(both):
    """24 held-out rows: each has 23 negatives."""
    for one in both.values():
        assert one.num_negatives == 23
        assert one.mutual_information_ceiling == pytest.approx(math.log(24))
        assert one.mutual_information <= one.mutual_information_ceiling
        assert one.mutual_information_last_prompt <= one.mutual_information_ceiling


def test_the_loss_is_a_mean_over_tokens_and_the_rows_are_means_of_their_own(loaded, evals, both):
    lengths = [len(one.response) for one in loaded.encode(evals.held_out)]
    for one in both.values():
        weighed = np.dot(one.row_losses, lengths) / sum(lengths)
        assert one.eval_loss == pytest.approx(weighed, rel=1e-5)
    assert len(both[0].row_losses) == len(both[0].row_cosines) == 24
    assert np.mean(both[1].row_cosines) == pytest.approx(both[1].cosine, rel=1e-5)


def test_a_slot_alone_measures_as_in_a_group(loaded, evals, both, tmp_path):
    (tmp_path / "same").mkdir()
    alone = measured(loaded, evals, tmp_path / "store", [1])
    for name, value in both[1]:
        assert getattr(alone[1], name) == pytest.approx(value, rel=1e-4, abs=1e-5), name


def test_measures_follow_their_rows_whatever_the_order(loaded, evals, both, tmp_path, monkeypatch):
    """Rows reversed and cut into batches of a few: each row keeps its own loss and cosine."""
    (tmp_path / "same").mkdir()
    few = partial(slot_steps, tokens_at_once=60)
    monkeypatch.setattr(raycib.evals.passes, "slot_steps", few)
    back = measured(loaded, evals, tmp_path / "store", [1], order=list(range(24))[::-1])[1]
    assert back.row_losses[::-1] == pytest.approx(both[1].row_losses, rel=1e-4)
    assert back.row_cosines[::-1] == pytest.approx(both[1].row_cosines, rel=1e-4)
    assert back.mutual_information == pytest.approx(both[1].mutual_information, abs=1e-4)
