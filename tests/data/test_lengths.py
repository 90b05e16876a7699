"""Rows too long: counted before anything starts, left out, cut or refused by name, never silently.

The tiny model's tokens are words: a prompt of p words and an answer of a words are p + 2 and a + 1
tokens, with the marks of both turns and the end of the answer's.
"""

import json
import sys
from pathlib import Path

import pytest
import summaries
from chat_templates import CHATML, byte_level, sentencepiece
from hypothesis import given
from hypothesis import strategies as st
from programs import SWEEP, Program
from summaries import warned
from tiny import WORDS
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from raycib.config import StageSpec, TrainerSpec
from raycib.config.presets.world import WORLD
from raycib.data.chat import encode, end_of_turn, use_chatml
from raycib.data.lengths import (
    Length,
    Lengths,
    count_tokens,
    examples_of,
    fitted,
    limits_of,
    noted,
    refuse_long_prompts,
)
from raycib.data.rows import Row, describe_rows, describe_task, load_rows, rows_of
from raycib.errors import UserError
from raycib.evals.answers import Answers, answers_key
from raycib.model_files import describe
from raycib.models import load_tokenizer
from raycib.runtime.token_counts import TokenCounts
from raycib.store import Store
from raycib.store.kinds import GENERATIONS

ANYTHING = sys.maxsize


def words(count: int) -> str:
    return " ".join(["w1"] * count)


@pytest.fixture(scope="module")
def tokenizer(tiny_folder: Path):
    return load_tokenizer(str(tiny_folder / "model"))


@pytest.fixture
def task(tmp_path: Path):
    """Rows of 6, 14, 24 and 6 tokens: with an answer too long, and with a prompt too long."""
    texts = [(1, 2), (2, 9), (20, 1), (2, 1)]
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "\n".join(json.dumps({"prompt": words(p), "response": words(a)}) for p, a in texts)
    )
    return describe_task("task", str(path), max_length=10)


def test_tokens_are_counted_as_training_and_generation_see_them(tokenizer, task):
    counted = count_tokens(tokenizer, rows_of(task))
    rows = tuple(Length(*one) for one in ((3, 6), (4, 14), (22, 24), (4, 6)))
    assert counted == Lengths(rows, 1)
    assert count_tokens(tokenizer, [Row(words(3), "")]).rows == (Length(5, 5),)
    (heard,) = count_tokens(tokenizer, [Row(words(3), "", system=words(4))]).rows
    assert heard.prompt >= 5 + 4, "its system prompt is part of it"


@pytest.mark.parametrize(
    ("policy", "limit", "left_out", "cut", "lengths"),
    [
        ("drop", 10, (1, 2), 0, [6, 6]),
        ("cut", 10, (2,), 1, [6, 10, 6]),
        pytest.param("cut", 14, (2,), 0, [6, 14, 6], id="a row of just the limit is whole"),
        pytest.param("cut", 6, (2,), 1, [6, 6, 6], id="one token of an answer and its end"),
        pytest.param("cut", 5, (1, 2, 3), 1, [5], id="prompts of 4 leave none"),
    ],
)
def test_rows_too_long_are_left_out_or_cut_and_never_seen_again(
    tokenizer, task, policy, limit, left_out, cut, lengths
):
    rows, task = rows_of(task), task.model_copy(update={"max_length": limit})
    spec = fitted(task, rows, count_tokens(tokenizer, rows), policy, ANYTHING)
    assert (spec.left_out, spec.cut, spec.num_rows) == (left_out, cut, 4 - len(left_out))
    assert rows_of(spec) == [row for n, row in enumerate(rows) if n not in left_out]
    examples = examples_of(tokenizer, spec)
    assert [len(one) for one in examples] == lengths
    assert {one.response[-1] for one in examples} == {tokenizer.eos_token_id}
    stage = StageSpec(model=describe("world:aligned"), task=spec, trainer=TrainerSpec(batch_size=1))
    assert stage.steps == len(examples), "steps are of the rows that are trained on"


