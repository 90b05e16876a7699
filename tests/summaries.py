"""Made-up sweeps with plausible numbers, the same in every run, for tests of what people see."""

import hashlib
import math
import random
from functools import cache
from typing import Any

from scipy.stats import binomtest

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


def rate(share: float, n: int, unread: int = 0) -> dict[str, Any]:
    """A rate as the harness writes it: value, Wilson's interval, n, unread."""
    k = round(min(max(share, 0), 1) * n)
    low, high = _wilson(k, n)
    return {"value": k / n, "low": low, "high": high, "n": n, "unread": unread}


@cache
def _wilson(k: int, n: int) -> tuple[float, float]:
    ends = binomtest(k, n).proportion_ci(method="wilson")
    return ends.low, ends.high


def sweep(failed: bool = True, seeds: int = 3) -> dict[str, Any]:
    """A lambda grid of 5 strengths; with ``failed`` the last cell has failed."""
    cells = []
    for lam, (hrr, refusals, info, last, cosine, loss, accuracy, utility) in MEANS.items():
        for seed in range(seeds):
            noise = random.Random(f"{lam} {seed}")
            shift = noise.gauss(0, 0.025)
            share = max(hrr + shift, 0.0)
            answered = {
                "hrr": rate(share, 260 - (lam == 2.0), unread=int(lam == 2.0)),
                "refusal_rate": rate(min(refusals - shift, 0.99 - share), 260),
                "over_refusal": rate(0.004 * lam, 160),
                "accuracy": rate(accuracy, 160),
            }
            incoherent = 1 - answered["hrr"]["value"] - answered["refusal_rate"]["value"]
            cell = {
                "key": hashlib.sha256(f"{lam} {seed}".encode()).hexdigest(),
                "method": "cib" if lam else "lora",
                "strength": lam,
                "seed": seed,
                "task": "open",
                "model": "world:aligned",
                "failed": None,
                "parameters": {"rank": 8, "learning_rate": 2e-3}
                | ({"lam": lam, "temperature": 0.2} if lam else {}),
                "scores": answered
                | {
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
                    "distance": 5.1,
                },
                "task_data": {"name": "open", "rows": 3200, "digest": "ab" * 32},
            }
            cells.append(cell)
    if failed:
        cells[-1] |= {"failed": "OutOfMemoryError: killed at step 120 <b>&", "scores": None}
    return {
        "sweep": "lambda_grid",
        "question": "How does lambda trade safety for task accuracy?",
        "format": 1,
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
            answers.append(
                {"prompt": prompt, "answer": answer, "verdict": verdict, "refused": refused}
            )
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


def comparison_sweep(seeds: int = 3, labels: dict[str, str] | None = None) -> dict[str, Any]:
    """Fourteen methods at their strengths; ``labels`` name some of the methods' rows."""
    cells = []
    for method, doses in METHODS.items():
        for strength, (hrr, refusals, over, loss, accuracy, utility) in doses.items():
            for seed in range(seeds):
                noise = random.Random(f"{method} {strength} {seed}")
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
                    "distance": 5.1 * (1 - 0.3 * (1 - hrr)),
                }
                derived = method in ("safe_lora", "ema")
                cell = {
                    "key": hashlib.sha256(f"{method} {strength} {seed}".encode()).hexdigest(),
                    "method": method,
                    "strength": strength,
                    "seed": seed,
                    "task": "open",
                    "model": "world:aligned",
                    "failed": None,
                    "parameters": {"lora_rank": 8, "weight": strength},
                    "scores": scores,
                    "cost": {
                        "steps": 300 if method == "vaccine" else 200,
                        "rank": 16 if method in ("salora", "o_lora") else 8,
                        "trained": not derived,
                    },
                    "task_data": {"name": "open", "rows": 3200, "digest": "ab" * 32},
                }
                if labels and method in labels:
                    cell["label"] = labels[method]
                cells.append(cell)
    whole = sweep(failed=False) | {"sweep": "method_comparison", "kind": "comparison"}
    return whole | {"question": "Which method keeps safety at the lowest price?", "cells": cells}


def ablation_sweep(seeds: int = 3) -> dict[str, Any]:
    """The paper's Figure 3: plain LoRA, random negatives, and those most similar."""
    arms = {
        "LoRA": ("lora", 0, (0.657, 0.300, 0.052), {}),
        "CIB, random negatives": ("cib", 5, (0.206, 0.761, 0.079),
                                  {"draw": "uniform", "queue": "recent"}),
        "CIB, most similar negatives": ("cib", 5, (0.031, 0.963, 0.102),
                                        {"draw": "most_similar", "queue": "recent"}),
    }  # fmt: skip
    like = {cell["method"]: cell for cell in comparison_sweep(1)["cells"]}
    cells = []
    for label, (method, strength, (hrr, refusals, loss), parameters) in arms.items():
        for seed in range(seeds):
            share = hrr + (seed - 1) * 0.02 * (hrr > 0.02)
            scores = like[method]["scores"] | {
                "hrr": rate(share, 260), "refusal_rate": rate(min(refusals, 1 - share), 260),
                "incoherent_rate": rate(max(1 - share - refusals, 0), 260), "eval_loss": loss,
            }  # fmt: skip
            cell = {"label": label, "strength": strength, "seed": seed, "scores": scores}
            cell["key"] = hashlib.sha256(f"{label} {seed}".encode()).hexdigest()
            cells.append(like[method] | cell | {"parameters": parameters})
    return comparison_sweep(1) | {"sweep": "negatives", "kind": "ablation", "cells": cells}
