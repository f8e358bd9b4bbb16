import sys

import keras
import numpy as np
import pytest
import torch
from keras import layers as kl

from relucate.errors import Refused
from relucate.graph import evaluate
from relucate.keras.reading.reader import read, read_with_calls
from relucate.torch import lower


def image(*shape, **options):
    return keras.Input(shape or (6, 5, 3), **options)


def small(name="small"):
    x = image()
    y = kl.Conv2D(4, 3, padding="same", activation="relu", name="conv")(x)
    y = kl.BatchNormalization(name="bn")(y)
    return keras.Model(
        x, kl.Dense(2, name="out")(kl.GlobalAveragePooling2D(name="pool")(y)), name=name
    )


class TestWhatIsRead:
    def test_nodes_in_order_with_fused_activation_apart(self):
        graph = read(small())
        assert [(n.name, n.op) for n in graph][1:] == [
            ("conv", "conv"),
            ("conv/relu", "relu"),
            ("bn", "batch_norm"),
            ("pool", "global_avg_pool"),
            ("out", "dense"),
        ]
        assert graph.nodes["conv/relu"].layer == "conv"
        assert graph.nodes["bn"].shape == (None, 6, 5, 4)
        assert graph.outputs == ("out",)
        assert graph.name == "small"

    def test_tensors_are_copies_under_layer_and_name(self):
        model = small()
        reading = read_with_calls(model)
        graph, variables = reading.graph, reading.variables
        assert list(graph.tensors) == [
            "conv/kernel",
            "conv/bias",
            "bn/gamma",
            "bn/beta",
            "bn/moving_mean",
            "bn/moving_variance",
            "out/kernel",
            "out/bias",
        ]
        assert variables["conv/kernel"] is model.get_layer("conv").kernel
        before = graph.tensors["out/kernel"].copy()
        variables["out/kernel"].assign(before + 1)
        np.testing.assert_array_equal(graph.tensors["out/kernel"], before)
        graph.tensors["out/bias"][:] = 7.0
        assert float(np.max(model.get_layer("out").get_weights()[1])) == 0.0

    def test_trainable_tensors(self):
        assert set(read(small()).tensors) - read(small()).trainable == {
            "bn/moving_mean",
            "bn/moving_variance",
        }

    def test_inputs_keep_the_order_of_the_signature(self, agree):
        a, b = image(3, name="a"), image(4, name="b")
        model = keras.Model([b, a], kl.Concatenate()([a, kl.Dense(2)(b)]))
        graph, _ = agree(model)
        assert graph.inputs == ("b", "a")

    def test_sequential(self, agree):
        graph, _ = agree(keras.Sequential([image(4), kl.Dense(3, activation="relu")]))
        assert [node.op for node in graph] == ["input", "dense", "relu"]

    def test_sequential_that_was_built_by_a_call(self, agree):
        model = keras.Sequential([kl.Dense(3)])
        model(np.zeros((1, 4), "float32"))
        agree(model)

    def test_input_as_output_and_an_output_twice(self, agree):
        x = image(4)
        agree(keras.Model(x, x))
        y = kl.Dense(3)(x)
        graph, _ = agree(keras.Model(x, [y, x, y]))
        assert graph.outputs[0] == graph.outputs[2] != graph.outputs[1]


