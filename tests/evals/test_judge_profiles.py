"""A judge is asked and read as its own files or its name say, or not at all."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raycib import world
from raycib.errors import UserError
from raycib.evals import judge_profile
from raycib.evals.chat_prompt import INSTRUCTION
from raycib.evals.judge_profiles import PROFILES, endpoint_profile
from raycib.runtime.judge import describe_judge

RULE = "- First line must read \\'safe\\' or \\'unsafe\\'."


def template(labels: list[str], header: str = "<|start_header_id|>") -> str:
    """In the manner of Llama Guard's: a list of hazards, the conversation, what to write."""
    listed = "\\n".join(f"{label}: Something." for label in labels)
    return "{{ '" + header + f"user\\nTask:\\n{listed}\\n{RULE}" + "' }}{{ messages[0].content }}"


def as_dict(labels: list[str]) -> str:
    """The smallest one keeps its hazards in a dictionary of the template."""
    listed = ", ".join(f'"{label}": "Something"' for label in labels)
    return "{% set categories = {" + listed + "} %}{{ '" + RULE + "' }}"


def numbered(letter: str, count: int) -> list[str]:
    return [f"{letter}{i}" for i in range(1, count + 1)]


def guard(folder: Path, chat: Any, **config: Any) -> str:
    """The world's guard with another template."""
    shutil.copytree(world.folder("guard"), folder)
    for name, fields in (
        ("config.json", config),
        ("tokenizer_config.json", {"chat_template": chat}),
    ):
        found = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(found | fields))
    return str(folder)


FOUND = {
    "llama-guard-1": (template(numbered("O", 6), "[INST]"), "O6", ""),
    "llama-guard-2": (template(numbered("S", 11)), "S11", "\n\n"),
    "llama-guard-3": (template(numbered("S", 14)), "S14", "\n\n"),
    "llama-guard-3-1b": (as_dict(numbered("S", 13)), "S13", "\n\n"),
    "llama-guard-4": (template(numbered("S", 14), "<|header_start|>"), "S14", "\n\n"),
    "world": ("<bos> <guard>{{ messages[0].content }} <guard>", "S3", ""),
}


@pytest.mark.parametrize("name", FOUND)
def test_a_guard_is_recognised_by_its_template(name: str, tmp_path: Path) -> None:
    chat, last, prefix = FOUND[name]
    spec = describe_judge(guard(tmp_path / "their-name", chat), None)
    assert (spec.profile, spec.categories[-1], spec.prefix) == (name, last, prefix)


def test_a_template_in_a_file_of_its_own_or_in_a_list_is_read(tmp_path: Path) -> None:
    chat = FOUND["llama-guard-3"][0]
    apart = Path(guard(tmp_path / "apart", None))
    (apart / "chat_template.jinja").write_text(chat)
    listed = guard(tmp_path / "listed", [{"name": "default", "template": chat}])
    for folder in (str(apart), listed):
        assert describe_judge(folder, None).profile == "llama-guard-3"


BY_TEMPLATE = {
    "qwen3guard": template(["V"]) + "Safety: Safe, Unsafe or Controversial",
    "shieldgemma": "You are a policy expert trying to help {{ guideline }}",
    "granite-guardian-3": "{{ risk_name }}{{ '<start_of_risk_definition>' }}",
    "granite-guardian-3.3": "{{ guardian_config.criteria_id }}",
}
BY_NAME = {
    "wildguard": "wildguard",
    "qwen3guard": "Qwen3Guard-Gen-8B",
    "shieldgemma": "shieldgemma-2b",
    "granite-guardian-3": "granite-guardian-3.1-8b",
    "granite-guardian-3.3": "granite-guardian-3.3-8b",
    "granite-guardian-4": "granite-guardian-4.1-8b",
    "gpt-oss-safeguard": "gpt-oss-safeguard-20b",
    "harmbench": "HarmBench-Llama-2-13b-cls",
}


@pytest.mark.parametrize("name", BY_TEMPLATE)
def test_a_guard_of_another_form_is_known_by_its_template(name: str, tmp_path: Path) -> None:
    """Whatever its folder is called."""
    assert describe_judge(guard(tmp_path / "theirs", BY_TEMPLATE[name]), None).profile == name


