"""Cached references: named by all they depend on, equal to live ones, in the task's own order."""

from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file

import raycib.models.reference
from raycib.config import ModelSpec
from raycib.models.group_step import GroupStep
from raycib.models.reading_file import ReadingFile
from raycib.models.reference import (
    ReferenceCache,
    compute_cache,
    load_cache,
    missing_readings,
    reference_key,
)
from raycib.models.step import steps_of
from raycib.models.tensors import Totals, collate, together
from raycib.store import Store
from raycib.training.group import Loaded, load

MODEL = ModelSpec(source="here", weights="w" * 64, tokenizer="t" * 64)
READINGS = [
    ("mean_response", "final_norm"),
    ("last_prompt_token", "before_norm"),
    ("last_token", "final_norm"),
    ("mean_all", "before_norm"),
]
TOKENS = [
    ("response_states", "final_norm"),
    ("all_states", "final_norm"),
    ("response_nll", "final_norm"),
]
CPU = torch.device("cpu")


def key(model: ModelSpec = MODEL, rows="r", max_length=64, feature=("mean_all", "final_norm")):
    return reference_key(model, rows, max_length, feature)


def test_a_reference_is_named_by_everything_it_depends_on():
    others = [
        key(MODEL.model_copy(update={"weights": "x" * 64})),
        key(MODEL.model_copy(update={"tokenizer": "x" * 64})),
        key(MODEL.model_copy(update={"dtype": "bfloat16"})),
        key(rows="other"),
        key(max_length=32),
        key(feature=("last_token", "final_norm")),
        key(feature=("mean_all", "before_norm")),
        *(key(feature=feature) for feature in TOKENS),
    ]
    assert len({key(), *others}) == 11


def test_and_not_by_where_the_model_lies():
    assert key(MODEL.model_copy(update={"source": "elsewhere"})) == key()


@pytest.fixture(scope="module")
def loaded(tiny_folder: Path) -> Loaded:
    """The tiny model with one slot that does something, which a reference must not show."""
    made = load([tiny.make_stage(tiny_folder)], CPU)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.adapters.parameters_of(0).values():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return made


def computed(loaded: Loaded, tiny_folder: Path, store: Store) -> tuple[ReferenceCache, int, list]:
    stage = tiny.make_stage(tiny_folder)
    data = loaded.encode(stage.task)
    where = (stage.model, stage.task.rows, 64, [*READINGS, *TOKENS])
    count = compute_cache(store, loaded.adapters, stage.model, data, *where[1:])
    cache = load_cache(store, *where, CPU)
    assert cache is not None
    return cache, count, data