class TestSharedAndNested:
    def test_shared_layers_make_a_node_per_call_and_one_set_of_weights(self, agree):
        x = image()
        conv = kl.Conv2D(3, 3, padding="same", activation="tanh", name="c")
        norm = kl.BatchNormalization(name="n", momentum=0.7)
        graph, module = agree(keras.Model(x, norm(conv(norm(conv(x))))), training=True)
        assert [n.name for n in graph][1:] == ["c", "c/tanh", "n", "c@1", "c/tanh@1", "n@1"]
        assert graph.nodes["c"].arrays == graph.nodes["c@1"].arrays
        assert graph.nodes["c@1"].call == 1
        assert sum(p.numel() for p in module.parameters()) == graph.count_parameters()

    def test_shared_layer_on_two_sizes(self, agree):
        """The borders of "same" padding depend on the call, the weights don't."""
        x = image(7, 8, 2)
        conv = kl.Conv2D(2, 3, strides=2, padding="same")
        agree(keras.Model(x, conv(conv(x))))

    def test_shared_layer_norm_on_two_ranks(self, agree):
        x = image(3, 4)
        norm = kl.LayerNormalization()
        y = norm(x)
        agree(keras.Model(x, [y, norm(kl.GlobalMaxPooling1D()(y))]))

    def test_shared_prelu_and_pool(self, agree):
        x = image(6, 6, 2)
        act, pool = kl.PReLU(shared_axes=[1, 2]), kl.MaxPooling2D(2, padding="same")
        agree(keras.Model(x, pool(act(pool(act(x))))))

    def test_nested_models_are_inlined(self, agree):
        x, inner = image(), small("inner")
        graph, _ = agree(keras.Model(x, kl.Dense(2, name="last")(inner(x))))
        assert [n.name for n in graph][1:3] == ["inner/conv", "inner/conv/relu"]
        assert not graph.opaque

    def test_nested_model_called_twice(self, agree):
        x = image(4)
        half = image(4)
        inner = keras.Model(half, kl.BatchNormalization(momentum=0.6)(kl.Dense(4)(half)), name="i")
        graph, module = agree(keras.Model(x, inner(inner(x))), training=True)
        assert [n.call for n in graph if n.op == "dense"] == [0, 1]
        assert sum(p.numel() for p in module.parameters()) == graph.count_parameters()

    def test_nested_models_of_nested_models_with_equal_layer_names(self, agree):
        def block(name):
            x = image(4)
            return keras.Model(x, kl.Dense(4, name="d")(x), name=name)

        x = image(4)
        first, second = block("a"), block("b")
        y = image(4)
        outer = keras.Model(y, second(kl.Dense(4, name="d")(y)), name="c")
        graph, _ = agree(keras.Model(x, outer(first(x))))
        names = [n.name for n in graph if n.op == "dense"]
        assert names == ["a/d", "c/d", "c/b/d"]

    def test_nested_sequential_with_several_inputs_around(self, agree):
        a, b = image(4, name="a"), image(4, name="b")
        inner = keras.Sequential([kl.Dense(3), kl.ReLU()], name="seq")
        graph, _ = agree(keras.Model([a, b], kl.Subtract()([inner(a), inner(b)])))
        assert [n.op for n in graph if n.op != "input"] == ["dense", "relu"] * 2 + ["subtract"]

    def test_nested_model_with_dict_inputs(self, agree):
        p, q = image(2, name="p"), image(3, name="q")
        inner = keras.Model({"q": q, "p": p}, kl.Concatenate()([p, kl.Dense(2)(q)]))
        x, y = image(3), image(2)
        agree(keras.Model([x, y], inner({"p": y, "q": x})))

    def test_nested_output_that_nobody_reads_still_trains_its_norm(self, agree):
        x = image(4)
        inner = keras.Model(x, [kl.Dense(3)(x), kl.BatchNormalization(momentum=0.5)(x)])
        y = image(4)
        agree(keras.Model(y, inner(y)[0]), training=True)

    def test_residual_net_with_several_consumers(self, agree):
        x = y = image(7, 7, 4)
        for _ in range(2):
            branch = kl.Conv2D(4, 3, padding="same", use_bias=False)(y)
            branch = kl.ReLU()(kl.BatchNormalization()(branch))
            y = kl.Add()([y, branch, kl.Conv2D(4, 1)(branch)])
        graph, _ = agree(keras.Model(x, kl.Dense(2)(kl.Flatten()(y))), training=True)
        assert sum(len(c) > 1 for c in graph.consumers.values()) == 4

    def test_squeeze_and_excite(self, agree):
        x = image(5, 6, 4)
        y = kl.Conv2D(4, 3, padding="same")(x)
        gate = kl.Dense(4, activation="sigmoid")(kl.GlobalAveragePooling2D(keepdims=True)(y))
        agree(keras.Model(x, kl.Multiply()([y, gate])))
        gate = kl.Reshape((1, 1, 4))(kl.Dense(4)(kl.GlobalAveragePooling2D()(y)))
        agree(keras.Model(x, kl.Multiply()([y, gate])))

    def test_unknown_image_size(self, agree):
        x = image(None, None, 3)
        y = kl.Conv2D(4, (3, 4), padding="same", dilation_rate=2)(x)
        y = kl.MaxPooling2D(2)(kl.MaxPooling2D(2, strides=1, padding="same")(y))
        model = keras.Model(x, kl.GlobalAveragePooling2D()(y))
        for size in (7, 10):
            agree(model, unknown=size)


