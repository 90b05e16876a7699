"""Tables: numbers as numbers, failures in sight, and text that stays text."""

import csv
import io
import json
import math

import numpy as np
import pandas as pd
import pytest
from summaries import HOSTILE, reported, sweep, typed

from raycib.report import tables
from raycib.report.forms import rate, spread
from raycib.report.frame import (
    load,
    strength_series,
    symbol_of,
    to_frame,
)
from raycib.report.latex import latex
from raycib.report.page import page, write_report
from raycib.report.scores import aligned_scores, swept
from raycib.report.table import Column, Table, shown
from raycib.report.text import plain, spreadsheet_cell
from raycib.studies.strength.table3 import columns, table3


def seen(table):
    return shown(table, columns(table))


@pytest.fixture
def summary():
    return sweep()


def test_a_frame_has_a_row_for_each_cell_and_a_column_for_each_number(summary):
    frame = to_frame(typed(summary))
    assert len(frame) == 15 and frame["key"].is_unique
    cell = summary["cells"][4]
    row = frame[frame["key"] == cell["key"]].iloc[0]
    assert row["hrr"] == cell["scores"]["hrr"]["value"]
    assert row["hrr_low"] == cell["scores"]["hrr"]["low"]
    assert row["utility_facts"] == cell["scores"]["utility_by_probe"]["facts"]["value"]
    assert (row["strength"], row["rank"], row["temperature"]) == (1.0, 8, 0.2)


def test_plain_lora_is_strength_zero_of_every_series(summary):
    [(name, cells)] = strength_series(to_frame(typed(summary)))
    assert name == "CIB" and sorted(cells["strength"].unique()) == [0, 1, 2, 5, 10]


@pytest.mark.parametrize(
    ("kind", "name", "symbol"),
    [("cib", "lam", "λ"), ("case2_ball", "epsilon", "ε"), ("ema", "decay", "strength")],
)
def test_a_strength_has_the_name_that_its_method_gives_it(summary, kind, name, symbol):
    """In frames, in files and in words; frames have it by its old name too, files have not."""
    for cell in summary["cells"]:
        if cell["method"] == "cib":
            cell["method"] = kind
    frame = to_frame(typed(summary))
    named = frame[frame["method"] == kind]
    assert {*named["strength_name"]} == {name}
    assert {*frame.loc[frame["method"] == "lora", "strength_name"]} == {""}
    assert frame["lam"].tolist() == frame["strength"].tolist()
    assert symbol_of(frame) == symbol
    report = reported(summary)
    assert ("λ" in page(report, {})) == (symbol == "λ")
    goes = "falls" if kind == "case2_ball" else "rises"  # the larger a ball the less it holds
    assert f"I(Z;C) {goes} with every step of {symbol} > 0, in every seed" in {
        claim.text for claim in report.claims
    }
    assert report.symbol == {"strength": "Strength"}.get(symbol, symbol)


def test_no_file_calls_a_strength_by_its_old_name(summary, tmp_path):
    write_report(reported(summary), {}, tmp_path)
    heads = {file.name: file.read_text().splitlines()[0] for file in tmp_path.glob("*.csv")}
    assert "strength,strength_name,seed" in heads["cells.csv"]
    assert heads["table3.csv"].startswith("model,method,strength,seeds")
    assert not [name for name, head in heads.items() if "lam" in head.split(",")]


def test_a_setting_called_lam_that_is_no_strength_stands_beside_it(summary):
    for cell in summary["cells"]:
        cell["parameters"]["lam"] = 7.0
    frame = to_frame(typed(summary))
    assert {*frame["parameter_lam"]} == {7.0} and frame["lam"].nunique() == 5


def test_plain_lora_is_no_point_of_a_ball_of_radius_zero(summary):
    """Which is the aligned model; plain LoRA is the infinite one."""
    for cell in summary["cells"]:
        if cell["method"] == "cib":
            cell["method"] = "case2_ball"
    [(_, cells)] = strength_series(to_frame(typed(summary)))
    assert sorted(cells["strength"].unique()) == [1, 2, 5, 10]


def test_plain_lora_is_no_rank_zero_of_salora_from_the_task_s_start(summary):
    """Which starts from other weights. Where it was trained at rank 0 that alone is its point at 0:
    there is no mean over it and plain LoRA, and no claim calls it plain LoRA."""
    for cell in summary["cells"]:
        if cell["method"] == "cib":
            cell["method"] = "salora"
            cell["parameters"]["init"] = "task"
    [(_, cells)] = strength_series(to_frame(typed(summary)))
    assert sorted(cells["strength"].unique()) == [1, 2, 5, 10]
    for cell in summary["cells"]:
        if cell["strength"] == 1:
            cell["strength"] = cell["parameters"]["lam"] = 0.0
    [(_, cells)] = strength_series(to_frame(typed(summary)))
    assert {*cells["method"]} == {"salora"}
    assert sorted(cells["strength"].unique()) == [0, 2, 5, 10]
    found = [claim for claim in reported(summary).claims if "strength" in claim.text]
    assert "strength = 0, 2, 5, 10" in found[0].evidence
    assert not [claim for claim in found if "LoRA" in claim.text + claim.evidence]


