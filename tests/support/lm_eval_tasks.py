"""Small tasks of lm-eval as YAML files with their rows beside them, read offline."""

import json
from collections.abc import Sequence
from pathlib import Path

_HEAD = """\
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    train: {rows}
    test: {rows}
test_split: test
fewshot_split: train
metadata:
  version: 1.0
"""
CHOICE = """\
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: label
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
"""
WORDS = """\
output_type: generate_until
num_fewshot: 1
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["w7"], max_gen_toks: 12}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""
TEXT = """\
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{question}}"
metric_list:
  - {metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}
"""


def make_task(folder: Path, name: str, kind: str, rows: Sequence[dict[str, object]]) -> Path:
    """A task in a folder; its rows are named relative to that."""
    data = f"{name}.jsonl"
    (folder / data).write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = folder / f"{name}.yaml"
    file.write_text(_HEAD.format(name=name, rows=data) + kind)
    return file
