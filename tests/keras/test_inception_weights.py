import re

import h5py
import keras
import numpy as np
import pytest
import scipy.signal

from relucate.errors import InputError, Refused
from relucate.keras import InceptionV3
from relucate.keras import inception_weights as iw

OLD = {
    "order": "after",
    "width": 2,
    "classes": 5,
    "classifier_activation": None,
    "input_shape": (75, 75, 3),
}
NEW = {**OLD, "order": "before"}
ROLES = {
    "kernel": "W",
    "bias": "b",
    "moving_mean": "running_mean",
    "moving_variance": "running_std",
}
# The sequence of a file's layers: c is convolution2d_N, b batchnormalization_N. Read off the list
# of arrays of the file of release v0.2; keras.applications has the same sequence.
SEQUENCE = """
c1 b1 c2 b2 c3 b3 c4 b4 c5 b5 c9 b9 c7 c10 b7 b10 c6 c8 c11 c12 b6 b8 b11 b12 c16 b16 c14 c17 b14
b17 c13 c15 c18 c19 b13 b15 b18 b19 c23 b23 c21 c24 b21 b24 c20 c22 c25 c26 b20 b22 b25 b26 c28 b28
c29 b29 c27 c30 b27 b30 c35 b35 c36 b36 c32 c37 b32 b37 c33 c38 b33 b38 c31 c34 c39 c40 b31 b34 b39
b40 c45 b45 c46 b46 c42 c47 b42 b47 c43 c48 b43 b48 c41 c44 c49 c50 b41 b44 b49 b50 c55 b55 c56 b56
c52 c57 b52 b57 c53 c58 b53 b58 c51 c54 c59 c60 b51 b54 b59 b60 c65 b65 c66 b66 c62 c67 b62 b67 c63
c68 b63 b68 c61 c64 c69 c70 b61 b64 b69 b70 c73 b73 c74 b74 c71 c75 b71 b75 c72 c76 b72 b76 c81 b81
c78 c82 b78 b82 c79 c80 c83 c84 c77 b79 b80 b83 b84 c85 b77 b85 c90 b90 c87 c91 b87 b91 c88 c89 c92
c93 c86 b88 b89 b92 b93 c94 b86 b94
""".split()


def created():
    """The blocks' names in the order in which Keras's source creates them: number 1 to 94."""
    names = [f"stem_{i}" for i in range(1, 6)]
    ends = {range(3): "1x1 5x5_1 5x5_2 3x3dbl_1 3x3dbl_2 3x3dbl_3 pool"}
    ends[range(3, 4)] = "3x3 3x3dbl_1 3x3dbl_2 3x3dbl_3"
    seven = " ".join(f"7x7dbl_{i}" for i in range(1, 6))
    ends[range(4, 8)] = f"1x1 7x7_1 7x7_2 7x7_3 {seven} pool"
    ends[range(8, 9)] = "3x3_1 3x3_2 7x7x3_1 7x7x3_2 7x7x3_3 7x7x3_4"
    ends[range(9, 11)] = "1x1 3x3_1 3x3_2a 3x3_2b 3x3dbl_1 3x3dbl_2 3x3dbl_3a 3x3dbl_3b pool"
    for modules, texts in ends.items():
        names += [f"mixed{i}_{text}" for i in modules for text in texts.split()]
    return names


def write_keras_1(path, model, *, layout="tf", tail="", top=True, root=None, chunks=1, change=None):
    """Write the model's weights as Keras 1.x did: its names, sequence, layout and attributes."""
    names = created()
    listing = ["input_1", *SEQUENCE, "maxpooling2d_1", "mixed0", "avg_pool", "flatten"]
    listing += ["predictions"] * top
    with h5py.File(path, "w") as file:
        group = file.create_group(root) if root else file
        full = []
        for entry in listing:
            match = re.fullmatch(r"([cb])(\d+)", entry)
            name, arrays = entry, {}
            if match:
                kind = {"c": "convolution2d", "b": "batchnormalization"}[match[1]]
                suffix = {"c": "_conv", "b": "_bn"}[match[1]]
                name = f"{kind}_{match[2]}"
                arrays = arrays_of(model.get_layer(names[int(match[2]) - 1] + suffix), layout)
            elif entry == "predictions":
                arrays = arrays_of(model.get_layer(entry), layout)
            arrays = change(name, arrays) if change else arrays
            layer = group.create_group(name)
            layer.attrs["weight_names"] = [f"{name}_{r}{tail}".encode() for r in arrays]
            for role, array in arrays.items():
                layer[f"{name}_{role}{tail}"] = array
            full.append(name.encode())
        if chunks == 1:
            group.attrs["layer_names"] = full
        else:
            for i, part in enumerate(np.array_split(np.array(full), chunks)):
                group.attrs[f"layer_names{i}"] = part
    return path


