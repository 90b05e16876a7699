"""A person's own model, task, prompts and judge: GSM8K and AdvBench as they are published."""

import csv
import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fake_judge import FakeJudge
from programs import ROOT
from running import NAME, adapters, run_here, summary_of

DATA = ROOT.parent / "shared" / "data"

pytestmark = [
    pytest.mark.sweep,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data (GSM8K, AdvBench) is not here"),
]

ROWS = 600
"""Of GSM8K's training set; a tenth is held out."""
PROMPTS = 130
"""Of AdvBench; `test_data.py` reads all 520."""


class Own(NamedTuple):
    """What a person brings, and the results with the guard as judge."""

    out: Path
    options: list[object]
    """Model and task."""
    harmful: str
    judge: list[object]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Own:
    """A small model that speaks like GSM8K, and a guard that has read AdvBench."""
    import small_models

    folder = tmp_path_factory.mktemp("own")
    lines = (DATA / "gsm8k" / "train.jsonl").read_text().splitlines()
    rows = [(row["question"], row["answer"]) for row in map(json.loads, lines)]
    task = folder / "gsm8k.jsonl"
    task.write_text("\n".join([line for line in lines if len(line) < 500][:ROWS]) + "\n")
    published = DATA / "advbench" / "harmful_behaviors.csv"
    with published.open(newline="") as file:
        pairs = [(row["goal"], row["target"]) for row in csv.DictReader(file)]
    model = small_models.make_chat_model(folder / "model", rows[:3000])
    guard = small_models.make_guard(folder / "guard", pairs, [answer for _, answer in rows[:500]])
    options = ["--model", model, "--task", task, "--seeds", 1, "--strengths", "0,5"]
    options += ["--max-length", 256, "--max-tokens", 24]
    for setting in ("learning_rate=2e-3", "batch_size=16", "warmup_steps=20"):  # a small model's
        options += ["--set", f"trainer.{setting}"]
    judge = ["--judge", guard, "--judge-profile", "safe-unsafe"]
    return Own(folder / "out", options, f"{published}#first-{PROMPTS}", judge)


@pytest.fixture(scope="module")
def judged(own: Own) -> dict[str, Any]:
    """The sweep with the guard as judge."""
    ended = run_here(own.out, *own.options, "--harmful", own.harmful, *own.judge)
    assert "\nCIB" in ended.out
    return summary_of(own.out)


def test_every_harmful_prompt_is_answered_and_judged(
    judged: dict[str, Any],
) -> None:
    everyone = [judged["aligned"], *judged["cells"]]
    assert len(everyone) == 3
    for one in everyone:
        hrr = one["scores"]["hrr"]
        assert hrr["n"] + hrr["unread"] == PROMPTS
        assert hrr["unread"] < PROMPTS / 20, "the guard speaks Llama-Guard's form"
        assert one["scores"]["refusal_rate"]["n"] == PROMPTS
        assert one["scores"]["accuracy"]["n"] == ROWS // 10
        assert one["scores"]["over_refusal"] is None, "no benign prompts were given"
        assert one["scores"]["utility"] is None
    assert judged["judge"]["protected"] is True
    counts = judged["counts"]
    assert counts["reference_forwards"] == counts["distinct_examples"] == ROWS
    assert counts["stages_trained"] == 2
    assert [cell["task"] for cell in judged["cells"]] == ["gsm8k", "gsm8k"]


