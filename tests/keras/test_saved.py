"""Files of Keras models: what they were compiled with, and files that were made to do harm."""

import json
import zipfile

import keras
import numpy as np
import pytest
from keras import layers as kl

import relucate
from relucate import InputError
from relucate.keras.saved import load_saved
from relucate.study.source import resolve


def own_loss(wanted, got):
    return keras.ops.mean(keras.ops.square(wanted - got))


def save(path, **compiled):
    image = keras.Input((6,))
    x = kl.ReLU(name="act")(kl.BatchNormalization(name="norm")(kl.Dense(5, name="d")(image)))
    model = keras.Model(image, kl.Dense(3, name="out")(x))
    if compiled:
        model.compile(**compiled)
        model.fit(np.ones((8, 6), "float32"), np.zeros((8, 3)), verbose=0)
    model.save(path)
    return model


def compiled():
    return {
        "optimizer": keras.optimizers.SGD(0.25, momentum=0.5),
        "loss": "mse",
        "metrics": ["mae"],
    }


def test_a_saved_model_keeps_its_compilation_when_it_is_rebuilt(tmp_path):
    path = tmp_path / "m.keras"
    model = save(path, **compiled())
    assert not load_saved(path).compiled
    loaded = load_saved(path, compiled=True)
    arm = resolve(str(path)).build("after", (6,), 3)
    for made in (loaded, arm, relucate.rebuild(loaded, "after")[0]):
        assert made.loss == "mse"
        assert made.optimizer.get_config() == model.optimizer.get_config()
        assert int(made.optimizer.iterations) == 0
        found = made.evaluate(np.ones((4, 6)), np.zeros((4, 3)), verbose=0, return_dict=True)
        assert set(found) == {"loss", "mae"}


def test_a_builder_without_order_keeps_it_too(tmp_path):
    def builder():
        return save(tmp_path / "m.keras", **compiled())

    made = resolve(builder).build("after", (6,), 3)
    assert (made.loss, made.optimizer.momentum) == ("mse", 0.5)


def test_a_compilation_that_cannot_be_loaded_is_said_to_be_lost(tmp_path):
    path = tmp_path / "m.keras"
    save(path, optimizer="sgd", loss=own_loss)
    with pytest.warns(UserWarning, match="compilation of .*m.keras' isn't kept.*own_loss"):
        assert not load_saved(path, compiled=True).compiled


def changed(path, config):
    """Write the file again with another configuration."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    text = config if isinstance(config, str) else json.dumps(config)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**parts, "config.json": text.encode()}.items():
            archive.writestr(name, content)


def test_hostile_configurations_are_refused_in_a_sentence(tmp_path, monkeypatch):
    path = tmp_path / "m.keras"
    save(path)
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
    huge = json.loads(json.dumps(config))
    huge["config"]["layers"][1]["config"]["units"] = 10**15
    for text, match in (
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ('{"a":' * 5_000 + "1" + "}" * 5_000, "nested too deeply"),
        ("null", "config.json"),
        ("7", "can't load"),
        ("[]", "can't load"),
        ('"Functional"', "can't load"),
        ({"class_name": ["Functional"], "config": 3}, "can't load"),
        (huge, "can't load"),
    ):
        changed(path, text)
        with pytest.raises(InputError, match=match):
            load_saved(path)
    monkeypatch.setattr("relucate.keras.saved._LARGEST", 10)
    with pytest.raises(InputError, match="is larger than"):
        load_saved(path)