def arrays_of(layer, layout):
    found = {ROLES.get(v.name, v.name): np.asarray(v.numpy()) for v in layer.weights}
    if layout == "th" and "W" in found and found["W"].ndim == 4:
        # Theano: (filters, channels, rows, columns), turned by 180° because it convolves.
        found["W"] = np.rot90(found["W"], 2, axes=(0, 1)).transpose(3, 2, 0, 1).copy()
    return found


def write_keras_2(path, model, **attributes):
    """Write the model's weights as Keras 2 did, in the sequence that keras.applications has."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        file.attrs.update(attributes)
        for layer in model.layers:
            group = file.create_group(layer.name)
            keys = [f"{layer.name}/{v.name}:0" for v in layer.weights]
            group.attrs["weight_names"] = [key.encode() for key in keys]
            for key, variable in zip(keys, layer.weights, strict=True):
                group[key] = variable.numpy()
    return path


def randomize(model, seed):
    random = np.random.default_rng(seed)
    for variable in model.weights:
        shape, role = variable.shape, variable.name
        values = 0.3 * random.normal(size=shape)
        if role == "kernel":
            values = 2 * random.normal(size=shape) / np.prod(shape[:-1]) ** 0.5
        elif role in ("moving_variance", "gamma"):
            values = random.uniform(0.5, 1.5, shape)
        variable.assign(values.astype("float32"))
    return model


def same_weights(a, b):
    pairs = zip(a.get_weights(), b.get_weights(), strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)


@pytest.fixture(scope="module")
def old():
    return randomize(InceptionV3(edition="1.x", **OLD), 1)


@pytest.fixture(scope="module")
def new():
    return randomize(InceptionV3(**NEW), 2)


@pytest.fixture(scope="module")
def blank():
    """An untouched network of Keras 1.x to load into."""
    return InceptionV3(edition="1.x", **OLD)


@pytest.fixture(scope="module")
def theirs():
    return randomize(keras.applications.InceptionV3(weights=None, include_top=False), 6)


@pytest.fixture
def published(tmp_path):
    return tmp_path / "inception_v3_weights_tf_dim_ordering_tf_kernels.h5"


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(3).normal(size=(2, 75, 75, 3)).astype("float32")


def load(model, path, *, order="linear-act-norm", edition="1.x", kernels=None):
    source = iw.find_weights(str(path), True, order)
    own = {layer.name for layer in model.layers}
    iw.load_weights(model, own, source, order=order, edition=edition, kernels=kernels)
    return model


def test_the_sequence_is_kerass_own(theirs):
    """keras.applications loads files of the same sequence: it is its layers' order."""
    kinds = {keras.layers.Conv2D: "c", keras.layers.BatchNormalization: "b"}
    first = {
        kind: min(number(la) for la in theirs.layers if isinstance(la, kind)) for kind in kinds
    }
    found = [
        f"{kinds[type(la)]}{number(la) - first[type(la)] + 1}" for la in theirs.layers if la.weights
    ]
    assert found == SEQUENCE


@pytest.mark.parametrize("order", ["before", "after", "linear-drop-act-norm"])
def test_the_sequence_of_our_layers(order, old, new):
    made = {"after": old, "before": new}
    model = made.get(order) or InceptionV3(**(OLD | {"order": order}))
    names = {name: str(i) for i, name in enumerate(created(), 1)}
    found = [
        "c" + names[n.removesuffix("_conv")] if n.endswith("_conv") else "b" + names[n[:-3]]
        for n in iw._file_sequence(model)[:-1]
    ]
    assert found == SEQUENCE
    assert iw._file_sequence(model)[-1] == "predictions"


def number(layer):
    digits = re.search(r"_(\d+)$", layer.name)
    return int(digits[1]) if digits else 0


@pytest.mark.parametrize(("layout", "tail"), [("tf", ":0"), ("th", "")])
def test_an_old_file_of_either_layout_gives_the_old_network(old, tmp_path, image, layout, tail):
    path = tmp_path / f"inception_v3_weights_{layout}_dim_ordering_{layout}_kernels.h5"
    write_keras_1(path, old, layout=layout, tail=tail)
    model = InceptionV3(weights=path, **OLD)  # the file says which edition it is
    assert same_weights(model, old)
    assert isinstance(model.get_layer("mixed8_average"), keras.layers.AveragePooling2D)
    expected = old.predict(image, verbose=0)
    assert np.ptp(expected, axis=0).max() > 0.03 * np.abs(expected).max()
    np.testing.assert_array_equal(model.predict(image, verbose=0), expected)


