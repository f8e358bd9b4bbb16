"""The keras engine, on whichever backend this process has: fit, pairing, statistics, refusals."""

import keras
import numpy as np
import pytest
from keras import layers

from relucate.data import make
from relucate.errors import InputError, Refused
from relucate.keras.trainer import reestimate, takes_channels_first, train
from relucate.train import Recipe, learning_rates
from relucate.train.streams import epoch_order, statistics_sample

SMALL = {"epochs": 2, "batch_size": 16}
CLASSES = 4


def blobs(shape=(6, 6, 2), n=160, test=60, in_order=False, step=0.0):
    random = np.random.default_rng(0)
    y = random.permutation(np.arange(n + test) % CLASSES)
    if in_order:
        y = np.concatenate([np.sort(y[:n]), y[n:]])
    x = random.normal(size=(CLASSES, *shape))[y] + 0.7 * random.normal(size=(n + test, *shape))
    x = (x + step * y.reshape(-1, *[1] * len(shape))).astype(np.float32)
    return make("blobs", x[:n], y[:n], x[n:], y[n:])


@pytest.fixture(scope="module")
def data():
    return blobs()


@pytest.fixture(scope="module")
def vectors():
    return blobs((10,))


def dense(softmax=False, dropout=0.0, momentum=0.9, regularizer=None, order="before"):
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    x = start = keras.Input((10,))
    x = layers.Dense(12, name="dense", kernel_regularizer=regularizer)(x)
    norm = layers.BatchNormalization(momentum=momentum, name="norm")
    x = layers.ReLU()(norm(x)) if order == "before" else norm(layers.ReLU()(x))
    x = layers.Dropout(dropout, name="drop")(x) if dropout else x
    return keras.Model(start, layers.Dense(4, "softmax" if softmax else None, name="head")(x))


def conv(shape=(6, 6, 2), data_format="channels_last", first=None):
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    x = image = keras.Input(shape)
    x = first(x) if first is not None else x
    axis = 1 if data_format == "channels_first" else -1
    x = layers.Conv2D(4, 3, data_format=data_format)(x)
    x = layers.ReLU()(layers.BatchNormalization(axis=axis)(x))
    return keras.Model(image, layers.Dense(4)(layers.Flatten(data_format=data_format)(x)))


def weights(model):
    return [keras.ops.convert_to_numpy(w) for w in model.get_weights()]