def opaque_layers(model):
    return [(node.layer, node.attrs["why"]) for node in read(model).opaque]


def obstacles_of(model):
    return list(read(model).obstacles)


def assert_not_lowered(model, why):
    with pytest.raises(Refused, match=why):
        lower(read(model))


class TestForcedTraining:
    """`layer(x, training=...)`: read, marked, and never lowered."""

    @pytest.mark.parametrize("training", [True, False])
    def test_norm(self, training, evaluated):
        x = image(4)
        model = keras.Model(x, kl.BatchNormalization(name="n")(x, training=training))
        assert read(model).nodes["n"].attrs["forced"] is training
        assert_not_lowered(model, f"'n' is called with training={training}")
        if not training:
            evaluated(model)
            return
        with pytest.raises(Refused, match=r"'n' \(batch_norm\).*training=True"):
            evaluate(read(model), np.zeros((2, 4)))

    def test_norm_as_activation_called_with_training(self):
        x = image(4)
        layer = kl.Dense(3, activation=kl.BatchNormalization(), name="n")
        keras.Sequential([x, layer])(np.zeros((1, 4)))
        assert read(keras.Model(x, layer(x))).opaque == ()

    @pytest.mark.parametrize(
        "kind", [kl.Dropout, kl.AlphaDropout, kl.GaussianDropout, kl.GaussianNoise]
    )
    def test_dropout_that_is_always_on(self, kind):
        x = image(4)
        model = keras.Model(x, kind(0.5, name="d")(x, training=True))
        assert read(model).nodes["d"].attrs["forced"] is True
        assert_not_lowered(model, "'d' is called with training=True")
        with pytest.raises(Refused, match=r"'d'.*training=True"):
            evaluate(read(model), np.zeros((2, 4)))

    def test_dropout_as_usual_is_known(self):
        """Keras writes training=False, the default, into the call: it must not count as forced."""
        x = image(4, 4, 2)
        model = keras.Model(x, kl.Dropout(0.5)(kl.SpatialDropout2D(0.5)(x)))
        assert obstacles_of(model) == []
        assert not any("forced" in node.attrs for node in read(model))

    def test_what_training_does_not_change_is_not_marked(self):
        x = image(4)
        inner = keras.Sequential([image(4), kl.Dense(3), kl.LayerNormalization()], name="inner")
        assert not any("forced" in node.attrs for node in read(keras.Model(x, inner(x))))

    @pytest.mark.parametrize("training", [True, False])
    def test_nested_model(self, training):
        x, inner = image(), small("inner")
        model = keras.Model(x, inner(x, training=training))
        graph = read(model)
        assert not graph.opaque
        assert [n.name for n in graph if "forced" in n.attrs] == ["inner/bn"]
        assert graph.nodes["inner/bn"].attrs["forced"] is training
        assert_not_lowered(model, f"'inner' is called with training={training}")

    def test_the_outer_call_wins(self):
        """As in Keras, where `training` is handed down to every layer of the nested model."""
        x = image(4)
        half = image(4)
        norm = kl.BatchNormalization(name="n")(half, training=True)
        inner = keras.Model(half, kl.Dropout(0.5, name="d")(norm, training=True), name="inner")
        graph = read(keras.Model(x, keras.Sequential([inner], name="mid")(x, training=False)))
        assert [n.attrs["forced"] for n in graph if "forced" in n.attrs] == [False, False]
        assert graph.obstacles[0] == "'mid' is called with training=False"

    def test_transfer_learning(self, evaluated):
        """The usual recipe: a frozen base, called with training=False, under a new head."""
        base = small("base")
        base.trainable = False
        x = image()
        y = kl.Dropout(0.2)(base(x, training=False))
        graph = evaluated(keras.Model(x, kl.Dense(3, name="head")(y)))
        norm = graph.nodes["base/bn"]
        assert (norm.attrs["frozen"], norm.attrs["forced"]) == (True, False)
        assert graph.trainable == {"head/kernel", "head/bias"}

    def test_twice_with_and_without(self):
        x, norm = image(4), kl.BatchNormalization(name="n")
        graph = read(keras.Model(x, norm(norm(x, training=False))))
        assert [n.attrs.get("forced") for n in graph][1:] == [False, None]

    def test_around_time_and_spectral_norm(self):
        x = image(3, 4)
        y = kl.TimeDistributed(kl.BatchNormalization(), name="t")(x, training=False)
        y = kl.SpectralNormalization(kl.Dense(2), name="s")(y, training=True)
        graph = read(keras.Model(x, y))
        assert graph.nodes["t"].attrs["forced"] is False
        assert graph.nodes["s"].attrs["forced"] is True
        with pytest.raises(Refused, match=r"'s' \(dense\).*training=True"):
            evaluate(graph, np.zeros((1, 3, 4)))


