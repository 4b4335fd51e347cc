import numpy as np
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from hf_infomax.evaluation.naming import DOT, name_dots


def draw(places, names=None):
    figure = Figure(figsize=(6.4, 4.6), dpi=100, layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(0, 10), ylim=(0, 10))
    names = names or [f"a model {index}" for index in range(len(places))]
    boxes = name_dots(axes, [(name, place, "k") for name, place in zip(names, places, strict=True)])
    return figure, axes, boxes


def overlaps(one, other):
    found = Bbox.intersection(one, other)
    return found is not None and found.width > 0.5 and found.height > 0.5


def test_a_dozen_names_in_a_crowd_hide_neither_each_other_nor_a_dot():
    places = [tuple(place) for place in np.random.default_rng(0).normal(5, 1.1, size=(12, 2))]
    _, axes, boxes = draw(places)
    dots = axes.transData.transform(places)
    margin = DOT * 100 / 72
    dots = [Bbox.from_extents(*(dot - margin), *(dot + margin)) for dot in dots]
    assert not any(overlaps(box, dot) for box in boxes for dot in dots)
    assert not any(overlaps(one, other) for place, one in enumerate(boxes) for other in boxes[:place])


def test_names_at_the_edge_stay_inside():
    _, axes, boxes = draw([(0.2, 0.2), (9.9, 0.2), (0.2, 9.8), (9.9, 9.9)])
    for box in boxes:
        inside = Bbox.intersection(box, axes.bbox)
        assert inside.width * inside.height > 0.99 * box.width * box.height


def test_a_name_stands_where_it_was_tried():
    figure, axes, boxes = draw([(3, 3), (3.1, 3.1)])
    figure.draw_without_rendering()
    for text, box in zip(axes.texts, boxes, strict=True):
        np.testing.assert_allclose(text.get_window_extent().get_points(), box.get_points(), atol=1.0)


def test_alone_a_name_is_beside_its_dot_without_a_line():
    _, axes, _ = draw([(5, 5)], ["DIM"])
    assert axes.texts[0].get_text() == "DIM"
    assert axes.texts[0].arrow_patch is None