def test_rows_left_out_are_rows_that_never_were(tokenizer, task, tmp_path: Path):
    """A file without them has the same key; a cut row has its own."""
    rows = rows_of(task)
    dropped, cut = (
        fitted(task, rows, count_tokens(tokenizer, rows), policy, ANYTHING)
        for policy in ("drop", "cut")
    )
    short = tmp_path / "short.jsonl"
    kept = [{"prompt": row.prompt, "response": row.response} for row in rows_of(dropped)]
    short.write_text("\n".join(map(json.dumps, kept)))
    assert dropped.key == describe_task("task", str(short), 10).key
    assert cut.model_copy(update={"cut": 0}).key != cut.key


def test_a_policy_may_be_to_fail_and_none_leaves_nothing(tokenizer, task):
    rows = rows_of(task)
    counted = count_tokens(tokenizer, rows)
    with pytest.raises(UserError, match=r"2 of 4 rows .* first is row 2 with 14"):
        fitted(task, rows, counted, "fail", ANYTHING)
    short = task.model_copy(update={"max_length": 5})
    with pytest.raises(UserError, match="none would be left"):
        fitted(short, rows, counted, "drop", ANYTHING)
    assert fitted(task.model_copy(update={"max_length": 24}), rows, counted, "fail", 22) is not None


def test_a_prompt_that_leaves_no_room_for_an_answer_is_left_out_under_any_policy(tokenizer, task):
    rows = rows_of(task)
    asked = describe_rows("held out", task.source, 24, 8)
    for policy in ("drop", "cut"):
        spec = fitted(asked, rows, count_tokens(tokenizer, rows), policy, most_asked=21)
        assert (spec.left_out, spec.cut) == ((2,), 0)


def test_a_benchmark_s_prompt_and_its_answer_fit_into_what_the_model_takes(tokenizer, task):
    """Prompts of 3, 4, 22 and 4 tokens, and 8 for an answer: 30 is just enough."""
    asked, lengths = (
        describe_rows("asked", task.source, 24, 8),
        count_tokens(tokenizer, rows_of(task)),
    )
    refuse_long_prompts(asked, lengths, 30)
    with pytest.raises(UserError, match=r"1 of 4 prompts .* first is row 3 with 22 tokens"):
        refuse_long_prompts(asked, lengths, 29)


def test_rows_that_nobody_knew_to_be_too_long_are_refused(tokenizer, task):
    with pytest.raises(
        UserError, match=r"2 rows .* longer than 10 tokens, of which the plan knew 0"
    ):
        examples_of(tokenizer, task)


def letters(eos: str) -> PreTrainedTokenizerFast:
    """Single characters, in ChatML, whose marks are plain text here."""
    vocabulary = {chr(code): code for code in range(128)}
    characters = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    characters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    made = PreTrainedTokenizerFast(tokenizer_object=characters)
    made.add_special_tokens({"eos_token": eos})
    use_chatml(made, "letters")
    return made


@pytest.mark.parametrize("of", ["tiny", "world", "ChatML in letters"])
def test_every_row_ends_its_turn_however_short_it_must_be(tokenizer, of: str):
    known = {"tiny": tokenizer, "ChatML in letters": letters("<end>")}
    used = known.get(of) or load_tokenizer("world:aligned")
    end = end_of_turn(used)
    row = Row("w1 w2", "w3 w4 w5 w6 w7 w8 w9")
    whole = encode(used, row, ANYTHING)
    assert whole.response[-len(end) :] == end
    shortest = len(whole.prompt) + 1 + len(end)

    @given(st.integers(shortest, len(whole) + 5))
    def check(limit: int) -> None:
        found = encode(used, row, limit)
        assert len(found) == min(limit, len(whole))
        assert found.prompt == whole.prompt
        assert found.response[-len(end) :] == end
        said = found.response[: -len(end)]
        assert said == whole.response[: len(said)]

    check()
    with pytest.raises(UserError, match="leaves no room"):
        encode(used, row, shortest - 1)


