"""What the tests of figures share: pictures to draw, and whether a file looks like one."""

import numpy as np
import torch
from PIL import Image


def assert_is_a_picture(path):
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"), dtype=float)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert min(pixels.shape[:2]) > 150
    assert (pixels.min(axis=2) < 250).mean() > 0.01  # not a blank sheet
    edges = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert (edges == 255).all()  # nothing is cut off


def images(*shape):
    return torch.randint(256, (*shape, 3, 8, 8), dtype=torch.uint8)
