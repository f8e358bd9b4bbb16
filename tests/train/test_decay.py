"""What decays and what counts as a norm's parameter: every norm kind over both engines."""

import inspect

import keras
import pytest
from keras import layers as kl

from relucate.keras import trainer as keras_engine
from relucate.keras.reading.norm_layers import NORM_LAYERS

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from relucate.torch import modules as ours  # noqa: E402
from relucate.torch import trainer as torch_engine  # noqa: E402
from relucate.torch.pieces import ChannelLayerNorm  # noqa: E402


def subclass(kind):
    return type(f"My{kind.__name__}Variant"[::-1], (kind,), {})  # a name that says nothing


def keras_norms():
    """Every norm layer of Keras's, from its own folder of them."""
    kinds = [kind for _, kind in inspect.getmembers(kl, inspect.isclass)]
    found = [kind for kind in kinds if ".layers.normalization." in kind.__module__]
    return [kind for kind in found if kind is not kl.SpectralNormalization]


KERAS_OPTIONS = {kl.GroupNormalization: {"groups": 2}}
TORCH_NORMS = {
    nn.BatchNorm1d: (4,),
    nn.BatchNorm2d: (4,),
    nn.BatchNorm3d: (4,),
    nn.SyncBatchNorm: (4,),
    nn.InstanceNorm1d: (4, 1e-5, 0.1, True),
    nn.InstanceNorm2d: (4, 1e-5, 0.1, True),
    nn.InstanceNorm3d: (4, 1e-5, 0.1, True),
    nn.GroupNorm: (2, 4),
    nn.LayerNorm: (4,),
    nn.RMSNorm: (4,),
    ChannelLayerNorm: (4, 1e-5, True, 2),
    ours.GroupNorm: (2, 4, 1e-5, ("gamma", "beta")),
    ours.LayerNorm: ((-1,), 1e-5, {"gamma": (4,), "beta": (4,)}),
}


@pytest.mark.parametrize("own", [False, True], ids=["theirs", "a subclass"])
@pytest.mark.parametrize("kind", keras_norms())
def test_the_keras_engine_knows_every_norm_of_keras(kind, own):
    norm = (subclass(kind) if own else kind)(**KERAS_OPTIONS.get(kind, {}))
    model = keras.Sequential([keras.Input((4,)), kl.Dense(4, name="dense"), norm])
    decayed, plain = keras_engine._split_decay(model, False)
    assert [v.name for v in decayed] == ["kernel"]
    assert {id(v) for v in norm.trainable_weights} < {id(v) for v in plain}
    assert keras_engine._split_decay(model, True)[1] == []
    counts = keras_engine.count_parameters(model)
    assert counts["norm_parameters"] == sum(v.shape[0] for v in norm.trainable_weights)
    assert counts["parameters"] == 20 + counts["norm_parameters"]


def test_keras_has_no_norm_that_the_reader_does_not_know():
    assert len(keras_norms()) >= 5
    assert set(keras_norms()) <= set(NORM_LAYERS)


def test_spectral_normalization_leaves_the_kernel_that_it_wraps_to_decay():
    wrapped = kl.SpectralNormalization(kl.Dense(3))
    model = keras.Sequential([keras.Input((4,)), wrapped])
    decayed, plain = keras_engine._split_decay(model, False)
    assert [v.name for v in decayed] == ["kernel"]
    assert [v.name for v in plain] == ["bias"]
    assert keras_engine.count_parameters(model) == {"parameters": 15, "norm_parameters": 0}


@pytest.mark.parametrize("own", [False, True], ids=["theirs", "a subclass"])
@pytest.mark.parametrize("kind", TORCH_NORMS)
def test_the_torch_engine_knows_every_norm_of_torch(kind, own):
    norm = (subclass(kind) if own else kind)(*TORCH_NORMS[kind])
    model = nn.Sequential(nn.Linear(4, 4), norm)
    decayed, plain = torch_engine.split_decay(model, False)
    assert [id(p) for p in decayed] == [id(model[0].weight)]
    assert {id(p) for p in norm.parameters()} < {id(p) for p in plain}
    counts = torch_engine.count_parameters(model)
    assert counts["norm_parameters"] == sum(p.numel() for p in norm.parameters()) > 0


def test_torch_has_no_norm_that_is_missing_above():
    parts = (nn.modules.batchnorm, nn.modules.instancenorm, nn.modules.normalization)
    for name in {name for part in parts for name in part.__all__}:
        kind = getattr(nn, name)
        if not name.startswith("Lazy") and kind not in (nn.LocalResponseNorm, nn.CrossMapLRN2d):
            assert kind in TORCH_NORMS, name


def test_biases_of_recurrent_layers_and_of_attention_do_not_decay():
    model = nn.ModuleList([nn.LSTM(3, 4), nn.MultiheadAttention(4, 2, add_bias_kv=True)])
    decayed, plain = ({id(p) for p in part} for part in torch_engine.split_decay(model, False))
    for name, parameter in model.named_parameters():
        assert id(parameter) in (plain if "bias" in name else decayed), name
