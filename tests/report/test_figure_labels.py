"""Labels hide neither marks nor each other, by matplotlib's own measure of where texts end up."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from raycib.report.labels import Labels


def panel_with(places: np.ndarray):
    figure = Figure(figsize=(4.3, 3.3))
    canvas = FigureCanvasAgg(figure)
    panel = figure.subplots()
    panel.plot(*places.T, "o", ms=4)
    panel.set(xlim=(-0.1, 1.1), ylim=(-0.1, 1.1))
    return panel, canvas


def boxes(panel, canvas):
    canvas.draw()
    # Of the letters alone: an annotation's own box has its line as well.
    return [Text.get_window_extent(text, canvas.get_renderer()) for text in panel.texts]


@pytest.mark.parametrize("crowd", [0.3, 0.05])
def test_labels_of_a_crowd_stand_apart_and_beside_the_marks(crowd):
    places = 0.5 + crowd * (np.random.default_rng(0).random((8, 2)) - 0.5)
    panel, canvas = panel_with(places)
    labels = Labels(panel)
    named = [labels.beside(x, y, f"λ {n}", "black") for n, (x, y) in enumerate(places)]
    assert sum(named) >= 6, "there is room around them"
    found = boxes(panel, canvas)
    assert len(found) == sum(named)
    assert not [1 for a, b in combinations(found, 2) if a.overlaps(b)]
    marks = panel.transData.transform(places)
    assert not [1 for box in found for x, y in marks if box.contains(x, y)]


def test_one_mark_alone_is_named_at_its_right_without_a_line():
    panel, canvas = panel_with(np.array([[0.5, 0.5]]))
    assert Labels(panel).beside(0.5, 0.5, "here", "black")
    (text,) = panel.texts
    assert text.arrow_patch is None
    x, y = panel.transData.transform((0.5, 0.5))
    (box,) = boxes(panel, canvas)
    assert x < box.x0 < x + 20 and abs(box.y0 + box.height / 2 - y) < 15


def test_a_line_is_named_where_no_mark_is():
    """All marks are above the right half of the line."""
    x = np.linspace(0.45, 1.05, 30)
    places = np.concatenate([np.stack([x, 0.5 + sign * 0.05 + 0 * x], 1) for sign in (1, -1)])
    panel, canvas = panel_with(places)
    Labels(panel).along(0.5, "before", "black")
    (box,) = boxes(panel, canvas)
    assert box.x1 < panel.transData.transform((0.45, 0))[0]


def test_a_line_in_a_crowd_is_named_farther_up_with_a_line_that_leads_there():
    """Marks lie all along the line, and none from an eighth of the panel above it; there is no room
    below it."""
    x = np.linspace(-0.05, 1.05, 60)
    places = np.concatenate([np.stack([x, up + 0 * x], 1) for up in (-0.05, -0.01, 0.03)])
    panel, canvas = panel_with(places)
    Labels(panel).along(-0.09, "before", "black")
    (text,) = panel.texts
    (box,) = boxes(panel, canvas)
    marks = panel.transData.transform(places)
    assert not [1 for x, y in marks if box.contains(x, y)]
    end, start = panel.transAxes.transform(text.xy), panel.transAxes.transform(text.get_position())
    assert text.arrow_patch is not None
    assert end[0] == pytest.approx(start[0]), "it goes straight down"
    assert end[1] == pytest.approx(panel.transData.transform((0, -0.09))[1])
