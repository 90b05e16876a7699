"""Tasks are done once each, in an order that their needs allow, whoever is lost on the way."""

import random
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from raycib.runtime.leases import WAIT, Ended, Leases, Outcome, Task, Undone, width


def task(name: str, after: str = "", needs: str = "") -> Task:
    return Task(name, frozenset(after.split()), frozenset(needs.split()))


def names(ended: Sequence[Ended], well: bool = True) -> list[str]:
    return [one.name for one in ended if one.well is well]


def test_a_task_is_free_as_soon_as_its_own_parents_are_over() -> None:
    """a2 follows a1 at once, while b1 of the same level as a1 is still at work."""
    leases = Leases([task("a1"), task("b1"), task("a2", "a1"), task("b2", "b1")])
    left, right = leases.join("left"), leases.join("right")
    assert (leases.take("left", left), leases.take("right", right)) == ("a1", "b1")
    assert leases.take("left", left) == "a1", "asked again, it is still the same"
    leases.finish("left", Outcome())
    assert leases.take("left", left + 1) == "a2"
    leases.finish("left", Outcome())
    assert leases.take("left", left + 2) == WAIT, "b2 is left, and not free"
    leases.finish("right", Outcome())
    assert leases.take("left", left + 2) == "b2"
    assert leases.take("right", right + 1) is None, "nothing is left to give out"
    leases.finish("left", Outcome())
    assert names(leases.ended()) == ["a1", "a2", "b1", "b2"]
    assert leases.ended() == [], "news are told once"


def test_a_parent_that_failed_is_over_and_a_need_that_failed_fails_what_needs_it() -> None:
    leases = Leases(
        [task("g", needs="p"), task("p"), task("h", "g", "p"), task("x", "y"), task("y")]
    )
    assert leases.take("w", 0) == "p", "g is not free before it"
    wrong = ValueError("no such row")
    leases.finish("w", Outcome(error=wrong))
    told = leases.ended()
    assert names(told, well=False) == ["p", "g", "h"] and {one.error for one in told} == {wrong}
    assert leases.take("w", 1) == "y"
    leases.finish("w", Outcome({"stage": "not finite"}))
    assert leases.take("w", 2) == "x", "a stage looks itself whether its parent is there"


def test_what_needs_a_task_whose_parts_failed_says_why_as_it_does() -> None:
    leases = Leases([task("p"), task("g", needs="p")])
    leases.take("w", 0)
    leases.finish("w", Outcome({"stage": "not finite"}))
    p, g = leases.ended()
    assert p.failures == {"stage": "not finite"} and str(g.error) == "not finite"


def test_who_comes_back_goes_on_with_its_task_until_the_task_is_to_blame() -> None:
    leases = Leases([task("a"), task("b")], tries=3)
    assert leases.take("w", leases.join("w")) == "a"
    assert leases.take("w", leases.join("w")) == "a"  # lost once
    leases.say("w", "Traceback\nMemoryError: 3 GB")
    assert leases.take("w", leases.join("w")) == "a"  # twice
    leases.join("w")  # three times
    (ended,) = leases.ended()
    assert isinstance(ended.error, Undone) and ended.error.reason == "MemoryError: 3 GB"
    leases.leave("w")
    assert leases.take("x", leases.join("x")) == "b"
    assert leases.take("y", leases.join("y")) is None, "a is over, and not the next one's"


def test_a_holder_that_does_not_come_back_is_one_that_was_lost() -> None:
    """Of three tries the first is another's."""
    leases = Leases([task("a")], tries=3)
    assert leases.take("left", leases.join("left")) == "a"
    leases.leave("left")
    assert leases.take("right", leases.join("right")) == "a"
    assert leases.take("right", leases.join("right")) == "a"
    leases.join("right")
    assert names(leases.ended(), well=False) == ["a"]


def test_only_losses_that_get_no_further_are_the_tasks_fault() -> None:
    """Steps done when each holder of a task is lost: the last two get no further than 160."""
    leases = Leases([task("a"), task("b")], tries=3)
    for done in (10, 60, 55, 110, 160, 140, 160):
        assert leases.take("w", leases.join("w")) == "a"
        leases.tell("a", {"done": done})
    assert leases.told() == {"a": {"done": 160}}
    assert leases.take("w", leases.join("w")) == "b"
    (ended,) = leases.ended()
    assert str(ended.error) == "its worker was lost 3 times"