class TestTraining:
    def test_it_learns_and_scores_every_test_example(self, vectors):
        heard = []
        result = train(
            dense(), vectors, Recipe(**{**SMALL, "epochs": 4}), seed=0, on_epoch=heard.append
        )
        assert result.status == "done"
        assert result.metric > 0.9
        assert result.metric == result.per_example.mean()
        assert result.per_example.shape == (60,)
        assert [(r.epoch, r.epochs) for r in heard] == [(k, 4) for k in (1, 2, 3, 4)]
        assert result.curve["train_loss"][-1] < result.curve["train_loss"][0]
        assert result.curve["accuracy"][-1] == pytest.approx(result.metric)

    def test_images_with_augmentation(self, data):
        plain, augmented = (
            train(conv(), data, Recipe(**SMALL, augment=names), seed=0)
            for names in ((), ("flip", "crop"))
        )
        assert plain.loss != augmented.loss

    @pytest.mark.parametrize("softmax", [True, False])
    @pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
    def test_logits_and_probabilities_are_told_apart(self, vectors, softmax, optimizer):
        recipe = Recipe(**{**SMALL, "epochs": 1}, optimizer=optimizer)
        logits = train(dense(), vectors, recipe, seed=0)
        result = train(dense(softmax=softmax), vectors, recipe, seed=0)
        assert result.loss == pytest.approx(logits.loss, rel=1e-3)

    def test_label_smoothing(self, vectors):
        results = [
            train(dense(), vectors, Recipe(**SMALL, label_smoothing=s), seed=0).curve["train_loss"]
            for s in (0.0, 0.2)
        ]
        assert results[1][0] > results[0][0]

    def test_the_schedules_rates_are_what_the_optimizer_uses(self, vectors):
        model = dense()
        recipe = Recipe(**SMALL, schedule="onecycle")
        train(model, vectors, recipe, seed=0)
        rates = learning_rates(recipe, 10)
        schedule = model.optimizer._learning_rate
        found = [float(keras.ops.convert_to_numpy(schedule(k))) for k in range(20)]
        np.testing.assert_allclose(found, rates, rtol=1e-5)
        assert int(keras.ops.convert_to_numpy(model.optimizer.iterations.value)) == 20

    def test_weight_decay_shrinks_kernels_and_leaves_norms_and_biases(self, vectors):
        recipe = Recipe(epochs=1, batch_size=16, schedule="constant", lr=1e-3, momentum=0.0)
        plain, decayed, all_of_it = dense(), dense(), dense()
        train(plain, vectors, recipe.changed(weight_decay=0.0), seed=0)
        train(decayed, vectors, recipe.changed(weight_decay=5.0), seed=0)
        train(all_of_it, vectors, recipe.changed(weight_decay=5.0, decay_all=True), seed=0)

        def size(model, name):
            layer = model.get_layer(name)
            variable = layer.gamma if name == "norm" else layer.kernel
            return float(np.abs(keras.ops.convert_to_numpy(variable.value)).sum())

        assert size(decayed, "dense") < 0.97 * size(plain, "dense")
        assert size(decayed, "norm") == pytest.approx(size(plain, "norm"), rel=1e-3)
        assert size(all_of_it, "norm") < 0.97 * size(plain, "norm")

    def test_a_regularizer_is_part_of_the_loss(self, vectors):
        recipe = Recipe(epochs=1, batch_size=16, lr=1e-6)
        plain = train(dense(), vectors, recipe, seed=0).curve["train_loss"][0]
        model = dense(regularizer=keras.regularizers.L2(0.1))
        kernel = keras.ops.convert_to_numpy(model.get_layer("dense").kernel.value)
        more = train(model, vectors, recipe, seed=0).curve["train_loss"][0]
        assert more - plain == pytest.approx(0.1 * float((kernel**2).sum()), rel=1e-3)

    def test_a_subclassed_model(self, vectors):
        class Own(keras.Model):
            def __init__(self):
                super().__init__()
                self.dense, self.norm = layers.Dense(12), layers.BatchNormalization()
                self.head = layers.Dense(4)

            def call(self, x, training=False):
                return self.head(keras.ops.relu(self.norm(self.dense(x), training=training)))

        keras.utils.set_random_seed(0)
        assert train(Own(), vectors, Recipe(**{**SMALL, "epochs": 4}), seed=0).metric > 0.8


class TestCompiled:
    """A model that its builder compiled keeps its own optimizer, loss and learning rate."""

    @pytest.mark.parametrize(
        "loss",
        [
            "sparse_categorical_crossentropy",
            "categorical_crossentropy",
            keras.losses.SparseCategoricalCrossentropy(),
            keras.losses.CategoricalCrossentropy(label_smoothing=0.05),
            keras.losses.categorical_crossentropy,
        ],
        ids=["sparse", "one-hot", "sparse object", "one-hot object", "one-hot function"],
    )
    def test_sparse_and_one_hot_losses(self, vectors, loss):
        model = dense(softmax=True)
        optimizer = keras.optimizers.Adam(0.02)
        model.compile(optimizer=optimizer, loss=loss, metrics=["accuracy"])
        result = train(model, vectors, Recipe(**{**SMALL, "epochs": 4}, lr=1e9), seed=0)
        assert result.metric > 0.9
        assert model.optimizer is optimizer

    @pytest.mark.parametrize("loss", ["mse", "binary_crossentropy", None])
    def test_another_loss_is_refused_by_name(self, vectors, loss):
        model = dense(softmax=True)
        model.compile(optimizer="sgd", loss=loss)
        with pytest.raises(Refused, match=f"compiled .*{loss or 'without a loss'}"):
            train(model, vectors, Recipe(**SMALL), seed=0)


