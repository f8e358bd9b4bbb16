"""The torch engine: it trains as a hand-written loop does, pairs its randomness, always ends."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from relucate.data import load, make
from relucate.errors import InputError, Refused
from relucate.torch import BatchNorm, train
from relucate.torch.batches import batches
from relucate.torch.dropout import key_dropout
from relucate.torch.modules import RReLU
from relucate.torch.trainer import count_parameters, split_decay
from relucate.train import Recipe, learning_rates
from relucate.train.streams import epoch_order

SMALL = {"epochs": 2, "batch_size": 16}


def blobs(n=240, test=80, noise=0.7, shape=(6, 6, 2), classes=4, in_order=False, step=0.0):
    """Noisy copies of one random image per class, each class brighter by `step` than the last."""
    random = np.random.default_rng(0)
    y = random.permutation(np.arange(n + test) % classes)
    if in_order:
        y = np.concatenate([np.sort(y[:n]), y[n:]])
    x = random.normal(size=(classes, *shape))[y] + noise * random.normal(size=(n + test, *shape))
    x = (x + step * y.reshape(-1, *[1] * len(shape))).astype(np.float32)
    return make("blobs", x[:n], y[:n], x[n:], y[n:], [f"class {k}" for k in range(classes)])


@pytest.fixture(scope="module")
def data():
    return blobs()


def net(seed=0, momentum=0.1, classes=4, dropout=0.0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8, momentum=momentum),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(8 * 36, classes),
    )


def state(model):
    return [tensor.clone() for tensor in model.state_dict().values()]


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


class TestTraining:
    def test_a_batch_of_one_and_a_norm_of_vectors(self, data):
        model = nn.Sequential(nn.Flatten(), nn.Linear(72, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))
        with pytest.raises(InputError, match=r"batch_size .* to 2 or more"):
            train(model, data, Recipe(epochs=1, batch_size=1), seed=0)
        result = train(net(), data, Recipe(epochs=1, batch_size=1), seed=0)  # of images
        assert result.status == "done"

    def test_it_learns_and_scores_every_test_example(self, data):
        result = train(net(), data, Recipe(**{**SMALL, "epochs": 4}), seed=0)
        assert result.status == "done"
        assert result.metric > 0.9
        assert result.per_example.shape == (80,)
        assert result.metric == result.per_example.mean()
        assert result.curve["epoch"] == [1, 2, 3, 4]
        assert result.curve["train_loss"][-1] < result.curve["train_loss"][0]
        assert result.curve["accuracy"][-1] == pytest.approx(result.metric)
        assert set(result.seconds) == {"train", "evaluate"}
        assert (result.parameters, result.norm_parameters) == (8 * 18 + 16 + 4 * 288 + 4, 16)

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"schedule": "step", "label_smoothing": 0.1, "decay_all": True, "weight_decay": 0.01},
            {"momentum": 0.0, "schedule": "constant"},
            {"optimizer": "adamw", "schedule": "cosine"},
        ],
        ids=lambda options: "-".join(options),
    )
    def test_it_is_the_loop_that_one_writes_by_hand(self, data, options):
        recipe = Recipe(**SMALL, reestimate=0, curve=0, **options)
        ours, theirs = net(), net()
        found = train(ours, data, recipe, seed=5)
        losses = by_hand(theirs, data, recipe, seed=5)
        assert found.curve["train_loss"] == pytest.approx(losses, rel=1e-4)
        for a, b in zip(state(ours), state(theirs), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)

    def test_the_curve_holds_exact_shares_so_that_a_target_is_reached_when_it_is(self):
        part = blobs(test=70)
        accuracy = train(net(), part, Recipe(**SMALL, curve=70, lr=1e-4), seed=0).curve["accuracy"]
        assert accuracy == [round(70 * share) / 70 for share in accuracy]

    def test_every_epoch_is_reported(self, data):
        heard = []
        train(net(), data, Recipe(**SMALL), seed=0, on_epoch=heard.append)
        assert [(r.epoch, r.epochs) for r in heard] == [(1, 2), (2, 2)]
        assert all(r.score is not None and np.isfinite(r.train_loss) for r in heard)

    def test_bf16_trains_nearly_as_well(self, data):
        result = train(net(), data, Recipe(**{**SMALL, "epochs": 4}, precision="bf16"), seed=0)
        assert result.metric > 0.9
        exact = train(net(), data, Recipe(**{**SMALL, "epochs": 4}), seed=0)
        assert result.loss != exact.loss

    def test_uint8_images_and_augmentation(self):
        random = np.random.default_rng(0)
        x = random.integers(0, 256, (40, 6, 6, 2)).astype(np.uint8)
        raw = make("bytes", x, np.arange(40) % 4, x, np.arange(40) % 4)
        plain, augmented = (
            train(net(), raw, Recipe(**SMALL, augment=names), seed=0) for names in ((), "flip")
        )
        assert plain.loss != augmented.loss

    def test_feature_vectors(self):
        vectors = blobs(shape=(12,))
        model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4))
        assert train(model, vectors, Recipe(**SMALL), seed=0).metric > 0.5

    def test_a_three_dimensional_convolution_is_no_obstacle(self, data):
        class Volume(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv = nn.Conv3d(1, 2, 3, padding=1)
                self.head = nn.Linear(2 * 72, 4)

            def forward(self, x):
                return self.head(self.conv(x[:, None]).flatten(1))

        assert train(Volume(), data, Recipe(**SMALL, lr=0.01), seed=0).status == "done"

    def test_a_module_may_keep_a_tensor_that_it_made_while_it_was_scored(self, data):
        class Keeps(nn.Module):
            def __init__(self):
                super().__init__()
                self.head, self.ones = nn.Linear(72, 4), {}

            def forward(self, x):
                size = len(x)
                if size not in self.ones:
                    self.ones[size] = torch.ones(size, 1)
                return self.head(x.flatten(1) * self.ones[size])

        recipe = Recipe(**{**SMALL, "batch_size": 80})  # as many as there are test examples
        assert train(Keeps(), data, recipe, seed=0).status == "done"


def by_hand(model, data, recipe, seed):
    """A bare loop with PyTorch's optimizers, as a user would write it; return each epoch's loss."""
    part, _ = batches(data, device=torch.device("cpu"), channels_first=True)
    kernels = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim < 2]
    decay = recipe.weight_decay
    groups = [
        {"params": kernels, "weight_decay": decay},
        {"params": others, "weight_decay": decay if recipe.decay_all else 0.0},
    ]
    if recipe.optimizer == "adamw":
        optimizer = torch.optim.AdamW(groups, lr=1.0)
    else:
        nesterov = recipe.momentum > 0
        optimizer = torch.optim.SGD(groups, lr=1.0, momentum=recipe.momentum, nesterov=nesterov)
    rates = iter(learning_rates(recipe, len(part) // recipe.batch_size))
    model.train()
    losses = [[] for _ in range(recipe.epochs)]
    for epoch in range(recipe.epochs):
        order = torch.from_numpy(epoch_order(seed, epoch, len(part)))
        for index in order[: len(part) // recipe.batch_size * recipe.batch_size].split(
            recipe.batch_size
        ):
            x, y = part.inputs(index), part.y[index]
            rate = next(rates)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y, label_smoothing=recipe.label_smoothing)
            loss.backward()
            losses[epoch].append(float(loss.detach()))
            optimizer.step()
    return [sum(own) / len(own) for own in losses]


class TestStatistics:
    def test_without_reestimation_a_short_run_scores_near_chance_and_with_it_well(self):
        digits = load("digits").subset(train_size=800)
        recipe = Recipe(epochs=3, batch_size=32, curve=0)  # 75 steps at momentum 0.99
        scores = [
            train(digits_net(), digits, recipe.changed(reestimate=count), seed=0).metric
            for count in (0, 800)
        ]
        assert scores[0] < 0.35  # the moving statistics are still those of the start
        assert scores[1] > 0.9

    def test_examples_stored_class_by_class_are_no_trap(self):
        mixed, ordered = (blobs(n=1200, in_order=by_class, step=3) for by_class in (False, True))
        recipe = Recipe(epochs=1, batch_size=64, reestimate=300)  # as many as one class has
        scores = [train(net(), part, recipe, seed=0).metric for part in (mixed, ordered)]
        assert min(scores) > 0.95

    def test_the_statistics_are_those_of_the_seeds_sample(self, data):
        model = net(momentum=0.01)
        train(model, data, Recipe(**SMALL, reestimate=240), seed=0)
        part, _ = batches(data, device=torch.device("cpu"), channels_first=True)
        with torch.no_grad():
            means = model[0](part.inputs(slice(0, 240))).mean((0, 2, 3))
        np.testing.assert_allclose(model[1].running_mean, means, atol=1e-5)

    def test_training_is_not_changed_by_being_looked_at(self, data):
        often, never = net(), net()
        train(often, data, Recipe(**SMALL, reestimate=100), seed=0)
        train(never, data, Recipe(**SMALL, reestimate=0, curve=0), seed=0)
        assert equal(often.parameters(), never.parameters())

    def test_the_score_does_not_depend_on_the_curve(self, data):
        curved, plain = net(momentum=0.99), net(momentum=0.99)
        found = [
            train(model, data, Recipe(**SMALL, **options), seed=0)
            for model, options in ((curved, {}), (plain, {"curve": 0}))
        ]
        assert found[0].loss == found[1].loss
        assert found[0].curve["accuracy"][-1] == found[0].metric == found[1].metric
        assert equal(curved.buffers(), plain.buffers())


def digits_net(order="before", dropout=0.0):
    """The built-in cnn, small, with Keras's default momentum."""
    import keras

    from relucate import nets
    from relucate.frameworks import lower
    from relucate.keras.framework import FRAMEWORK

    keras.utils.set_random_seed(0)
    options = {"width": 8, "depth": 2, "dropout": dropout}
    model = nets.build("cnn", order, (8, 8, 1), 10, **options)
    return lower(FRAMEWORK.read(model), check=False)