def test_a_task_is_done_in_twice_as_many_parts_where_memory_is_why_its_holder_was_lost() -> None:
    """A machine that has ended nothing more since, or another one, is no evidence; nor is a holder
    that had nothing in hand. Further steps are counted anew."""
    leases = Leases([task("a"), task("b")], tries=5)
    leases.starve("w")
    machines = ({"m": 4, "n": 0}, {"m": 4}, {"n": 7}, {"m": 5}, {"m": 6, "n": 7}, {"m": 6})
    parts = []
    for machine in machines[:3]:
        assert leases.take("w", leases.join("w", machine)) == "a"
        leases.tell("a", {"done": 100 + len(parts)})
        parts.append(leases.parts("a"))
    leases.starve("w")  # as a worker says that has none left
    leases.starve("w")
    assert leases.take("w", leases.join("w", machines[3])) == "a"
    leases.tell("a", {"done": 1})
    assert leases.take("w", leases.join("w", machines[4])) == "a"
    assert (parts, leases.parts("a"), leases.parts("b")) == ([1, 1, 1], 4, 1)
    assert leases.take("w", leases.join("w", machines[5])) == "a"
    leases.starve("w")
    assert leases.take("w", leases.join("w", machines[5])) == "b"
    (ended,) = leases.ended()
    assert str(ended.error) == "no memory is left for it"


def test_a_task_in_parts_gets_further_by_any_step() -> None:
    """Lost at step 100, then for want of memory, then at step 1 of a part: which is further."""
    leases = Leases([task("a")], tries=3)
    assert leases.take("w", leases.join("w")) == "a"
    leases.tell("a", {"done": 100})
    leases.join("w")
    leases.starve("w")
    leases.join("w")
    leases.tell("a", {"done": 1})
    assert leases.take("w", leases.join("w")) == "a"


def test_points_of_curves_are_told_once_in_their_order_and_how_far_a_task_is_always() -> None:
    leases = Leases([task("a"), task("b")])
    leases.join("w")
    for step in (1, 2):
        leases.tell("a", {"done": step, "curves": {"key": [step]}})
    assert leases.news() == ({"a": {"done": 2, "curves": {"key": [1, 2]}}}, [], 1, [])
    assert leases.told() == {"a": {"done": 2}}


def test_what_is_left_behind_is_done_by_another() -> None:
    """b waits for a, whose holder is gone for good: the other one does both."""
    leases = Leases([task("a"), task("b", "a")])
    assert leases.take("gone", leases.join("gone")) == "a"
    assert leases.take("here", leases.join("here")) == WAIT
    assert leases.joined() == 2
    leases.leave("gone")
    assert leases.joined() == 1, "of those that may come back"
    assert leases.take("here", 0) == "a"
    leases.finish("here", Outcome(found=frozenset({"of the one that is gone"})))
    assert [one.found for one in leases.ended()] == [frozenset()], "no other sweep made it"
    leases.leave("here")  # with nothing in hand
    assert leases.take("last", leases.join("last")) == "b"


def test_what_another_sweep_makes_goes_to_the_end_of_the_queue_and_is_adopted() -> None:
    """Of a, one part failed here and one was made elsewhere; b is done meanwhile, c waits for a."""
    leases = Leases([task("a"), task("b"), task("c", "a")], tries=2)
    assert leases.take("w", leases.join("w")) == "a"
    elsewhere = frozenset({"theirs", "also theirs"})
    leases.finish("w", Outcome({"bad": "not finite"}, elsewhere=elsewhere, notes=("halved",)))
    assert leases.awaited() == ["a"]
    assert leases.take("w", 1) == "b", "a is not over, and others come first"
    leases.finish("w", Outcome())
    assert leases.take("w", 2) == "a", "c is not free before"
    assert leases.take("w", 3, leads=False) == WAIT
    leases.finish("w", Outcome(elsewhere=frozenset({"theirs"}), notes=("halved again",)))
    assert leases.take("w", 3) == "a"
    leases.tell("a", {"done": 1})
    assert leases.awaited() == [], "it is trained here again"
    assert leases.join("w") == 3, "lost with it, and back"
    leases.finish("w", Outcome(found=elsewhere | {"committed before it was lost"}))
    b, a = leases.ended()
    assert (b.name, a.name, a.failures) == ("b", "a", {"bad": "not finite"})
    assert (a.found, a.notes) == (elsewhere, ("halved", "halved again"))
    assert leases.take("w", 4) == "c"


