"""What the documentation says can be done: every command, option, file, link and line of Python.

Commands are parsed by the programs' own command lines, in this process; nothing is started.
"""

import ast
import importlib
import re
import shlex
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import typer
from documentation import PAGES, ROOT, blocks, commands, prose, spans
from typer.main import get_command

from raycib.cli import app
from raycib.config.menu import menu
from raycib.runtime.options import as_options

SHOWN = [*(ROOT / "docs" / "examples").glob("*.py"), *(ROOT / "sweeps").glob("*.py")]
SHOWN += [ROOT / "tests/support/own_study.py"]
"""Code that pages may show: each file is run by a test."""
NOT_OURS = {"chmod", "cd", "docker", "export", "git", "hf", "kubectl", "pip", "source"}
"""Programs whose words are not looked at, but for the files that they name."""
LONGEST_README = 900
LONGEST_AVERAGE = 15
"""Words of a sentence that is taken in one breath."""

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))


@cache
def sweep() -> Any:
    """The command line of every sweep, as `sweep_command` makes it."""

    def main(**given: Any) -> None: ...

    program = typer.Typer()
    program.command()(as_options(main))
    return get_command(program)


def parse(program: Any, words: list[str]) -> dict[str, Any]:
    """What a program reads in its words; raises for a command, option or value it does not have."""
    while words and hasattr(program, "commands"):
        if program.name == "methods" and words[0] not in program.commands:
            words = ["show", *words]  # `raycib methods cib` is short for this
        assert words[0] in program.commands, f"no command {words[0]!r}"
        program, words = program.commands[words[0]], words[1:]
    if not words or "--help" in words:  # a program that the text only names
        return {}
    return program.make_context(program.name, words).params


def check(words: list[str]) -> None:
    """One command; an error says what of it does not exist."""
    program, *rest = words
    for word in rest:
        if re.match(r"(sweeps|cluster|docs|tests|raycib)/", word):
            file = re.sub(r"(?<=\.py):\w+$", "", word)  # a name in it
            assert (ROOT / file).exists(), f"no file {file}"
    if program in ("python", "cluster/laptop.sh", "cluster/slurm.sh"):
        assert program == "python" or (ROOT / program).stat().st_mode & 0o111
        if rest[:1] == ["-m"]:
            assert find_spec(rest[1]), f"no module {rest[1]}"
            rest = rest[2:]
        if rest and rest[0].startswith(("sweeps/", "docs/examples/")):
            parse(sweep(), rest[1:])
    elif program == "sbatch":
        check([rest[0]])
        check(["python", *rest[1:]])
    elif program == "make":
        check_make(rest)
    elif program == "raycib":
        parse(get_command(app), rest)
    elif program == "ray":
        from ray.scripts.scripts import cli

        if entry := parse(cli, rest).get("entrypoint"):
            check([*entry])
    else:
        assert program in NOT_OURS, f"nobody checks {program!r}"