class TestDivergence:
    @pytest.mark.parametrize("options", [{}, {"precision": "bf16"}, {"optimizer": "adamw"}])
    def test_a_huge_rate_ends_as_diverged_and_says_when(self, data, options):
        recipe = Recipe(**{**SMALL, "epochs": 3}, lr=1e30, **options)
        model = nn.Sequential(nn.Flatten(), nn.Linear(72, 16), nn.Tanh(), nn.Linear(16, 4))
        heard = []
        result = train(model, data, recipe, seed=0, on_epoch=heard.append)
        assert result.status == "diverged"
        assert result.metric is None
        assert result.per_example is None
        assert "epoch" in result.note
        assert result.curve["train_loss"][-1] is None
        assert len(heard) == len(result.curve["epoch"])

    def test_a_test_loss_that_is_no_number_is_divergence_too(self, data):
        class Late(nn.Module):
            def __init__(self):
                super().__init__()
                self.head = nn.Linear(72, 4)

            def forward(self, x):
                y = self.head(x.flatten(1))
                return y if self.training or len(x) < 20 else y * float("nan")

        result = train(Late(), data, Recipe(**SMALL), seed=0)
        assert result.status == "diverged"
        assert "test loss" in result.note


class TestDeterminism:
    def test_the_same_seed_gives_the_same_bits_whatever_was_drawn_before(self, data):
        results = []
        for noise in (0, 1):
            model = net(dropout=0.3)
            torch.manual_seed(noise)
            np.random.seed(noise)
            result = train(model, data, Recipe(**SMALL, augment=["flip", "crop"]), seed=2)
            results.append((state(model), result))
        (a, first), (b, second) = results
        assert equal(a, b)
        assert first.loss == second.loss
        assert first.curve == second.curve

    def test_another_seed_gives_other_bits(self, data):
        models = [net(), net()]
        for seed, model in enumerate(models):
            train(model, data, Recipe(**SMALL), seed=seed)
        assert not equal(*map(state, models))


