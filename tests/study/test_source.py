"""Builders: every way to name one, how it is called, an error for each thing that goes wrong."""

import functools
import importlib
import inspect
import subprocess
import sys
import textwrap
import types

import keras
import pytest

from relucate.errors import InputError, Refused
from relucate.nets.user_code import import_user_module, load_callable
from relucate.study.source import resolve


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a Python file into the current folder; return its path as text."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def written(text, name="mine.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return str(path)

    return written


def build(text, order="before", **options):
    return resolve(text, options).build(order, (8, 8, 1), 10)


class Box:
    """Stands in for a model: `build` doesn't look at what it returns, unless it is None."""

    def __init__(self, order, **given):
        self.order, self.given = order, given


def only_order(order):
    return Box(order)


def everything(order, input_shape, num_classes, width=4):
    return Box(order, input_shape=input_shape, classes=num_classes, width=width)


def keywords(**given):
    return Box(**given)


def no_order(input_shape):
    return Box("none", input_shape=input_shape)


def needs_more(order, depth, temperature):
    return Box(order)


def gives_nothing(order):
    Box(order)


class TestCalling:
    def test_a_builder_gets_what_it_asks_for(self):
        assert build(only_order).given == {}
        made = build(everything, width=9)
        assert made.order == "before"
        assert made.given == {"input_shape": (8, 8, 1), "classes": 10, "width": 9}

    @pytest.mark.parametrize("name", ["classes", "num_classes", "n_classes", "shape"])
    def test_other_names_for_the_same_thing(self, name):
        space = {"Box": Box}
        exec(f"def f(order, {name}): return Box(order, got={name})", space)
        expected = (8, 8, 1) if name == "shape" else 10
        assert build(space["f"]).given["got"] == expected

    def test_keyword_arguments_get_order_and_options(self):
        made = build(keywords, width=3)
        assert (made.order, made.given) == ("before", {"width": 3})

    def test_lambdas_closures_partials_classes(self):
        width = 7
        assert build(lambda order: Box(order, width=width)).given == {"width": 7}
        assert build(functools.partial(everything, width=5)).given["width"] == 5
        assert build(Box).order == "before"

    def test_a_built_in_net(self):
        model = build("mlp", width=4, depth=1)
        assert model.output_shape == (None, 10)

    def test_what_takes_no_order_is_rebuilt(self, write):
        path = write("""
            import keras
            from keras import layers as kl

            def plain(input_shape, classes, norms=True):
                x = image = keras.Input(input_shape)
                x = kl.Conv2D(4, 3, name="conv")(x)
                if norms:
                    x = kl.BatchNormalization(name="bn")(x)
                x = kl.Flatten()(kl.ReLU(name="act")(x))
                return keras.Model(image, kl.Dense(classes, name="logits")(x))
        """)
        made = {order: build(f"{path}:plain", order) for order in ("before", "after", "none")}
        names = {order: [layer.name for layer in m.layers[1:4]] for order, m in made.items()}
        assert names["before"] == ["conv", "bn", "act"]
        assert names["after"] == ["conv", "act", "bn"]
        assert names["none"][:2] == ["conv", "act"]
        assert [m.get_layer("conv").use_bias for m in made.values()] == [False, True, True]
        with pytest.raises(InputError, match="has no norms, and its builder takes no `order`"):
            build(f"{path}:plain", norms=False)
        with pytest.raises(InputError, match="expected a Keras model"):
            build(no_order)

    def test_a_torch_builder_without_order(self, write):
        path = write("""
            from torch import nn

            def net():
                return nn.Sequential(
                    nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
                    nn.Linear(144, 10),
                )
        """)
        import relucate

        made = build(f"{path}:net", "after")
        assert relucate.audit(made, example=(2, 1, 8, 8)).summary == {"linear-act-norm": 1}

    def test_a_saved_model_is_rebuilt_and_starts_anew(self, tmp_path):
        import keras
        import numpy as np

        kl = keras.layers
        model = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                kl.Conv2D(4, 3, name="conv"),
                kl.BatchNormalization(),
                kl.ReLU(),
                kl.Flatten(),
                kl.Dense(10),
            ]
        )
        model.save(tmp_path / "net.keras")
        source = resolve(str(tmp_path / "net.keras"))
        assert source.description == "saved model, rebuilt"
        made = source.build("after", (8, 8, 1), 10)
        old, new = (
            np.asarray(keras.ops.convert_to_numpy(m.get_layer("conv").kernel))
            for m in (model, made)
        )
        assert old.shape == new.shape
        assert not np.array_equal(old, new)
        with pytest.raises(InputError, match="its only option is bias, got width"):
            resolve(str(tmp_path / "net.keras"), {"width": 3})

    def test_unknown_arguments_are_named(self):
        with pytest.raises(InputError, match="needs the arguments depth, temperature: give"):
            build(needs_more)
        with pytest.raises(InputError, match="needs the arguments temperature"):
            build(needs_more, depth=3)

    def test_an_unknown_option_gets_the_nearest(self):
        with pytest.raises(InputError, match=r"'widht': did you mean 'width'"):
            build(everything, widht=3)
        with pytest.raises(InputError, match=r"'widht': did you mean 'width'"):
            build("mlp", widht=3)

    def test_none_is_no_model(self):
        with pytest.raises(InputError, match="gives_nothing' returned None for order 'after'"):
            build(gives_nothing, "after")

    def test_an_error_for_an_order_names_the_order_and_the_users_line(self, write):
        path = write("""
            def build(order):
                if order == "after":
                    raise KeyError("no such block")
                return order
        """)
        assert build(f"{path}:build") == "before"
        with pytest.raises(InputError, match=r"order 'after': KeyError: .*line 4 of .*mine.py"):
            build(f"{path}:build", "after")

    def test_an_error_deep_inside_a_library_names_the_users_line(self, write):
        path = write("""
            import keras
            def build(order):
                return keras.layers.Dense(-1)
        """)
        with pytest.raises(InputError, match=r"line 4 of .*mine.py"):
            build(f"{path}:build")