class TestTimeDistributed:
    def test_nested_model(self, evaluated):
        conv = kl.Conv2D(4, 3, padding="same", activation="relu", name="c")
        layers = [image(6, 5, 3), conv, kl.BatchNormalization(name="n")]
        layers += [kl.Reshape((-1, 4), name="r"), kl.Dense(2)]
        inner = keras.Sequential(layers, name="inner")
        x = image(3, 6, 5, 3)
        y = kl.TimeDistributed(inner, name="t")(x)
        graph = evaluated(keras.Model(x, kl.Conv1D(2, 2)(kl.TimeDistributed(kl.Flatten())(y))))
        assert [n.name for n in graph][1:5] == ["t/c", "t/c/relu", "t/n", "t/r"]
        assert graph.nodes["t/n"].shape == (None, 3, 6, 5, 4)
        assert graph.nodes["t/r"].attrs["target"] == (30, 4)
        assert not graph.opaque

    def test_nested_twice_is_opaque(self):
        inner = keras.Sequential([image(4, 3), kl.TimeDistributed(kl.Dense(2), name="d")], name="i")
        x = image(5, 4, 3)
        model = keras.Model(x, kl.TimeDistributed(inner, name="t")(x))
        assert opaque_layers(model) == [("t/d", "within another TimeDistributed")]
        deep = keras.Sequential([image(4, 3), kl.TimeDistributed(kl.Dense(2))], name="deep")
        around = keras.Sequential([image(5, 4, 3), kl.TimeDistributed(deep, name="a")], name="b")
        x = image(6, 5, 4, 3)
        model = keras.Model(x, kl.TimeDistributed(around, name="t")(x))
        assert opaque_layers(model) == [("t/a", "within another TimeDistributed")]

    def test_a_mask_counts_only_if_the_inner_layer_takes_one(self, evaluated):
        tokens = image(4, dtype="int32")
        x = kl.Embedding(5, 3, mask_zero=True)(tokens)
        model = keras.Model(tokens, kl.TimeDistributed(kl.Dense(2), name="t")(x))
        graph = evaluated(model, np.array([[1, 2, 0, 0], [4, 0, 0, 0]]))
        assert "t" not in {node.layer for node in graph.opaque}
        soft = kl.TimeDistributed(kl.Softmax(), name="t")(x)
        assert ("t", "called with a mask") in opaque_layers(keras.Model(tokens, soft))


