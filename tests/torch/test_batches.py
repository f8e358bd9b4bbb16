"""Batches: the seed's order, uint8 kept until it is needed, augmentation that arms share."""

import gc

import numpy as np
import pytest
import torch

from relucate.data import make
from relucate.torch.batches import Feed, batches, placed
from relucate.train.standard import channel_moments
from relucate.train.streams import epoch_order

CPU = torch.device("cpu")


def images(dtype=np.uint8, n=20):
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (n, 6, 5, 3)).astype(dtype)
    return make("toy", x, np.arange(n) % 2, x[:4], np.arange(4) % 2)


def drawn(part, seed=0, epoch=0, size=8, augment=()):
    feed = Feed(part, size, augment)
    feed.start(seed, epoch, np.zeros(feed.steps))
    return list(rest_of(feed))


def rest_of(feed):
    for _ in range(feed.steps):
        yield feed.batch()
        feed.advance()


@pytest.mark.parametrize("channels_first", [True, False])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_inputs_are_standardised_in_the_models_layout(dtype, channels_first):
    data = images(dtype)
    train, test = batches(data, device=CPU, channels_first=channels_first)
    mean, scale = channel_moments(data.x_train)
    expected = (data.x_test.astype(np.float32) - mean) * scale
    got = test.inputs(slice(0, 4)).numpy()
    np.testing.assert_allclose(got, np.moveaxis(expected, -1, 1) if channels_first else expected)
    assert train.x.dtype == (torch.uint8 if dtype == np.uint8 else torch.float32)


def test_without_standardising_inputs_are_the_raw_values_as_floats():
    data = images()
    train, _ = batches(data, device=CPU, channels_first=False, standardize=False)
    np.testing.assert_array_equal(train.inputs(slice(0, 20)).numpy(), data.x_train)
    assert train.inputs(slice(0, 1)).dtype == torch.float32


def test_channels_first_is_a_view_in_channels_last_memory():
    train, _ = batches(images(), device=CPU, channels_first=True)
    x = train.inputs(torch.arange(8))
    assert x.shape == (8, 3, 6, 5)
    assert x.is_contiguous(memory_format=torch.channels_last)


def test_so_are_volumes_and_a_flip_mirrors_their_width():
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (200, 4, 6, 5, 3)).astype(np.uint8)
    data = make("toy", x, np.arange(200) % 2, x[:4], np.arange(4) % 2)
    train, _ = batches(data, device=CPU, channels_first=True)
    plain, flipped = (drawn(train, size=200, augment=names)[0][0] for names in ((), ("flip",)))
    assert plain.shape == (200, 3, 4, 6, 5)
    assert plain.is_contiguous(memory_format=torch.channels_last_3d)
    same = (plain == flipped).flatten(1).all(1)
    assert 60 < same.sum() < 140
    assert (same | (plain.flip(-1) == flipped).flatten(1).all(1)).all()
    values = train.inputs(slice(0, 200))
    np.testing.assert_allclose(values.mean((0, 2, 3, 4)), 0, atol=1e-4)
    np.testing.assert_allclose(values.std((0, 2, 3, 4)), 1, atol=1e-3)


def test_an_epoch_is_the_seeds_order_in_full_batches():
    train, _ = batches(images(), device=CPU, channels_first=True)
    labels = torch.cat([y for _, y in drawn(train)])
    assert len(labels) == 16  # the last four are left out
    np.testing.assert_array_equal(labels, train.y[epoch_order(0, 0, 20)[:16]])
    again = torch.cat([y for _, y in drawn(train)])
    assert torch.equal(labels, again)
    assert not torch.equal(labels, torch.cat([y for _, y in drawn(train, seed=1)]))
    assert not torch.equal(labels, torch.cat([y for _, y in drawn(train, epoch=1)]))


def test_feature_vectors_stay_as_they_are():
    x = np.random.default_rng(0).normal(size=(10, 7)).astype(np.float32)
    data = make("vectors", x, np.arange(10) % 2, x, np.arange(10) % 2)
    train, _ = batches(data, device=CPU, channels_first=True)
    assert drawn(train, size=5)[0][0].shape == (5, 7)


def test_the_users_arrays_are_not_changed():
    data = images(np.float32)
    kept = data.x_train.copy()
    train, _ = batches(data, device=CPU, channels_first=False)
    train.x.zero_()
    np.testing.assert_array_equal(data.x_train, kept)