class TestNaming:
    def test_a_file(self, write):
        path = write("def build(order): return [order]")
        assert build(f"{path}:build") == ["before"]
        assert build("mine.py:build") == ["before"]
        assert resolve("mine.py:build").identity()["name"] == f"{path}:build"

    def test_a_file_whose_neighbour_it_imports(self, write):
        write("def helper(order): return [order, 'helped']", "neighbour.py")
        path = write("from neighbour import helper\ndef build(order): return helper(order)")
        assert build(f"{path}:build") == ["before", "helped"]

    def test_a_module_in_the_current_folder(self, write):
        write("", "house/__init__.py")
        write("def build(order): return [order]", "house/room.py")
        assert build("house.room:build") == ["before"]

    def test_the_users_folder_may_be_called_like_this_package(self, write):
        path = write("def build(order):\n    raise ValueError('x')", "relucate-experiments/b.py")
        with pytest.raises(InputError, match="line 2 of"):
            build(f"{path}:build")

    @pytest.mark.parametrize(
        ("text", "kind", "message"),
        [
            ("cn", InputError, "unknown model 'cn': did you mean 'cnn'.*file.py:build"),
            ("none.py:build", InputError, "no file '.*none.py'"),
            ("none.py", InputError, "expected the function too, as none.py:build"),
            ("no.such.module:build", InputError, "no module 'no.such.module'"),
            ("nosuchmodule:build", InputError, "no module 'nosuchmodule'"),
            ("net.keras", InputError, "no file 'net.keras'"),
            ("net.h5", InputError, "no file 'net.h5'"),
            ("old.h5", InputError, "old format"),
            ("ResNet50", InputError, "keras.applications:ResNet50"),
            ("weights.pt", InputError, "holds weights without a network"),
            ("keras.applications:Inception", InputError, "did you mean 'InceptionV3'"),
        ],
    )
    def test_what_is_not_there(self, write, text, kind, message):
        for name in ("old.h5", "weights.pt"):
            write("", name)
        with pytest.raises(kind, match=message):
            resolve(text)

    def test_what_cannot_be_a_builder(self):
        for thing in (3, None, object(), {"a": 1}):
            with pytest.raises(Refused, match=f"got a {type(thing).__name__}"):
                resolve(thing)

    def test_a_keras_model_is_refused_not_called(self):
        import keras

        with pytest.raises(Refused, match="got a Sequential"):
            resolve(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]))

    def test_nor_is_a_torch_module_that_a_text_names(self, write):
        path = write("from torch import nn\nmodel = nn.Sequential(nn.Linear(3, 2))")
        with pytest.raises(Refused, match="got a Sequential"):
            resolve(f"{path}:model").load()

    def test_a_function_that_is_not_in_the_file(self, write):
        path = write("import os\ndef build_net(order): pass\ndef _hidden(order): pass")
        with pytest.raises(InputError, match=r"'biuld_net': did you mean 'build_net'\? .*net\.$"):
            load_callable(f"{path}:biuld_net")

    def test_something_that_is_no_function(self, write):
        path = write("build = 3")
        with pytest.raises(InputError, match="of type int; expected a function"):
            load_callable(f"{path}:build")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "import nosuchpackage\n",
                r"ModuleNotFoundError: .*nosuchpackage.*line 1 of .*mine.py",
            ),
            ("x = 1\ny = x / 0\n", r"ZeroDivisionError: .*line 2 of .*mine.py"),
            ("def build(order:\n", r"SyntaxError: .*mine.py, line 1"),
        ],
    )
    def test_a_file_that_does_not_import_names_the_line(self, write, text, message):
        path = write(text)
        with pytest.raises(InputError, match=f"failed at import: {message}"):
            load_callable(f"{path}:build")

    def test_a_file_with_relative_imports_says_how_to_name_it(self, write):
        path = write("from .other import W\ndef build(order): ...")
        with pytest.raises(InputError, match=r"name it as package.module:function instead"):
            resolve(f"{path}:build").load()

    def test_a_module_that_does_not_import_names_the_line(self, write):
        write("x = 1\nraise RuntimeError('broken')\n", "broken_one.py")
        with pytest.raises(InputError, match=r"RuntimeError: broken \(line 2 of"):
            load_callable("broken_one:build")

    def test_an_application_is_rebuilt_without_its_trained_weights(self):
        source = resolve("keras.applications:MobileNet", {"alpha": 0.25})
        made = source.build("after", (32, 32, 3), 5)
        assert made.output_shape == (None, 5)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("import sys\nsys.exit(0)\n", r"failed at import: it called sys.exit\(0\) \(line 2"),
            ("def build(order): exit()", r"for order 'before': it called sys.exit\(\)"),
            ("def build(order): raise SystemExit('no')", r"it called sys.exit\('no'\) \(line 1 of"),
        ],
    )
    def test_ending_the_program_is_an_error(self, write, text, message):
        path = write(text)
        with pytest.raises(InputError, match=message):
            build(f"{path}:build")
        if "import" in text:
            with pytest.raises(InputError, match=message):
                import_user_module(path)

    def test_ctrl_c_in_a_builder_is_no_error_of_the_builders(self, write):
        path = write("def build(order): raise KeyboardInterrupt")
        with pytest.raises(KeyboardInterrupt):
            build(f"{path}:build")

    def test_a_function_without_a_readable_signature(self):
        with pytest.raises(InputError, match="no signature"):
            resolve(dict).build("before", (1,), 2)


