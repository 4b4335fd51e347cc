import numpy as np
import pytest
import torch
from PIL import Image

from hf_infomax.data import recipes
from hf_infomax.data.__main__ import main
from hf_infomax.data.sheet import view_sheet


def test_a_row_an_image_and_a_column_a_view():
    images = torch.zeros(3, 3, 32, 32, dtype=torch.uint8)
    images[1, 0] = 255  # the second is red
    views = {"pixel_values": torch.rand(3, 2, 3, 32, 32), "jigsaw_values": torch.ones(3, 9, 3, 9, 9)}
    sheet = np.asarray(view_sheet(images, views))
    black, red = [(sheet == colour).all(-1) for colour in ([0, 0, 0], [255, 0, 0])]
    assert black.sum() >= 2 * 96 * 96
    assert red.sum() == 96 * 96
    rows, columns = np.nonzero(red)
    assert np.ptp(rows) == np.ptp(columns) == 95
    assert columns.max() < sheet.shape[1] / 4  # the images are the first of four columns


def test_patches_stay_in_their_places():
    patches = torch.linspace(0, 1, 9).view(1, 9, 1, 1, 1).expand(1, 9, 3, 4, 4)
    sheet = np.asarray(view_sheet(torch.ones(1, 3, 14, 14), {"jigsaw_values": patches}).convert("L")).astype(int)
    reading = [value for value in dict.fromkeys(sheet[26:, 108:].flatten().tolist()) if value not in (255, 225)]
    assert [value for value in reading if value in {round(255 * k / 8) for k in range(8)}] == sorted(
        round(255 * k / 8) for k in range(8)
    )


@pytest.mark.parametrize("recipe", ["dim", "infomin"])
def test_command(recipe, tmp_path, capsys):
    output = tmp_path / "views.png"
    assert main([recipe, "hf_infomax/colour_digits", "images=4", f"output={output}"]) == 0
    assert capsys.readouterr().out.strip() == str(output)
    with Image.open(output) as sheet:
        width, height = sheet.size
    assert height > 4 * 96
    assert width > (1 + len(recipes.RECIPES[recipe])) * 96


def test_command_says_what_is_wrong(capsys, tmp_path):
    assert main(["simclr", "hf_infomax/colour_digits", "jiter=0.5"]) == 2
    assert "no strength 'jiter': choose one of crop, flip, jitter" in capsys.readouterr().err
    assert main(["simclr", "hf_infomax/colour_digits", "jitter"]) == 2
    assert "write key=value" in capsys.readouterr().err
    assert main([]) == 2
    assert "infomin" in capsys.readouterr().out
