"""The one table: what people see of rows of numbers, and what the brief form leaves out."""

import doctest

import pandas as pd

from raycib.report import table
from raycib.report.forms import ends, mean, number, short
from raycib.report.table import STATUS, Column, Table, shown

ROWS = pd.DataFrame(
    [
        {"series": "a long name", "method": "kl", "strength": 0.5, "seeds": 2, "hrr_mean": 0.25,
         "hrr_std": 0.05, "hrr_low": 0.2, "hrr_high": 0.3, "f1_mean": None, "status": ""},
        {"series": "a long name", "method": "kl", "strength": 0.5, "seeds": 0, "hrr_mean": None,
         "hrr_std": None, "hrr_low": None, "hrr_high": None, "f1_mean": None,
         "status": "failed (seed 2): no disk"},
        {"series": "other", "method": "cib", "strength": 1, "seeds": 1, "hrr_mean": None,
         "hrr_std": None, "hrr_low": None, "hrr_high": None, "f1_mean": None, "status": ""},
    ]
)  # fmt: skip
COLUMNS = [
    Column("series", "Method", brief="Method", brief_form=short(6)),
    Column("strength", "Strength", number("g")),
    Column("hrr", "HRR, %", mean(100, 1), brief="HRR"),
    Column("hrr", "95 %", ends(100, 1)),
    Column("f1", "F1", mean(), optional=True),
    STATUS,
]


def test_the_example_of_the_module_runs():
    assert doctest.testmod(table).failed == 0 < doctest.testmod(table).attempted


def test_what_was_not_measured_is_said_and_what_failed_says_why():
    seen = shown(ROWS, COLUMNS)
    assert list(seen.columns) == ["Method", "Strength", "HRR, %", "95 %", "Status"]
    assert seen["HRR, %"].tolist() == ["25.0 ± 5.0", "", "not measured"]
    assert seen["95 %"].tolist() == ["[20.0, 30.0]", "", ""]
    assert seen["Status"].tolist() == ["", "failed (seed 2): no disk", ""]


def test_the_brief_form_has_its_own_heads_and_a_line_for_each_failure():
    made = Table("t", ROWS, COLUMNS, key=("series", "strength"))
    assert made.brief.to_dict("list") == {
        "Method": ["a lon…", "other"], "HRR": ["25.0 ± 5.0", "not measured"]
    }  # fmt: skip
    assert made.failures == ["a long name, strength 0.5: failed (seed 2): no disk"]


def test_a_table_without_a_brief_form_is_the_same_on_paper():
    made = Table("t", ROWS, [Column("series", "Method"), STATUS])
    assert made.brief.equals(made.shown) and made.failures == []
