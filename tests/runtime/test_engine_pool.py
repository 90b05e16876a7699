"""How lots of models are dealt to engines that answer side by side, some of which are lost."""

import threading
from collections import Counter

import pytest
from ray.exceptions import ActorDiedError

from raycib.runtime.engine_pool import TRIES, EnginePool
from raycib.runtime.run import lots


class Engine:
    """A replica that squares, and dies of the lots that it is told to."""

    def __init__(self, dies_of: Counter[int] | None = None, restarts: int = 3) -> None:
        self.dies_of, self.restarts = dies_of if dies_of is not None else Counter(), restarts
        self.loads, self.ended = 0, False
        self.took: list[int] = []

    def do(self, what: str, *given: int) -> int | None:
        if what == "load":
            self.loads += 1
            if self.loads > 1 + self.restarts:
                raise ActorDiedError
            return None
        (number,) = given
        assert what == "square"
        self.took.append(number)
        if self.dies_of[number]:
            self.dies_of[number] -= 1
            raise ActorDiedError
        if number < 0:
            raise ValueError(number)
        return number**2

    def end(self) -> None:
        self.ended = True


def pool_of(*engines: Engine) -> tuple[EnginePool, list[str]]:
    """And all that it tells."""
    told: list[str] = []
    return EnginePool(engines, told.append), told


def answers(pool: EnginePool, count: int = 20) -> list[int]:
    pool.start()
    asked = [pool.ask("square", number, weight=1) for number in range(count)]
    return [one.result(30) for one in asked]


def test_every_lot_is_done_once_and_in_the_order_of_those_who_ask():
    engines = [Engine() for _ in range(3)]
    pool, _ = pool_of(*engines)
    assert answers(pool) == [number**2 for number in range(20)]
    assert sorted(number for one in engines for number in one.took) == list(range(20))
    assert sum(pool.done) == 20 and pool.done == [len(one.took) for one in engines]
    pool.end()
    assert all(one.ended for one in engines)


def test_all_that_are_free_take_part():
    """Two lots that wait for each other need two engines."""
    meet = threading.Barrier(2)

    class Meeting(Engine):
        def do(self, what: str, *given: int) -> int:
            meet.wait(30)
            return super().do(what, *given)

    pool, _ = pool_of(Meeting(), Meeting())
    assert answers(pool, 2) == [0, 1]
    assert pool.done == [1, 1]
    pool.end()


@pytest.mark.parametrize("engines", [1, 2])
def test_what_a_lost_engine_had_is_asked_again_and_nothing_is_lost(engines: int):
    dies_of = Counter({3: 2, 7: 1})
    every = [Engine(dies_of) for _ in range(engines)]
    pool, told = pool_of(*every)
    assert answers(pool) == [number**2 for number in range(20)]
    pool.end()
    took = Counter(number for one in every for number in one.took)
    assert took == Counter(range(20)) + Counter({3: 2, 7: 1})
    assert sum(one.loads for one in every) == engines + 3
    assert told == ["note: an engine was lost; what it had is asked again"] * 3


def test_an_engine_that_does_not_come_back_leaves_its_work_to_the_others():
    lame = Engine(Counter(dict.fromkeys(range(20), 1)), restarts=0)
    pool, told = pool_of(lame, Engine())
    assert answers(pool) == [number**2 for number in range(20)]
    pool.end()
    assert len(lame.took) <= 1
    if lame.took:
        assert any(one.startswith("note: an engine is gone, 1 left: ") for one in told)


def test_where_none_is_left_who_waits_hears_of_it_and_so_does_who_asks_later():
    pool, _ = pool_of(Engine(Counter({0: 9}), restarts=0))
    pool.start()
    for asked in [pool.ask("square", number) for number in range(3)]:
        with pytest.raises(ActorDiedError):
            asked.result(30)
    with pytest.raises(ActorDiedError):
        pool.ask("square", 5).result(30)
    pool.end()


def test_a_lot_that_ends_every_engine_is_given_up_and_a_mistake_is_not_tried_again():
    engines = [Engine(Counter({0: 99}), restarts=9), Engine(Counter({0: 99}), restarts=9)]
    pool, _ = pool_of(*engines)
    pool.start()
    with pytest.raises(ActorDiedError):
        pool.ask("square", 0).result(30)
    assert sum(one.took.count(0) for one in engines) == TRIES
    with pytest.raises(ValueError, match="-1"):
        pool.ask("square", -1).result(30)
    assert sum(one.took.count(-1) for one in engines) == 1
    assert pool.ask("square", 4).result(30) == 16, "the others are answered as ever"
    pool.end()


def test_lots_are_as_large_as_each_other_and_keep_all_engines_at_work():
    def sizes(models: int, engines: int, at_once: int = 8) -> list[int]:
        found = lots([str(number) for number in range(models)], engines, at_once)
        assert [one for lot in found for one in lot] == [str(number) for number in range(models)]
        return [len(lot) for lot in found]

    assert sizes(0, 2) == []
    assert sizes(8, 1) == [8] and sizes(16, 1) == [8, 8] and sizes(9, 1) == [5, 4]
    assert sizes(16, 2) == [8, 8] and sizes(3, 2) == [2, 1] and sizes(1, 4) == [1]
    assert sizes(17, 2) == [5, 5, 5, 2], "two rounds of two"
    assert sizes(16, 8) == [2] * 8
    assert sizes(3, 1, 1) == [1, 1, 1], "each by itself"