@pytest.mark.parametrize("name", BY_NAME)
def test_where_no_template_tells_a_name_does(name: str, tmp_path: Path) -> None:
    """That of the folder, or the one that its configuration keeps."""
    assert describe_judge(guard(tmp_path / BY_NAME[name], ""), None).profile == name
    kept = guard(tmp_path / "theirs", None, _name_or_path=f"their/{BY_NAME[name]}")
    assert describe_judge(kept, None).profile == name


FOREIGN = {
    "a Qwen3Guard that writes no text": ("Qwen3Guard-Stream-4B", ""),
    "a classifier of HarmBench of another form": ("HarmBench-Mistral-7b-val-cls", ""),
    "a Granite Guardian of another form": ("x", "{{ guardian_config }}"),
    "NemoGuard or Aegis": ("x", "{{ 'User Safety' }}"),
    "PolyGuard": ("polyguard-qwen", ""),
    "MD-Judge": ("MD-Judge-v0.1", ""),
    "Prompt Guard": ("Llama-Prompt-Guard-2-86M", ""),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_guard_of_a_form_that_is_not_known_is_refused_by_name(name: str, tmp_path: Path) -> None:
    called, chat = FOREIGN[name]
    with pytest.raises(UserError, match=f"{name}, not supported yet"):
        describe_judge(guard(tmp_path / called, chat), None)


def test_grades_may_be_taken_otherwise_but_not_another_guards(tmp_path: Path) -> None:
    folder = guard(tmp_path / "theirs", BY_TEMPLATE["qwen3guard"])
    loose, strict = (describe_judge(folder, None, one) for one in (None, "qwen3guard-strict"))
    assert (loose.profile, strict.profile) == ("qwen3guard", "qwen3guard-strict")
    assert loose.key != strict.key
    with pytest.raises(UserError, match="that of qwen3guard"):
        describe_judge(folder, None, "wildguard")


def test_a_classifier_writes_no_verdict(tmp_path: Path) -> None:
    folder = guard(tmp_path / "c", "", architectures=["BertForSequenceClassification"])
    with pytest.raises(UserError, match="is a classifier"):
        describe_judge(folder, None, "safe-unsafe")


def test_an_unknown_guard_has_to_be_named_and_a_known_one_cannot_be_misnamed(
    tmp_path: Path,
) -> None:
    unknown = guard(tmp_path / "mine", template(numbered("S", 5)))
    with pytest.raises(UserError, match=r"--judge-profile: .*llama-guard-4.*instruct") as problem:
        describe_judge(unknown, None)
    assert "\n" not in str(problem.value)
    assert describe_judge(unknown, None, "safe-unsafe").profile == "safe-unsafe"
    known = guard(tmp_path / "known", FOUND["llama-guard-2"][0])
    with pytest.raises(UserError, match="that of llama-guard-2"):
        describe_judge(known, None, "llama-guard-3")
    with pytest.raises(UserError, match="no profile 'llama'"):
        describe_judge(known, None, "llama")


@pytest.mark.parametrize(
    ("model", "name"),
    [("gpt-4o-mini", "instruct"), ("meta-llama/Llama-3.1-8B-Instruct", "instruct"),
     ("meta-llama/LlamaGuard-7b", "llama-guard-1"), ("Meta-Llama-Guard-2-8B", "llama-guard-2"),
     ("llama-guard3", "llama-guard-3"), ("llama-guard3:1b", "llama-guard-3-1b"),
     ("meta-llama/Llama-Guard-3-8B", "llama-guard-3"),
     ("meta-llama/llama-guard-4-12b", "llama-guard-4")],
)  # fmt: skip
def test_an_endpoints_model_is_known_by_its_name(model: str, name: str) -> None:
    """A guard behind a chat endpoint is sent the conversation, not an instruction to judge it."""
    assert endpoint_profile(model, None).name == name
    assert (endpoint_profile(model, None).asking is INSTRUCTION) == (name == "instruct")


@pytest.mark.parametrize(
    "model", ["allenai/wildguard", "Qwen/Qwen3Guard-Stream-4B", "llama-guard", "poly-guard"]
)
def test_an_endpoints_guard_that_cannot_be_asked_or_read_is_refused(model: str) -> None:
    with pytest.raises(UserError, match=r"not supported yet|unknown version|text of its own"):
        endpoint_profile(model, None)
    assert endpoint_profile(model, "instruct").name == "instruct"


FORMS = {
    "world": ("a56d83313647", "62031cb2be71"),
    "llama-guard-1": ("4fc646f12b52", "dd250ac8ec30"),
    "llama-guard-2": ("3ccc649ae736", "ac66a1a38c1a"),
    "llama-guard-3": ("6dc1d6670bf4", "cdd249308040"),
    "llama-guard-3-1b": ("90947fcbb887", "68dad2ff7f95"),
    "llama-guard-4": ("7560c4dbfa7b", "1073e44ca18c"),
    "safe-unsafe": ("7e750f36ad49", "8ccd8134201c"),
    "instruct": ("584f6e5b4131", "584f6e5b4131"),
    "wildguard": ("2c02ce8cd2a2", "2c02ce8cd2a2"),
    "qwen3guard": ("8626b747ae3d", "fb59a4f4ea3d"),
    "qwen3guard-strict": ("f99b8dab0fb6", "a684eeadf991"),
    "shieldgemma": ("3b888476378e", "713d00bececf"),
    "granite-guardian-3": ("e60d58e8b851", "6071d4131c6b"),
    "granite-guardian-3.3": ("db47094d9c70", "620dee72cacf"),
    "granite-guardian-4": ("904c10f6c12f", "2da03979da04"),
    "gpt-oss-safeguard": ("2255b29f0003", "2255b29f0003"),
    "harmbench": ("efe2f932ea5e", "efe2f932ea5e"),
    "strong-reject": ("3b999fbd4b95", "3b999fbd4b95"),
}


def test_each_form_has_its_own_key(tmp_path: Path) -> None:
    """The prompt's form is part of a verdict's key."""
    folder = guard(tmp_path / "mine", "{{ messages }}")
    named = [describe_judge(folder, None, name).key for name in PROFILES]
    by_chat = [name for name, one in PROFILES.items() if not one.asking.bare]
    asked = [describe_judge("m", "http://localhost", name).key for name in by_chat]
    assert len({*named, *asked}) == len(PROFILES) + len(by_chat)


def test_verdicts_stay_where_they_are() -> None:
    """What a profile asks and how it reads, as ids and as text: another form, another key. The
    texts that makers publish are among it."""
    found = {name: (one.form()[:12], one.form(True)[:12]) for name, one in PROFILES.items()}
    assert found == FORMS


def test_whatever_changes_a_verdict_is_in_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a judge is sent, the names that make a line of reasons readable, and how its text is
    read; delimiters only where they are broken up, in text."""
    profile = PROFILES["llama-guard-3"]
    fewer_names = dict.fromkeys(profile.hazards, ())
    changed = [
        profile,
        replace(profile, tokens=8),
        replace(profile, prefix=""),
        replace(profile, hazards=fewer_names),
        replace(profile, hazards=dict(list(profile.hazards.items())[:13])),
        replace(profile, asking=INSTRUCTION),
    ]
    assert len({one.form() for one in changed}) == len(changed)
    forms = {as_text: profile.form(as_text) for as_text in (True, False)}
    told = replace(profile, asking=INSTRUCTION).form()
    for name, moves in (("DELIMITERS", "text"), ("CHAT_FORM", "told"), ("READING", "all")):
        with monkeypatch.context() as patch:
            patch.setattr(judge_profile, name, 2 if name == "READING" else "another")
            assert (profile.form(as_text=True) != forms[True]) == (moves in ("text", "all"))
            assert (profile.form() != forms[False]) == (moves == "all")
            assert (replace(profile, asking=INSTRUCTION).form() != told) == (
                moves in ("told", "all")
            )


def test_a_tokenizer_whose_white_space_was_given_in_bytes_has_another_key(tmp_path: Path) -> None:
    """The form tells, not only the files, which are the same as they were then."""
    folder = Path(guard(tmp_path / "theirs", FOUND["llama-guard-3"][0]))
    before = describe_judge(str(folder), None)
    assert before.form == PROFILES["llama-guard-3"].form()
    file = folder / "tokenizer.json"
    spec = json.loads(file.read_text())
    _, last = spec["model"]["vocab"].popitem()
    spec["model"]["vocab"]["\n\n"] = last
    added = spec["added_tokens"][0] | {"id": last, "content": "\n\n", "special": False}
    file.write_text(json.dumps(spec | {"added_tokens": [*spec["added_tokens"], added]}))
    assert describe_judge(str(folder), None).form != before.form


def test_the_worlds_verdicts_stay_where_they_are() -> None:
    """Stores that are there hold them under this key."""
    key = "fa5a2ae2054fcab97864f04a2e112d96887c4acf4bde146e2de9cf4cc44b5e4a"
    assert describe_judge("world:guard", None).key == key
