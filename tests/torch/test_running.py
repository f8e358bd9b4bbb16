import numpy as np
import pytest

from relucate.torch.running import other_sizes


@pytest.mark.parametrize(
    ("shape", "found"),
    [
        ((8, 3, 8, 6), [(2, 3, 4, 3), (2, 3, 16, 12)]),
        ((8, 3, 64, 40), [(2, 3, 32, 20), (2, 3, 96, 72)]),
        ((8, 5, 10), [(2, 5, 5), (2, 5, 20), (2, 2, 10), (2, 10, 10)]),
        ((8, 7), [(2, 3), (2, 14)]),
        ((8, 3, 1, 1), [(2, 3, 2, 2)]),
        ((8,), []),
    ],
)
def test_smaller_and_larger_inputs(shape, found):
    x = np.arange(np.prod(shape)).reshape(shape)
    resized = [one for (one,) in other_sizes([x])]
    assert [one.shape for one in resized] == found
    assert all(np.isin(one, x).all() for one in resized)


def test_all_inputs_change_together():
    image, vector = np.ones((8, 3, 4, 4)), np.ones((8, 5))
    shapes = [[x.shape for x in xs] for xs in other_sizes([image, vector])]
    assert shapes == [[(2, 3, 2, 2), (2, 5)], [(2, 3, 8, 8), (2, 5)]]
