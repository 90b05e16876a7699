"""One self-contained page for a sweep, and all its exhibits in one call.

Text from models and configurations is escaped by the template and stripped of control characters;
the page's own content policy lets no script run but the one shipped here, named by its hash.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from raycib.analysis import figures, tables
from raycib.analysis.cautions import cautions
from raycib.analysis.claims import LAST_PROMPT, claims
from raycib.analysis.comparison import Samples, comparison
from raycib.analysis.frame import PLAIN, aligned_scores, dose_responses, to_frame
from raycib.analysis.statistics import correlations, mean_std, smallest_difference
from raycib.analysis.text import one_line, plain
from raycib.analysis.writing import write_bytes, write_text

Histories = Mapping[str, Sequence[Mapping[str, Any]]]
TEMPLATES = Path(__file__).parent / "templates"
FIRST_PAIRS = 12
"""Pairs of answers that a reader sees without scripts."""


def write_exhibits(
    summary: Mapping[str, Any], samples: Samples, histories: Histories, folder: Path
) -> list[Path]:
    """Writes table3.{csv,md,tex}, figure2.{png,svg} and report.html; each whole or not at all.

    The same summary, samples and histories give the same bytes, the PNG's included.
    """
    frame, aligned = to_frame(summary), aligned_scores(summary)
    table = tables.table3(frame, aligned)
    caption = f"{plain(summary.get('question') or summary['sweep'])} Mean ± sample standard "
    caption += "deviation (ddof = 1) over seeds."
    figure = figures.figure2(frame, aligned)
    svg = figures.to_svg(figure)
    return [
        *tables.write_table(table, folder, "table3", tables.presentable(table), caption),
        write_bytes(folder / "figure2.svg", svg),
        write_bytes(folder / "figure2.png", figures.to_png(figure)),
        write_text(folder / "report.html", report(summary, samples, histories, svg)),
    ]


def report(
    summary: Mapping[str, Any],
    samples: Samples,
    histories: Histories,
    figure2: bytes | None = None,
) -> str:
    """The page as HTML: question, answer, claims, figures, tables, answers, provenance.

    ``figure2`` is the figure's SVG where it has been drawn already.
    """
    frame, aligned = to_frame(summary), aligned_scores(summary)
    figure2 = figure2 or figures.to_svg(figures.figure2(frame, aligned))
    script = (TEMPLATES / "compare.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    found = claims(frame, aligned)
    curves = figures.loss_curves(frame, histories)
    pages = comparison(samples, _labels(frame))
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("report.html").render(
        policy=f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        title=one_line(summary["sweep"]),
        preset=one_line(summary.get("preset", "")),
        created=one_line(summary.get("created", "")),
        question=one_line(summary.get("question") or summary["sweep"], 400),
        answer=answer(frame, aligned),
        cautions=cautions(summary, frame),
        claims=found,
        figure2=_inline(figure2, "Figure 2 for this sweep"),
        curves=_inline(figures.to_svg(curves), "Loss terms by step") if curves else "",
        table3=_grid(tables.presentable(tables.table3(frame, aligned))),
        correlations=_grid(correlation_table(frame)),
        cells=_grid(tables.cells_table(frame, aligned)),
        detectable=_detectable(frame),
        stages=_grid(_stages(summary)),
        counts=_flat(summary.get("counts")) + _flat(summary.get("timings_s"), "time, s: "),
        provenance=_provenance(summary),
        **_compared(pages),
    )


def answer(frame: pd.DataFrame, aligned: Mapping[str, Any] | None = None) -> str:
    """The sweep's result in a paragraph, made of its figures."""
    done = frame[frame["failed"].isna()]
    seeds = done["seed"].nunique()
    parts = [f"{len(done)} of {len(frame)} cells finished ({seeds} seeds)."]
    before = (aligned or {}).get("hrr")
    lora = done[done["method"] == PLAIN]
    if len(lora):
        start = (
            f"from {tables.share(before)} before fine-tuning to " if before is not None else "to "
        )
        parts.append(f"Plain LoRA brings harmful responses {start}{_mean(lora, 'hrr')}.")
    for name, cells in dose_responses(frame):
        dosed = cells[cells["lam"] > 0]
        low, high = dosed["lam"].min(), dosed["lam"].max()
        first, last = dosed[dosed["lam"] == low], dosed[dosed["lam"] == high]
        parts.append(
            f"With {name} they are {_mean(first, 'hrr')} at λ = {low:g} and {_mean(last, 'hrr')} "
            f"at λ = {high:g}, where {_mean(last, 'refusal_rate')} of the harmful prompts are "
            f"refused, task accuracy is {_mean(last, 'accuracy')} and the task loss "
            f"{_mean(last, 'eval_loss', 1)} nats"
            + (f" (plain LoRA: {_mean(lora, 'eval_loss', 1)})." if len(lora) else ".")
        )
    found = [claim.holds for claim in claims(frame, aligned) if claim.holds is not None]
    parts.append(f"{sum(found)} of the {len(found)} claims below that can be told hold.")
    return one_line(" ".join(parts), 3_000)


