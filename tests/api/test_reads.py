"""Every verb reads the user's model once: reading is the slow part, and two readings may differ."""

import keras
import pytest
from keras import layers as kl
from torch import nn

import relucate
from relucate.keras.reading import reader as keras_reader
from relucate.study.arms import Arm
from relucate.study.source import resolve
from relucate.study.tasks import inspect_arms
from relucate.torch.reading import reader as torch_reader

SHAPE = (8, 8, 3)


def keras_net(order="before"):
    x = image = keras.Input(SHAPE)
    x = kl.Conv2D(4, 3, name="conv")(x)
    norm, act = kl.BatchNormalization(name="norm"), kl.ReLU(name="act")
    x = act(norm(x)) if order == "before" else norm(act(x))
    return keras.Model(image, kl.Dense(2, name="head")(kl.Flatten()(x)))


def torch_net():
    steps = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)]
    return nn.Sequential(*steps)


@pytest.fixture
def read(monkeypatch):
    """The models that were read, in order."""
    found = []

    class Counted(keras_reader._Reader):
        def walk(self, inside, place, given):
            if given is None:
                found.append(functions[-1])
            super().walk(inside, place, given)

    functions = []
    inside_of = keras_reader.inside_of
    monkeypatch.setattr(
        keras_reader, "inside_of", lambda model: functions.append(model) or inside_of(model)
    )
    monkeypatch.setattr(keras_reader, "_Reader", Counted)
    inner = torch_reader._read

    def counted(model, *args):
        found.append(model)
        return inner(model, *args)

    monkeypatch.setattr(torch_reader, "_read", counted)
    return found


VERBS = {
    "audit": lambda model, **more: (model, relucate.audit(model, **more)),
    "fold": relucate.fold,
    "convert": lambda model, **more: relucate.convert(model, "after", **more),
    "rebuild": lambda model, **more: relucate.rebuild(model, "after", **more),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(("make", "example"), [(keras_net, None), (torch_net, (1, 3, 8, 8))])
def test_a_verb_reads_the_model_once_and_what_it_wrote_once(verb, make, example, read):
    model = make()
    made, _ = VERBS[verb](model, **({} if example is None else {"example": example}))
    assert [one is model for one in read] == [True, False][: 1 if verb == "audit" else 2]
    assert read[-1] is made


def test_data_to_convert_with_take_no_reading_of_their_own(read):
    data = keras.random.normal((4, *SHAPE), seed=1)
    relucate.convert(keras_net(), "after", data=keras.ops.convert_to_numpy(data))
    assert len(read) == 2


def test_an_inspection_reads_each_arm_once(read):
    arms = [Arm("before"), Arm("after")]
    found = inspect_arms(resolve(keras_net), arms, SHAPE, 2, engine="auto", device="auto")
    assert found.engine["name"] == "torch"
    assert len(read) == len(arms)
