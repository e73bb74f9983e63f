"""The check that Keras runs on TensorFlow."""

import builtins

import keras
import pytest

from keras_incremental._backend import check_backend


def test_tensorflow_passes():
    check_backend()


def test_another_backend_is_refused_with_the_fix(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with pytest.raises(ImportError, match=r"'jax'.*KERAS_BACKEND=tensorflow"):
        check_backend()


def test_a_backend_from_the_configuration_file_is_refused(monkeypatch):
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(ImportError, match=r"'torch'.*KERAS_BACKEND=tensorflow"):
        check_backend()


def test_a_backend_that_is_not_installed_is_explained(monkeypatch):
    real = builtins.__import__

    def without_jax(name, *args, **kwargs):
        if name == "keras":
            raise ModuleNotFoundError("No module named 'jax'")
        return real(name, *args, **kwargs)

    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setattr(builtins, "__import__", without_jax)
    with pytest.raises(ImportError, match=r"'jax'.*KERAS_BACKEND=tensorflow"):
        check_backend()