def test_running_std_is_the_variance(old, blank, published):
    write_keras_1(published, old)
    with h5py.File(published) as file:
        group = file["batchnormalization_60"]
        stored = group["batchnormalization_60_running_std"][()]
    load(blank, published)
    norm = blank.get_layer("mixed6_pool_bn")
    np.testing.assert_array_equal(norm.moving_variance.numpy(), stored)


def test_theanos_kernels_are_convolved(old, blank, tmp_path, image):
    """The first layer computes what Theano did with the file's array: a true convolution."""
    path = write_keras_1(tmp_path / "x_th_kernels.h5", old, layout="th")
    with h5py.File(path) as file:
        kernel = file["convolution2d_1"]["convolution2d_1_W"][()]
        bias = file["convolution2d_1"]["convolution2d_1_b"][()]
    load(blank, path)
    planes = np.moveaxis(image[0].astype(float), -1, 0)
    for i, (weights, offset) in enumerate(zip(kernel, bias, strict=True)):
        sums = sum(
            scipy.signal.convolve2d(plane, w, mode="valid")
            for plane, w in zip(planes, weights, strict=True)
        )
        got = keras.ops.convert_to_numpy(blank.get_layer("stem_1_conv")(image))[0, :, :, i]
        np.testing.assert_allclose(got, sums[::2, ::2] + offset, atol=1e-4)


def test_without_a_classifier(old, tmp_path):
    path = write_keras_1(tmp_path / "a_tf_kernels_notop.h5", old, top=False)
    options = {**OLD, "include_top": False}
    model = InceptionV3(
        weights=str(path), data_format="channels_first", **(options | {"input_shape": None})
    )
    assert same_weights(model, keras.Model(old.inputs, old.get_layer("mixed10").output))
    assert model.output_shape == (None, 128, None, None)


def test_layers_before_the_input_tensor_keep_their_weights(old, published):
    write_keras_1(published, old)
    image = keras.Input((80, 80, 3))
    mixed = keras.layers.Conv2D(3, 1, name="mix")(image)
    model = InceptionV3(weights=published, input_tensor=mixed, **OLD)
    assert same_weights(keras.Model(mixed, model.output), old)


def test_a_whole_model_in_a_file_and_a_long_list_of_layers(old, blank, published):
    write_keras_1(published, old, root="model_weights", chunks=3)
    randomize(blank, 9)
    assert same_weights(load(blank, published), old)


@pytest.mark.parametrize(
    ("name", "attribute", "kernels", "turned"),
    [
        ("w.h5", None, "theano", True),
        ("w.h5", None, "tensorflow", False),
        ("w.h5", "theano", None, True),
        ("w.h5", "tensorflow", None, False),
        ("w.h5", "cntk", None, False),
        ("w_th_kernels.h5", None, None, True),
        ("w_tf_dim_ordering_th_kernels.h5", None, None, True),
        ("w_tf_kernels.h5", None, None, False),
        ("w_tf_kernels.h5", "theano", None, True),
        ("w_th_kernels.h5", "theano", "tensorflow", False),
    ],
)
def test_whose_kernels(tmp_path, name, attribute, kernels, turned):
    """The argument, then what Keras noted in the file, then the file's name."""
    path = tmp_path / name
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"convolution2d_1"]
        layer = file.create_group("convolution2d_1")
        layer.attrs["weight_names"] = [b"convolution2d_1_W", b"convolution2d_1_b"]
        layer["convolution2d_1_W"], layer["convolution2d_1_b"] = np.ones((3, 3, 1, 2)), np.ones(2)
        if attribute:
            file.attrs["backend"] = attribute.encode()
    assert iw._turned(path, iw._read_layers(path), kernels) == turned


def test_turned_kernels_in_tensorflows_layout(old, blank, published):
    """Someone may have run Theano with TensorFlow's order of axes."""
    load(blank, write_keras_1(published, old), kernels="theano")
    kernel = old.get_layer("mixed0_5x5_2_conv").kernel.numpy()
    got = blank.get_layer("mixed0_5x5_2_conv").kernel.numpy()
    np.testing.assert_array_equal(got, kernel[::-1, ::-1])


def test_a_file_that_does_not_say_whose_kernels_it_holds(old, blank, tmp_path):
    path = write_keras_1(tmp_path / "weights.h5", old)
    with pytest.raises(InputError, match=r"weights.h5.*pass kernels='tensorflow' or kernels='th"):
        load(blank, path)
    with pytest.raises(InputError, match=r"unknown kernels 'thaeno'.*'theano'"):
        InceptionV3(weights=path, kernels="thaeno", **OLD)


