import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from hf_infomax.evaluation import projection
from hf_infomax.evaluation.projection import CLASS_COLOURS, plot_projection, project
from hf_infomax.models.errors import UsageError
from tests.evaluation.looks import assert_is_a_picture


def test_pca_keeps_the_distances_of_a_plane():
    generator = torch.Generator().manual_seed(0)
    plane = torch.randn(30, 2, generator=generator)
    directions = torch.linalg.qr(torch.randn(9, 9, generator=generator))[0][:2]  # (2, 9), orthonormal
    found = project(plane @ directions + 3, "pca")
    torch.testing.assert_close(torch.pdist(found), torch.pdist(plane), atol=1e-4, rtol=1e-4)


def test_tsne_keeps_neighbours_and_is_the_same_again():
    labels = torch.arange(60) % 3
    features = 12 * torch.eye(3, 70)[labels] + torch.randn(60, 70, generator=torch.Generator().manual_seed(0))
    points = project(features, "tsne", seed=3)
    assert points.shape == (60, 2)
    nearest = torch.cdist(points, points).fill_diagonal_(torch.inf).argmin(dim=1)
    assert (labels[nearest] == labels).all()
    assert torch.equal(points, project(features, "tsne", seed=3))


@pytest.mark.parametrize("method", ["tsne", "pca"])
def test_few_points_and_few_features_are_enough(method):
    for shape in ((4, 1), (5, 3)):
        points = project(torch.randn(shape, generator=torch.Generator().manual_seed(0)), method)
        assert points.shape == (len(points), 2)
        assert points.isfinite().all()
    assert torch.equal(project(torch.ones(6, 8), method), torch.zeros(6, 2))  # a collapsed encoder


def test_what_cannot_be_projected_is_said():
    with pytest.raises(UsageError, match="N from 4 up"):
        project(torch.randn(3, 8))
    with pytest.raises(UsageError, match="Unknown projection 'umap'"):
        project(torch.randn(8, 8), "umap")
    with pytest.raises(UsageError, match="NaN"):
        project(torch.full((8, 8), torch.nan))


def test_a_panel_for_each_model_with_every_image(tmp_path, drawn):
    labels = torch.arange(40) % 4
    models = {"DIM": torch.randn(40, 2), "CMC": torch.randn(40, 2)}
    path = plot_projection(models, labels, tmp_path / "p.png", ["cat", "dog", "ship", "frog"])
    assert [panel["title"] for panel in drawn] == ["DIM", "CMC"]
    assert_is_a_picture(path)


def test_only_so_many_classes_are_coloured_as_are_told_apart():
    axes = Figure().subplots()
    labels = np.arange(60) % 30
    projection._draw_classes(
        axes, np.random.default_rng(0).normal(size=(60, 2)), labels, {k: f"c{k}" for k in range(10)}
    )
    pale, coloured = axes.collections[:2]
    assert (len(pale.get_offsets()), len(coloured.get_offsets())) == (40, 20)
    assert len({tuple(colour) for colour in coloured.get_facecolors()}) == len(CLASS_COLOURS)
    assert axes.get_legend_handles_labels()[1] == [*(f"c{k}" for k in range(10)), "other classes"]


def test_points_labels_and_names_have_to_fit(tmp_path):
    with pytest.raises(UsageError, match=r"DIM has points of shape \(5, 3\)"):
        plot_projection({"DIM": torch.randn(5, 3)}, torch.zeros(5, dtype=torch.long), tmp_path / "p.png")
    with pytest.raises(UsageError, match="2 class names and a label 4"):
        plot_projection({"DIM": torch.randn(5, 2)}, torch.arange(5), tmp_path / "p.png", ["a", "b"])
    with pytest.raises(UsageError, match="no model's projection"):
        plot_projection({}, torch.arange(5), tmp_path / "p.png")