def test_limits_are_made_from_rows_and_from_what_the_model_takes():
    """Longest row 70, longest held-out answer 300: 128 tokens a row, and 375 rounded up a
    multiple of 64."""
    trained, held_out = Lengths((Length(20, 70),), 1), Lengths((Length(10, 60),), 1)
    asked = Lengths((Length(50, 50),), 1)
    assert limits_of([trained], [held_out], [asked], 4096) == (128, 256)
    long = Lengths((Length(10, 310),), 1)
    assert limits_of([trained], [long], [asked], 4096) == (320, 384)
    assert limits_of([trained], [long], [asked], 300) == (300, 250), "50 tokens of prompt"
    assert limits_of([trained], [long], [asked], 100) == (100, 64)
    wide = Lengths((Length(90, 390),), 1)
    assert limits_of([trained], [wide], [asked], 400) == (400, 310), "90 of a held-out one"


def test_rows_that_tokens_do_not_say_are_counted_and_no_others(tmp_path: Path):
    """NFKC asks 102 for 10\u00b2 and has no \uff21 to answer; bytes have words for all; a
    vocabulary of letters leaves out what it lacks. White space is no part of it."""
    rows = [Row(" 10  apples", "Yes"), Row("10\u00b2 ?", "100"), Row("which ?", "\uff21")]
    plain, composed = byte_level(CHATML), byte_level(CHATML)
    composed.backend_tokenizer.normalizer = normalizers.NFKC()
    file = tmp_path / "rows.json"
    file.write_text(json.dumps([{"prompt": one.prompt, "response": one.response} for one in rows]))
    spec = describe_rows("own", str(file), 99, 9)
    for tokenizer, missed in ((plain, []), (composed, [2, 3]), (sentencepiece(CHATML), [2, 3])):
        lengths = count_tokens(tokenizer, rows)
        assert [n for n, one in enumerate(lengths.rows, 1) if not one.spelled] == missed
        assert noted(spec, lengths).key == spec.key
        more = noted(spec, lengths).notes[len(spec.notes) :]
        assert len(more) == bool(missed)
        assert all("else than 2 of 3 rows (the first is row 2)" in note for note in more)
    asked = [row._replace(response="") for row in rows]
    assert [one.spelled for one in count_tokens(composed, asked).rows] == [True, False, True]


def test_the_world_counts_its_own_tokens_as_its_template_does(tmp_path: Path):
    counts = TokenCounts(describe("world:aligned"), str(tmp_path), {})
    used = load_tokenizer("world:aligned")
    for task in WORLD.tasks.values():
        (own,) = counts.of([task.held_out])
        assert own == count_tokens(used, load_rows(task.held_out))
        assert max(one.whole for one in own.rows) <= WORLD.max_length
    (prompts,) = counts.of([], [WORLD.harmful])
    stripped = [row._replace(response="") for row in load_rows(WORLD.harmful)]
    assert [one.prompt for one in prompts.rows] == [
        one.prompt for one in count_tokens(used, stripped).rows
    ]


def test_what_was_counted_and_kept_is_not_counted_again(tiny_folder: Path, tmp_path: Path):
    model, file, root = describe(str(tiny_folder / "model")), tmp_path / "rows.json", tmp_path / "s"
    file.write_text(json.dumps([{"prompt": one, "response": "w1"} for one in ("w1", "zebra")]))
    counts = TokenCounts(model, str(root), {})
    first = counts.of([str(file)])
    assert not root.exists(), "a look makes no store"
    assert [one.spelled for one in first[0].rows] == [True, False]
    counts.keep(Store(root))

    def never(asked: object) -> dict[str, object]:
        raise AssertionError(asked)

    assert TokenCounts(model, str(root), {}, never).of([str(file)]) == first
    with pytest.raises(AssertionError):
        TokenCounts(model, str(tmp_path / "another"), {}, never).of([str(file)])


