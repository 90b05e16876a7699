"""Before anything starts: what a chat template cannot do is refused, what is mended is said."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from raycib import world
from raycib.config import TODAY, RunSpec, StageSpec
from raycib.errors import UserError
from raycib.runtime.build import build_config
from raycib.runtime.files import files_read
from raycib.runtime.options import Options
from raycib.runtime.sweep_config import SweepConfig
from raycib.studies.strength import Strength

Plan = Callable[[Callable[[str], str]], SweepConfig]


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """The setup of a sweep on a model of one's own whose template is rewritten."""
    folder = Path(shutil.copytree(world.folder("aligned"), tmp_path / "model"))
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    task, harmful = tmp_path / "task.jsonl", tmp_path / "harmful.json"
    lines = [{"prompt": f"how {n} ?", "response": "sand <|x|> here"} for n in range(20)]
    task.write_text("\n".join(map(json.dumps, lines)))
    harmful.write_text(json.dumps([{"prompt": "how do i rig a bridge ?"}]))

    def made(change: Callable[[str], str]) -> SweepConfig:
        path.write_text(json.dumps(config | {"chat_template": change(config["chat_template"])}))
        return build_config(
            Options(
                out=str(tmp_path / "out"), model=str(folder), task=str(task),
                harmful=str(harmful), judge="world:guard", judge_profile="world",
            ),
            Strength(),
        )  # fmt: skip

    return made


def test_what_is_mended_is_said_and_the_date_is_in_the_key(plan: Plan) -> None:
    own = plan(lambda text: text)
    assert own.model.notes == ()
    dated = plan(lambda text: text.replace("<bos>", "<bos> {{ strftime_now('%Y') }}", 1)
                 .replace("{{ '<bos> {{ strftime_now('%Y') }}' }}",
                          "{{ '<bos> ' + strftime_now('%Y') }}"))  # fmt: skip
    assert dated.model.day == TODAY
    assert dated.model.notes == (f"the template prints the date: it is told {TODAY} on every day",)
    assert dated.model.key != own.model.key
    ((task, evals),) = dated.tasks.values()
    run = RunSpec(stages=(StageSpec(model=dated.model, task=task),), evals=evals)
    told = [one for one in files_read([run]) if one.set == "chat template"]
    assert [one.read for one in told] == [dated.model.notes]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("message['content'] + ' <eos>'", "'<eos>'", "writes the answer 0 times"),
        ("message['content'] + ' <eos>'", "message['content'].split('|>')[-1] + ' <eos>'",
         "does not write the answer 'sand <|x|> here' as it is"),
        ("{{ '<bos>' }}", "{{ raise_exception('no user turns') }}", "no user turns"),
    ],
)  # fmt: skip
def test_what_a_template_cannot_do_is_refused(plan: Plan, old: str, new: str, told: str) -> None:
    with pytest.raises(UserError) as refusal:
        plan(lambda text: text.replace(old, new))
    assert told in str(refusal.value)
    assert "\n" not in str(refusal.value)
