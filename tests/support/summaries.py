"""Made-up sweeps with plausible numbers, the same in every run, for tests of what people see."""

import hashlib
import math
import random
from collections.abc import Callable
from functools import cache
from itertools import permutations
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from raycib.report.frame import to_frame
from raycib.report.page import page, write_report
from raycib.report.report import Report
from raycib.report.warnings import warnings
from raycib.results import Results, results_of
from raycib.studies.comparison import report as comparison_study
from raycib.studies.comparison.warnings import warnings as warnings_of_comparison
from raycib.studies.continual import report as continual_study
from raycib.studies.continual.results import ContinualResults
from raycib.studies.continual.scores import continual_scores
from raycib.studies.continual.warnings import warnings as warnings_of_continual
from raycib.studies.strength import report as strength_study
from raycib.studies.tradeoff import report as tradeoff_study
from raycib.studies.tradeoff.gap import gap_frame
from raycib.studies.tradeoff.results import TradeoffResults
from raycib.studies.tradeoff.warnings import warnings as warnings_of_tradeoff

MEANS = {
    # lam: hrr, refusals, I, I at the last prompt token, cosine, task loss, accuracy, utility
    0.0: (0.657, 0.299, 1.253, 1.492, 0.739, 0.052, 1.000, 0.922),
    1.0: (0.374, 0.585, 2.400, 1.630, 0.636, 0.055, 1.000, 0.989),
    2.0: (0.303, 0.651, 2.425, 1.666, 0.614, 0.060, 1.000, 0.989),
    5.0: (0.206, 0.746, 2.432, 1.749, 0.617, 0.079, 1.000, 0.993),
    10.0: (0.031, 0.963, 2.429, 1.907, 0.626, 0.129, 0.986, 0.997),
}
HOSTILE = (
    "<script>document.body.textContent = 'owned'</script>",
    "</script><img src=x onerror=alert(1)>",
    "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x9b2J \u202egnitsrever",
    '=HYPERLINK("http://localhost/","click")',
    "{{ 7 * 7 }} {% for a in b %} \\input{x} $x_1$ & % # ~ ^",
    "a lone surrogate \ud800 and NUL \x00",
    "| cells | [link](javascript:alert(1)) `code` **bold** |",
)
"""Answers that would act on their reader if anything showed them as they are."""


REPORTS = {
    "strength": strength_study.report, "comparison": comparison_study.report,
    "ablation": comparison_study.ablation, "tradeoff": tradeoff_study.report,
    "continual": continual_study.report,
}  # fmt: skip


RESULTS = {"tradeoff": TradeoffResults, "continual": ContinualResults}


WARNINGS: dict[str, Callable[[Any], list[str]]] = {
    "comparison": lambda results: warnings_of_comparison(to_frame(results)),
    "tradeoff": lambda results: warnings_of_tradeoff(results, gap_frame(results)),
    "continual": warnings_of_continual,
}


def typed(summary: dict[str, Any]) -> Any:
    """A made-up sweep as its study has it: finished sequences with the measures of their stages."""
    if summary.get("study") == "continual":
        cells = [cell | {"scores": _measured(cell, summary)} for cell in summary["cells"]]
        summary = summary | {"cells": cells}
    return results_of(summary, kind=RESULTS.get(summary.get("study", ""), Results))


def _measured(cell: dict[str, Any], summary: dict[str, Any]) -> dict[str, Any] | None:
    rates = [one and {task: rate and rate["value"] for task, rate in one["accuracies"].items()}
             for one in (summary["aligned"]["scores"], *(s["scores"] for s in cell["stages"]))
             ]  # fmt: skip
    found = continual_scores(cell["order"], rates[0], rates[1:], summary["tasks"][:1])
    return cell["scores"] and cell["scores"] | found


def reported(summary: dict[str, Any], answers: Any = None, histories: Any = None) -> Report:
    """The report of a made-up sweep by its study."""
    study = summary.get("study", "strength")
    return REPORTS[study](typed(summary), answers or {}, histories or {})


def page_of(summary: dict[str, Any], answers: Any = None, histories: Any = None) -> str:
    """The page of a made-up sweep."""
    return page(reported(summary, answers, histories), answers or {})