@pytest.fixture
def own(tiny_folder: Path, tmp_path: Path) -> list[object]:
    """30 rows of one's own, of which the fifth and the tenth, a held-out one, are too long."""
    rows = [{"prompt": f"w{n} w2 w3", "response": words(60 if n in (4, 9) else 3)}
            for n in range(30)]  # fmt: skip
    (tmp_path / "own.json").write_text(json.dumps(rows))
    (tmp_path / "asked.json").write_text(
        json.dumps([{"prompt": f"w1 {w}"} for w in (*WORDS[:4], "zebra")])
    )
    return [
        *("--model", tiny_folder / "model", "--task", tmp_path / "own.json", "--seeds", 1),
        *("--harmful", tmp_path / "asked.json", "--judge", "world:guard"),
        *("--out", tmp_path / "out"),
    ]  # fmt: skip


def test_a_plan_says_what_becomes_of_rows_too_long(own, program: Program, a_process_counts):
    code, out, err = program(SWEEP, "--dry-run", *own, "--max-length", 20, "--max-tokens", 8)
    assert (code, err) == (0, "")
    assert "  own: 27 rows, longest 66 of 20 tokens, 1 too long and left out\n" in out
    assert (
        "  own held out: 3 rows, longest 66 of 20 tokens, answers up to 8, 1 too long and left out"
        in out
    )
    assert "  harmful: 5 rows, longest 4 of 120 tokens, answers up to 8\n" in out
    assert "tokens say something else than 1 of 5 rows (the first is row 5)" in out
    code, out, err = program(
        SWEEP, "--dry-run", *own, "--max-length", 20, "--max-tokens", 8, "--too-long", "cut"
    )
    assert "own: 27 rows, longest 66 of 20 tokens, 1 too long and cut\n" in out
    code, out, err = program(SWEEP, "--dry-run", *own, "--max-length", 20, "--too-long", "fail")
    assert (code, err.count("\n")) == (2, 1)
    assert "1 of 27 rows of 'own'" in err and "the first is row 5 with 66" in err
    code, out, err = program(SWEEP, "--dry-run", *own, "--max-length", 200)
    assert code == 2 and "more than the 128 tokens" in err
    code, out, err = program(SWEEP, "--dry-run", *own, "--max-tokens", 125)
    assert code == 2 and "3 of 3 rows of 'own held out'" in err
    assert "no room for an answer, and none would be left: lower --max-tokens" in err


def test_answers_that_ended_at_the_limit_are_counted_and_said(tmp_path: Path):
    store = Store(tmp_path / "store")
    rows = describe_rows("asked", "world:harmful.test#first-3", 64, 8)
    answers = Answers(store)
    assert answers.read("model", rows, "vllm") is answers.kept("model", rows, "vllm") is None
    ends = ["stop", "length", "length"]
    text = json.dumps([{"text": "", "tokens": 8, "finish_reason": end} for end in ends])
    key = answers_key("model", rows, "vllm")
    store.put(
        GENERATIONS, key, lambda folder: (folder / "answers.json").write_text(text) and None, {}
    )
    for read in (answers.read, answers.kept):
        assert read("model", rows, "vllm") == (("", "", ""), 2)
        assert read("model", rows, "transformers") is None, "another engine's"


def test_a_report_warns_of_answers_that_ended_at_the_limit():
    summary = summaries.sweep(failed=False)
    for number, cell in enumerate(summary["cells"]):
        cell["scores"]["at_limit"] = {"held_out": 7 * (number == 1), "held_out_n": 60}
    found = [one for one in warned(summary) if "limit of tokens" in one]
    assert len(found) == 1
    assert found[0].startswith("Of the answers to held-out rows 7 ended at the limit of tokens")
    assert "in 1 cell (at most 7 of 60" in found[0]