class Spy(nn.Dropout):
    """Remembers which units it dropped."""

    def __init__(self, p):
        super().__init__(p)
        self.masks = []

    def forward(self, x):
        y = super().forward(torch.ones_like(x))
        if self.training:
            self.masks.append(y == 0)
        return x * y


class Slopes(nn.Module):
    """Notes what an RReLU makes of minus one in training; returns its input."""

    def __init__(self, act):
        super().__init__()
        self.act, self.seen = act, []

    def forward(self, x):
        if self.training:
            self.seen.append(self.act(-torch.ones_like(x)))
        return x


class Arm(nn.Module):
    """Norm before or after the activation; the second arm has one dropout more, drawn first."""

    def __init__(self, order, extra=False):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.early = nn.Dropout(0.2) if extra else nn.Identity()
        self.drop, self.head = Spy(0.5), nn.Linear(288, 4)
        self.order = order

    def forward(self, x):
        x = self.conv(self.early(x))
        x = self.norm(x).relu() if self.order == "before" else self.norm(x.relu())
        return self.head(self.drop(x).flatten(1))


class TestPairedDropout:
    def masks(self, data, seed, **options):
        model = Arm(**options)
        train(model, data, Recipe(**SMALL), seed=seed)
        return model.drop.masks

    def test_the_same_seed_drops_the_same_units_in_both_arms(self, data):
        first = self.masks(data, 0, order="before")
        second = self.masks(data, 0, order="after", extra=True)
        assert len(first) == 30
        assert equal(first, second)
        assert not torch.equal(first[0], first[1])

    def test_lowered_keras_nets_in_two_orders_drop_the_same_units(self):
        digits = load("digits").subset(train_size=64, test_size=20)
        masks = []
        for order in ("linear-norm-act-drop", "linear-act-norm-drop"):
            model = digits_net(order, dropout=0.3)
            names = [n for n, m in model.named_modules() if isinstance(m, nn.Dropout)]
            for name in names:
                model.set_submodule(name, Spy(0.3))
            train(model, digits, Recipe(epochs=1, batch_size=32, curve=0), seed=0)
            masks.append({name: model.get_submodule(name).masks for name in names})
        assert masks[0].keys() == masks[1].keys()
        assert len(masks[0]) == 4
        for name, seen in masks[0].items():
            assert len(seen) == 2
            assert equal(seen, masks[1][name])

    @pytest.mark.parametrize("kind", [nn.RReLU, RReLU])
    def test_rrelu_draws_the_same_in_both_arms(self, data, kind):
        """The second arm draws for a dropout first."""
        seen = []
        for extra in (False, True):
            model = Arm("after", extra)
            model.drop = slopes = Slopes(kind())
            train(model, data, Recipe(**SMALL), seed=0)
            seen.append(slopes.seen)
        assert len(seen[0]) == 30
        assert equal(*seen)
        assert not torch.equal(seen[0][0], seen[0][1])

    def test_another_seed_drops_others(self, data):
        a, b = (self.masks(data, seed, order="before") for seed in (0, 1))
        assert not torch.equal(a[0], b[0])

    def test_two_layers_of_one_net_drop_different_units(self):
        model = nn.ModuleDict({"a": nn.Dropout(0.5), "b": nn.Dropout(0.5)})
        key_dropout(model, 0)
        ones = torch.ones(64)
        assert not torch.equal(model["a"](ones), model["b"](ones))

    def test_at_inference_no_stream_moves(self):
        drop, ones = nn.Dropout(0.5), torch.ones(64)
        key_dropout(drop, 0)
        expected = drop(ones)
        again = nn.Dropout(0.5)
        key_dropout(again, 0)
        again.eval()
        again(ones)
        again.train()
        assert torch.equal(again(ones), expected)

    def test_functional_dropout_is_the_same_in_arms_of_the_same_shapes(self, data):
        class Functional(nn.Module):
            def __init__(self):
                super().__init__()
                torch.manual_seed(0)
                self.head, self.masks = nn.Linear(72, 4), []

            def forward(self, x):
                mask = F.dropout(torch.ones(len(x), 72), 0.5, self.training)
                self.masks.append(mask)
                return self.head(x.flatten(1) * mask)

        models = [Functional(), Functional()]
        for noise, model in enumerate(models):
            torch.manual_seed(noise)
            train(model, data, Recipe(**SMALL), seed=4)
        assert equal(models[0].masks, models[1].masks)


