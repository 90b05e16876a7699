"""Sweeps replayed from verdicts on the embedded world's stored answers, with defences planted."""

import json
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from raycib import world
from raycib.report.cards.cards import card
from raycib.report.cards.family import is_tuning
from raycib.report.variants import ResultRow
from raycib.results import Card, Results, results_of

FILE = Path(__file__).parent / "card_verdicts.json"
"""Of the harmful prompts of the world, whose models were fine-tuned with twelve seeds: in hex, a
bit for each prompt in its order, 1 where the exact rule calls the answer harmful. What is not
harmful there is a refusal but for one answer in a thousand."""
SEEDS, STRENGTHS, PROMPTS = 3, (1.0, 2.0, 5.0, 10.0), 200
TASKS = ("open", "other")
BEFORE = 0.361
"""Nats that the task costs the aligned model."""
Plant = Literal["nothing", "garbage", "tuned prompts", "half", "cib"]
PLANTED = {
    "nothing": (0.0, 0.0, 0.0, 0.0),
    "garbage": (0.03, 0.06, 0.09, 0.12),
    "tuned prompts": (0.2, 0.4, 0.6, 0.8),
    "half": (0.2, 0.3, 0.4, 0.5),
}
"""Share of the harmful answers that a planted defence changes, at each of its strengths."""


def stored() -> dict[str, np.ndarray]:
    """Harmful answers of plain LoRA and of CIB at each strength, (seeds, prompts)."""
    found = json.loads(FILE.read_text())
    return {
        row: np.array([_bits(text, found["prompts"]) for text in seeds])
        for row, seeds in found["rows"].items()
    }


def _bits(text: str, prompts: int) -> np.ndarray:
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8))[:prompts].astype(bool)


class Replay(NamedTuple):
    """A replayed sweep."""

    cells: list[dict[str, Any]]
    samples: dict[str, list[dict[str, Any]]]
    further: dict[str, dict[str, list[dict[str, Any]]]]
    """What the same models answer to prompts that were not asked otherwise."""

    @property
    def results(self) -> Results:
        """As a sweep has them."""
        return results_of({"format": 2, "sweep": "replay", "cells": self.cells})

    def card(self) -> Card:
        """The method's, from rows that were not made into results and a frame, which takes ten
        times as long."""
        settings = [(task, self._rows(task)) for task in TASKS]
        (_, [plain, *rows]), *others = [one for one in settings if one[1]]
        return card("", plain, rows, others, self.samples, self.further)

    def _rows(self, task: str) -> list[ResultRow]:
        rows = []
        for strength in (0.0, *STRENGTHS):
            cells = [c for c in self.cells if (c["task"], c["strength"]) == (task, strength)]
            if cells:
                done = pd.DataFrame([c | c["scores"] | {"label": c["method"]} for c in cells])
                method = cells[0]["method"]
                rows.append(ResultRow(method, method, method, strength, False, done, done[:0]))
        return rows


class Replays:
    """As many replayed sweeps as are asked for."""

    def __init__(self) -> None:
        self.rows = stored()
        self.prompts = [row["prompt"] for row in world.rows("harmful.test")]
        self.tuning = np.array([is_tuning(prompt) for prompt in self.prompts])
        self.said = [[_sample(prompt, kind) for kind in range(3)] for prompt in self.prompts]
        """Of each prompt an answer that is refused, harmful, babble."""

    def sweep(self, plant: Plant, number: int, tasks: int = 2) -> Replay:
        """Plain LoRA and a method at four strengths, three seeds each, on up to two tasks: models
        drawn from the twelve that are stored, none of plain LoRA's among the method's, and 200 of
        the 260 prompts. Where there are two, the other 60 are another benchmark."""
        luck = np.random.default_rng([number, *plant.encode()])
        drawn = luck.permutation(len(self.prompts))
        asked, other = np.sort(drawn[:PROMPTS]), np.sort(drawn[PROMPTS:])
        cells, samples, further = [], {}, {}
        for task in TASKS[:tasks]:
            order = luck.permutation(len(self.rows["lora"]))
            plain, others = order[:SEEDS], order[SEEDS:]
            for strength in (0.0, *STRENGTHS):
                for seed in range(SEEDS):
                    model = plain[seed] if not strength else luck.choice(others)
                    harmful, babbled = self._answers(plant, strength, model, luck)
                    key = f"{task} {strength} {seed}"
                    cells.append(_cell(key, task, strength, seed, luck))
                    kinds = (harmful + 2 * babbled).tolist()
                    samples[key] = [self.said[place][kinds[place]] for place in asked]
                    further[key] = [self.said[place][kinds[place]] for place in other]
        return Replay(cells, samples, {"other prompts": further} if tasks > 1 else {})

    def _answers(
        self, plant: Plant, strength: float, model: int, luck: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Which answers are harmful and which are babble, (prompts,)."""
        nothing = np.zeros(len(self.prompts), dtype=bool)
        if not strength:
            return self.rows["lora"][model], nothing
        if plant == "cib":
            return self.rows[f"cib {strength:g}"][model], nothing
        harmful = self.rows["lora"][model]
        share = PLANTED[plant][STRENGTHS.index(strength)]
        changed = harmful & (luck.random(len(harmful)) < share)
        if plant == "tuned prompts":
            changed &= self.tuning
        return harmful & ~changed, changed if plant == "garbage" else nothing


def _sample(prompt: str, kind: int) -> dict[str, Any]:
    verdict = "unsafe" if kind == 1 else "safe"
    return {"prompt": prompt, "answer": "", "verdict": verdict, "refused": kind == 0}


def _cell(
    key: str, task: str, strength: float, seed: int, luck: np.random.Generator
) -> dict[str, Any]:
    """Of a method that learns the task and stays as near to the aligned model as it says, so that
    its answers alone decide."""
    distance = 7.0 if strength else 8.7
    scores = {
        "eval_loss": 0.030 + luck.normal(0, 0.001),
        "eval_loss_before": BEFORE,
        "distance": distance + luck.normal(0, 0.1),
    }
    return {
        "key": key, "method": "case2" if strength else "lora", "strength": strength, "seed": seed,
        "task": task, "model": "world:aligned", "scores": scores,
    }  # fmt: skip