class TestOptions:
    def test_the_order_is_no_option(self):
        with pytest.raises(InputError, match="order='after' would give every arm the same"):
            resolve("cnn", {"order": "after"})

    @pytest.mark.parametrize("value", [object(), float("nan"), {1, 2}, len])
    def test_only_plain_data(self, value):
        with pytest.raises(InputError, match=r"option act=.*isn't plain data"):
            resolve(everything, {"act": value})


class TestIdentity:
    def test_a_files_source_counts(self, write):
        path = write("def build(order): return 1")
        first = resolve(f"{path}:build").identity()
        assert resolve(f"{path}:build").identity() == first
        write("def build(order): return 2")
        assert resolve(f"{path}:build").identity() != first

    def test_a_helper_modules_source_counts_through_the_code(self, write):
        write("def helper(): return 1", "helps.py")
        path = write("from helps import helper\ndef build(order): return helper()")
        first = resolve(f"{path}:build").code()
        write("def helper(): return 2", "helps.py")
        del sys.modules["helps"]
        assert resolve(f"{path}:build").code() != first

    def test_closures_and_options_count(self):
        def closure(width):
            return lambda order: Box(order, width=width)

        assert resolve(closure(8)).identity() == resolve(closure(8)).identity()
        assert resolve(closure(8)).identity() != resolve(closure(16)).identity()
        assert resolve("cnn", {"width": 8}).identity() != resolve("cnn", {"width": 9}).identity()

    def test_what_the_user_set_goes_with_a_function_and_counts(self):
        plain, text = resolve(only_order), resolve("cnn")
        assert "settings" not in plain.identity()
        before = keras.config.dtype_policy()
        try:
            keras.config.set_dtype_policy("mixed_bfloat16")
            source = resolve(only_order)
            assert resolve("cnn").identity() == text.identity()
        finally:
            keras.config.set_dtype_policy(before)
        assert source.identity()["settings"]["keras"]["dtype_policy"] == "mixed_bfloat16"
        try:
            source.load()
            assert keras.config.dtype_policy().name == "mixed_bfloat16"
        finally:
            keras.config.set_dtype_policy(before)

    def test_a_module_that_a_worker_cannot_import_travels_with_its_code(self, monkeypatch):
        module = types.ModuleType("made_in_memory")
        exec("def helper(o): return o * 2\ndef build(order): return helper(order)", vars(module))
        monkeypatch.setitem(sys.modules, "made_in_memory", module)
        source = resolve(module.build)
        code = "import sys, cloudpickle; print(cloudpickle.load(sys.stdin.buffer)('after'))"
        told = subprocess.run(
            [sys.executable, "-P", "-c", code], input=source.payload, capture_output=True
        )
        assert told.stdout.decode().strip() == "afterafter", told.stderr.decode()

    def test_a_module_that_a_worker_can_import_travels_by_name(self, write):
        write("def build(order): return order", "on_the_path.py")
        sys.path.insert(0, ".")
        build = load_callable("on_the_path:build")
        assert len(resolve(build).payload) < 100

    def test_what_cannot_be_pickled_is_an_error(self):
        import threading

        lock = threading.Lock()
        with pytest.raises(InputError, match="can't be sent to a worker process"):
            resolve(lambda order: (order, lock))


