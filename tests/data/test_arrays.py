"""What raw arrays become, and every kind that is refused."""

import numpy as np
import pytest

from relucate.data.arrays import codes_for, encode, encode_pair, examples, reading
from relucate.errors import InputError


@pytest.mark.parametrize(
    ("shape", "dtype", "expected"),
    [
        ((5, 6, 7), np.uint8, (5, 6, 7, 1)),
        ((5, 6, 7), np.int64, (5, 6, 7, 1)),
        ((5, 6, 7), np.float64, (5, 6, 7)),
        ((5, 6, 7, 3), np.float64, (5, 6, 7, 3)),
        ((5, 8, 6, 7, 3), np.uint8, (5, 8, 6, 7, 3)),
        ((5, 8, 6, 7, 1), np.float64, (5, 8, 6, 7, 1)),
        ((5, 4), np.float64, (5, 4)),
    ],
)
def test_images_get_a_channel_axis_and_others_stay(shape, dtype, expected):
    assert examples(np.zeros(shape, dtype), "x").shape == expected


def test_a_note_says_what_was_taken_for_tokens_or_sequences():
    assert "taken as tokens" in reading(examples(np.ones((5, 4), np.int32), "x"), "x")
    assert "sequences of 6 steps with 7 channels" in reading(np.zeros((5, 6, 7), np.float32), "x")
    assert "images with 7 channels (for volumes" in reading(np.zeros((5, 6, 8, 7), np.uint8), "x")
    plain = [np.zeros((5, 6, 8, 4)), np.zeros((5, 6, 8, 7, 7))]
    for x in (np.zeros((5, 4)), np.zeros((5, 6, 7), np.uint8), np.full((5, 4), -1), *plain):
        assert reading(examples(x, "x"), "x") == ""


def test_text_columns_of_a_data_frame_are_named():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"age": [1, 2], "city": ["a", "b"]})
    with pytest.raises(InputError, match=r"these columns hold others: 'city'\. Encode"):
        examples(frame, "x")


def test_several_inputs_are_refused_and_lead_to_the_own_function():
    with pytest.raises(InputError, match=r"x is a dict of 2 arrays.*compare\(run=\.\.\.\)"):
        examples({"a": np.zeros(3), "b": np.zeros(3)}, "x")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("uint8", "uint8"),
        ("int64", "int64"),
        ("uint16", "int64"),
        ("float16", "float32"),
        ("float64", "float32"),
        ("bool", "float32"),
        (">f4", "float32"),
    ],
)
def test_uint8_stays_and_other_numbers_become_float32(given, expected):
    x = np.array([[0, 1], [1, 0]]).astype(given)
    result = examples(x, "x")
    assert result.dtype == np.dtype(expected)
    np.testing.assert_array_equal(result, [[0, 1], [1, 0]])


def test_a_transposed_view_becomes_contiguous():
    x = np.zeros((4, 3, 8, 8), np.uint8).transpose(0, 2, 3, 1)
    assert examples(x, "x").flags.c_contiguous


def test_the_users_array_is_not_changed():
    x = np.arange(6.0).reshape(3, 2)
    before = x.copy()
    examples(x, "x")
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("shape", [(4, 3, 8, 8), (4, 1, 28, 28), (4, 3, 5, 9)])
def test_channels_first_is_refused_with_the_transposition(shape):
    with pytest.raises(InputError, match=r"x_train\.transpose\(0, 2, 3, 1\)"):
        examples(np.zeros(shape), "x_train")


@pytest.mark.parametrize(
    ("shape", "order"),
    [
        ((4, 3, 16, 8, 9), r"0, 2, 3, 4, 1\)"),
        ((4, 1, 5, 8, 8), r"0, 2, 3, 4, 1\)"),
        ((4, 4, 8, 8, 8), r"0, 2, 3, 4, 1\)"),  # four kinds of scans
        ((4, 16, 3, 8, 9), r"0, 1, 3, 4, 2\)"),  # frames as torchvision has them
        ((4, 3, 3, 8, 8), r"0, 2, 3, 4, 1\)"),
    ],
)
def test_volumes_whose_channels_are_not_last_are_refused_too(shape, order):
    with pytest.raises(InputError, match=r"x\.transpose\(" + order):
        examples(np.zeros(shape), "x")


@pytest.mark.parametrize("shape", [(4, 3, 8, 8, 3), (4, 16, 8, 9, 12), (4, 1, 8, 8, 1)])
def test_volumes_with_channels_last_are_not(shape):
    assert examples(np.zeros(shape), "x").shape == shape


@pytest.mark.parametrize("shape", [(4, 3, 4, 4), (4, 1, 28, 6), (4, 3, 28, 3)])
def test_small_or_flat_images_are_not_taken_for_channels_first(shape):
    assert examples(np.zeros(shape), "x").shape == shape


@pytest.mark.parametrize("shape", [(5,), (5, 2, 2, 2, 2, 2), (0, 4), (5, 0), (5, 0, 4, 1)])
def test_other_ranks_and_empty_axes_are_refused(shape):
    with pytest.raises(InputError, match=rf"x has shape \({shape[0]},"):
        examples(np.zeros(shape), "x")