def correlation_table(frame: pd.DataFrame) -> pd.DataFrame:
    """HRR against both variants of I(Z;C): by seed, over seed means, and pooled; as text."""
    rows = []
    measures = {"mutual_information": "I(Z;C)", LAST_PROMPT: "I(Z;C), last prompt token"}
    responses = list(dose_responses(frame))
    for column, label in measures.items():
        pooled = [cells[cells["lam"] > 0].assign(_series=name) for name, cells in responses]
        for name, cells in responses:
            for span, part in (
                ("λ\u00a0>\u00a00", cells[cells["lam"] > 0]),
                ("λ\u00a0≥\u00a00", cells),
            ):
                if "≥" in span and not (cells["lam"] == 0).any():
                    continue
                found = correlations(part, column, "hrr", "seed")
                found["group"] = ["pooled over seeds" if g == "pooled" else f"seed {g}"
                                  for g in found["group"]]  # fmt: skip
                means = part.groupby("lam")[[column, "hrr"]].mean().assign(all="seed means")
                both = pd.concat([found, correlations(means, column, "hrr", "all")])
                rows.append(both.assign(measure=label, series=name, span=span))
        if len(responses) > 1:
            both = correlations(pd.concat(pooled).assign(all="all series"), column, "hrr", "all")
            rows.append(both.assign(measure=label, series="pooled", span="λ\u00a0>\u00a00"))
    if not rows:
        return pd.DataFrame({"Correlation": ["no strengths to compare"]})
    table = pd.concat(rows)
    table = table[table["n"] > 0]
    places = ["measure", "series", "span", "group"]
    p, rho = (table[table["kind"] == kind].set_index(places) for kind in ("pearson", "spearman"))
    shown = pd.DataFrame(
        {
            "n": p["n"].astype(str),
            "r": [_number(r, "+.3f") for r in p["r"]],
            "95 % of r": [_ends(*ends) for ends in zip(p["low"], p["high"], strict=True)],
            "exact p": [_p(value) for value in p["p_exact"]],
            "t p": [_p(value) for value in p["p_t"]],
            "ρ": [_number(r, "+.3f") for r in rho["r"]],
            "95 % of ρ": [_ends(*ends) for ends in zip(rho["low"], rho["high"], strict=True)],
            "exact p of ρ": [_p(value) for value in rho["p_exact"]],
        },
        index=p.index,
    ).reset_index()
    names = {"measure": "Measure", "series": "Series", "span": "Over", "group": "Group"}
    return shown.rename(columns=names)


def _ends(low: float, high: float) -> str:
    return "" if pd.isna(low) or pd.isna(high) else f"[{low:+.2f}, {high:+.2f}]"


def _p(value: float | None) -> str:
    if value is None or pd.isna(value):
        return ""
    return "<\u00a00.0001" if value < 0.0001 else f"{value:.4f}"


def _labels(frame: pd.DataFrame) -> dict[str, str]:
    cells = frame.sort_values(["lam", "series", "seed"])
    names = {"aligned": tables.BEFORE}
    for _, cell in cells.iterrows():
        names[str(cell["key"])] = f"{cell['series']}, λ = {cell['lam']:g}, seed {cell['seed']}"
    return names


