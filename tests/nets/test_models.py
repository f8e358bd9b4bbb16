"""What MODEL means: files, names, functions; every way in which it can be wrong."""

import textwrap
import zipfile

import keras
import pytest
import torch

import relucate
from relucate import InputError, Refused
from relucate.nets.models import load_model, meaning


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def small():
    return keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3), keras.layers.BatchNormalization()]
    )


def write(path, text):
    path.write_text(textwrap.dedent(text))


class TestFile:
    def test_loads(self, folder):
        small().save("net.keras")
        loaded = load_model("net.keras")
        assert [type(layer).__name__ for layer in loaded.model.layers] == [
            "Dense",
            "BatchNormalization",
        ]
        assert (loaded.file, loaded.line) == ("net.keras", None)

    def test_is_not_compiled(self, folder):
        model = small()
        model.compile("adam", "mse")
        model.save("net.keras")
        assert not load_model("net.keras").model.compiled

    def test_takes_no_options(self, folder):
        small().save("net.keras")
        with pytest.raises(InputError, match=r"'net.keras' is a file.*got order"):
            load_model("net.keras", options={"order": "after"})

    def test_no_such_file(self, folder):
        with pytest.raises(InputError, match=r"no file 'gone\.keras'"):
            load_model("gone.keras")

    def test_a_file_of_torch_export_brings_its_example(self, folder):
        net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()).eval()
        torch.export.save(torch.export.export(net, (torch.randn(2, 4),)), "net.pt2")
        loaded = load_model("net.pt2")
        assert loaded.example.shape == (2, 4)
        assert loaded.file == "net.pt2"
        assert load_model("net.pt2", input_shapes=[(4,)]).example == (2, 4)
        assert relucate.verify(net, loaded.model, torch.randn(2, 4).numpy(), example=(2, 4)).passed
        with pytest.raises(InputError, match=r"'net.pt2' is a file.*got order"):
            load_model("net.pt2", options={"order": "after"})
        with pytest.raises(InputError, match=r"no file 'gone\.pt2'"):
            load_model("gone.pt2")

    @pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
    def test_truncated(self, folder, keep):
        small().save("net.keras")
        whole = (folder / "net.keras").read_bytes()
        size = keep if keep >= 1 or keep == 0 else int(len(whole) * keep)
        (folder / "net.keras").write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"'net.keras' is no whole .keras file"):
            load_model("net.keras")

    def test_damaged_inside(self, folder):
        small().save("net.keras")
        data = bytearray((folder / "net.keras").read_bytes())
        with zipfile.ZipFile(folder / "net.keras") as archive:
            start = archive.getinfo("model.weights.h5").header_offset
        data[start + 200] ^= 0xFF
        (folder / "net.keras").write_bytes(bytes(data))
        with pytest.raises(InputError, match=r"'model.weights.h5' in it is damaged"):
            load_model("net.keras")

    def test_another_archive(self, folder):
        with zipfile.ZipFile("net.keras", "w") as archive:
            archive.writestr("readme.txt", "hello")
        with pytest.raises(InputError, match=r"holds no config.json"):
            load_model("net.keras")

    CUSTOM = """
        import keras

        @keras.saving.register_keras_serializable("mine")
        class Doubled(keras.layers.Layer):
            def call(self, x):
                return 2 * x

        def build():
            return keras.Sequential([keras.Input((4,)), Doubled(), keras.layers.Dense(3)])
    """

    def test_custom_objects_are_named_and_can_be_imported(self, folder):
        write(folder / "custom.py", self.CUSTOM)
        load_model("custom.py:build").model.save("net.keras")
        keras.saving.get_custom_objects().pop("mine>Doubled")
        with pytest.raises(InputError, match=r"aren't registered: Doubled.*--import FILE.py"):
            load_model("net.keras")
        loaded = load_model("net.keras", imports=["custom.py"])
        keras.saving.get_custom_objects().pop("mine>Doubled")
        assert type(loaded.model.layers[0]).__name__ == "Doubled"

    def test_code_in_a_file_is_refused(self, folder):
        keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x + 1)]).save("n.keras")
        with pytest.raises(Refused, match="Lambda layer: Python code"):
            load_model("n.keras")

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("w.pt", "holds weights without a network"),
            ("w.weights.h5", "holds weights without a network"),
            ("old.h5", "old format"),
            ("net.py", "expected the function too, as net.py:build"),
            ("inceptoin_v3", "unknown model 'inceptoin_v3'"),
            ("Cnn", "unknown model 'Cnn'"),
            ("VGG16", "did you mean 'keras.applications:VGG16'"),
            ("Inception", "keras.applications model 'Inception': did you mean 'InceptionV3'"),
        ],
    )
    def test_other_texts(self, folder, name, message):
        if "." in name:
            (folder / name).write_bytes(b"")
        with pytest.raises(InputError, match=message):
            load_model(name)

    @pytest.mark.parametrize("name", ["m.h5", "m.hdf5", "w.pt", "w.weights.h5", "m.keras", "m.pt2"])
    def test_a_missing_file_is_said_to_be_missing(self, folder, name):
        with pytest.raises(InputError, match=rf"no file '{name}': expected a model saved as \."):
            meaning(name)

    def test_folders(self, folder):
        (folder / "plain").mkdir()
        with pytest.raises(InputError, match=r"'plain' is a folder: expected a \.keras"):
            meaning("plain")
        (folder / "saved").mkdir()
        (folder / "saved" / "saved_model.pb").write_bytes(b"")
        for name in ("saved", "saved/saved_model.pb"):
            with pytest.raises(InputError, match=r"'saved' is a TensorFlow SavedModel.*file\.py:b"):
                meaning(name)