def test_what_a_sweep_varies_besides_strength_and_seed_makes_series(summary):
    for cell in summary["cells"]:
        if cell["method"] == "cib":
            cell["parameters"]["draw"] = "uniform" if cell["seed"] else "most_similar"
    assert swept(typed(summary).cells) == ["draw"]
    assert {name for name, _ in strength_series(to_frame(typed(summary)))} == {
        "CIB, draw uniform",
        "CIB, draw most_similar",
    }


def test_a_label_is_the_series_whatever_differs(summary):
    for cell in summary["cells"]:
        if cell["method"] == "cib":
            cell["label"] = "CIB, as shipped"
            cell["parameters"]["draw"] = "uniform" if cell["seed"] else "most_similar"
    assert {name for name, _ in strength_series(to_frame(typed(summary)))} == {"CIB, as shipped"}


def test_a_parameter_that_is_the_strength_makes_no_series(summary):
    for cell in summary["cells"]:
        cell["parameters"]["weight"] = cell["strength"]
    assert swept(typed(summary).cells) == []
    summary["cells"][-1]["parameters"]["weight"] = 0.5
    assert swept(typed(summary).cells) == ["weight"]


def test_what_a_cell_cost_has_columns_of_its_own(summary):
    summary["cells"][0]["cost"] = {"steps": 400, "rank": 32, "trained": False}
    first = to_frame(typed(summary)).iloc[0]
    assert (first["cost_steps"], first["cost_rank"], first["cost_trained"]) == (400, 32, False)
    assert first["rank"] == 8


def test_a_setting_called_as_a_score_is_none(summary):
    """CIB has a number of negatives, and I(Z;C) another one, which a failed cell has not."""
    for cell in summary["cells"]:
        cell["parameters"] |= {"num_negatives": 8, "distance": "cosine"}
    frame = to_frame(typed(summary))
    assert (frame["failed"].notna() == frame["distance"].isna()).all() and frame["failed"].any()
    assert set(frame["parameter_num_negatives"]) == {8} and "num_negatives" not in frame


def test_an_unknown_format_is_refused(summary):
    with pytest.raises(ValueError, match="format 1, this version reads 2"):
        to_frame(typed(summary | {"format": 1}))


def test_load_reads_every_sweep_of_a_folder(summary, tmp_path):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        text = json.dumps(summary | {"sweep": name})
        (tmp_path / name / "summary.json").write_text(text)
    assert len(load(tmp_path)) == 30 and set(load(tmp_path)["sweep"]) == {"first", "second"}
    assert len(load(tmp_path / "first")) == 15
    with pytest.raises(FileNotFoundError, match=r"no summary\.json"):
        load(tmp_path / "nowhere")


def test_an_empty_score_is_missing_and_not_zero(summary):
    summary["cells"][0]["scores"]["mutual_information"] = None
    summary["cells"][1]["scores"].pop("cosine")
    frame = to_frame(typed(summary))
    assert math.isnan(frame["mutual_information"][0]) and math.isnan(frame["cosine"][1])


def proportion_ends(share: float, n: int) -> tuple[float, float]:
    """Wilson's: the p at which |share - p| is 1.96 standard errors of p."""
    z = 1.959963984540054
    a, b, c = 1 + z**2 / n, -(2 * share + z**2 / n), share**2
    root = math.sqrt(b**2 - 4 * a * c)
    return (-b - root) / (2 * a), (-b + root) / (2 * a)


def test_table_3_gives_mean_and_sample_std_over_the_seeds_that_finished(summary):
    frame = to_frame(typed(summary))
    table = table3(frame, aligned_scores(typed(summary)))
    assert list(table["method"]) == ["before fine-tuning", "LoRA", *["CIB"] * 5]
    one = table[(table["strength"] == 1)].iloc[0]
    cells = frame[frame["strength"] == 1]["hrr"]
    assert one["hrr_mean"] == pytest.approx(cells.mean())
    assert one["hrr_std"] == pytest.approx(cells.std(ddof=1))
    assert one["seeds"] == 3
    ends = proportion_ends(cells.mean(), 260)
    assert [one["hrr_low"], one["hrr_high"], one["hrr_n"]] == pytest.approx([*ends, 260])
    low, high = (100 * end for end in ends)
    [shown] = seen(table)["95 % of HRR"][table["strength"] == 1]
    assert shown == f"[{low:.1f}, {high:.1f}] of 260"
    assert table[(table["strength"] == 10)]["seeds"].tolist() == [2, 0]


def test_a_failed_cell_has_a_row_that_says_why(summary):
    table = table3(to_frame(typed(summary)), aligned_scores(typed(summary)))
    failed = table[table["status"] != ""]
    assert failed["status"].tolist() == [
        "failed (seed 2): OutOfMemoryError: killed at step 120 <b>&"
    ]
    assert "failed (seed 2)" in tables.to_terminal(seen(table))