class TestDecay:
    def parts(self, decay_all=False):
        model = nn.Sequential(
            nn.Conv2d(2, 4, 3),
            nn.BatchNorm2d(4),
            nn.GroupNorm(2, 4),
            nn.LayerNorm([4, 4, 4]),
            nn.PReLU(),
            BatchNorm(4, momentum=0.9, epsilon=1e-3, scale=True, center=True),
            nn.Linear(4, 4),
        )
        model[6].weight.requires_grad_(False)
        return model, split_decay(model, decay_all)

    def test_norms_and_biases_do_not_decay_and_frozen_tensors_are_left_out(self):
        model, (decayed, plain) = self.parts()
        assert [id(p) for p in decayed] == [id(model[0].weight), id(model[4].weight)]
        assert id(model[6].weight) not in {id(p) for p in plain}
        assert len(plain) == 1 + 2 + 2 + 2 + 2 + 1

    def test_unless_asked(self):
        model, (decayed, plain) = self.parts(decay_all=True)
        assert plain == []
        assert len(decayed) == len(list(model.parameters())) - 1

    def test_the_counts_leave_frozen_parameters_out(self):
        model, _ = self.parts()
        assert count_parameters(model)["norm_parameters"] == 8 + 8 + 128 + 8


class TestRefusals:
    def test_probabilities(self, data):
        model = nn.Sequential(nn.Flatten(), nn.Linear(72, 4), nn.Softmax(1))
        with pytest.raises(Refused, match=r"probabilities.*leave the final softmax out"):
            train(model, data, Recipe(**SMALL), seed=0)

    @pytest.mark.parametrize(
        ("head", "message"),
        [
            (nn.Linear(72, 3), r"of shape \(8, 3\); expected \(batch, 4\)"),
            (nn.Unflatten(1, (36, 2)), r"of shape \(8, 36, 2\)"),
        ],
    )
    def test_outputs_that_are_not_one_logit_per_class(self, data, head, message):
        model = nn.Sequential(nn.Flatten(), nn.Linear(72, 72), head)
        with pytest.raises(Refused, match=message):
            train(model, data, Recipe(**SMALL), seed=0)

    def test_several_outputs(self, data):
        class Two(nn.Linear):
            def forward(self, x):
                return (super().forward(x.flatten(1)),) * 2

        with pytest.raises(Refused, match=r"no tensor \(tuple\)"):
            train(Two(72, 4), data, Recipe(**SMALL), seed=0)

    def test_a_batch_larger_than_the_data(self, data):
        with pytest.raises(InputError, match="batch_size 241 is larger than the 240"):
            train(net(), data, Recipe(batch_size=241), seed=0)

    def test_nothing_to_train(self, data):
        model = net()
        model.requires_grad_(False)
        with pytest.raises(Refused, match="no trainable parameters"):
            train(model, data, Recipe(**SMALL), seed=0)


def test_cudnn_is_asked_for_the_same_bits_and_left_as_it_was(data):
    seen = []

    class Looks(nn.Linear):
        def forward(self, x):
            seen.append(torch.backends.cudnn.deterministic)
            return super().forward(x.flatten(1))

    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.enabled
    train(Looks(72, 4), data, Recipe(**SMALL), seed=0)
    assert all(seen)
    assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.enabled) == before