class TestEdited:
    """What a study compares is what was there when it started."""

    BUILDER = """
        import torch
        WIDTH = 3
        def build(order):
            return torch.nn.Linear(WIDTH, 1)
    """

    def test_an_edited_builder_changes_no_later_run(self, write):
        source = resolve(write(self.BUILDER) + ":build")
        write(self.BUILDER.replace("3", "5"))
        assert source.build("before", (8, 8, 1), 10).in_features == 3
        assert resolve(source.text).build("before", (8, 8, 1), 10).in_features == 5

    def test_its_source_is_still_the_one_that_runs(self, write):
        source = resolve(write("def build(order):\n    return 'old'") + ":build")
        write("def build(order):\n    return 'newer'")
        assert "old" in inspect.getsource(source.load())

    def test_an_edited_helper_is_refused_by_a_new_worker(self, write):
        write("WIDTH = 3", "edited_helper.py")
        source = resolve(write("import edited_helper\ndef build(order): ...") + ":build")
        source.check_files()
        write("WIDTH = 4", "edited_helper.py")
        with pytest.raises(InputError, match=r"edited_helper.py' was changed while the study ran"):
            source.check_files()

    def test_so_is_another_saved_model(self, write, tmp_path):
        (tmp_path / "m.keras").write_bytes(b"one")
        source = resolve("m.keras")
        (tmp_path / "m.keras").write_bytes(b"two")
        with pytest.raises(InputError, match=r"m.keras' was changed"):
            source.build("before", (8, 8, 1), 10)

    @pytest.mark.parametrize(
        ("name", "change"),
        [
            ("LR", lambda module: setattr(module, "LR", 0.5)),
            ("CONFIG", lambda module: module.CONFIG.update(depth=9)),
            ("Net.width", lambda module: setattr(module.Net, "width", 7)),
        ],
    )
    def test_a_value_that_a_worker_does_not_have(self, name, change, write, monkeypatch, tmp_path):
        monkeypatch.syspath_prepend(tmp_path)
        text = "LR = 0.1\nCONFIG = {'depth': 2}\nclass Net:\n    width = 3\n"
        write(f"{text}def build(order):\n    return LR, CONFIG, Net", "patched_values.py")
        module = importlib.import_module("patched_values")
        try:
            assert resolve(module.build).code()
            change(module)
            patched = resolve(module.build)
            importlib.reload(module)  # as a new process sees it
            with pytest.raises(InputError, match=rf"patched_values.{name} is .* in a worker"):
                patched.code()
        finally:
            del sys.modules["patched_values"]

    def test_what_the_code_itself_fills_is_no_setting(self, write, monkeypatch, tmp_path):
        monkeypatch.syspath_prepend(tmp_path)
        text = """
            READY, CACHE, COUNTS, SEEN = False, {}, {"calls": 0}, [0]
            class Net:
                made = 0
            def build(order):
                global READY
                READY = True
                CACHE["order"] = order
                COUNTS["calls"] += 1
                SEEN.append(1)
                Net.made += 1
                return 3
        """
        write(text, "filled_values.py")
        module = importlib.import_module("filled_values")
        try:
            module.build("before")
            filled = resolve(module.build)
            importlib.reload(module)
            assert filled.code()
        finally:
            del sys.modules["filled_values"]
