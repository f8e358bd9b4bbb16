"""Schedules: their shape, their ends, and that they agree with PyTorch's own."""

import numpy as np
import pytest

from relucate.train import Recipe, learning_rates


def rates(schedule, epochs=10, steps=20, lr=0.4):
    return learning_rates(Recipe(epochs=epochs, schedule=schedule, lr=lr), steps)


@pytest.mark.parametrize("schedule", ["onecycle", "cosine", "constant", "step"])
def test_one_rate_per_step_never_above_the_peak(schedule):
    found = rates(schedule)
    assert found.shape == (200,)
    assert found.dtype == np.float64
    assert (found > 0).all()
    assert found.max() == pytest.approx(0.4)


def test_one_cycle_rises_for_three_tenths_and_falls_to_almost_nothing():
    found = rates("onecycle")
    assert found[0] == pytest.approx(0.4 / 25)
    assert found.argmax() == 60
    assert (np.diff(found[:61]) > 0).all()
    assert (np.diff(found[60:]) < 0).all()
    assert found[-1] < 0.4 * 2e-3


def test_cosine_is_half_of_the_peak_in_the_middle():
    found = rates("cosine")
    assert found[100] == pytest.approx(0.2)
    assert (np.diff(found) < 0).all()


def test_step_drops_tenfold_after_half_and_three_quarters():
    found = rates("step", epochs=4, steps=3)
    np.testing.assert_allclose(found, [0.4] * 6 + [0.04] * 3 + [0.004] * 3)


def test_a_single_step_has_a_rate():
    for schedule in ("onecycle", "cosine", "constant", "step"):
        assert np.isfinite(rates(schedule, epochs=1, steps=1)).all()


def test_cosine_agrees_with_pytorch():
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 200)
    theirs = []
    for _ in range(200):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    np.testing.assert_allclose(rates("cosine"), theirs, rtol=1e-9)


def test_every_milestone_takes_a_tenth():
    recipe = Recipe(epochs=8, schedule="step", lr=1.0, milestones=(0.25, 0.5, 0.75))
    found = learning_rates(recipe, 1)
    assert found.round(9).tolist() == [1.0, 1.0, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
