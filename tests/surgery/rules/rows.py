"""Layers in rows and branches: the small models that the tests of rules are given."""

from keras import layers as kl

BN = kl.BatchNormalization
FIRST = {"data_format": "channels_first"}


def Conv(filters=4, size=3, **options):
    return kl.Conv2D(filters, size, **{"padding": "same", **options})


def branches(*functions):
    """Several branches from one tensor, none of them dropped: their outputs are all put out."""
    return lambda x: [function(x) for function in functions]


def row(*layers):
    def run(x):
        for layer in layers:
            x = layer(x)
        return x

    return run