def test_a_sweep_that_failed_altogether_still_has_a_table(summary):
    for cell in summary["cells"]:
        cell |= {"failed": "no disk", "scores": None}
    table = seen(table3(to_frame(typed(summary))))
    assert len(table) == 15 and table["Status"].str.contains("no disk").all()


def test_csv_holds_numbers_that_read_back_the_same(summary):
    table = table3(to_frame(typed(summary)), aligned_scores(typed(summary)))
    read = pd.read_csv(io.StringIO(tables.to_csv(table)))
    assert read["hrr_mean"].tolist()[1:6] == table["hrr_mean"].tolist()[1:6]
    assert read["strength"].tolist()[1:] == table["strength"].tolist()[1:]


def test_a_number_of_numpys_is_a_number():
    """Among texts too, where pandas leaves it as it is: no np.float64(0.5), no quoted -3."""
    told = [np.float64(0.1 + 0.2), np.int64(-3), -0.5, np.nan, -np.inf, None, "-3", True]
    text = tables.to_csv(pd.DataFrame({"a": told}, dtype=object))
    assert text.split() == ["a", "0.30000000000000004", "-3", "-0.5", '""', "minus", "infinite",
                            '""', "'-3", "True"]  # fmt: skip


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", " @", "\r+"])
def test_no_cell_of_a_csv_starts_a_formula(start):
    table = pd.DataFrame({"text": [f"{start}cmd|'/c calc'!A0"], "number": [-1.5]})
    [_, [text, number]] = csv.reader(io.StringIO(tables.to_csv(table)))
    assert text.startswith("'") and number == "-1.5"


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_one_cell_everywhere(text, tmp_path):
    table = pd.DataFrame({"a": [text], "b": ["end"]}, dtype=object)
    files = tables.write_table(
        Table("t", table, [Column("a", "a"), Column("b", "b")]), tmp_path, text
    )
    assert [file.name for file in files] == ["t.csv", "t.md", "t.tex"]
    assert len(list(csv.reader(io.StringIO(files[0].read_text())))[1]) == 2
    row = files[1].read_text().splitlines()[2]
    assert row.replace(r"\|", "").count("|") == 3 and "<script" not in row.replace(r"\<", "")
    body = files[2].read_text().splitlines()[8]
    assert body.replace(r"\&", "").count("&") == 1 and "\\input" not in body
    shown = tables.to_terminal(table)
    assert "\x1b" not in shown and "\x9b" not in shown and "\u202e" not in shown


def test_plain_text_keeps_what_a_sequence_tried_to_hide():
    assert plain("\x1b[31mred\x1b[0m") == "red"
    assert plain("\x1b]0;title\x07after") == "0;titleafter"
    assert plain("a\r\nb\tc\x00\u202ed\ud800") == "a\nb\tcd\ufffd"


def test_escaping_is_what_latex_and_spreadsheets_ask_for():
    assert latex("50 % of $x_1$ & λ") == r"50 \% of \$x\_1\$ \& $\lambda$"
    assert spreadsheet_cell("plain") == "plain" and spreadsheet_cell("-1") == "'-1"


def test_presentable_numbers_have_their_unit_and_their_spread():
    assert spread(0.2064, 0.0251, 100, 1) == "20.6 ± 2.5"
    assert spread(0.5, math.nan, 1, 3) == "0.500"
    assert spread(math.nan, 0.1) == ""
    scores = {"hrr": 0.2, "hrr_low": 0.159, "hrr_high": 0.253, "hrr_n": 260}
    assert rate(scores, "hrr") == "20.0 [15.9, 25.3] of 260"


def test_before_fine_tuning_says_of_no_task_what_is_of_another() -> None:
    """Its scores on held-out rows are the first task's; of two tasks the row has neither."""
    one = sweep()
    before = aligned_scores(typed(one))
    two = one | {"cells": [c | {"task": f"task {n % 2}"} for n, c in enumerate(one["cells"])]}
    left = aligned_scores(typed(two))
    gone = {"eval_loss", "accuracy", "accuracy_low", "accuracy_high", "accuracy_n"}
    assert gone <= before.keys() and not gone & left.keys()
    assert left["hrr"] == before["hrr"] and left["utility"] == before["utility"]


def test_a_table_that_is_broader_than_the_terminal_is_in_parts():
    table = seen(table3(to_frame(typed(sweep(failed=False)))))
    text = tables.to_terminal(table, 80)
    assert max(map(len, text.splitlines())) <= 80
    heads = [part.splitlines()[0] for part in text.split("\n\n")]
    assert len(heads) > 1 and all(head.startswith("Method") for head in heads)
    assert all(str(head) in text for head in table.columns)
    assert tables.to_terminal(table, 1_000) == tables.to_terminal(table)
