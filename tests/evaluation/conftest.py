from contextlib import contextmanager

import pytest
import torch
from torch import nn

from hf_infomax.evaluation import (
    ablation,
    comparison,
    figures,
    label_curves,
    layer_curves,
    pictures,
    projection,
    style,
    sweetspot,
    tradeoff,
)


class FakeModel(nn.Module):
    """What the evaluation asks of a model: names, and all layers of a batch in one pass; it counts the passes."""

    feature_layers = ("conv", "wide", "y")

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.y = nn.Linear(4, 5)
        self.seen = []

    def layers(self, pixel_values):
        self.seen.append((len(pixel_values), self.training, pixel_values.max().item()))
        conv = self.norm(self.conv(pixel_values))
        return {"conv": conv, "wide": conv.repeat(1, 40, 1, 1), "y": self.y(conv.mean(dim=(-2, -1)))}


@pytest.fixture
def model():
    return FakeModel()


@pytest.fixture
def pixels():
    return torch.randint(256, (10, 3, 16, 16), dtype=torch.uint8)


@pytest.fixture
def drawn(monkeypatch):
    """What was on the figure, noted just before it is saved: the axes' titles, labels, texts and pictures."""
    panels = []
    blank = style.house_figure

    @contextmanager
    def noting(*args, **kwargs):
        with blank(*args, **kwargs) as figure:
            yield figure
            for axes in figure.axes:
                panels.append(
                    {
                        "title": axes.get_title(loc="left"),
                        "x": axes.get_xlabel(),
                        "y": axes.get_ylabel(),
                        "lines": [(line.get_label(), line.get_xdata(), line.get_ydata()) for line in axes.lines],
                        "texts": [text.get_text() for text in axes.texts],
                        "images": [image.get_array() for image in axes.images],
                    }
                )

    drawing = (ablation, comparison, figures, label_curves, layer_curves, pictures, projection, sweetspot, tradeoff)
    for module in drawing:
        monkeypatch.setattr(module, "house_figure", noting)
    return panels