def test_files_of_keras_2(new, tmp_path, image):
    path = write_keras_2(tmp_path / "weights.h5", new, keras_version=b"2.0.8")
    model = InceptionV3(weights=path, **NEW)
    np.testing.assert_array_equal(model.predict(image, verbose=0), new.predict(image, verbose=0))
    write_keras_2(path, new, backend=b"theano")
    load(model, path, order="linear-norm-act", edition="today")
    kernel = new.get_layer("mixed0_5x5_2_conv").kernel.numpy()
    np.testing.assert_array_equal(
        model.get_layer("mixed0_5x5_2_conv").kernel.numpy(), kernel[::-1, ::-1]
    )


def test_the_file_that_keras_applications_loads(theirs, tmp_path):
    """Files of keras.applications' network, in the old and in Keras 3's own format."""
    weights = theirs.get_weights()
    path = write_keras_2(tmp_path / "inception_v3_weights_notop.h5", theirs)
    randomize(theirs, 8)
    theirs.load_weights(path)  # Keras agrees that this is how such a file looks
    assert all(np.array_equal(a, b) for a, b in zip(weights, theirs.get_weights(), strict=True))
    ours = InceptionV3(weights=path, include_top=False)
    assert same_weights(ours, theirs)
    randomize(theirs, 9).save_weights(tmp_path / "a.weights.h5")
    assert not same_weights(ours, theirs)
    assert same_weights(InceptionV3(weights=tmp_path / "a.weights.h5", include_top=False), theirs)


def test_what_keras_3_saves_loads_again(old, tmp_path):
    path = tmp_path / "own.weights.h5"
    old.save_weights(path)
    assert same_weights(InceptionV3(weights=path, edition="1.x", **OLD), old)
    with pytest.raises(
        InputError, match=r"own.weights.h5 doesn't hold the weights of this network"
    ):
        InceptionV3(weights=path, **NEW)


def nan(name, arrays):
    return arrays | ({"beta": arrays["beta"] * np.nan} if name == "batchnormalization_9" else {})


def negative(name, arrays):
    flipped = {"running_std": -arrays["running_std"]} if name == "batchnormalization_9" else {}
    return arrays | flipped


def words(name, arrays):
    return arrays | ({"b": np.array([b"a", b"b"])} if name == "convolution2d_1" else {})


def fewer(name, arrays):
    return {} if name in ("convolution2d_93", "batchnormalization_93") else arrays


def odd(name, arrays):
    return {"param_0": arrays["W"]} if name == "convolution2d_2" else arrays


def ungained(name, arrays):
    return {role: array for role, array in arrays.items() if role != "gamma"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (nan, r"the beta of 'batchnormalization_9' holds values that no trained network has"),
        (negative, r"the moving_variance of 'batchnormalization_9' holds"),
        (words, r"the bias of 'convolution2d_1' holds"),
        (
            fewer,
            r"holds 93 convolutions, 1 dense layer, 93 norms, the model has 94 convolutions, "
            r"1 dense layer, 94 norms: it belongs to another network",
        ),
        (odd, r"layer 'convolution2d_2' has an array 'convolution2d_2_param_0': expected one each"),
        (
            ungained,
            r"'batchnormalization_1' has beta, moving_mean, moving_variance, the model's "
            r"'stem_1_bn' has gamma, beta",
        ),
    ],
)
def test_damaged_and_foreign_files(old, blank, published, change, message):
    write_keras_1(published, old, change=change)
    before = [w.copy() for w in blank.get_weights()]
    with pytest.raises(InputError, match=message):
        load(blank, published)
    assert all(np.array_equal(a, b) for a, b in zip(before, blank.get_weights(), strict=True))


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_truncated_files(old, blank, published, share):
    content = write_keras_1(published, old).read_bytes()
    published.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match="only a part of one; download it again"):
        load(blank, published)


def test_a_listed_layer_that_is_not_there(old, blank, published):
    write_keras_1(published, old)
    with h5py.File(published, "a") as file:
        del file["convolution2d_7"]
    with pytest.raises(InputError, match="can't be read as a weight file"):
        load(blank, published)


def test_other_files(blank, tmp_path):
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.zeros(3)
    with pytest.raises(InputError, match="an HDF5 file, but doesn't hold weights of Keras"):
        load(blank, path)
    path.write_text("<html>Not found</html>")
    with pytest.raises(InputError, match="it is no HDF5 file"):
        load(blank, path)