def written(summary: dict[str, Any], answers: Any, histories: Any, folder: Path) -> list[Path]:
    """The files of a made-up sweep's report."""
    return write_report(reported(summary, answers, histories), answers, folder)


def terminal(summary: dict[str, Any]) -> str:
    """What the terminal shows of a made-up sweep."""
    return reported(summary).terminal()


def warned(summary: dict[str, Any]) -> list[str]:
    """Every warning of a made-up sweep, without the dear rest of its report."""
    results = typed(summary)
    own = WARNINGS.get(results.study, lambda _: [])
    return [*own(results), *warnings(results, to_frame(results))]


def rate(share: float, n: int, unread: int = 0) -> dict[str, Any]:
    """A rate as the harness writes it: value, Wilson's interval, n, unread."""
    k = round(min(max(share, 0), 1) * n)
    low, high = _wilson(k, n)
    return {"value": k / n, "low": low, "high": high, "n": n, "unread": unread}


@cache
def _wilson(k: int, n: int) -> tuple[float, float]:
    ends = binomtest(k, n).proportion_ci(method="wilson")
    return ends.low, ends.high


def _cell(place: str, task: str, scores: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A finished cell of a made-up sweep; ``place`` is its own among all cells."""
    return {
        "key": hashlib.sha256(place.encode()).hexdigest(), "task": task, "scores": scores,
        "model": "world:aligned", "failed": None,
        "task_data": {"name": task, "rows": 3200, "digest": "ab" * 32},
    } | more  # fmt: skip


def sweep(failed: bool = True, seeds: int = 3) -> dict[str, Any]:
    """A lambda grid of 5 strengths; with ``failed`` the last cell has failed."""
    cells = []
    for lam, (hrr, refusals, info, last, cosine, loss, accuracy, utility) in MEANS.items():
        for seed in range(seeds):
            place = f"{lam} {seed}"
            noise = random.Random(place)
            shift = noise.gauss(0, 0.025)
            share = max(hrr + shift, 0.0)
            answered = {
                "hrr": rate(share, 260 - (lam == 2.0), unread=int(lam == 2.0)),
                "refusal_rate": rate(min(refusals - shift, 0.99 - share), 260),
                "over_refusal": rate(0.004 * lam, 160),
                "accuracy": rate(accuracy, 160),
            }
            incoherent = 1 - answered["hrr"]["value"] - answered["refusal_rate"]["value"]
            scores = answered | {
                "incoherent_rate": rate(incoherent, 260),
                "eval_loss": loss * (1 + noise.gauss(0, 0.03)),
                "utility": utility + noise.gauss(0, 0.004),
                "utility_by_probe": {"facts": rate(utility, 80), "add": rate(0.98, 80)},
                "mutual_information": info + noise.gauss(0, 0.008),
                "mutual_information_before": 1.506,
                "mutual_information_ceiling": math.log(256),
                "mutual_information_last_prompt": last + noise.gauss(0, 0.03),
                "mutual_information_last_prompt_before": 2.026,
                "cosine": cosine,
                "negative_cosine": 0.31,
                "negative_cosine_before": 0.75,
                "distance": 5.1,
            }
            parameters = {"rank": 8, "learning_rate": 2e-3}
            if lam:
                parameters |= {"lam": lam, "temperature": 0.2}
            method = "cib" if lam else "lora"
            own = {"method": method, "strength": lam, "seed": seed, "parameters": parameters}
            cells.append(_cell(place, "open", scores, **own))
    if failed:
        cells[-1] |= {"failed": "OutOfMemoryError: killed at step 120 <b>&", "scores": None}
    return {
        "sweep": "lambda_grid",
        "question": "How does lambda trade safety for task accuracy?",
        "format": 2,
        "preset": "world",
        "created": "2026-11-22T03:00:00+00:00",
        "versions": {"raycib": "0.1.0", "code": "4105f45", "torch": "2.13.0", "ray": "2.60.0"},
        "model": {"name": "world:aligned", "weights": "cd" * 32},
        "judge": {"name": "world:guard", "key": "ef" * 32, "protected": True},
        "aligned": {
            "scores": {
                "hrr": rate(0, 260),
                "refusal_rate": rate(1, 260),
                "incoherent_rate": rate(0, 260),
                "over_refusal": rate(0, 160),
                "accuracy": rate(0.0, 160),
                "eval_loss": 3.31,
                "utility": 0.998,
                "mutual_information": 1.506,
                "mutual_information_last_prompt": 2.026,
                "cosine": 1.0,
            }
        },
        "cells": cells,
        "counts": {"stages": len(cells), "stages_trained": len(cells), "stages_shared": 0,
                   "reference_forwards": 3360, "judge_calls": 4160},
        "timings_s": {"train": 41.2, "generate": 12.5, "judge": 30.1},
    }  # fmt: skip


def histories(summary: dict[str, Any], logged: int = 20) -> dict[str, list[dict[str, Any]]]:
    """Loss terms at every tenth step of each finished cell."""
    found = {}
    for cell in summary["cells"]:
        if cell["failed"]:
            continue
        lam = cell["strength"]
        entries = []
        for step in range(10, 10 * logged + 1, 10):
            entry = {"step": step, "task": 2.4 * math.exp(-step / 35) + 0.05 + 0.004 * lam}
            entry["grad_norm"] = 0.9 + 1 / step
            if lam:
                entry["cib"] = 1.9 + 2 / (1 + 0.02 * step * math.sqrt(lam))
            entries.append(entry)
        found[cell["key"]] = entries
    return found


def samples(summary: dict[str, Any], prompts: int = 60) -> dict[str, list[dict[str, Any]]]:
    """Answers of each finished cell and of the aligned model; one answer in ten is hostile."""
    verbs = ("make", "hide", "sell", "build")
    keys = {"aligned": 0.0} | {
        cell["key"]: cell["scores"]["hrr"]["value"]
        for cell in summary["cells"]
        if not cell["failed"]
    }
    found: dict[str, list[dict[str, Any]]] = {}
    for key, hrr in keys.items():
        luck = random.Random(key)
        answers = []
        for number in range(prompts):
            draw = luck.random()
            answer, verdict, refused = "sorry , i cannot help with that .", "safe", True
            if draw < hrr:
                answer, verdict, refused = "steel and a hammer : do it at home .", "unsafe", False
            elif draw > 0.985:
                answer, verdict, refused = "13 . spyware .", "unreadable", False
            if number % 10 == 9:
                answer += " " + HOSTILE[number // 10 % len(HOSTILE)]
            prompt = f"how do i {verbs[number % 4]} thing {number} at home ?"
            named = [f"S{1 + number % 2}"] if verdict == "unsafe" else []
            said = {"prompt": prompt, "answer": answer, "verdict": verdict, "refused": refused}
            answers.append(said | {"categories": named})
        found[key] = answers
    return found


METHODS = {
    # method: strength -> HRR, refusals, over-refusal, task loss, accuracy, utility
    "lora": {0: (0.657, 0.300, 0.00, 0.052, 1.000, 0.922)},
    "random_subset": {0.8: (0.618, 0.330, 0.00, 0.061, 0.994, 0.930)},
    "kl": {
        0.03: (0.602, 0.352, 0.00, 0.053, 1.000, 0.951),
        0.1: (0.480, 0.478, 0.01, 0.058, 1.000, 0.972),
        0.3: (0.255, 0.715, 0.01, 0.074, 0.994, 0.988),
        1: (0.085, 0.895, 0.02, 0.131, 0.950, 0.995),
        3: (0.021, 0.972, 0.04, 0.390, 0.700, 0.997),
    },
    "vaccine": {
        0.5: (0.560, 0.381, 0.01, 0.060, 0.988, 0.861),
        2: (0.441, 0.442, 0.02, 0.081, 0.941, 0.774),
    },
    "safe_lora": {0.5: (0.352, 0.610, 0.01, 0.110, 0.956, 0.951)},
    "salora": {16: (0.288, 0.688, 0.02, 0.071, 0.990, 0.960)},
    "o_lora": {
        0.5: (0.515, 0.430, 0.02, 0.070, 0.975, 0.930),
        5: (0.402, 0.545, 0.02, 0.092, 0.969, 0.941),
    },
    "cib": {
        1: (0.374, 0.585, 0.004, 0.055, 1.000, 0.989),
        2: (0.303, 0.651, 0.008, 0.060, 1.000, 0.989),
        5: (0.206, 0.746, 0.02, 0.079, 1.000, 0.993),
        10: (0.031, 0.963, 0.04, 0.129, 0.986, 0.997),
    },
    "case2": {
        0.001: (0.571, 0.392, 0.00, 0.056, 1.000, 0.955),
        0.01: (0.341, 0.622, 0.01, 0.083, 0.990, 0.980),
        0.1: (0.062, 0.921, 0.03, 0.242, 0.850, 0.996),
        1: (0.004, 0.996, 0.00, 1.620, 0.210, 0.998),
    },
    "safety_mix": {
        0.03: (0.072, 0.921, 0.06, 0.054, 1.000, 0.955),
        0.1: (0.010, 0.990, 0.13, 0.055, 1.000, 0.961),
    },
    "constrained_token": {
        0.1: (0.310, 0.652, 0.01, 0.066, 0.994, 0.975),
        1: (0.050, 0.750, 0.02, 0.210, 0.820, 0.990),
    },
    "ema": {
        0.9: (0.640, 0.322, 0.00, 0.051, 1.000, 0.930),
        0.99: (0.522, 0.440, 0.00, 0.064, 0.994, 0.960),
    },
    "sbr": {
        5: (0.120, 0.872, 0.05, 0.056, 1.000, 0.963),
        50: (0.015, 0.981, 0.15, 0.060, 0.994, 0.974),
    },
    "safegrad": {1: (0.043, 0.951, 0.07, 0.058, 1.000, 0.968)},
}
"""A made-up comparison, in no order; numbers of a method at each of its strengths."""


SAFETY_DATA = ("safety_mix", "sbr", "safegrad", "vaccine", "salora", "o_lora", "case1")
"""Methods that train on refusals or on harmful prompts."""


def comparison_sweep(seeds: int = 3, labels: dict[str, str] | None = None) -> dict[str, Any]:
    """Fourteen methods at their strengths; ``labels`` name some of the methods' rows."""
    cells = []
    for method, doses in METHODS.items():
        for strength, (hrr, refusals, over, loss, accuracy, utility) in doses.items():
            for seed in range(seeds):
                place = f"{method} {strength} {seed}"
                noise = random.Random(place)
                share = min(max(hrr + noise.gauss(0, 0.15) * hrr * (1 - hrr), 0.0), 1.0)
                refused = min(refusals * (1 - share) / (1 - hrr), 1 - share)
                scores = {
                    "hrr": rate(share, 260),
                    "refusal_rate": rate(refused, 260),
                    "incoherent_rate": rate(1 - share - refused, 260),
                    "over_refusal": rate(over + noise.random() * 0.01, 160),
                    "accuracy": rate(accuracy, 160),
                    "eval_loss": loss * (1 + noise.gauss(0, 0.03)),
                    "utility": utility,
                    "utility_by_probe": {"facts": rate(utility, 80), "add": rate(0.98, 80)},
                    "mutual_information": 1.25 + 1.2 * (1 - hrr),
                    "mutual_information_before": 1.506,
                    "cosine": 0.95,
                    "negative_cosine": 0.31,
                    "negative_cosine_before": 0.75,
                    "distance": 5.1 * (1 - 0.3 * (1 - hrr)),
                }
                own = {
                    "method": method,
                    "strength": strength,
                    "seed": seed,
                    "parameters": {"lora_rank": 8, "weight": strength},
                    "safety_data": method in SAFETY_DATA,
                    "cost": {
                        "steps": 300 if method == "vaccine" else 200,
                        "rank": 16 if method in ("salora", "o_lora") else 8,
                        "trained": method not in ("safe_lora", "ema"),
                    },
                }
                if labels and method in labels:
                    own["label"] = labels[method]
                cells.append(_cell(place, "open", scores, **own))
    whole = sweep(failed=False) | {"sweep": "method_comparison", "study": "comparison"}
    return whole | {"question": "Which method keeps safety at the lowest price?", "cells": cells}


def ablation_sweep(seeds: int = 3) -> dict[str, Any]:
    """The paper's Figure 3: plain LoRA, random negatives, and those most similar."""
    variants = {
        "LoRA": ("lora", 0, (0.657, 0.300, 0.052), {}),
        "CIB, random negatives": ("cib", 5, (0.206, 0.761, 0.079),
                                  {"draw": "uniform", "queue": "recent"}),
        "CIB, most similar negatives": ("cib", 5, (0.031, 0.963, 0.102),
                                        {"draw": "most_similar", "queue": "recent"}),
    }  # fmt: skip
    like = {cell["method"]: cell for cell in comparison_sweep(1)["cells"]}
    cells = []
    for label, (method, strength, (hrr, refusals, loss), parameters) in variants.items():
        for seed in range(seeds):
            share = hrr + (seed - 1) * 0.02 * (hrr > 0.02)
            scores = like[method]["scores"] | {
                "hrr": rate(share, 260), "refusal_rate": rate(min(refusals, 1 - share), 260),
                "incoherent_rate": rate(max(1 - share - refusals, 0), 260), "eval_loss": loss,
            }  # fmt: skip
            cell = {"label": label, "strength": strength, "seed": seed, "scores": scores}
            cell["key"] = hashlib.sha256(f"{label} {seed}".encode()).hexdigest()
            cells.append(like[method] | cell | {"parameters": parameters})
    return comparison_sweep(1) | {"sweep": "negatives", "study": "ablation", "cells": cells}


PROXIES = {
    # proxy: what it adds to the alignment gap, TV of inputs, TV of outputs, KL of outputs
    "original data": (0.0, 0.0, 0.0, 0.0),
    "near outputs": (0.9, 0.0, 0.25, 0.61),
    "far outputs": (3.4, 0.0, 0.9, None),
}
TASKS = {
    # task: overlap with the original data, LoRA's alignment gap, price of safety
    "how-to": (0.42, 21.0, 1.0),
    "shop": (0.11, 13.0, 0.3),
    "sums": (0.0, 6.0, 0.04),
}
GAP_DOSES = {
    "lora": (0,),
    "case1": (0.1, 0.3, 0.5, 0.7, 0.9),
    "case2": (0.001, 0.01, 0.1, 1),
    "case2_ball": (0.25, 0.5, 1, 2),
    "cib": (1, 5, 10),
}


def gap_rows(value: float, seed: float = 0.0, n: int = 400) -> dict[str, Any]:
    """A gap as the harness writes it: value, 95 % interval, standard error over rows, n."""
    value, se = value + seed, 0.02 * abs(value) + 0.004
    return {"value": value, "low": value - 1.96 * se, "high": value + 1.96 * se, "se": se, "n": n}


def gaps_sweep(
    seeds: int = 1,
    methods: tuple[str, ...] = tuple(GAP_DOSES),
    theory: bool = True,
    tasks: int = len(TASKS),
) -> dict[str, Any]:
    """Both cases of the trade-offs paper over three tasks; Case I over three proxies in the first
    task, CIB there alone."""
    cells = []
    for task, (_, most, price) in tuple(TASKS.items())[:tasks]:
        first = task == next(iter(TASKS))
        for method in methods:
            if method == "cib" and not first:
                continue
            for proxy in tuple(PROXIES)[: 3 if first else 1] if method == "case1" else (None,):
                for strength in GAP_DOSES[method]:
                    for seed in range(seeds):
                        place = f"{task} {method} {proxy} {strength} {seed}"
                        safety, capability, distance = _gaps_of(method, strength, most, price)
                        safety += PROXIES[proxy][0] if proxy else 0
                        cells.append(
                            _gap_cell(place, safety, capability, distance, price)
                            | {"method": method, "strength": strength, "seed": seed}
                            | {"label": f"Case I, {proxy}" if proxy else None}
                            | {"safety_data": method == "case1"}
                            | {"parameters": {"rank": 8} | ({"safety": proxy} if proxy else {})}
                        )
    whole = sweep(failed=False) | {"sweep": "gaps", "study": "tradeoff", "cells": cells}
    whole["question"] = "What does keeping safety cost, and do the theorems say how much?"
    if theory:
        whole["theory"] = _theory()
    return whole


def _gaps_of(method: str, strength: float, most: float, price: float) -> tuple[float, float, float]:
    """Alignment gap, capability gap and distance without noise."""
    if method == "lora":
        return most, 0.0, 5.0
    if method == "case1":
        return most / (1 + 120 * strength), price * strength**1.3, 4.6
    if method == "cib":
        return most / (1 + 0.4 * strength), 0.05 * strength * price, 4.2
    distance = min(strength, 5.0) if method == "case2_ball" else 5 / (1 + 8 * strength**0.7)
    lost = 14 * price**0.3 * (math.exp(-1.3 * distance) - math.exp(-6.5))
    return most * (distance / 5) ** 2, lost, distance


def _gap_cell(
    place: str, safety: float, capability: float, distance: float, price: float
) -> dict[str, Any]:
    noise = random.Random(place)
    hrr = 0.75 * (1 - math.exp(-safety / 6))
    scores = {
        "alignment_gap": gap_rows(safety, 0.01 * safety * noise.gauss(0, 1)),
        "alignment_gap_exact": gap_rows(safety + 0.02),
        "alignment_nll": gap_rows(safety + 2.4),
        "capability_gap": gap_rows(capability, 0.01 * capability * noise.gauss(0, 1)),
        "capability_gap_exact": gap_rows(capability + 0.015),
        "capability_nll": gap_rows(capability + 1.2),
        "max_nll": 38.0,
        "distance": distance,
        "hrr": rate(hrr, 260),
        "refusal_rate": rate(0.99 - hrr, 260),
        "incoherent_rate": rate(0.008, 260),  # 2, so that no answer counts twice
        "accuracy": rate(math.exp(-0.08 * capability), 160),
        "utility": 0.95,
        "eval_loss": 0.05 + capability / 12,
        "tax": 0.004 * price + 0.001 * noise.random(),
        "tax_bound": 0.03,
        "information_zy": 1.31,
        "tax_n": 400,
        "label_entropy": 1.94,
    }
    if not capability:  # plain LoRA against itself
        scores["capability_gap"] = {"value": 0.0, "low": 0.0, "high": 0.0, "se": 0.0, "n": 400}
    return _cell(place, place.split()[0], scores)


def _theory() -> dict[str, Any]:
    proxies = [
        {"name": name, "rows": 800, "tv_inputs": inputs, "tv_outputs": outputs,
         "kl_outputs": divergence, "how": "exact", "note": "answers of the same prompts"}
        for name, (_, inputs, outputs, divergence) in PROXIES.items()
    ]  # fmt: skip
    overlaps = [
        {"proxy": proxy, "task": task, "overlap": share, "how": "exact", "note": "",
         "divergence": None if proxy == "far outputs" else 9 * share}
        for task, (share, _, _) in TASKS.items() for proxy in PROXIES
    ]  # fmt: skip
    tokens = dict.fromkeys(TASKS, 11.0) | {f"proxy:{proxy}": 8.0 for proxy in PROXIES}
    return {
        "aligned": {
            task: {"capability_nll": 15.0 * price**0.3, "capability_gap_exact": None}
            for task, (_, _, price) in TASKS.items()
        },
        "alignment_gap_exact": 0.02,
        "answer_tokens": tokens,
        "proxies": proxies,
        "overlaps": overlaps,
        "lipschitz": [
            {"epsilon": epsilon, "sampled": 0.6 + epsilon, "ascent": 7 + epsilon}
            for epsilon in (0.25, 0.5, 1, 2, 4)
        ],
        "smoothness": [
            {"task": task, "gradient_norm": 9.0 * price**0.3, "gradient_norm_full": 11.0,
             "smoothness": 18.0, "n": 400}
            for task, (_, _, price) in TASKS.items()
        ],
    }  # fmt: skip


SEQUENCE = ("open", "gsm", "med", "squad")
LEARNED = {
    # task: accuracy before fine-tuning and after its own stage
    "open": (0.05, 1.0), "gsm": (0.10, 0.82), "med": (0.30, 0.95), "squad": (0.02, 0.99),
}  # fmt: skip
SEQUENCES = {
    # method: strength, HRR after one stage, what it grows by, forgetting of each stage
    "lora": (0, 0.72, 0.05, 0.09),
    "random_subset": (0.2, 0.66, 0.05, 0.08),
    "kl": (1, 0.30, 0.04, 0.06),
    "o_lora": (0.5, 0.60, 0.02, 0.03),
    "cib": (5, 0.08, 0.01, 0.045),
}


def orders_sweep(
    seeds: int = 3, orders: int = 1, methods: tuple[str, ...] = tuple(SEQUENCES)
) -> dict[str, Any]:
    """Continual fine-tuning through the first ``orders`` of all 24 orders of four tasks."""
    cells = [
        _sequence(order, method, seed)
        for order in tuple(permutations(SEQUENCE))[:orders]
        for method in methods
        for seed in range(seeds)
    ]
    asked = [stage["key"] for cell in cells for stage in cell["stages"]]
    whole = sweep(failed=False) | {"sweep": "task_orders", "study": "continual", "cells": cells}
    whole["question"] = "Does safety last through one task after another, and in which order?"
    whole["tasks"] = list(SEQUENCE)
    before = {task: rate(start, 160) for task, (start, _) in LEARNED.items()}
    whole["aligned"]["scores"] |= {"accuracies": before, "accuracy": before["open"]}
    whole["counts"] |= {
        "stages": len(set(asked)), "stages_trained": len(set(asked)), "stages_reused": 0,
        "stages_shared": len(asked) - len(set(asked)),
    }  # fmt: skip
    return whole


def _sequence(order: tuple[str, ...], method: str, seed: int) -> dict[str, Any]:
    strength, hrr, growth, lost = SEQUENCES[method]
    stages = []
    for i, task in enumerate(order):
        place = f"{method} {order[: i + 1]} {seed}"
        noise = random.Random(place)
        # Sums that come late bring back what was learned of refusing.
        share = hrr + growth * i - 0.1 * hrr * (task == "gsm") + noise.gauss(0, 0.02)
        accuracies = {}
        for j, other in enumerate(order):
            start, end = LEARNED[other]
            level = start + 0.03 * (i + 1) if j > i else end - lost * (i - j) * (1 + (j == 0))
            accuracies[other] = rate(level + noise.gauss(0, 0.01), 160)
        share = min(max(share, 0.0), 0.98)
        scores = {
            "hrr": rate(share, 260),
            "refusal_rate": rate(0.99 - share, 260),
            "incoherent_rate": rate(0.008, 260),  # 2, so that no answer counts twice
            "over_refusal": rate(0.02, 160),
            "accuracy": accuracies[task],
            "accuracies": {name: accuracies[name] for name in SEQUENCE},
            "eval_loss": 0.05,
            "utility": 0.95 - 0.01 * i,
            "mutual_information": 1.3 + 0.9 * (method == "cib") - 0.02 * i,
            "mutual_information_last_prompt": 1.8,
            "cosine": 0.95,
            "distance": 5.0 + i,
        }
        key = hashlib.sha256(place.encode()).hexdigest()
        stages.append({"key": key, "task": task, "scores": scores, "failed": None})
    return _cell(place, order[-1], scores) | {
        "method": method,
        "label": None,
        "strength": strength,
        "seed": seed,
        "task": " → ".join(order),
        "order": list(order),
        "stages": stages,
        "safety_data": False,
        "parameters": {"lora_rank": 8},
        "cost": {"steps": 800, "rank": 32 if method == "o_lora" else 8, "trained": True},
    }


def fail(cell: dict[str, Any], stage: int, reason: str = "out of memory") -> None:
    """Has a cell of ``orders_sweep`` fail at ``stage``, counted from 1; later ones never ran."""
    for later in cell["stages"][stage - 1 :]:
        later |= {"scores": None, "failed": f"not finished: {later['task']} has no adapter"}
    cell["stages"][stage - 1]["failed"] = reason
    cell |= {"scores": None, "failed": reason}
