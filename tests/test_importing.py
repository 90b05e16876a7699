"""What is light imports nothing heavy; what is imported is not looked through for garbage, and
garbage is still found afterwards."""

import gc
import subprocess
import sys
import weakref

import pytest

from raycib.importing import no_collections

LIGHT = (
    "raycib",
    "raycib.store",
    "raycib.tracking",
    "raycib.config, raycib.config.plan, raycib.config.grid, raycib.data.rows, raycib.model_files",
    "raycib.config.menu; raycib.config.menu.menu()",
)
"""In one process, one after the other; the first two do without pydantic too."""
HEAVY = {"torch", "ray", "mlflow", "transformers", "datasets", "pandas", "numpy", "sqlalchemy"}


def test_who_reads_a_store_plans_or_wants_help_waits_for_nothing_heavy():
    told = f"print(sorted({HEAVY | {'pydantic', 'obstore'}} & sys.modules.keys()))"
    code = "\n".join(f"import {light}; {told}" for light in LIGHT)
    said = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}"], capture_output=True, text=True, check=True
    )
    assert said.stdout.splitlines() == ["[]"] * 2 + ["['pydantic']"] * 3


class Knot:
    """Refers to itself: only the collector of cycles frees it."""

    def __init__(self) -> None:
        self.own = self


def test_no_collection_until_the_end_and_nothing_is_looked_through_again():
    runs: list[str] = []
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    gc.set_threshold(100, 10, 10)
    gc.callbacks.append(note := lambda phase, _: runs.append(phase))
    try:
        with no_collections():
            made = [Knot() for _ in range(500)]
            assert runs == []
        assert gc.get_freeze_count() - frozen >= len(made)
        made += [Knot() for _ in range(500)]
    finally:
        gc.callbacks.remove(note)
        gc.set_threshold(*before)
    assert runs  # it works again


def test_what_is_made_afterwards_is_freed():
    with no_collections():
        pass
    there = weakref.ref(Knot())
    gc.collect()
    assert there() is None


def test_an_import_that_fails_leaves_it_as_it_was():
    with pytest.raises(ImportError), no_collections():
        raise ImportError
    assert gc.isenabled()
    gc.disable()
    try:
        with no_collections():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize("ours", [True, False])
def test_a_program_of_ours_ends_without_a_last_look_for_garbage(ours: bool):
    """That look would find a ring of two, of which nothing else knows, and end both."""
    code = f"""
import gc
from raycib.importing import collect_seldom
class Knot:
    def __del__(self): print("found")
gc.disable()
if {ours}: collect_seldom()
knot = Knot(); knot.own = knot
del knot
print("end")
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "end\n" + "found\n" * (not ours)


@pytest.mark.parametrize(("last", "said"), [("", ""), ("1 / 0", "ZeroDivisionError")])
@pytest.mark.parametrize("how", ["with no_collections():", "collect_seldom()\nif True:"])
def test_a_process_ends_with_what_it_says_itself(how: str, last: str, said: str):
    """Triton, which torch imports, lists what it has left on stderr, where nothing was collected:
    a page below the one line of `raycib data inspect` on a file that is not there."""
    pytest.importorskip("triton")
    code = f"""
from raycib.importing import collect_seldom, no_collections
{how}
    import triton
{last}
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (said in ended.stderr) if said else ended.stderr == ""
    assert "nanobind" not in ended.stderr
