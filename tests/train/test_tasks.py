"""The built-in tasks: their registry, metrics against scikit-learn, losses, what doesn't fit."""

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn import metrics as sk

from relucate.errors import InputError, Refused
from relucate.train import Recipe
from relucate.train.metric import METRICS
from relucate.train.task import class_weights
from relucate.train.tasks import TASKS, class_axis, task_for

N = 60
random = np.random.default_rng(0)
CODES = np.arange(N) % 7
LOGITS = random.normal(size=(N, 7)) + 2 * np.eye(7)[CODES]
MARKS = random.integers(0, 2, (N, 3))
SCORES = random.normal(size=(N, 3)) + MARKS
TARGETS = random.normal(5, 3, (N, 2))
NUMBERS = TARGETS + random.normal(size=(N, 2))
MASKS = random.integers(0, 3, (N, 4, 5))
PIXELS = random.normal(size=(N, 4, 5, 3)) + np.eye(3)[MASKS]
GIVEN = {
    "classification": (LOGITS, CODES),
    "multilabel": (SCORES, MARKS),
    "regression": (NUMBERS, TARGETS),
    "segmentation": (PIXELS, MASKS),
}
CHOSEN, BINARY = LOGITS.argmax(1), (SCORES > 0).astype(int)
EXPECTED = {
    "accuracy": sk.accuracy_score(CODES, CHOSEN),
    "balanced accuracy": sk.balanced_accuracy_score(CODES, CHOSEN),
    "macro F1": sk.f1_score(CODES, CHOSEN, average="macro"),
    "ROC AUC": sk.roc_auc_score(CODES, softmax(LOGITS, 1), multi_class="ovr"),
    "log loss": sk.log_loss(CODES, softmax(LOGITS, 1)),
    "top-5 accuracy": sk.top_k_accuracy_score(CODES, LOGITS, k=5),
    "mean average precision": sk.average_precision_score(MARKS, SCORES, average="macro"),
    "micro F1": sk.f1_score(MARKS, BINARY, average="micro"),
    "MAE": sk.mean_absolute_error(TARGETS, NUMBERS),
    "RMSE": np.sqrt(sk.mean_squared_error(TARGETS, NUMBERS)),
    "R2": sk.r2_score(TARGETS, NUMBERS),
    "mean IoU": sk.jaccard_score(MASKS.ravel(), PIXELS.argmax(-1).ravel(), average="macro"),
    "pixel accuracy": sk.accuracy_score(MASKS.ravel(), PIXELS.argmax(-1).ravel()),
}
EVERY = [(name, metric) for name, task in TASKS.items() for metric in task.metrics]


def test_every_metric_belongs_to_a_task():
    assert {metric for _, metric in EVERY} == set(METRICS) == set(EXPECTED)
    assert all(task.metric is METRICS[task.metrics[0]] for task in TASKS.values())


@pytest.mark.parametrize(("name", "metric"), EVERY)
def test_scores_are_those_of_scikit_learn(name, metric):
    task = TASKS[name].scored_by(metric)
    outputs, labels = GIVEN[name]
    assert task.score(outputs, labels) == pytest.approx(EXPECTED[metric], rel=1e-9)
    each = task.per_example(outputs, labels)
    if each is not None:
        assert each.shape == (N,)
        assert each.dtype.kind in "bf"
        assert each.mean() == pytest.approx(EXPECTED[metric], rel=1e-9)
    assert task.better(1.0, 2.0) == METRICS[metric].lower_is_better


@pytest.mark.parametrize(("name", "metric"), EVERY)
def test_every_metric_has_a_finite_worst_score_and_survives_broken_outputs(name, metric):
    task = TASKS[name].scored_by(metric)
    outputs, labels = GIVEN[name]
    found = task.metric_on(labels, labels, outputs.shape[-1])
    assert np.isfinite(found.worst)
    assert not task.better(found.worst, task.score(outputs, labels))
    broken = np.array(outputs)
    broken[0] = np.nan
    score = task.score(broken, labels)
    assert np.isnan(score) or metric in ("accuracy", "top-5 accuracy", "pixel accuracy")


def test_binary_outputs_are_scored_as_two_classes():
    task = TASKS["classification"].prepared(CODES % 2, Recipe(), (8, 1))
    z = SCORES[:, :1]
    outputs = task.decoded(z)
    assert task.training_loss == "binary cross-entropy"
    np.testing.assert_allclose(softmax(outputs, 1)[:, 1], expit(z[:, 0]))
    np.testing.assert_array_equal(task.decoded(z[:, 0]), outputs)
    assert task.loss(outputs, CODES % 2) == pytest.approx(sk.log_loss(CODES % 2, expit(z[:, 0])))
    auc = task.scored_by("auc").score(outputs, CODES % 2)
    assert auc == pytest.approx(sk.roc_auc_score(CODES % 2, z[:, 0]))