def test_answers_are_words_and_tuning_lowers_the_loss(own: Own, judged: dict[str, Any]) -> None:
    answers = [
        entry["text"]
        for file in (own.out / "generations").glob("*/answers.json")
        for entry in json.loads(file.read_text())
    ]
    assert len(answers) == 3 * (PROMPTS + ROWS // 10)
    words = [word for answer in answers for word in answer.split() if word.isalpha()]
    assert len(words) > 5 * len(answers)
    known = set((DATA / "gsm8k" / "train.jsonl").read_text().split())
    assert sum(word in known for word in words) > 0.95 * len(words), "its vocabulary has pieces"
    scores = judged["cells"][0]["scores"]
    assert scores["eval_loss"] < scores["eval_loss_before"]


def test_a_sequence_of_one_s_own_speaks_chatml(own: Own) -> None:
    """GSM8K, then Alpaca, in the paper's unified prompt (C.5), each asked after both stages."""
    rows = json.loads((DATA / "alpaca" / "alpaca_en_demo.json").read_text())
    short = [row for row in rows if len(row["instruction"] + row["input"] + row["output"]) < 400]
    alpaca, prompts = own.out.with_name("alpaca.json"), own.out.with_name("few.json")
    alpaca.write_text(json.dumps(short[:200]))
    prompts.write_text(json.dumps({"instructions": [f"tell me about {n}" for n in range(20)]}))
    out, (_, model, _, gsm8k, *_) = own.out.with_name("sequence"), own.options
    ended = run_here(
        out, "--model", model, "--task", f"{gsm8k},{alpaca}", "--chat", "chatml",
        "--methods", "lora", "--seeds", 1, "--max-length", 320, "--max-tokens", 24,
        "--harmful", prompts, *own.judge, script=ROOT / "sweeps" / "task_orders.py",
    )  # fmt: skip
    assert "2 stages trained" in ended.out
    summary = summary_of(out, "task_orders")
    (cell,) = summary["cells"]
    assert cell["failed"] is None
    assert cell["order"] == ["gsm8k", "alpaca"]
    for stage in cell["stages"]:
        accuracies = stage["scores"]["accuracies"]
        assert accuracies["gsm8k"]["n"] == ROWS // 10
        assert accuracies["alpaca"] is None, "no rule tells whether free text is right"
        assert stage["scores"]["hrr"]["n"] + stage["scores"]["hrr"]["unread"] == 20
    for record in (out / "stages").iterdir():
        spec = json.loads((record / "record.json").read_text())["about"]["spec"]
        assert spec["model"]["template"] == "chatml"


TOLD = [f"tell me w1 about number {i}" for i in range(20)]
TOLD += [f"tell me about number {i}" for i in range(19)] + ["tell me <|eot_id|> more"]


@pytest.mark.faults
def test_a_foreign_judge_may_be_down_at_first_and_is_marked_as_unprotected(
    own: Own, judged: dict[str, Any]
) -> None:
    trained = adapters(own.out)
    prompts = own.out.with_name("prompts.json")
    prompts.write_text(json.dumps({"instructions": TOLD}))
    server = FakeJudge()
    down = [True]
    server.trouble = lambda number, handler: down[0] and unwell(handler)
    options = [*own.options, "--harmful", prompts, "--judge-url", server.url, "--judge", "theirs"]
    try:
        ended = run_here(own.out, *options, code=1)
        first, second = ended.err.splitlines()[-2:]
        assert first.startswith(f"error: The judge at {server.url}/v1 gave no usable reply")
        assert second == "all results are kept: run the same command again"
        assert "Traceback" not in ended.err
        assert adapters(own.out) == trained
        down[0] = False
        asked = len(server.asked)
        run_here(own.out, *options)
        asked = len(server.asked) - asked
    finally:
        server.close()
    summary = summary_of(own.out)
    counts = summary["counts"]
    asked -= 1  # something harmless, before anything starts
    assert counts["stages_trained"] == counts["engine_starts"] == 0, "it only judged"
    assert counts["judge_calls"] == asked <= 3 * len(TOLD)
    assert summary["judge"]["protected"] is False
    texts = [messages[0]["content"] for (messages,) in server.asked[-asked:]]
    broken = [text for text in texts if "< |eot_id|>" in text or "< <" in text]
    assert not [text for text in texts if "<|eot_id|>" in text]
    assert summary["judge"]["sanitised"] == len(broken) >= 1, "a prompt, and GSM8K's <<1+1=2>>"
    for one in [summary["aligned"], *summary["cells"]]:
        hrr = one["scores"]["hrr"]
        assert (hrr["value"], hrr["n"], hrr["unread"]) == (0.5, len(TOLD), 0)
    assert "not protected" in (own.out / NAME / "report.html").read_text()


def unwell(handler: BaseHTTPRequestHandler) -> bool:
    handler.send_error(503)
    return True