class TestAugmentation:
    def test_a_flip_mirrors_about_half_of_the_images(self):
        data = images(n=200)
        train, _ = batches(data, device=CPU, channels_first=False)
        plain, flipped = (
            drawn(train, size=200)[0][0],
            drawn(train, size=200, augment=["flip"])[0][0],
        )
        same = (plain == flipped).flatten(1).all(1)
        mirrored = (plain.flip(2) == flipped).flatten(1).all(1)
        assert (same | mirrored).all()
        assert 60 < same.sum() < 140

    def test_a_crop_shifts_by_up_to_four_pixels_over_zeros(self):
        data = images(n=200)
        train, _ = batches(data, device=CPU, channels_first=False)
        plain, moved = drawn(train, size=200)[0][0], drawn(train, size=200, augment=["crop"])[0][0]
        padded = torch.nn.functional.pad(plain, (0, 0, 4, 4, 4, 4))
        shifts = {}
        for example in range(200):
            for row in range(9):
                for column in range(9):
                    window = padded[example, row : row + 6, column : column + 5]
                    if torch.equal(window, moved[example]):
                        shifts.setdefault(example, (row, column))
        assert len(shifts) == 200
        assert {row for row, _ in shifts.values()} == set(range(9))
        assert {column for _, column in shifts.values()} == set(range(9))

    def test_the_draws_depend_on_seed_and_epoch_alone(self):
        train, _ = batches(images(), device=CPU, channels_first=False)
        both = ["flip", "crop"]
        first = drawn(train, augment=both)
        torch.manual_seed(99)  # what an arm's dropout does
        torch.rand(7)
        again = drawn(train, augment=both)
        assert all(torch.equal(a, b) for (a, _), (b, _) in zip(first, again, strict=True))
        plain = torch.stack([x for x, _ in drawn(train, epoch=1)])
        other = torch.stack([x for x, _ in drawn(train, epoch=1, augment=both)])
        assert not torch.equal(plain, other)

    def test_the_global_generator_is_left_alone(self):
        train, _ = batches(images(), device=CPU, channels_first=False)
        torch.manual_seed(1)
        expected = torch.rand(1)
        torch.manual_seed(1)
        drawn(train, augment=["flip", "crop"])
        assert torch.equal(torch.rand(1), expected)


class TestFeed:
    def test_an_epoch_keeps_the_memory_of_the_one_before(self):
        train, _ = batches(images(), device=CPU, channels_first=False)
        feed = Feed(train, 8, ["flip", "crop"])
        tensors = [x for x in vars(feed).values() if isinstance(x, torch.Tensor)]
        assert len(tensors) == 6
        places = [x.data_ptr() for x in tensors]
        for epoch in (0, 1):
            feed.start(0, epoch, np.full(2, epoch))
            assert len(list(rest_of(feed))) == 2
        assert [x.data_ptr() for x in tensors] == places

    def test_the_second_epoch_of_a_feed_is_that_of_a_new_one(self):
        train, _ = batches(images(), device=CPU, channels_first=False)
        feed = Feed(train, 8, ["flip", "crop"])
        for epoch in (0, 1):
            feed.start(3, epoch, np.zeros(2))
            found = list(rest_of(feed))
        expected = drawn(train, seed=3, epoch=1, augment=["flip", "crop"])
        for (x, y), (a, b) in zip(found, expected, strict=True):
            assert torch.equal(x, a)
            assert torch.equal(y, b)

    def test_every_step_has_its_rate_in_one_tensor(self):
        train, _ = batches(images(), device=CPU, channels_first=False)
        feed = Feed(train, 8, [])
        rate, rates = feed.rate, [0.1, 1 / 3]
        feed.start(0, 0, np.array(rates))
        assert [rate.item() for _ in rest_of(feed)] == rates  # in full, as a Python number


class TestPlaced:
    def parts(self, data, share=0.0, **options):
        place = {"device": CPU, "channels_first": True, "standardize": True, **options}
        return placed(data, data.held_out(share), **place)

    def test_runs_on_one_data_set_share_its_tensors_and_not_their_labels(self):
        data = images()
        first, second = self.parts(data), self.parts(data, channels_first=False)
        assert first["train"].x is second["train"].x
        assert (first["train"].channels_first, second["train"].channels_first) == (True, False)
        first["train"].y = None
        assert second["train"].y is not None

    def test_other_settings_and_other_data_have_tensors_of_their_own(self):
        data = images()
        first = self.parts(data)
        assert set(first) == {"train", "test"}
        assert self.parts(data, standardize=False)["train"].scale.tolist() == [1.0, 1.0, 1.0]
        held = self.parts(data, share=0.5)
        assert (len(held["train"]), len(held["held"]), len(held["test"])) == (10, 10, 4)
        assert self.parts(images(n=12))["train"].x.shape[0] == 12

    def test_a_data_set_that_is_gone_leaves_nothing(self):
        from relucate.torch.batches import _placed

        data = images()
        self.parts(data)
        assert data in _placed
        before = len(_placed)
        del data
        gc.collect()
        assert len(_placed) < before
