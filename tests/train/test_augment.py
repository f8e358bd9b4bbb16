"""Augmentation's decisions: PyTorch's own stream, and the same images from both engines."""

import numpy as np
import pytest

from relucate.train.augment import CROP, decisions
from relucate.train.streams import derive

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("names", [["flip"], ["crop"], ["flip", "crop"]])
@pytest.mark.parametrize(("seed", "examples"), [(0, 1), (3, 16), (2**40, 37)])
def test_they_are_what_torchs_generator_draws_step_by_step(names, seed, examples):
    random = torch.Generator().manual_seed(derive(seed, "augment", 2))
    found = decisions(names, seed, 2, steps=3, examples=examples)
    for step in range(3):
        if "flip" in names:
            flip = torch.rand(examples, generator=random) < 0.5
            np.testing.assert_array_equal(found.flip[step], flip)
        if "crop" in names:
            shift = torch.randint(0, 2 * CROP + 1, (2, examples), generator=random)
            np.testing.assert_array_equal(found.shift[step], shift)


def test_what_is_not_asked_for_is_not_drawn():
    found = decisions([], 0, 0, steps=2, examples=3)
    assert (found.flip, found.shift) == (None, None)


@pytest.mark.parametrize(
    ("names", "shape"),
    [
        (["flip"], (6, 5, 3)),
        (["crop"], (6, 5, 3)),
        (["flip", "crop"], (6, 5, 3)),
        (["flip"], (4, 6, 5, 3)),
    ],
)
def test_both_engines_train_on_the_same_images(names, shape):
    from relucate.data import make
    from relucate.keras.trainer import _Batches
    from relucate.torch.batches import Feed, batches
    from relucate.train import Recipe
    from relucate.train.standard import Standard

    x = np.random.default_rng(0).normal(size=(20, *shape)).astype(np.float32)
    data = make("toy", x, np.arange(20) % 2, x[:4], np.arange(4) % 2)
    part, _ = batches(data, device=torch.device("cpu"), channels_first=False)
    recipe = Recipe(batch_size=8, augment=names)
    theirs = _Batches(Standard.of(x)(x), data.y_train, recipe, seed=5)
    feed = Feed(part, 8, names)
    for epoch in (0, 1):
        theirs.begin(epoch)
        feed.start(5, epoch, np.zeros(feed.steps))
        for step in range(feed.steps):
            np.testing.assert_array_equal(theirs[step][0], feed.batch()[0].numpy())
            feed.advance()
