"""Small data sets and image folders for the tests of `relucate.data`."""

import numpy as np
import pytest
from PIL import Image

from relucate.data import make


@pytest.fixture
def toy():
    """120 training and 60 test vectors of three classes, 3:2:1."""
    rng = np.random.default_rng(0)
    y_train = np.repeat([0, 1, 2], [60, 40, 20])
    y_test = np.repeat([0, 1, 2], [30, 20, 10])
    x_train, x_test = rng.normal(size=(120, 4)), rng.normal(size=(60, 4))
    return make("toy", x_train, y_train, x_test, y_test, ["a", "b", "c"], notes=["made up"])


@pytest.fixture
def write_image():
    """A function that writes one random image and returns its pixels, (h, w, 3) or (h, w)."""

    def write(path, size=(6, 5), mode="RGB", seed=0):
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (*size, 3) if mode == "RGB" else size
        pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        return pixels

    return write


@pytest.fixture
def image_folder(tmp_path, write_image):
    """A folder with train/ and test/: cat and dog, four and two PNG files each, 6 x 5 pixels."""
    root = tmp_path / "pets"
    for part, count in (("train", 4), ("test", 2)):
        for name in ("cat", "dog"):
            for i in range(count):
                seed = len(part) * 1000 + ord(name[0]) * 10 + i
                write_image(root / part / name / f"{i}.png", seed=seed)
    return root


@pytest.fixture
def cache(tmp_path):
    """An empty cache folder."""
    return tmp_path / "cache"
