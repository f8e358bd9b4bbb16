"""What the user's own training returned: a score, what comes with it, or why there is none."""

import numpy as np
import pytest

from relucate.study.returned import Unscored, read_score


class TestScore:
    @pytest.mark.parametrize(
        "value", [0.75, np.float32(0.75), np.array(0.75), np.float64(0.75), {"auc": 0.75}]
    )
    def test_a_number_in_any_form(self, value):
        result = read_score(value, "auc")
        assert (result.status, result.metric, result.note) == ("done", 0.75, "")

    def test_a_whole_number(self):
        assert read_score(3, "score").metric == 3.0

    def test_a_tensor(self):
        torch = pytest.importorskip("torch")
        assert read_score(torch.tensor(0.75, requires_grad=True), "auc").metric == 0.75

    @pytest.mark.parametrize("name", ["roc_auc", "ROC AUC", "roc-auc"])
    def test_a_name_in_another_spelling(self, name):
        assert read_score({name: 0.75}, "ROC AUC").metric == 0.75

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (None, "it returned None: return a number, or {name: number}"),
            (np.zeros(3), r"an array of shape \(3,\)"),
            ([0.1, 0.2], "a list of 2"),
            ("0.9", "the text '0.9'"),
            (True, "True"),
            (np.array("x"), "an array of shape"),
            (1j, "a complex"),
            ({"loss": 0.1}, "it returned 'loss', and not 'auc', which decides"),
            ({}, "it returned nothing, and not 'auc'"),
            ({"auc": None}, "it returned 'auc' as None: a number"),
            (float("nan"), r"it returned nan; .*worst="),
            ({"auc": -np.inf}, "it returned -inf; "),
        ],
    )
    def test_no_score_says_why(self, value, message):
        with pytest.raises(Unscored, match=message):
            read_score(value, "auc")

    def test_nan_is_a_diverged_run_if_the_user_says_so(self):
        result = read_score({"auc": float("nan"), "loss": np.nan}, "auc", nan_diverges=True)
        assert (result.status, result.metric, result.loss) == ("diverged", None, None)


class TestMore:
    def test_other_scores_are_kept(self):
        result = read_score({"auc": 0.75, "loss": 0.25, "recall": np.float32(0.5)}, "auc")
        assert result.scores == {"loss": 0.25, "recall": 0.5}
        assert result.loss == 0.25
        assert result.metric == 0.75

    def test_the_loss_may_decide(self):
        result = read_score({"loss": 0.25}, "loss")
        assert (result.metric, result.loss, result.scores) == (0.25, 0.25, {})

    def test_what_is_no_number_is_left_out_with_a_note(self):
        result = read_score({"auc": 0.75, "history": {"a": 1}}, "auc")
        assert result.note == "'history' isn't kept: it is a dict, not a number"
        assert result.metric == 0.75

    def test_a_curve_is_a_score_for_each_epoch(self):
        result = read_score({"auc": 0.75, "curve": np.array([0.5, np.nan])}, "auc")
        assert result.curve == {"epoch": [1, 2], "auc": [0.5, None]}

    def test_a_curve_may_hold_more(self):
        given = {"epoch": [1, 2], "roc_auc": [0.5, 0.75], "train_loss": [3, 2]}
        result = read_score({"ROC AUC": 0.75, "curve": given}, "ROC AUC")
        assert result.curve == {"epoch": [1, 2], "ROC AUC": [0.5, 0.75], "train_loss": [3.0, 2.0]}

    @pytest.mark.parametrize(
        "curve",
        [3, "high", [], [[1, 2]], {"loss": [1]}, {"auc": [1], "loss": [1, 2]}, ["a"],
         {"epoch": [5, 10], "auc": [0.5, 0.75]}],
    )  # fmt: skip
    def test_a_curve_that_cannot_be_read_costs_no_score(self, curve):
        result = read_score({"auc": 0.75, "curve": curve}, "auc")
        assert result.metric == 0.75
        assert result.curve == {}
        assert result.note.startswith("curve isn't kept: expected")

    @pytest.mark.parametrize(
        ("values", "kind"), [([True, False], "b"), ([1, 0], "f"), ([0.25, 0.75], "f")]
    )
    def test_scores_for_each_example(self, values, kind):
        result = read_score({"accuracy": 0.5, "per_example": values}, "accuracy")
        assert (result.examples, result.per_example.dtype.kind, result.note) == (2, kind, "")

    def test_their_mean_must_be_the_score(self):
        result = read_score({"auc": 0.75, "per_example": [0.5, 0.5]}, "auc")
        assert "the mean of per_example isn't the score" in result.note

    @pytest.mark.parametrize("values", [3, [[1.0]], ["a"], [], [[1], [1, 2]]])
    def test_those_that_cannot_be_read_cost_no_score(self, values):
        result = read_score({"auc": 0.75, "per_example": values}, "auc")
        assert result.per_example is None
        assert "per_example isn't kept" in result.note