class TestPairing:
    def test_the_same_seed_gives_the_same_bits_whatever_was_drawn_before(self, vectors):
        found = []
        for noise in (0, 1):
            model = dense(dropout=0.3)
            keras.utils.set_random_seed(noise)
            result = train(model, vectors, Recipe(**SMALL), seed=2)
            found.append((weights(model), result))
        for a, b in zip(found[0][0], found[1][0], strict=True):
            np.testing.assert_array_equal(a, b)
        assert found[0][1].curve == found[1][1].curve
        assert found[0][1].loss == found[1][1].loss

    def test_another_seed_gives_others(self, vectors):
        a, b = (train(dense(), vectors, Recipe(**SMALL), seed=seed).loss for seed in (0, 1))
        assert a != b

    @pytest.mark.skipif(keras.config.backend() == "jax", reason="its losses see no values")
    def test_both_arms_see_the_examples_in_the_seeds_order(self, vectors):
        seen = []

        class Spy(keras.losses.SparseCategoricalCrossentropy):
            def call(self, y_true, y_pred):
                seen.append(keras.ops.convert_to_numpy(y_true).ravel())
                return super().call(y_true, y_pred)

        model = dense()
        loss = Spy(from_logits=True, name="sparse_categorical_crossentropy")
        model.compile(optimizer="sgd", loss=loss, run_eagerly=True, jit_compile=False)
        train(model, vectors, Recipe(epochs=1, batch_size=16, curve=0, reestimate=0), seed=5)
        expected = vectors.y_train[epoch_order(5, 0, 160)]
        np.testing.assert_array_equal(np.concatenate(seen)[-160:], expected)

    def test_same_named_dropout_drops_the_same_units_in_both_arms(self, vectors):
        masks = [self.mask(vectors, order, seed) for order, seed in (("before", 0), ("after", 0))]
        np.testing.assert_array_equal(*masks)
        assert (self.mask(vectors, "before", 1) != masks[0]).any()

    def mask(self, vectors, order, seed):
        """What the layer named drop lets through in its next step after a run."""
        model = dense(dropout=0.5, order=order)
        train(model, vectors, Recipe(epochs=1, batch_size=16), seed=seed)
        ones = np.ones((16, 12), np.float32)
        return keras.ops.convert_to_numpy(model.get_layer("drop")(ones, training=True)) > 0


