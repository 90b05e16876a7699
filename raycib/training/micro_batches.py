"""How the rows of an optimiser step are dealt: over workers, and over the passes of each.

Plain numbers, without torch: a plan counts with it what a training will do.
"""

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, groupby
from typing import NamedTuple

Lengths = Sequence[int]
"""Tokens of rows, the prompts' included, in the order in which they are drawn."""
Places = dict[int, list[int]]
"""By slot: places of rows in its effective batch, ascending."""

PASS_COSTS = 48
"""Tokens of padding that another pass must save to be worth its launches. So little, because a GPU
is busy with any pass of some hundred tokens longer than with its launches (not measured there)."""


class MicroBatch(NamedTuple):
    """What goes through the model at once, of all slots of a group."""

    task: Places
    safety: Places
    """Rows that methods see beside the task's: a pass of their own, held in memory with it."""


class Tokens(NamedTuple):
    """Tokens of passes; sums over all workers, but for the largest."""

    useful: int
    """Of the rows."""
    computed: int
    """With padding: what a pass costs."""
    largest: int
    """Computed in one micro-batch of one worker: what its memory must hold."""
    micro_batches: int

    @property
    def share(self) -> float:
        """Useful of all that is computed."""
        return self.useful / self.computed if self.computed else 1.0


def deal(
    task: Mapping[int, Lengths],
    safety: Mapping[int, Lengths],
    workers: int,
    size: int,
    tokens: int | None = None,
    packed: bool = False,
    apart: bool = False,
) -> list[list[MicroBatch]]:
    """The micro-batches of each worker, from the lengths of each slot's rows of one step.

    Without `tokens`: at most `size` rows a slot, as they were drawn. With it at most so many tokens
    at a time; a row longer than that is alone. `packed` rows lie end to end, whatever their
    lengths; else rows of about one length come together, whichever slot's they are, and their
    padding counts. Safety rows are dealt over the micro-batches that their slot has, on top: about
    as many tokens again at most. With `apart` each slot's rows are dealt as if it were alone.
    """
    if apart:
        beside = {slot: {slot: safety[slot]} if slot in safety else {} for slot in task}
        each = [
            deal({slot: own}, beside[slot], workers, size, tokens, packed)
            for slot, own in task.items()
        ]
        return [list(chain.from_iterable(parts)) for parts in zip(*each, strict=True)]
    by_tokens = _end_to_end if packed else _by_length
    if tokens is None:
        cut = [_as_drawn(task, rank, workers, size) for rank in range(workers)]
    else:
        rows = _longest_first(task)
        cut = [by_tokens(rows[rank::workers], tokens) for rank in range(workers)]
    dealt = [[MicroBatch(places, {}) for places in own] for own in cut]
    for slot, lengths in safety.items():
        there = [one for turn in _turns(dealt) for one in turn if slot in one.task]
        parts = [[place] for place in range(len(lengths))]
        if tokens is not None:  # the slots' parts come together
            own = by_tokens(_longest_first({slot: lengths}), tokens // len(safety))
            parts = [part[slot] for part in own]
        for number, micro in enumerate(there[: len(parts)]):
            micro.safety[slot] = sorted(chain.from_iterable(parts[number :: len(there)]))
    return dealt


def _longest_first(rows: Mapping[int, Lengths]) -> list[tuple[int, int, int]]:
    """(length, slot, place) of each row."""
    found = [(length, slot, n) for slot, own in rows.items() for n, length in enumerate(own)]
    return sorted(found, key=lambda row: (-row[0], row[1:]))


def _turns(dealt: Sequence[Sequence[MicroBatch]]) -> Iterator[list[MicroBatch]]:
    """The first micro-batch of every worker, then the second of those that have one."""
    for turn in range(max(map(len, dealt))):
        yield [own[turn] for own in dealt if turn < len(own)]


def _as_drawn(task: Mapping[int, Lengths], rank: int, workers: int, size: int) -> list[Places]:
    found: list[Places] = []
    for slot, lengths in task.items():
        places = range(len(lengths))[rank::workers]
        parts = [list(places[start : start + size]) for start in range(0, len(places), size)]
        found += [{} for _ in range(len(parts) - len(found))]
        for micro, part in zip(found, parts, strict=False):
            micro[slot] = part
    return found


def _by_length(rows: Sequence[tuple[int, int, int]], tokens: int) -> list[Places]:
    """Cuts rows (length, slot, place), longest first, where padding and passes cost least."""
    cost, start = [0.0] + [float("inf")] * len(rows), [0] * (len(rows) + 1)
    for first, (width, _, _) in enumerate(rows):
        for end in range(first + 1, len(rows) + 1):
            computed = (end - first) * width
            if computed > tokens and end > first + 1:
                break
            if cost[first] + computed + PASS_COSTS < cost[end]:
                cost[end], start[end] = cost[first] + computed + PASS_COSTS, first
    found, end = [], len(rows)
    while end:
        found.append(_places(rows[start[end] : end]))
        end = start[end]
    return found[::-1]


def _end_to_end(rows: Sequence[tuple[int, int, int]], tokens: int) -> list[Places]:
    """Fills micro-batches with rows (length, slot, place), a slot after the other, so that few
    slots share a pass and its products stay large; a slot's longest first, each where there is
    room."""
    found: list[list[tuple[int, int, int]]] = []
    room: list[int] = []
    for _, own in groupby(sorted(rows, key=lambda row: row[1]), key=lambda row: row[1]):
        first = max(0, len(found) - 1)
        for row in own:
            places = (n for n in range(first, len(found)) if room[n] >= row[0])
            if (place := next(places, None)) is None:
                place = len(found)
                found.append([])
                room.append(tokens)
            found[place].append(row)
            room[place] -= row[0]
    return list(map(_places, found))


def _places(rows: Sequence[tuple[int, int, int]]) -> Places:
    own = sorted((slot, place) for _, slot, place in rows)
    grouped = groupby(own, key=lambda one: one[0])
    return {slot: [place for _, place in places] for slot, places in grouped}


def computed(
    micro: MicroBatch,
    task: Mapping[int, Lengths],
    safety: Mapping[int, Lengths],
    packed: bool = False,
) -> Counter[int]:
    """Tokens of a micro-batch by slot: with padding, unless rows are `packed`."""
    found: Counter[int] = Counter()
    for places, lengths in ((micro.task, task), (micro.safety, safety)):
        own = {slot: [lengths[slot][place] for place in rows] for slot, rows in places.items()}
        longest = max((max(rows) for rows in own.values()), default=0)
        for slot, rows in own.items():
            found[slot] += sum(rows) if packed else len(rows) * longest
    return found


def count(
    dealt: Sequence[Sequence[MicroBatch]],
    task: Mapping[int, Lengths],
    safety: Mapping[int, Lengths],
    packed: bool = False,
) -> Tokens:
    """Tokens of a step that is so dealt."""
    each = [computed(micro, task, safety, packed).total() for own in dealt for micro in own]
    useful = sum(map(sum, (*task.values(), *safety.values())))
    return Tokens(useful, sum(each), max(each), len(each))


def expect(
    lengths: Lengths,
    batch_size: int,
    slots: int,
    workers: int,
    size: int,
    tokens: int | None,
    packed: bool = False,
) -> Tokens:
    """One epoch of a group of `slots` stages on rows of these lengths, each in an order of its
    own: as a training will have it, up to the draw."""
    orders = [random.Random(slot).sample(lengths, len(lengths)) for slot in range(slots)]
    found = []
    for start in range(0, len(lengths), batch_size):
        task = {slot: order[start : start + batch_size] for slot, order in enumerate(orders)}
        dealt = deal(task, {}, workers, size, tokens, packed)
        found.append(count(dealt, task, {}, packed))
    useful, computed, largest, micros = zip(*found, strict=True)
    return Tokens(sum(useful), sum(computed), max(largest), sum(micros))
