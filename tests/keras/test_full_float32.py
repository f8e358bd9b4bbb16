"""Keras's other backends compute float32 in full where a comparison needs it."""

import sys
import types

import keras
import pytest

from relucate.frameworks import full_float32
from relucate.keras.running import full_float32 as of_keras


def test_jax_computes_in_full_and_then_as_before(monkeypatch):
    jax = pytest.importorskip("jax")
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    before = jax.config.jax_default_matmul_precision
    with full_float32():
        assert jax.config.jax_default_matmul_precision == "highest"
    assert jax.config.jax_default_matmul_precision == before


def test_tensorflow_computes_in_full_and_then_as_before(monkeypatch):
    state = [True]
    experimental = types.SimpleNamespace(
        tensor_float_32_execution_enabled=lambda: state[-1],
        enable_tensor_float_32_execution=state.append,
    )
    tensorflow = types.SimpleNamespace(config=types.SimpleNamespace(experimental=experimental))
    monkeypatch.setitem(sys.modules, "tensorflow", tensorflow)
    monkeypatch.setattr(keras.config, "backend", lambda: "tensorflow")
    with of_keras():
        assert state[-1] is False
    assert state[-1] is True