class TestStatistics:
    def test_statistics_are_the_means_over_the_batches_and_dropout_is_off(self):
        keras.utils.set_random_seed(0)
        x = np.random.default_rng(0).normal(size=(1000, 10)).astype(np.float32)
        start = keras.Input((10,))
        noisy = layers.GaussianNoise(1.0)(layers.Dropout(0.9)(start))
        norm = layers.BatchNormalization(momentum=0.99)
        frozen = layers.BatchNormalization(trainable=False)
        model = keras.Model(start, frozen(norm(noisy)))
        reestimate(model, x)
        mean = keras.ops.convert_to_numpy(norm.moving_mean.value)
        variance = keras.ops.convert_to_numpy(norm.moving_variance.value)
        halves = x[:500], x[500:]
        np.testing.assert_allclose(mean, np.mean([h.mean(0) for h in halves], 0), atol=1e-5)
        np.testing.assert_allclose(variance, np.mean([h.var(0) for h in halves], 0), rtol=1e-4)
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(frozen.moving_mean.value), 0)
        assert norm.momentum == 0.99

    @pytest.mark.parametrize("stepwise", [False, True])
    def test_each_call_of_a_norm_counts_alike(self, stepwise):
        x = np.random.default_rng(0).normal(size=(600, 2, 3)).astype(np.float32)
        norm, start = layers.BatchNormalization(momentum=0.9), keras.Input((2, 3))
        parts = [x[:, 0], x[:, 1]]
        if stepwise:
            model = keras.Model(start, layers.TimeDistributed(norm)(start))
        else:
            model = keras.Model(start, norm(start[:, 0]) + norm(3.0 * start[:, 1]))
            parts = [x[:, 0], 3.0 * x[:, 1]]
        reestimate(model, x)
        found = keras.ops.convert_to_numpy(norm.moving_variance.value)
        expected = np.mean([part[:500].var(0) for part in parts], 0)
        np.testing.assert_allclose(found, expected, rtol=1e-4)

    @pytest.mark.parametrize("kind", ["plain", "spectral", "counting"])
    def test_training_is_not_changed_by_being_looked_at(self, vectors, kind):
        class Counting(layers.Layer):
            """Doubles its input once it has been called often enough in training."""

            def build(self, shape):
                self.count = self.add_weight(name="count", initializer="zeros", trainable=False)

            def call(self, x, training=False):
                if training:
                    self.count.assign(self.count + 1)
                return keras.ops.where(self.count > 12, 2 * x, x)

        def built():
            keras.utils.clear_session(free_memory=False)
            keras.utils.set_random_seed(0)
            inner = layers.Dense(12, name="dense")
            start = keras.Input((10,))
            x = layers.SpectralNormalization(inner)(start) if kind == "spectral" else inner(start)
            x = Counting()(x) if kind == "counting" else x
            x = layers.ReLU()(layers.BatchNormalization()(x))
            x = layers.Dropout(0.2, name="drop")(x)
            return keras.Model(start, layers.Dense(4, name="head")(x))

        often, never = built(), built()
        train(often, vectors, Recipe(**SMALL, reestimate=100), seed=0)
        train(never, vectors, Recipe(**SMALL, reestimate=0, curve=0), seed=0)
        for a, b in zip(often.trainable_weights, never.trainable_weights, strict=True):
            np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(v.value) for v in (a, b)))

    def test_random_layers_are_random_again_afterwards(self):
        start = keras.Input((10,))
        drop = layers.Dropout(0.5)
        model = keras.Model(start, layers.BatchNormalization()(drop(start)))
        reestimate(model, np.ones((20, 10), np.float32))
        dropped = keras.ops.convert_to_numpy(drop(np.ones((20, 10), np.float32), training=True))
        assert (dropped == 0).any()

    def test_without_reestimation_a_short_run_scores_worse(self, vectors):
        recipe = Recipe(**SMALL)
        far = blobs((10,), step=3.0)
        stale = train(dense(momentum=0.999), far, recipe.changed(reestimate=0), seed=0)
        fresh = train(dense(momentum=0.999), far, recipe, seed=0)
        assert fresh.metric > 0.9
        assert stale.metric < fresh.metric

    def test_they_are_taken_on_the_seeds_sample(self):
        ordered = blobs((10,), in_order=True, step=3.0)
        model = dense()
        train(model, ordered, Recipe(**SMALL, reestimate=40, standardize=False), seed=3)
        x = ordered.x_train[statistics_sample(3, 160, 40)]
        kernel, bias = (
            keras.ops.convert_to_numpy(w) for w in model.get_layer("dense").get_weights()
        )
        mean = keras.ops.convert_to_numpy(model.get_layer("norm").moving_mean.value)
        np.testing.assert_allclose(mean, (x @ kernel + bias).mean(0), rtol=1e-3, atol=1e-3)


class TestDivergence:
    @pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
    def test_a_huge_rate_ends_as_diverged(self, vectors, optimizer):
        recipe = Recipe(**SMALL, lr=1e30, optimizer=optimizer)
        result = train(dense(), vectors, recipe, seed=0)
        assert result.status == "diverged"
        assert result.metric is None
        assert result.per_example is None
        assert result.curve["train_loss"][-1] is None
        assert "epoch" in result.note


