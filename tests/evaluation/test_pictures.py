import numpy as np
import pytest
import torch
from matplotlib.axes import Axes

from hf_infomax.evaluation import plot_loss_maps, plot_neighbours
from hf_infomax.models.errors import UsageError
from tests.evaluation.looks import assert_is_a_picture, images


def test_neighbours_have_the_query_and_a_panel_for_each_model(tmp_path, drawn):
    queries, found = images(3), {"DIM": images(3, 4), "pixels": images(3, 4).float() / 255}
    path = plot_neighbours(queries, found, tmp_path / "n.png")
    assert [panel["title"] for panel in drawn] == ["Query", "DIM", "pixels"]
    sheet = drawn[1]["images"][0]
    assert sheet.shape == (3 * 8 + 2, 4 * 8 + 3, 3)  # one white pixel between two images
    np.testing.assert_allclose(sheet[9:17, 18:26], found["DIM"][1, 2].permute(1, 2, 0) / 255, atol=1e-6)
    assert_is_a_picture(path)


def test_loss_maps_stand_beside_their_images_on_one_scale(tmp_path, drawn):
    maps = torch.rand(5, 4, 4)
    path = plot_loss_maps(images(5), maps, tmp_path / "l.png", per_line=3)
    pictures = [panel["images"][0] for panel in drawn if panel["images"]]
    assert len(pictures) == 10
    np.testing.assert_allclose(pictures[3], maps[1])
    assert drawn[-1]["y"] == "InfoNCE loss (nats)"
    assert_is_a_picture(path)


def test_occluded_images_have_a_second_pair_below_the_first_on_the_same_scale(tmp_path, drawn):
    whole, occluded, maps, occluded_maps = images(3), images(3), torch.rand(3, 4, 4), 5 + torch.rand(3, 4, 4)
    path = plot_loss_maps(
        whole, maps, tmp_path / "l.png", per_line=2, occluded_images=occluded, occluded_maps=occluded_maps
    )
    pictures = [panel["images"][0] for panel in drawn if panel["images"]]
    assert len(pictures) == 12
    np.testing.assert_allclose(pictures[2], whole[1].permute(1, 2, 0) / 255, atol=1e-6)
    np.testing.assert_allclose(pictures[3], maps[1])
    np.testing.assert_allclose(pictures[8], occluded[1].permute(1, 2, 0) / 255, atol=1e-6)
    np.testing.assert_allclose(pictures[9], occluded_maps[1])
    assert [panel["texts"] for panel in drawn if panel["texts"]] == [["whole"], ["whole"], ["occluded"], ["occluded"]]
    assert_is_a_picture(path)


def test_one_scale_spans_the_maps_of_both(tmp_path, monkeypatch):
    norms = []
    show = Axes.imshow
    monkeypatch.setattr(
        Axes, "imshow", lambda *args, **kwargs: norms.append(kwargs.get("vmax")) or show(*args, **kwargs)
    )
    maps, occluded_maps = torch.rand(2, 4, 4), 5 + torch.rand(2, 4, 4)
    plot_loss_maps(images(2), maps, tmp_path / "l.png", occluded_images=images(2), occluded_maps=occluded_maps)
    assert {norm for norm in norms if norm is not None} == {occluded_maps.max().item()}


@pytest.mark.parametrize(
    ("occluded", "sentence"),
    [
        ({"occluded_images": images(2)}, "both or neither"),
        ({"occluded_maps": torch.rand(2, 4, 4)}, "both or neither"),
        ({"occluded_images": images(3), "occluded_maps": torch.rand(3, 4, 4)}, "for 3 images"),
        ({"occluded_images": images(2), "occluded_maps": torch.rand(2, 16)}, "n = 2"),
    ],
)
def test_pairs_that_do_not_belong_together_are_refused(tmp_path, occluded, sentence):
    with pytest.raises(UsageError, match=sentence):
        plot_loss_maps(images(2), torch.rand(2, 4, 4), tmp_path / "l.png", **occluded)