def test_the_other_edition(old, new, published, tmp_path):
    write_keras_1(published, old)
    message = r"file has 2 and 2 filters in the pool branches.*pass edition='1.x'"
    with pytest.raises(InputError, match=message):
        InceptionV3(weights=published, edition="today", **OLD)
    path = write_keras_2(tmp_path / "new.h5", new)
    message = r"'mixed1_pool_conv' has a kernel.*file has 2 and 4 filters.*pass edition='today'"
    with pytest.raises(InputError, match=message):
        InceptionV3(weights=path, edition="1.x", **NEW)


def test_an_old_file_does_not_fit_todays_order_nor_the_other_way_round(
    old, new, blank, published, tmp_path
):
    write_keras_1(published, old)
    message = r"has the order 'after' \(convolutions with biases, as in Keras 1.x\), the model has "
    with pytest.raises(InputError, match=message + r"the order 'before': build it with order='af"):
        load(new, published, order="linear-norm-act")
    path = write_keras_2(tmp_path / "new.h5", new)
    message = r"has the order 'before' \(convolutions without biases.*the order 'after': build it"
    with pytest.raises(InputError, match=message):
        load(blank, path)
    # The arrays would fit here, and make another function.
    with pytest.raises(InputError, match="the order 'act-linear-norm'"):
        load(new, path, order="act-linear-norm", edition="today")


def test_dropout_is_no_other_order(old, published):
    write_keras_1(published, old)
    options = OLD | {"order": "linear-act-norm-drop", "dropout": 0.2}
    assert same_weights(InceptionV3(weights=published, **options), old)


def test_classes_and_the_classifier(old, blank, published):
    write_keras_1(published, old)
    with pytest.raises(InputError, match=r"the file has 5 classes: pass classes=5"):
        InceptionV3(weights=published, **(OLD | {"classes": 6}))
    bare = keras.Model(blank.inputs, blank.get_layer("mixed10").output)
    with pytest.raises(InputError, match=r"has a classifier: pass include_top=True"):
        load(bare, published)
    write_keras_1(published, old, top=False)
    with pytest.raises(InputError, match=r"has no classifier: pass include_top=False"):
        load(blank, published)


def test_another_width(old, published):
    write_keras_1(published, old)
    with pytest.raises(InputError, match=r"stem_1_conv' one of \(3, 3, 3, 4\).*another width"):
        InceptionV3(weights=published, **(OLD | {"width": 4}))


def test_the_published_files(monkeypatch, tmp_path):
    """Addresses and checksums of Keras 3 and of release v0.2, each in its own file of the cache."""
    asked = {}

    def get_file(name, address, *, cache_subdir, file_hash):
        asked[name] = (address, file_hash, cache_subdir)
        return tmp_path / name

    monkeypatch.setattr(keras.utils, "get_file", get_file)
    for order in iw.EDITION_OF:
        for top in (True, False):
            iw._fetch(iw.find_weights("imagenet", top, order))
    assert len(asked) == 4
    assert {folder for *_, folder in asked.values()} == {"models"}
    name = "inception_v3_weights_tf_dim_ordering_tf_kernels"
    google = "https://storage.googleapis.com/tensorflow/keras-applications/inception_v3/"
    v02 = "https://github.com/fchollet/deep-learning-models/releases/download/v0.2/"
    assert {n: (a, h) for n, (a, h, _) in asked.items()} == {
        f"{name}.h5": (f"{google}{name}.h5", "9a0d58056eeedaa3f26cb7ebd46da564"),
        f"{name}_notop.h5": (f"{google}{name}_notop.h5", "bcbd6486424b2319ff4ef7d526e38f63"),
        f"keras1_{name}.h5": (f"{v02}{name}.h5", "fe114b3ff2ea4bf891e9353d1bbfb32f"),
        f"keras1_{name}_notop.h5": (f"{v02}{name}_notop.h5", "2f3609166de1d967d1a481094754f691"),
    }


def test_published_weights_that_cannot_be_fetched(monkeypatch):
    def get_file(*_, **__):
        raise Exception("URL fetch failure on https://...: None")

    monkeypatch.setattr(keras.utils, "get_file", get_file)
    with pytest.raises(Refused, match=r"can't fetch https://github.*v0.2.*give the file's path"):
        InceptionV3("after", weights="imagenet", include_top=False)


def test_imagenet_asks_for_the_network_of_the_weights():
    with pytest.raises(InputError, match=r"'imagenet'.*are of edition '1.x'.*got edition='today'"):
        InceptionV3("after", weights="imagenet", edition="today")
    with pytest.raises(InputError, match=r"are of edition 'today'.*got edition='1.x'"):
        InceptionV3("before", weights="imagenet", edition="1.x")