class TestRefusals:
    def test_bf16_is_the_models_own_affair(self, vectors):
        with pytest.raises(InputError, match="dtype policy"):
            train(dense(), vectors, Recipe(**SMALL, precision="bf16"), seed=0)

    def test_a_batch_larger_than_the_data(self, vectors):
        with pytest.raises(InputError, match="batch_size 161 is larger than the 160"):
            train(dense(), vectors, Recipe(batch_size=161), seed=0)

    def test_another_number_of_classes(self, vectors):
        model = keras.Sequential([keras.Input((10,)), layers.Dense(3)])
        with pytest.raises(Refused, match=r"\(None, 3\).*expected \(batch, 4\)"):
            train(model, vectors, Recipe(**SMALL), seed=0)

    def test_another_input(self, data):
        with pytest.raises(InputError, match=r"\(7, 7, 2\).*the data's have \(6, 6, 2\)"):
            train(conv((7, 7, 2)), data, Recipe(**SMALL), seed=0)

    def test_two_inputs(self, vectors):
        a, b = keras.Input((10,)), keras.Input((10,))
        model = keras.Model([a, b], layers.Dense(4)(layers.Add()([a, b])))
        with pytest.raises(Refused, match="2 inputs"):
            train(model, vectors, Recipe(**SMALL), seed=0)

    def test_nothing_to_train(self, vectors):
        model = dense()
        model.trainable = False
        with pytest.raises(Refused, match="no trainable"):
            train(model, vectors, Recipe(**SMALL), seed=0)

    def test_a_train_step_without_a_loss(self, vectors):
        class Own(keras.Model):
            def __init__(self):
                super().__init__()
                self.head = layers.Dense(4)

            def call(self, x):
                return self.head(x)

            def train_step(self, *args):
                return {"energy": super().train_step(*args)["loss"]}

        with pytest.raises(Refused, match=r"train_step returns energy, not 'loss'.*--run"):
            train(Own(), vectors, Recipe(**SMALL), seed=0)


class TestLayout:
    @pytest.mark.parametrize(
        ("shape", "expected"),
        [
            ((6, 6, 2), False),
            ((2, 6, 6), True),
            ((None, None, 2), False),
            ((2, None, None), True),
            ((None, None, None), False),
        ],
    )
    def test_channels_first_is_seen_from_the_models_input(self, shape, expected):
        model = keras.Sequential([keras.Input(shape), layers.ReLU()])
        assert takes_channels_first(model, (6, 6, 2)) is expected

    @pytest.mark.parametrize(("shape", "expected"), [((4, 6, 6, 2), False), ((2, 4, 6, 6), True)])
    def test_that_of_volumes_too(self, shape, expected):
        model = keras.Sequential([keras.Input(shape), layers.ReLU()])
        assert takes_channels_first(model, (4, 6, 6, 2)) is expected

    def test_a_model_of_any_image_size_trains(self, data):
        keras.utils.set_random_seed(0)
        x = image = keras.Input((None, None, 2))
        x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(x))
        result = train(keras.Model(image, layers.Dense(4)(x)), data, Recipe(**SMALL), seed=0)
        assert result.status == "done"

    @pytest.mark.skipif(
        keras.config.backend() == "tensorflow", reason="its CPU convolutions are channels last"
    )
    def test_a_channels_first_model_trains_with_augmentation(self, data):
        model = conv((2, 6, 6), "channels_first")
        result = train(model, data, Recipe(**SMALL, augment=["flip", "crop"]), seed=0)
        assert result.status == "done"


def test_unbiased_variances():
    layer = keras.layers.BatchNormalization()
    model = keras.Sequential([keras.Input((3, 2)), layer])
    x = np.random.default_rng(0).standard_normal((5, 3, 2)).astype("float32")
    reestimate(model, x)
    plain = np.array(keras.ops.convert_to_numpy(layer.moving_variance.value))
    reestimate(model, x, unbiased=True)
    found = keras.ops.convert_to_numpy(layer.moving_variance.value)
    np.testing.assert_allclose(found, plain * 15 / 14, rtol=1e-5)
    np.testing.assert_allclose(found, x.reshape(-1, 2).var(0, ddof=1), rtol=1e-4)
    assert "call" not in vars(layer)
