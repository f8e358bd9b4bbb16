import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relucate.graph.padding import same_padding


@given(
    size=st.integers(1, 40),
    window=st.integers(1, 7),
    stride=st.integers(1, 5),
    dilation=st.integers(1, 3),
)
def test_gives_ceil_of_size_over_stride_with_as_few_zeros_as_possible(
    size, window, stride, dilation
):
    before, after = same_padding(size, window, stride, dilation)
    reach = (window - 1) * dilation + 1
    wanted = int(np.ceil(size / stride))
    outputs = (size + before + after - reach) // stride + 1
    assert outputs == wanted
    assert 0 <= after - before <= 1
    if before + after:  # one zero less would lose the last output
        assert (size + before + after - 1 - reach) // stride + 1 == wanted - 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((8, 3, 2), (0, 1)),
        ((7, 3, 2), (1, 1)),
        ((5, 2, 1), (0, 1)),
        ((9, 2, 3), (0, 0)),
        ((5, 1, 3), (0, 0)),
        ((10, 3, 1, 2), (2, 2)),
    ],
)
def test_known_values(arguments, expected):
    assert same_padding(*arguments) == expected