class TestOpaque:
    def test_nested_model_whose_input_is_reshaped(self):
        inner = keras.Sequential([image(4, 1), kl.Flatten()], name="inner")
        x = image(4)
        assert opaque_layers(keras.Model(x, inner(x))) == [
            ("inner", "its inputs are reshaped at the call")
        ]

    def test_masks(self):
        x, mask = image(4, 3), image(4, dtype="bool")
        half = image(4, 3)
        inner = keras.Model(half, kl.BatchNormalization()(half), name="inner")
        with pytest.warns(UserWarning, match="does not support masking"):
            model = keras.Model([x, mask], inner(x, mask=mask))
        assert opaque_layers(model) == [("inner", "called with a mask")]
        soft = keras.Model([x, mask], kl.Softmax(name="s")(x, mask=mask))
        assert opaque_layers(soft) == [("s", "called with a mask")]
        assert len(read(soft).nodes["s"].inputs) == 2

    def test_a_mask_changes_the_statistics_of_a_norm_in_training_alone(self, evaluated):
        x, mask = image(4, 3), image(4, dtype="bool")
        norm = kl.BatchNormalization(name="n")
        model = keras.Model([x, mask], norm(x, mask=mask))
        data = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")
        graph = evaluated(model, data, np.array([[1, 1, 0, 0]] * 2, bool))
        assert len(graph.nodes["n"].inputs) == 1
        assert_not_lowered(model, "'n' is called with a mask")
        masked = keras.Model(x, kl.BatchNormalization(name="m")(kl.Masking(name="k")(x)))
        assert ("k", "zeros what is masked") in opaque_layers(masked)
        assert "'m' is called with a mask" in obstacles_of(masked)

    def test_a_constant_beside_a_merging_layers_tensors(self):
        x = image(4)
        model = keras.Model(x, kl.Add(name="odd")([x, np.ones((1, 4), "float32")]))
        assert opaque_layers(model) == [("odd", "called with a constant operand")]

    def test_the_input_by_its_name(self, evaluated):
        x = image(4)
        assert not evaluated(keras.Model(x, kl.Dense(3)(inputs=x))).opaque

    def test_unknown_operation_is_named(self):
        x = image(4)
        model = keras.Model(x, keras.ops.sin(x))
        with pytest.raises(Refused, match=r"'sin.*' \(Sin\)"):
            lower(read(model))

    def test_layer_with_several_outputs(self):
        class Split(kl.Layer):
            def call(self, x):
                return x, x

        x = image(4)
        model = keras.Model(x, kl.Add()(Split(name="s")(x)))
        assert opaque_layers(model) == [("s", "several outputs")]

    def test_subclassed_model_inside(self):
        class Inside(keras.Model):
            def call(self, x):
                return x * 2

            def compute_output_shape(self, shape):
                return shape

        x = image(4)
        (found,) = opaque_layers(keras.Model(x, Inside(name="own")(x)))
        assert found[0] == "own"
        assert "own call" in found[1]


class OwnCall(keras.Model):
    def call(self, x, training=None, mask=None):
        return 2 * super().call(x)


class OwnStep(keras.Model):
    def train_step(self, *args):
        return {}


class Bare(keras.Model):
    def call(self, x):
        return x


class OwnSequential(keras.Sequential):
    def call(self, x, training=None, mask=None):
        return -super().call(x)


