"""Made-up sweeps with plausible numbers, the same in every run, for tests of what people see."""

import hashlib
import math
import random
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
    ends = binomtest(k, n).proportion_ci(method="wilson")
    return {"value": k / n, "low": ends.low, "high": ends.high, "n": n, "unread": unread}


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
