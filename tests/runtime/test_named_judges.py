"""Several judges on one command line: each with its endpoint, profile and key."""

import shutil
from pathlib import Path

import pytest

from raycib import world
from raycib.errors import UserError
from raycib.runtime.named_judges import named_judges
from raycib.runtime.options import Options


def names(usual: str = "world:guard", **given: str) -> list[str]:
    return [one.name for one in named_judges(Options(**given), usual)]


def test_the_first_is_the_main_one_and_the_usual_one_stands_in() -> None:
    assert names() == ["world:guard"]
    assert names(judge="refusal-rule, world:guard") == ["refusal-rule", "world:guard"]
    assert names(judge="gpt", judge_url="http://localhost") == ["gpt"]


def test_endpoints_stand_among_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has its own address, profile and key; secrets stay out of what is shown."""
    monkeypatch.setenv("KEY_B", "b")
    found = named_judges(
        Options(
            judge="world:guard,a/m@https://u:p@one.example,a/m@https://two.example/v1",
            judge_profile=",llama-guard-3,",
            judge_key_env=",,KEY_B",
        ),
        "world:guard",
    )
    assert [one.spec.profile for one in found] == ["world", "llama-guard-3", "instruct"]
    assert [one.name for one in found] == ["world:guard", "m (llama-guard-3)", "m (instruct)"]
    assert [one.spec.source for one in found[1:]] == [
        "https://one.example/v1",
        "https://two.example/v1",
    ]
    assert (found[1].url, found[2].key_env) == ("https://u:p@one.example", "KEY_B")
    assert "u:p" not in repr(found)


def test_a_comma_in_a_folders_name_is_its_own_and_equal_weights_are_one_judge(
    tmp_path: Path,
) -> None:
    folder = Path(shutil.copytree(world.folder("guard"), tmp_path / "a,b"))
    assert names(judge=str(folder)) == ["a,b"]
    with pytest.raises(UserError, match="comes twice"):
        names(judge=f"world:guard,{folder.rename(tmp_path / 'a')}")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"judge": "a,b", "judge_url": "http://localhost"}, "each as MODEL@URL"),
        ({"judge": "a@http://localhost", "judge_url": "http://localhost"}, "leave --judge-url out"),
        ({"judge": "world:guard,refusal-rule", "judge_profile": "world"}, "there are 2 judges"),
        ({"judge": "world:guard,world:guard"}, "'world:guard' comes twice"),
        ({"judge": "world:guard,"}, "no judge"),
        ({"judge": "m@ftp://u:hidden@h"}, "has to begin with http"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said) as problem:
        names(**given)
    assert "hidden" not in str(problem.value)


def test_one_key_does_not_go_to_two_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYCIB_JUDGE_API_KEY", "k")
    monkeypatch.setenv("MINE", "m")
    two = "a@https://one.example,b@https://two.example"
    with pytest.raises(UserError, match=r"one\.example.* and .*two\.example"):
        names(judge=two)
    assert names(judge=two, judge_key_env="MINE,") == ["a", "b"]
    assert names(judge="a@https://one.example,b@https://one.example") == ["a", "b"]
