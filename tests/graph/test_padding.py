import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relucate.graph.padding import explicit_padding, same_padding, transpose_crops


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


@pytest.mark.parametrize("padding", ["causal", ((1, 1),), ((1, 1), (0, 0), (0, 0))], ids=str)
def test_other_words_and_other_ranks_are_errors(padding):
    with pytest.raises(ValueError, match=r"or 2 \(before, after\) pairs, got"):
        explicit_padding(padding, (5, 5), (3, 3), (1, 1), (1, 1))


@given(
    size=st.integers(1, 20),
    window=st.integers(1, 6),
    stride=st.integers(1, 5),
    extra=st.none() | st.integers(0, 4),
)
def test_what_a_transposed_convolution_leaves(size, window, stride, extra):
    """Keras's two rules for the size of the output, with and without output_padding."""
    full = (size - 1) * stride + window
    given = None if extra is None else (extra,)
    valid, same = (
        full - sum(transpose_crops(word, given, (window,), (stride,), (1,))[0])
        for word in ("valid", "same")
    )
    if extra is None:
        assert valid == (size - 1) * stride + max(window, stride)
        assert same == size * stride
    else:
        assert valid == full + extra
        assert same == (size - 1) * stride + window % 2 + extra