class TestRefused:
    def test_overridden_call_is_never_ignored(self, evaluated):
        x = image(4)
        y = kl.Dense(2)(x)
        for model in (OwnCall(x, y), OwnSequential([x, kl.Dense(2)])):
            assert evaluated(model).outputs[0] not in evaluated(keras.Model(x, y)).outputs
        with pytest.raises(Refused, match=r"Bare\) has its own call"):
            read(Bare())

    def test_unbuilt_sequential(self):
        model = keras.Sequential([kl.Dense(2)], name="bare")
        with pytest.raises(Refused, match="'bare' is a Sequential without an input shape"):
            read(model)

    @pytest.mark.parametrize("thing", ["cnn", torch.nn.Linear(2, 2)])
    def test_not_a_keras_model(self, thing):
        with pytest.raises(Refused, match="expected a Keras model, got"):
            read(thing)

    def test_empty_model(self):
        with pytest.raises(Refused, match="'empty' has no layers"):
            read(keras.Model(name="empty"))

    def test_own_train_step_is_an_obstacle(self):
        x = image(4)
        graph = read(OwnStep(x, kl.Dense(2)(x), name="stepper"))
        with pytest.raises(Refused, match="'stepper' has its own train_step"):
            lower(graph)

    @pytest.mark.parametrize(
        ("options", "why"),
        [
            ({"kernel_constraint": "non_neg"}, "'odd/kernel' has a constraint .NonNeg"),
            ({"kernel_regularizer": keras.regularizers.OrthogonalRegularizer()}, "Orthogonal"),
            ({"activity_regularizer": "l2"}, "'odd' has an activity_regularizer"),
            ({"dtype": "bfloat16"}, "'odd' compute in bfloat16"),
            ({"dtype": "mixed_float16"}, "'odd' compute in float16"),
            ({"dtype": "float64"}, "'odd' compute in float64"),
            ({"activation": kl.ReLU(dtype="float16")}, "compute in float16"),
        ],
    )
    def test_obstacles(self, options, why):
        x = image(4)
        with pytest.raises(Refused, match=why):
            lower(read(keras.Model(x, kl.Dense(3, name="odd", **options)(x))))

    def test_many_layers_of_one_dtype_make_one_short_sentence(self):
        x = y = image(4, dtype="float16")
        for index in range(6):
            y = kl.Dense(4, dtype="mixed_float16", name=f"d{index}")(y)
        (obstacle,) = read(keras.Model(x, y)).obstacles
        assert obstacle.endswith("'d0', 'd1', 'd2' and 3 more compute in float16")

    @pytest.mark.parametrize("options", [{"renorm": True}, {"synchronized": True}], ids=str)
    def test_norms_with_other_statistics(self, options):
        x = image(4)
        if "synchronized" in options:  # the torch backend can't even call it
            graph = read(keras.Model(x, kl.BatchNormalization(name="n")(x)))
            graph.nodes["n"].attrs.update(options)  # type: ignore[attr-defined]
        else:
            graph = read(keras.Model(x, kl.BatchNormalization(name="n", **options)(x)))
        with pytest.raises(Refused, match=f"'n': batch norm with {next(iter(options))}=True"):
            lower(graph)


class TestTraining:
    def test_penalties_are_keras_losses(self):
        x = image(6, 6, 2)
        y = kl.Conv2D(
            3, 3, kernel_regularizer="l2", bias_regularizer="l1", bias_initializer="ones"
        )(x)
        y = kl.BatchNormalization(
            gamma_regularizer=keras.regularizers.L1L2(0.01, 0.02),
            beta_regularizer=keras.regularizers.L1(0.3),
            beta_initializer="ones",
        )(y)
        y = kl.PReLU(alpha_regularizer="l2", alpha_initializer="ones")(y)
        y = kl.SeparableConv2D(2, 2, depthwise_regularizer="l2", pointwise_regularizer="l1")(y)
        frozen = kl.Conv2D(2, 1, kernel_regularizer="l2", trainable=False)
        model = keras.Model(x, frozen(y))
        assert len(read(model).penalties) == 7
        penalty = lower(read(model)).penalty()
        assert penalty is not None
        expected = sum(float(loss.detach()) for loss in model.losses)
        assert float(penalty.detach()) == pytest.approx(expected, rel=1e-6)

    def test_penalty_of_a_branch_that_nobody_reads(self):
        x = image(4)
        inner = keras.Model(
            x, [kl.Dense(3, kernel_regularizer="l2")(x), kl.Dense(2, kernel_regularizer="l1")(x)]
        )
        model = keras.Model(y := image(4), inner(y)[0])
        expected = sum(float(loss.detach()) for loss in model.losses)
        assert float(lower(read(model)).penalty().detach()) == pytest.approx(expected, rel=1e-6)

    def test_frozen_layers_are_frozen(self, agree):
        model = small()
        model.get_layer("bn").trainable = False
        graph, module = agree(model, training=True)
        assert graph.nodes["bn"].attrs["frozen"]
        assert "bn/gamma" not in graph.trainable
        assert trainable_keys(module) == graph.trainable

    def test_frozen_model(self, agree):
        model = small()
        model.trainable = False
        graph, module = agree(model, training=True)
        assert graph.trainable == frozenset()
        assert trainable_keys(module) == set()

    def test_trainable_flags_of_all_kinds(self, agree):
        x = image(6, 6, 4)
        y = kl.SeparableConv2D(4, 3)(kl.DepthwiseConv2D(3, trainable=False)(x))
        y = kl.PReLU(trainable=False)(kl.GroupNormalization(2, trainable=False)(y))
        graph, module = agree(keras.Model(x, kl.LayerNormalization()(y)))
        assert trainable_keys(module) == graph.trainable