class TestNames:
    def test_net(self):
        assert load_model("cnn").model.output_shape == (None, 10)
        options = {"order": "after", "classes": 3, "width": 4, "depth": 1}
        model = load_model("cnn", input_shapes=[(8, 8, 1)], options=options).model
        assert (model.input_shape, model.output_shape) == ((None, 8, 8, 1), (None, 3))

    def test_unknown_option_of_a_net(self):
        with pytest.raises(InputError, match="'widht': did you mean 'width'"):
            load_model("cnn", options={"widht": 3})

    def test_application(self):
        model = load_model(
            "keras.applications:MobileNet",
            input_shapes=[(32, 32, 3)],
            options={"alpha": 0.25, "classes": 5},
        ).model
        assert model.output_shape == (None, 5)

    @pytest.mark.parametrize(
        ("text", "options", "shapes", "message"),
        [
            ("ResNet5", {}, [], "did you mean 'ResNet50'"),
            ("Inception", {}, [], "did you mean 'InceptionV3'"),
            ("mobilenet", {}, [], "did you mean 'MobileNet'"),
            ("MobileNet", {"alhpa": 1}, [], "'alhpa': did you mean 'alpha'"),
            ("MobileNet", {}, [(8, 8, 3)], "MobileNet can't be built: Input size must be at least"),
            ("MobileNet", {"weights": "none.h5"}, [], "MobileNet can't be built"),
        ],
    )
    def test_wrong_application(self, text, options, shapes, message):
        with pytest.raises(InputError, match=message):
            load_model(f"keras.applications:{text}", input_shapes=shapes, options=options)


class TestFunction:
    BUILD = """
        import keras

        # line 4 is the function's
        def build(width=3):
            return keras.Sequential([keras.Input((4,)), keras.layers.Dense(width)])

        def needs(width, depth, *, act):
            return None

        def shaped(input_shape, classes=2):
            return keras.Sequential([keras.Input(input_shape), keras.layers.Dense(classes)])

        def broken():
            raise KeyError("inside")

        def nothing(): pass

        def ends():
            raise SystemExit

        text = "no function"

        def asks(order, shape, num_classes): pass

        def trains(order, seed): return 0.5

        model = shaped((5,))
    """

    @pytest.fixture(autouse=True)
    def written(self, folder):
        write(folder / "mine.py", self.BUILD)

    def test_builds_and_knows_its_line(self):
        loaded = load_model("mine.py:build", options={"width": 7})
        assert loaded.model.output_shape == (None, 7)
        assert (loaded.file, loaded.line) == ("mine.py", 5)

    def test_a_model_itself(self):
        assert load_model("mine.py:model").model.input_shape == (None, 5)
        with pytest.raises(InputError, match=r"'mine\.py:model' is a model: it takes no opt"):
            load_model("mine.py:model", options={"width": 7})

    def test_gets_the_input_shape_if_it_takes_one(self):
        loaded = load_model("mine.py:shaped", input_shapes=[(6,)])
        assert loaded.model.input_shape == (None, 6)

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("needs", r"needs the arguments width, depth, act: give them as -O width=\.\.\. -O"),
            ("asks", r"as -O order=before -O shape='\[32,32,3\]' -O num_classes=10 \(options"),
            ("trains", r"seed=\.\.\. .*trains by itself and returns its score is given by --run"),
            ("broken", r"'mine.py:broken' failed: KeyError: 'inside' \(line 15"),
            ("text", "is of type str; expected a function"),
            ("nothing", "'mine.py:nothing' returned None: return the model"),
            ("ends", r"'mine.py:ends' failed: it called sys.exit\(\) \(line 20 of .*mine.py"),
            ("biuld", "did you mean 'build'"),
        ],
    )
    def test_wrong(self, name, message):
        with pytest.raises(InputError, match=message):
            load_model(f"mine.py:{name}")

    def test_unknown_option(self):
        with pytest.raises(InputError, match="'widht': did you mean 'width'"):
            load_model("mine.py:build", options={"widht": 3})

    def test_no_such_file_or_module(self):
        with pytest.raises(InputError, match="no file"):
            load_model("gone.py:build")
        with pytest.raises(InputError, match="no_such_module"):
            load_model("no_such_module:build")

    def test_examples_for_torch_have_a_batch_axis(self):
        assert load_model("mine.py:build", input_shapes=[(3, 8, 8)]).example == (2, 3, 8, 8)
        two = load_model("mine.py:build", input_shapes=[(4,), (5,)])
        assert two.example == ((2, 4), (2, 5))
        assert load_model("mine.py:build").example is None