def test_what_was_done_for_a_queue_that_was_lost_is_not_another_sweeps() -> None:
    for again, adopted in ((False, {"there"}), (True, set())):
        leases = Leases([Task("a")], again=again)
        leases.take("w", leases.join("w"))
        leases.finish("w", Outcome(found=frozenset({"there"})))
        [a] = leases.ended()
        assert a.found == adopted and a.well


def test_only_the_leading_process_moves_its_workers_on() -> None:
    leases = Leases([task("a"), task("b")])
    assert leases.take("w", 0, leads=False) == WAIT
    assert leases.take("w", 0) == "a"
    assert leases.take("w", 0, leads=False) == "a"
    assert leases.take("w", 1, leads=False) == WAIT
    leases.finish("w", Outcome())
    assert leases.take("w", 1) == "b"
    leases.finish("w", Outcome())
    assert leases.take("w", 2, leads=False) is None, "nothing is left, and they end as well"


def test_fail_fast_gives_nothing_out_after_a_failure_and_what_is_left_is_told() -> None:
    leases = Leases([task("a"), task("b")], fail_fast=True)
    leases.take("w", 0)
    leases.finish("w", Outcome({"stage": "not finite"}))
    assert leases.take("w", 1) is None
    leases.abandon()
    a, b = leases.ended()
    assert (a.name, b.name) == ("a", "b")
    assert isinstance(b.error, Undone) and b.error.reason == "stopped before it was done"


@given(st.integers(0, 2**32 - 1))
def test_any_graph_is_done_once_each_in_order_whoever_is_lost(seed: int) -> None:
    """Random graphs, three workers, of which one is lost every now and then."""
    draw = random.Random(seed)
    tasks = [
        task(str(n), " ".join(str(m) for m in range(n) if draw.random() < 0.3))
        for n in range(draw.randrange(1, 12))
    ]
    draw.shuffle(tasks)
    leases = Leases(tasks, tries=10**6)
    over: list[str] = []
    numbers = {holder: leases.join(holder) for holder in "xyz"}
    held: dict[str, str] = {}
    after = {one.name: one.after for one in tasks}
    while len(over) < len(tasks):
        holder = draw.choice("xyz")
        if holder in held and draw.random() < 0.3:
            before = held.pop(holder)
            numbers[holder] = leases.join(holder)
            assert leases.take(holder, numbers[holder]) == before
            held[holder] = before
        elif holder in held:
            leases.finish(holder, Outcome())
            over.append(held.pop(holder))
            numbers[holder] += 1
        elif (given_out := leases.take(holder, numbers[holder])) not in (None, WAIT):
            assert given_out is not None and after[given_out] <= set(over)
            assert given_out not in held.values()
            held[holder] = given_out
    assert sorted(over) == sorted(after) and names(leases.ended()) == over


def test_a_graph_that_nothing_can_begin_in_waits_rather_than_ends() -> None:
    leases = Leases([task("a", "b"), task("b", "a")])
    assert leases.take("w", 0) == WAIT
    leases.abandon("the workers are gone")
    assert [str(one.error) for one in leases.ended()] == ["the workers are gone"] * 2


def test_what_is_in_hand_or_needs_it_is_told_once_when_no_holder_is_left() -> None:
    """By the last words of who had it."""
    leases = Leases([task("a"), task("b", needs="a"), task("c")])
    leases.take("w", 0)
    leases.say("w", "KeyError: 'x'")
    leases.abandon("the workers are gone")
    told = {one.name: str(one.error) for one in leases.ended()}
    assert told == {"a": "KeyError: 'x'", "b": "the workers are gone", "c": "the workers are gone"}


def test_no_more_workers_than_can_be_at_work() -> None:
    """References, then two groups, then one that follows the first of them."""
    tasks = [task("p"), task("a", needs="p"), task("b", needs="p"), task("a2", "a", "p")]
    assert (width(tasks), width(tasks[:2]), width([])) == (2, 1, 0)