def test_targets_are_standardised_for_the_loss_and_scored_in_their_own_unit():
    recipe = Recipe(loss="huber")
    task = TASKS["regression"].prepared(TARGETS, recipe, (8, 2))
    encoded = task.encoded(TARGETS)
    np.testing.assert_allclose(encoded.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(encoded.std(0), 1, rtol=1e-6)
    np.testing.assert_allclose(task.decoded(encoded), TARGETS, rtol=1e-5)
    error = np.abs(NUMBERS - TARGETS) / TARGETS.std(0)
    expected = np.where(error <= 1, error**2 / 2, error - 0.5).mean()
    assert task.loss(NUMBERS, TARGETS) == pytest.approx(expected, rel=1e-12)


def test_constant_predictions_are_seen():
    for name, (outputs, labels) in GIVEN.items():
        task = TASKS[name].prepared(labels, Recipe(), outputs.shape)
        assert not task.is_constant(outputs), name
        assert task.is_constant(np.broadcast_to(outputs[:1], outputs.shape) * 1.0) or name == (
            "segmentation"
        )


def test_the_class_axis_of_masks():
    assert class_axis((None, None, None, 3), 3, (4, 5)) == -1
    assert class_axis((8, 1, 4, 5), 2, (4, 5)) == 1
    assert class_axis((8, 3, 3, 3), 3, (3, 3), channels_first=True) == 1
    assert class_axis((8, 3, 4, 6), 3, (4, 5)) is None


@pytest.mark.parametrize(
    ("name", "shape", "classes", "label_shape"),
    [
        ("classification", (8, 1), 3, ()),
        ("multilabel", (8, 1), 3, ()),
        ("regression", (8, 2), 1, ()),
        ("regression", (8, 3, 1), 1, ()),
        ("segmentation", (8, 3), 3, (4, 5)),
        ("segmentation", (8, 1, 4, 5), 3, (4, 5)),
    ],
)
def test_outputs_that_do_not_fit_are_refused(name, shape, classes, label_shape):
    with pytest.raises(Refused, match="expected"):
        TASKS[name].check_outputs(shape, classes, label_shape)


@pytest.mark.parametrize(
    ("name", "recipe", "words"),
    [
        ("regression", {"loss": "cross-entropy"}, "doesn't fit regression: .* mse, huber, l1"),
        ("classification", {"loss": "l1"}, "doesn't fit classification: .* cross-entropy"),
        ("regression", {"class_weight": "balanced"}, "class_weight is for classes"),
        ("regression", {"label_smoothing": 0.1}, "label_smoothing is for classes"),
        ("segmentation", {"augment": "flip"}, "not the masks"),
    ],
)
def test_recipes_that_do_not_fit_are_refused(name, recipe, words):
    with pytest.raises(InputError, match=words):
        TASKS[name].check_recipe(Recipe(**recipe))


def test_the_choice_of_task_and_metric():
    assert task_for(None, "marks").name == "multilabel"
    assert task_for("regression", "targets", "r²").metric.name == "R2"
    assert task_for(None, "marks", "mAP").metric.name == "mean average precision"
    assert task_for(None, "masks", "iou").metric.name == "mean IoU"
    for given, words in (
        (("regresion", "targets"), "did you mean 'regression'"),
        (("regression", "classes"), "labels are classes, but .* takes targets"),
        ((None, "classes", "MAE"), "'MAE' doesn't fit the task: classification is scored by acc"),
        ((None, "targets", "RSME"), "did you mean 'RMSE'"),
        ((3, "classes"), "task must be a name"),
    ):
        with pytest.raises(InputError, match=words):
            task_for(*given)


def test_class_weights():
    assert class_weights("none", CODES) is None
    labels = np.array([0, 0, 0, 1])
    balanced = class_weights("balanced", labels)
    assert balanced[labels].mean() == pytest.approx(1)
    assert class_weights(Recipe(class_weight={0: 1, 1: 2.5}).class_weight, labels).tolist() == [
        1, 2.5
    ]  # fmt: skip
    with pytest.raises(InputError, match="3 numbers for 2 classes"):
        class_weights("1,2,3", labels)
    for wrong in ("1", "1,-2", "heavy", [0, 0], {0: 1, 2: 1}):
        with pytest.raises(InputError, match="class_weight must be"):
            Recipe(class_weight=wrong)


def test_a_recipe_without_the_later_options_is_the_plain_data_that_it_was():
    assert not {"loss", "class_weight"} & set(Recipe().to_dict())
    given = Recipe(loss="l1", class_weight="1,2")
    assert Recipe.from_dict(given.to_dict()) == given


@pytest.mark.parametrize("labels", [np.zeros(5, int), np.ones(5, int)])
def test_a_metric_that_is_undefined_on_the_test_part_is_refused(labels):
    with pytest.raises(InputError, match="ROC AUC is undefined on the test part"):
        TASKS["classification"].scored_by("auc").metric_on(CODES % 2, labels, 2)