def test_every_example_goes_through_the_model_once(loaded, tiny_folder, tmp_path):
    """Seven readings of 48 examples are 48 forward passes, not 336."""
    rows: list[int] = []
    decoder = loaded.adapters.model.get_decoder()
    hook = decoder.register_forward_pre_hook(
        lambda _, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    cache, count, _ = computed(loaded, tiny_folder, Store(tmp_path))
    hook.remove()
    assert count == sum(rows) == 48
    assert len(cache.tensors) == 7
    assert cache.starts.keys() == set(TOKENS)
    assert all(tuple(cache.rows(*feature).shape) == (48, 32) for feature in READINGS)


def test_cached_equals_live(loaded, tiny_folder, tmp_path):
    """Other neighbours and other padding: float32 rounding only, see test_step."""
    cache, _, data = computed(loaded, tiny_folder, Store(tmp_path))
    chosen = [40, 3, 17, 5]
    batches = {0: collate(data, chosen)}
    live = steps_of(GroupStep(loaded.adapters, *together(batches), {0: Totals(4, 1)}, {}))[0]
    for feature in READINGS:
        torch.testing.assert_close(
            cache.rows(*feature)[chosen], live.reference(*feature), rtol=1e-5, atol=1e-6
        )
        moved = live.pooled(*feature) - live.reference(*feature)
        assert moved.abs().max() > 0.01, "the adapter did nothing, so this test shows nothing"


def test_row_i_is_example_i_however_they_were_batched(loaded, tiny_folder, tmp_path, monkeypatch):
    whole, _, data = computed(loaded, tiny_folder, Store(tmp_path / "one batch"))
    assert len({len(one) for one in data}) > 3, "rows of one length would not be reordered"
    for tokens in (1, 50):
        monkeypatch.setattr(raycib.models.reference, "TOKENS_AT_ONCE", tokens)
        parts, _, _ = computed(loaded, tiny_folder, Store(tmp_path / f"by {tokens}"))
        for name, cache in whole.tensors.items():
            torch.testing.assert_close(parts.tensors[name], cache, rtol=1e-5, atol=1e-6)


def test_cached_tokens_equal_live_ones(loaded, tiny_folder, tmp_path):
    """Of rows of different lengths, in an order of their own."""
    cache, _, data = computed(loaded, tiny_folder, Store(tmp_path))
    chosen = [40, 3, 17, 5]
    batch = collate(data, chosen)
    assert len({len(data[i].response) for i in chosen}) > 1
    live = steps_of(GroupStep(loaded.adapters, *together({0: batch}), {0: Totals(4, 1)}, {}))[0]
    for feature in TOKENS:
        found = cache.tokens(feature, batch.examples, CPU)
        expected = live.reference_tokens(feature[0])
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        lengths = [
            len(data[i]) - 1 if feature[0] == "all_states" else len(data[i].response)
            for i in chosen
        ]
        assert len(found) == sum(lengths)
    own = live.nll[batch.labels >= 0]
    reference = cache.tokens(("response_nll", "final_norm"), batch.examples, CPU)
    assert (own - reference).abs().max() > 0.01, "the adapter did nothing"


def test_a_bank_with_a_missing_reading_is_no_bank(loaded, tiny_folder, tmp_path):
    store = Store(tmp_path)
    computed(loaded, tiny_folder, store)
    stage = tiny.make_stage(tiny_folder)
    more = [*READINGS, ("last_token", "before_norm")]
    assert load_cache(store, stage.model, stage.task.rows, 64, more, CPU) is None


def test_a_model_that_gives_nonsense_is_not_cached(tiny_folder, tmp_path):
    stage = tiny.make_stage(tiny_folder)
    broken = load([stage], CPU)
    with torch.no_grad():
        broken.adapters.model.get_decoder().norm.weight[0] = torch.nan
    data, store = broken.encode(stage.task), Store(tmp_path)
    with pytest.raises(ValueError, match="non-finite"):
        compute_cache(store, broken.adapters, stage.model, data, stage.task.rows, 64, READINGS[:1])
    assert store.keys("references") == []


def in_bfloat16(tiny_folder: Path) -> tuple[ModelSpec, Loaded]:
    stage = tiny.make_stage(tiny_folder)
    model = stage.model.model_copy(update={"dtype": "bfloat16"})
    return model, load([stage.model_copy(update={"model": model})], CPU)


def test_states_of_tokens_are_kept_in_the_model_s_dtype_and_lose_nothing(
    tiny_folder, tmp_path, monkeypatch
):
    """Half the bytes of float32, and every value the same."""
    model, loaded = in_bfloat16(tiny_folder)
    task = tiny.make_stage(tiny_folder).task
    where, data = (task.rows, 64, TOKENS), loaded.encode(task)
    stores = [Store(tmp_path / name) for name in ("bfloat16", "float32")]
    compute_cache(stores[0], loaded.adapters, model, data, *where)
    monkeypatch.setattr(raycib.models.reference, "stored_dtype", lambda *_: "float32")
    compute_cache(stores[1], loaded.adapters, model, data, *where)
    monkeypatch.undo()
    half, full = (load_cache(store, model, *where, CPU) for store in stores)
    assert half and full, "a cache that was stored in float32 is read as well"
    examples = torch.arange(len(data)).flip(0)
    for feature in TOKENS:
        same = [one.tokens(feature, examples, CPU) for one in (half, full)]
        assert same[0].dtype == same[1].dtype == torch.float32
        assert torch.equal(*same)
        kept = torch.float32 if feature[0] == "response_nll" else torch.bfloat16
        assert (half.tensors[feature].dtype, full.tensors[feature].dtype) == (kept, torch.float32)
    assert len({key for one in stores for key in one.keys("references")}) == 5, "nll is one"
    assert missing_readings(stores[1], model, *where) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dim", [(), (3,)])
def test_a_file_that_is_written_piece_by_piece_is_read_by_safetensors(tmp_path, dtype, dim):
    """In any order, an example without values among them."""
    sizes = [2, 0, 5, 1]
    values = torch.arange(8.0 * torch.Size(dim).numel()).reshape(8, *dim)
    parts = dict(enumerate(values.split(sizes)))
    with ReadingFile(tmp_path / "file", sizes, dim, dtype, starts=True) as file:
        for example in (3, 0, 2, 1):
            file.write(example, parts[example])
        with pytest.raises(ValueError, match="not as planned"):
            file.write(0, values)
    found = load_file(tmp_path / "file")
    assert torch.equal(found["z"], values.to(dtype)) and found["z"].dtype == dtype
    assert found["starts"].tolist() == [0, 2, 2, 7, 8]


def test_what_a_file_holds_is_read_where_it_is_used(tmp_path):
    """64 MB are no 64 MB of this process's own memory, and safetensors maps what it loads."""
    size, before = 2**24, own_memory()
    with ReadingFile(tmp_path / "file", [size // 64] * 64, (), torch.float32, starts=True) as file:
        for example in range(64):
            file.write(example, torch.ones(size // 64))
    values = load_file(tmp_path / "file")["z"]
    assert float(values[:: size // 8].sum()) == 8 and len(values) == size
    assert own_memory() - before < 16 * 2**20


def own_memory() -> int:
    """Bytes that no file backs (Linux)."""
    text = Path("/proc/self/status").read_text()
    return 1024 * int(text.split("RssAnon:")[1].split()[0])