def test_values_that_are_not_finite_are_counted_and_located():
    x = np.zeros((3, 2, 2, 1))
    x[1, 0, 1, 0] = np.nan
    x[2] = np.inf
    with pytest.raises(InputError, match=r"x isn't finite .* 5 places .*\[1, 0, 1, 0\], is nan"):
        examples(x, "x")


def test_a_float64_that_overflows_float32_is_refused():
    with pytest.raises(InputError, match=r"isn't finite in float32 at 1 place \("):
        examples(np.array([[1e300, 0.0]]), "x")


@pytest.mark.parametrize(
    ("x", "what"),
    [
        ([["a", "b"]], "<U1"),
        (np.array([[None, 1]], dtype=object), "object"),
        (np.zeros((2, 2), complex), "complex128"),
        ([[1, 2], [3]], "not an array"),
    ],
)
def test_what_is_not_numbers_is_refused(x, what):
    with pytest.raises(InputError, match=what):
        examples(x, "x")


@pytest.mark.parametrize(
    ("y", "codes", "names"),
    [
        ([5, -1, 5, 30], [1, 0, 1, 2], ("-1", "5", "30")),
        (["dog", "cat", "dog"], [1, 0, 1], ("cat", "dog")),
        (np.array([[3], [1]], np.uint8), [1, 0], ("1", "3")),
        (np.array([b"x", b"a"]), [1, 0], ("a", "x")),
        (np.array(["x", "a"], dtype=object), [1, 0], ("a", "x")),
        (np.array([True, False]), [1, 0], ("0", "1")),
        (np.eye(3)[[2, 0, 1]], [2, 0, 1], ("0", "1", "2")),
        (np.eye(2, dtype=bool), [0, 1], ("0", "1")),
    ],
)
def test_labels_become_codes_and_sorted_names(y, codes, names):
    got, got_names = encode(y, "y")
    assert got.dtype == np.int64
    np.testing.assert_array_equal(got, codes)
    assert got_names == names


@pytest.mark.parametrize(
    ("y", "what"),
    [
        ([0.0, 1.5], r"float64 labels .*1\.5.*the task is regression"),
        (np.array([[0.4, 0.6], [1, 0]]), r"shape \(2, 2\)"),
        (np.array([[1, 1], [1, 0]]), r"shape \(2, 2\)"),
        (np.zeros((2, 2, 2), int), r"shape \(2, 2, 2\)"),
        (np.array([1, None], dtype=object), "object labels"),
        (np.array(["2020-01-01"], dtype="datetime64[D]"), r"datetime64\[D\] labels"),
        ([[0], [1, 2]], "not an array"),
    ],
)
def test_labels_that_cannot_be_meant_are_refused(y, what):
    with pytest.raises(InputError, match=what):
        encode(y, "y")


def test_a_pair_shares_the_codes_of_the_training_labels():
    train, test, names = encode_pair(np.array([9, 2, 4], np.uint8), [4, 9])
    np.testing.assert_array_equal(train, [2, 0, 1])
    np.testing.assert_array_equal(test, [1, 2])
    assert names == ("2", "4", "9")


def test_one_hot_and_integer_labels_go_together():
    train, test, _ = encode_pair(np.eye(3)[[0, 1, 2]], [[2], [0]])
    np.testing.assert_array_equal(train, [0, 1, 2])
    np.testing.assert_array_equal(test, [2, 0])


def test_a_test_label_that_training_lacks_is_refused():
    with pytest.raises(InputError, match=r"y_test holds 7, which y_train doesn't.*0, 1"):
        encode_pair([0, 1], [1, 7])


def test_numbers_and_text_together_are_refused():
    with pytest.raises(InputError, match=r"int64 labels but y_test <U1"):
        encode_pair([0, 1], ["0", "1"])


def test_one_hot_labels_of_different_widths_are_refused():
    with pytest.raises(InputError, match="3 columns but y_test with 2"):
        encode_pair(np.eye(3), np.eye(2))


@pytest.mark.parametrize(("y", "what"), [([0, 2], "label 2"), ([-1], "label -1"), (["a"], "<U1")])
def test_codes_outside_the_class_names_are_refused(y, what):
    with pytest.raises(InputError, match=what):
        codes_for(y, "y_train", ("cat", "dog"))


def test_bytes_that_are_no_text_are_refused():
    with pytest.raises(InputError, match=r"y holds bytes that aren't UTF-8"):
        encode(np.array([b"caf\xe9", b"th\xe9"]), "y")


def test_labels_that_int64_cannot_hold_are_refused():
    with pytest.raises(InputError, match="18446744073709551615"):
        encode(np.array([0, 2**64 - 1], np.uint64), "y")
    assert encode(np.array([3, 7, 3], np.uint64), "y")[1] == ("3", "7")


@pytest.mark.parametrize("order", ["<", ">"])
def test_text_beyond_unicode_is_refused(order):
    text = np.array([0x61, 0x110000, 0x62], f"{order}u4").view(f"{order}U1")
    with pytest.raises(InputError, match="y holds text that isn't Unicode"):
        encode(text, "y")
    names = np.array(["\U0010ffff", "", "b"], f"{order}U1")
    assert encode(names, "y")[1] == ("", "b", "\U0010ffff")