def trainable_keys(module):
    flags = {name: p.requires_grad for name, p in module.named_parameters()}
    return {key for key, where in module.bindings.items() if flags.get(where.parameter, False)}


def test_constants_are_tensors_of_their_own_shared_by_the_calls():
    x, layer = image(3), kl.Rescaling([1.0, 2.0, 3.0], name="r")
    graph = read(keras.Model(x, layer(layer(x) * np.array([1.0, 0.0, 2.0]))))
    assert [n.arrays for n in graph if n.layer == "r"] == [{"scale": "r/scale"}] * 2
    assert len(graph.tensors) == 2
    assert graph.trainable == frozenset()
    np.testing.assert_array_equal(evaluate(graph, np.ones((1, 3)))[0], [[1, 0, 18]])


def test_names_are_the_same_every_time():
    def build():
        keras.backend.clear_session()
        x = image(4, 6)
        y = kl.MultiHeadAttention(2, 3)(x, x) + x * np.ones(6)
        y = kl.TimeDistributed(keras.Sequential([kl.Dense(4), kl.BatchNormalization()]))(y)
        return read(keras.Model(x, kl.Rescaling([1.0, 2, 3, 4])(y[:, 1:])))

    first, second = build(), build()
    assert list(first.nodes) == list(second.nodes)
    assert list(first.tensors) == list(second.tensors)
    assert [n.arrays for n in first] == [n.arrays for n in second]


def deep_net(blocks):
    x = tensor = image(4)
    for _ in range(blocks):
        y = kl.ReLU()(kl.BatchNormalization()(kl.Dense(4)(tensor)))
        tensor = kl.Add()([tensor, y])
    return keras.Model(x, tensor)


def lines_to_read(model):
    """Count the lines of relucate that run while a model is read, each round of a loop again."""
    count = 0

    def trace(frame, event, _):
        nonlocal count
        count += event == "line"
        return trace if "relucate" in frame.f_globals.get("__name__", "") else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        read(model)
    finally:
        sys.settrace(before)
    return count


def test_reading_takes_work_in_proportion_to_the_nodes():
    short, long = lines_to_read(deep_net(20)), lines_to_read(deep_net(80))
    assert short < long < 4.5 * short  # quadratic would be sixteen times


def test_opaque_layers_keep_their_weights_and_stop_the_evaluator():
    class Scale(kl.Layer):
        def build(self, shape):
            self.factor = self.add_weight(name="factor", shape=(shape[-1],))

        def call(self, x):
            return x * self.factor

    x = image(4)
    graph = read(keras.Model(x, Scale(name="scale")(x)))
    assert list(graph.tensors) == ["scale/factor"]
    with pytest.raises(Refused, match=r"can't evaluate 'scale' \(Scale\)"):
        evaluate(graph, np.zeros((1, 4)))


@pytest.mark.parametrize(
    ("first", "found"),
    [
        ([kl.Rescaling(1 / 255, name="one")], ("one",)),
        ([kl.Normalization(mean=2.0, variance=4.0, name="two")], ("two",)),
        ([kl.ZeroPadding2D(), kl.Rescaling(2.0, offset=-1.0, name="one")], ("one",)),
        ([kl.BatchNormalization()], ()),
        ([kl.Conv2D(3, 3), kl.Rescaling(0.5)], ()),
        ([kl.ReLU(), kl.Rescaling(0.5)], ()),
        ([], ()),
    ],
    ids=["rescaling", "normalization", "behind padding", "norm", "behind conv", "behind relu", "-"],
)
def test_the_layers_that_scale_the_inputs(first, found):
    net = keras.Sequential([image(), *first, kl.Conv2D(2, 3), kl.Flatten(), kl.Dense(2)])
    assert read(net).input_scaling == found