def check_make(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for word in words:
        name, equals, value = word.partition("=")
        found = re.search(rf"(?m)^{name} \?=" if equals else rf"(?m)^{name}:", makefile)
        assert found, f"the Makefile has no {word!r}"
        if name == "SWEEP" and not (value == "" or value.isupper()):
            assert (ROOT / "sweeps" / f"{value}.py").exists(), f"no sweep {value}"


@each_page
def test_every_command_exists_with_its_options_and_files(page: Path) -> None:
    for words in commands(page):
        try:
            check(words)
        except Exception as error:
            pytest.fail(f"{' '.join(words)}: {error}", pytrace=False)


@pytest.mark.parametrize(
    "command",
    [
        "python sweeps/lambda_grid.py --lamda 1",
        "python sweeps/lambda_grid.py --too-long shorten",
        "python sweeps/lamda_grid.py",
        "make swep",
        "make sweep SWEEP=lamda_grid",
        "raycib method",
        "raycib methods --yaml",
        "ray job submit -- python sweeps/lambda_grid.py --seed 1",
        "slurm submit",
    ],
)
def test_a_command_that_does_not_exist_is_found(command: str) -> None:
    with pytest.raises(Exception, match=r"\w"):
        check(shlex.split(command))


@each_page
def test_every_option_in_the_text_exists(page: Path) -> None:
    """`--option` alone, as text and tables name them."""
    ours = {name for one in sweep().params for name in one.opts}
    for program in get_command(app).commands.values():  # type: ignore[attr-defined]
        ours |= {name for one in program.params for name in one.opts}
    ours |= {"--entrypoint-num-*", "--runtime-env-json", "--help"}  # Ray's, and everybody's
    named = [span.split()[0].partition("=")[0] for span in spans(page) if span.startswith("--")]
    assert [name for name in named if name not in ours] == []


@each_page
def test_every_link_leads_somewhere(page: Path) -> None:
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"\w+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    assert wrong == []


def anchors(page: Path) -> set[str]:
    """What headings are called in an address, as GitHub does it."""
    headings = re.findall(r"(?m)^#+ (.*)$", prose(page))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_every_file_and_name_of_the_package_exists(page: Path) -> None:
    """`raycib/x.py` and `raycib.x.Y`, wherever the text has them."""
    for span in spans(page):
        if re.fullmatch(r"(raycib|sweeps|docs|tests|cluster)/[\w./-]*", span):
            assert (ROOT / span).exists(), f"no file {span}"
        if re.fullmatch(r"raycib(\.\w+)+(\(.*\))?", span):
            build_config(span.partition("(")[0])


def build_config(name: str) -> Any:
    """What a dotted name stands for; raises where there is none."""
    first, *rest = name.split(".")
    found: Any = importlib.import_module(first)
    for place, part in enumerate(rest, 1):
        if not hasattr(found, part):
            importlib.import_module(".".join([first, *rest[:place]]))
        found = getattr(found, part)
    return found


@each_page
def test_python_that_is_shown_is_part_of_a_file_that_runs(page: Path) -> None:
    sources = {file.name: file.read_text() for file in SHOWN}
    for block in blocks(page):
        if block.language == "python":
            ast.parse(dedent(block.text))
            assert any(block.text.strip() in text for text in sources.values()), block.text


@each_page
def test_commands_stand_in_fenced_blocks_of_a_known_kind(page: Path) -> None:
    """What is indented instead is read by no test above."""
    assert {block.language for block in blocks(page)} <= {"bash", "python", "text"}
    assert re.findall(r"(?m)^\n(?: {4,}|\t)(?![-*\d])\S.*$", prose(page)) == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= LONGEST_README


@each_page
def test_sentences_are_taken_in_one_breath(page: Path) -> None:
    lengths = [len(sentence.split()) for sentence in sentences(page)]
    assert sum(lengths) / len(lengths) <= LONGEST_AVERAGE


def sentences(page: Path) -> list[str]:
    """Of the running text: without tables, headings, pictures and the marks of lists."""
    lines = [line.strip() for line in prose(page).splitlines()]
    text = "\n".join(line for line in lines if not re.match(r"[|#!>]", line))
    text = re.sub(r"\]\([^)]*\)", "]", text)
    text = re.sub(r"(?m)^[-*] ", "\n\n", text)
    parts = re.split(r"\n\s*\n|(?<=[.!?])\**\s+", text)
    return [part for part in parts if re.search(r"\w", part)]


@each_page
def test_one_word_for_one_thing(page: Path) -> None:
    """What the glossary calls otherwise: an adapter group is no pack, a variant no arm."""
    text = re.sub(r"`[^`]*`", "", prose(page)).lower()
    assert re.findall(r"\b(?:lane|pack|wave|arm|caution|exhibit|dose|board)s?\b", text) == []


def test_every_method_stands_in_the_table_of_methods() -> None:
    rows = re.findall(r"(?m)^\| `(\w+)` \|", (ROOT / "docs" / "methods.md").read_text())
    assert sorted(rows) == sorted(menu())


def test_every_room_has_its_place_in_the_map() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rooms = [entry for entry in (ROOT / "raycib").iterdir() if not entry.name.startswith("_")]
    names = [f"raycib/{one.name}{'/' * one.is_dir()}" for one in rooms if one.suffix != ".typed"]
    assert [name for name in sorted(names) if f"`{name}`" not in text] == []


@pytest.mark.parametrize("page", ["README.md", "sweeps/README.md", "docs/findings.md"])
def test_every_sweep_is_named(page: str) -> None:
    text = (ROOT / page).read_text()
    assert [f.stem for f in (ROOT / "sweeps").glob("*.py") if f.stem not in text] == []