def _compared(pages: dict[str, Any]) -> dict[str, Any]:
    """The template's values for the paired answers; the first pair is readable without scripts."""
    if len(pages["cells"]) < 2:
        return {"compare": "", "first_names": ["", ""], "first_pairs": [], "first_counts": ""}
    one, two = pages["cells"][:2]
    shared = [place for place in one["answers"] if place in two["answers"]]
    flips = pages["pairs"]["0-1"]
    counts = (
        f"{flips['to_unsafe']} became unsafe, {flips['to_safe']} became safe; McNemar's exact "
        f"two-sided p = {flips['p']:.4f}. The first {FIRST_PAIRS} pairs:"
    )
    # Inside <script> nothing is markup once "<" is written as an escape that JSON allows.
    text = json.dumps(pages, ensure_ascii=True).replace("<", "\\u003c")
    return {
        "compare": Markup(text),
        "first_names": [one["label"], two["label"]],
        "first_counts": counts,
        "first_pairs": [
            (pages["prompts"][place], one["answers"][place], two["answers"][place])
            for place in shared[:FIRST_PAIRS]
        ],
    }


def _inline(drawing: bytes, label: str) -> Markup:
    """A drawing as an element of the page, without the head of its file."""
    svg = drawing.decode("utf-8")
    return Markup(f'<svg role="img" aria-label="{label}"' + svg[svg.index("<svg") + 4 :])


def _grid(table: pd.DataFrame) -> dict[str, Any]:
    """Heads, rows and sides for the template; what a failed cell lacks is one cell saying why."""
    statuses = table["Status"] if "Status" in table else pd.Series("", index=table.index)
    table = table.drop(columns="Status", errors="ignore")
    rows = []
    for row, status in zip(table.itertuples(index=False), statuses, strict=True):
        cells = [plain(cell) for cell in row]
        while status and cells and not cells[-1]:
            cells.pop()
        span = len(table.columns) - len(cells)
        rows.append({"cells": cells, "span": span, "status": plain(status)})
    right = tables.numeric_columns(table)
    return {"heads": [plain(name) for name in table.columns], "rows": rows, "right": right}


def _stages(summary: Mapping[str, Any]) -> pd.DataFrame:
    rows = []
    for cell in summary["cells"]:
        data = cell.get("task_data") or {}
        rows.append(
            {
                "Stage key": cell["key"],
                "Method": f"{cell['method']} {cell['strength']:g}, seed {cell['seed']}",
                "Data": f"{data.get('name', '')}, {data.get('rows', '?')} rows, "
                f"{data.get('digest', '')}",
                "Parameters": json.dumps(cell.get("parameters"), sort_keys=True, default=str),
            }
        )
    return pd.DataFrame(rows)


def _provenance(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    items = []
    for group in ("model", "judge"):
        items += _flat(summary.get(group), f"{group}: ")
    return items + _flat(summary.get("versions"), "version: ")


def _flat(values: Mapping[str, Any] | None, head: str = "") -> list[tuple[str, str]]:
    return [
        (head + one_line(name).replace("_", " "), one_line(_number(value, ".6g")))
        for name, value in (values or {}).items()
    ]


def _number(value: Any, form: str) -> str:
    if isinstance(value, float):
        return "" if pd.isna(value) else format(value, form)
    return "" if value is None else str(value)


def _mean(cells: pd.DataFrame, column: str, factor: float = 100) -> str:
    over_seeds = mean_std(cells[column])
    text = tables.spread(over_seeds.mean, over_seeds.std, factor, 1 if factor == 100 else 3)
    return (f"{text} %" if factor == 100 else text) if text else "not measured"


def _detectable(frame: pd.DataFrame) -> str:
    counts = frame["hrr_n"][frame["hrr_n"] > 0]
    if not len(counts):
        return ""
    n = int(counts.min())
    gap = smallest_difference(n, 0.5)
    return (
        f"With {n} answers a cell, two unpaired harmful response rates near 50 % must differ by "
        f"{100 * gap:.0f} points (near 5 %: by {100 * smallest_difference(n, 0.05):.0f}) to be "
        "told apart with a power of 80 % at the 5 % level; pairs of answers tell smaller ones."
    )
