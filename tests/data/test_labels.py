"""Labels of every kind: which kind they are taken for, what they become, what is refused."""

import numpy as np
import pytest

from relucate.data import Dataset, make
from relucate.data.dataset import make_split
from relucate.data.labels import KINDS, read
from relucate.errors import InputError
from relucate.train.tasks import TASKS

VECTORS, IMAGES, VOLUMES = (6, 3), (6, 4, 5, 1), (6, 2, 4, 5, 1)
MASKS = np.arange(6 * 4 * 5).reshape(6, 4, 5) % 3 * 10
DEEP = np.stack([MASKS, MASKS[::-1]], axis=1)


@pytest.mark.parametrize(
    ("y", "kind"),
    [
        ([0, 1, 2, 0, 1, 2], "classes"),
        (["a", "b", "a", "b", "a", "b"], "classes"),
        (np.eye(3)[[0, 1, 2, 0, 1, 2]], "classes"),
        ([0.0, 1.0, 1.0, 0.0, 0.0, 1.0], "classes"),
        ([0.0, 1.0, 2.0, 0.0, 1.0, 2.0], "targets"),
        (np.float32([[1.5], [2], [3], [4], [5], [6]]), "targets"),
        (np.arange(12.0).reshape(6, 2), "targets"),
        (np.int64([[1, 1], [0, 0], [1, 0], [0, 1], [1, 1], [0, 0]]), "marks"),
        (np.float32([[1, 1], [0, 0], [1, 0], [0, 1], [1, 1], [0, 0]]), "marks"),
        (MASKS, "masks"),
        (MASKS[..., None].astype(np.uint8), "masks"),
        (MASKS.astype(np.float32), "masks"),
        (np.eye(3, dtype=np.uint8)[MASKS // 10], "masks"),
    ],
)
def test_labels_decide_their_kind(y, kind):
    found = read([(y, "y")], IMAGES if kind == "masks" else VECTORS)
    assert found.kind == kind
    assert len(found.parts[0]) == 6


def test_every_task_takes_a_kind_and_every_kind_has_a_task():
    assert {task.labels for task in TASKS.values()} == set(KINDS)


def test_a_choice_is_said_in_a_note():
    assert read([([0, 1], "y")], VECTORS).notes == ()
    (note,) = read([([0.5, 2], "y_train")], VECTORS).notes
    assert note.startswith("y_train holds float64 numbers: the task is regression")
    assert "two classes" in read([([0.0, 1.0], "y")], VECTORS).notes[0]
    assert "multilabel" in read([(np.ones((2, 2)), "y")], VECTORS).notes[0]


def test_a_task_that_is_asked_for_decides():
    assert read([([3, 1, 2], "y")], VECTORS, task="regression").parts[0].tolist() == [[3], [1], [2]]
    found = read([([3.0, 1.0], "y")], VECTORS, task="classification")
    assert (found.kind, found.parts[0].tolist(), found.names) == ("classes", [1, 0], ("1", "3"))
    assert read([(np.eye(2), "y")], VECTORS, task="multilabel").kind == "marks"


@pytest.mark.parametrize(
    ("values", "odd"),
    [
        ((0, 1, 255), "255"),
        ((0, 1, -1), "-1"),
        ((0, 255), ""),
        ((0, 1, 2), ""),
        ((254, 255, 0), ""),
    ],
)
def test_values_that_usually_mean_ignore_are_noted(values, odd):
    masks = np.resize(values, (2, 4, 5))
    notes = read([(masks, "y")], IMAGES).notes
    assert [note.partition(",")[0] for note in notes] == ([f"y holds {odd}"] if odd else [])


@pytest.mark.parametrize(("classes", "examples", "noted"), [(30, 60, 1), (30, 1500, 0), (9, 60, 0)])
def test_whole_numbers_that_may_be_no_classes_are_noted(classes, examples, noted):
    found = read([(np.arange(examples) % classes, "y")], VECTORS)
    assert found.kind == "classes"
    assert len(found.notes) == noted


def test_masks_become_codes_of_the_values_that_training_has():
    found = read([(MASKS, "y_train"), (MASKS[:2], "y_test")], IMAGES)
    assert found.names == ("0", "10", "20")
    np.testing.assert_array_equal(found.parts[0], MASKS // 10)
    assert found.parts[0].dtype == np.uint8


@pytest.mark.parametrize("y", [DEEP, DEEP[..., None], np.eye(3, dtype=int)[DEEP // 10]])
def test_masks_of_volumes_have_their_depth(y):
    found = read([(y, "y")], VOLUMES)
    assert found.kind == "masks"
    np.testing.assert_array_equal(found.parts[0], DEEP // 10)


def test_the_columns_of_a_data_frame_name_the_targets():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"height": [1.5, 2.0], "weight": [3.0, 4.5]})
    assert read([(frame, "y")], VECTORS).names == ("height", "weight")
    assert read([(frame["weight"], "y")], VECTORS).names == ("weight",)
    assert read([([1.5, 2], "y")], VECTORS).names == ("target 0",)


@pytest.mark.parametrize(
    ("y", "shape", "task", "words"),
    [
        (np.array([[0.4, 0.6], [1, 0]]), VECTORS, None, "soft labels.*task='regression'.*run="),
        (np.array([[4, 6], [1, 0]]), VECTORS, None, "several targets.*task='regression'"),
        (np.zeros((2, 4, 5), int), VECTORS, None, r"aren't images.*compare\(run=\.\.\.\)"),
        (MASKS + 0.5, IMAGES, None, "segmentation takes masks of whole numbers"),
        (MASKS, VOLUMES, None, r"whole numbers, \(n, depth, height, width\)"),
        (DEEP, IMAGES, None, r"whole numbers, \(n, height, width\)"),
        ([1.0, np.nan], VECTORS, None, r"1 values that are not finite \(the first in row 1\)"),
        ([1.5, 1.5], VECTORS, None, "one value only for 'target 0'"),
        (["a", "b"], VECTORS, "regression", "regression takes numbers"),
        ([0, 1], VECTORS, "multilabel", "multilabel takes a column"),
        ([0.5, 1], VECTORS, "classification", "no classes.*task is regression"),
        ([0, 1], VECTORS, "segmentation", "segmentation takes masks"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_a_way_on(y, shape, task, words):
    with pytest.raises(InputError, match=words):
        read([(y, "y")], shape, task=task)


def test_parts_must_agree():
    with pytest.raises(InputError, match="y_train has 2 columns but y_test 3"):
        read([(np.ones((4, 2)) / 3, "y_train"), (np.ones((4, 3)) / 3, "y_test")], VECTORS)
    with pytest.raises(InputError, match=r"y_test holds the class 7.*0, 10, 20"):
        read([(MASKS, "y_train"), (np.full((1, 4, 5), 7), "y_test")], IMAGES)


LABELS = {
    "classes": np.arange(40) % 4,
    "targets": np.random.default_rng(0).normal(size=(40, 2)),
    "marks": np.random.default_rng(0).integers(0, 2, (40, 3)),
    "masks": np.random.default_rng(0).integers(0, 2, (40, 4, 5)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_data_set_of_every_kind_is_split_saved_and_listed(kind, tmp_path):
    x = np.random.default_rng(1).normal(size=(40, 4, 5, 1))
    data = make_split("toy", x, LABELS[kind], say=True)
    assert data.labels == kind
    assert len(data.y_test) == 8
    assert data.classes == {"classes": 4, "targets": 2, "marks": 3, "masks": 2}[kind]
    assert ("a stratified 20%" if kind == "classes" else "a random 20%") in data.notes[0]
    again = Dataset.open(data.save(tmp_path / "set"))
    assert again == data
    assert again.labels == kind
    part, held = data.held_out(0.25)
    assert (len(part.y_train), len(held.y_test), part.labels) == (24, 8, kind)
    assert len(data.subset(train_size=10).y_train) == 10
    assert len(data.to_dict()[kind]) == data.classes
    assert KINDS[kind] in str(data)


def test_the_kind_is_part_of_the_fingerprint():
    x, y = np.zeros((6, 3)), [0, 1, 2, 0, 1, 2]
    classes = make("toy", x, y, x, y)
    targets = make("toy", x, y, x, y, task="regression")
    assert classes.fingerprint != targets.fingerprint
