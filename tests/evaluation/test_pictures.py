import numpy as np
import torch

from hf_infomax.evaluation import plot_loss_maps, plot_neighbours
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
