"""What the tests of the example scripts share."""

import importlib.util
import os
import pathlib
import sys
from unittest import mock

import pytest
from absl import flags
from absl.testing import flagsaver

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def train():
    """The module `examples/train.py`; its flags go when the tests end."""
    spec = importlib.util.spec_from_file_location(
        "train_example", EXAMPLES / "train.py"
    )
    module = importlib.util.module_from_spec(spec)
    with (
        mock.patch.dict(os.environ),
        mock.patch.dict(sys.modules, {spec.name: module}),
    ):
        spec.loader.exec_module(module)
        yield module
    for flag in list(flags.FLAGS.flags_by_module_dict()[spec.name]):
        delattr(flags.FLAGS, flag.name)


@pytest.fixture(scope="module")
def sharing_search(train):
    """The module `examples/sharing_search.py`, on top of `train`."""
    spec = importlib.util.spec_from_file_location(
        "sharing_search_example", EXAMPLES / "sharing_search.py"
    )
    module = importlib.util.module_from_spec(spec)
    loaded = {spec.name: module, "train": train}
    with mock.patch.dict(sys.modules, loaded):
        spec.loader.exec_module(module)
        yield module
    for flag in list(flags.FLAGS.flags_by_module_dict()[spec.name]):
        delattr(flags.FLAGS, flag.name)


@pytest.fixture
def parse(train, tmp_path):
    """Returns a function that parses a command line of `train.py`.

    The output folder is `tmp_path / "out"` unless the arguments name one.
    """
    del train

    def parse(*args):
        flags.FLAGS.unparse_flags()
        command = ["train.py", f"--output_dir={tmp_path / 'out'}", *args]
        return flags.FLAGS(command)

    with flagsaver.flagsaver():
        yield parse
