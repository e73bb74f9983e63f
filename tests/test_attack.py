"""Attacks on what is kept on disk find nothing wrong; `attack.py` runs more."""

import importlib.util
import pathlib
import re

import pytest


def _script():
    path = pathlib.Path(__file__).with_name("attack.py")
    spec = importlib.util.spec_from_file_location("attack_script", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


attack = _script()
_MODULES = attack.attacks()


@pytest.mark.parametrize(
    "name", [name for name, module in _MODULES.items() if module.SHORT]
)
def test_a_short_attack_finds_nothing_wrong(name):
    module = _MODULES[name]
    figures = attack.run(module, module.SHORT, seed=0)
    assert figures["wrong"] == 0, figures


@pytest.mark.slow
@pytest.mark.parametrize("name", _MODULES)
def test_a_long_attack_finds_nothing_wrong(name):
    module = _MODULES[name]
    figures = attack.run(module, module.LONG, seed=1)
    assert figures["wrong"] == 0, figures


def test_a_wrong_result_is_printed_and_ends_the_script_with_1(
    monkeypatch, capsys
):
    def wrong(rounds, seed, folder):
        return {"damaged": rounds, "wrong": 1}

    for broken, expected in ((wrong, "WRONG: damaged 3, wrong 1"), (None, "")):
        monkeypatch.setattr(_MODULES["results_file"], "attack", broken)
        args = ["--rounds=3", "--only=results_file"]
        assert attack.main(args) == 1
        assert f"results_file: {expected or 'WRONG'}" in capsys.readouterr().out


def test_an_attack_that_there_is_not_is_named(capsys):
    with pytest.raises(SystemExit):
        attack.main(["--only=none"])
    assert re.search(r"'none'.*results_file", capsys.readouterr().err)
