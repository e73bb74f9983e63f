"""A short round of each attack on a run; they can be run for longer."""

import pathlib
import runpy

import pytest

HERE = pathlib.Path(__file__).parent


@pytest.fixture
def attack(tmp_path):
    def attack(name, rounds):
        module = runpy.run_path(str(HERE / f"{name}.py"))
        return module["attack"](rounds, seed=0, folder=tmp_path)

    return attack


@pytest.mark.slow
def test_a_killed_run_ends_like_one_that_was_not(attack):
    figures = attack("kills", rounds=3)
    assert figures["kills"] == sum(figures["places"].values()) == 3
    assert figures["differences"] == []


@pytest.mark.slow
def test_of_two_processes_one_is_told_of_the_other(attack):
    figures = attack("two_processes", rounds=2)
    assert figures["told who has the folder"] == 2
    assert figures["resumed after a kill"] == 1
    assert figures["differences"] == []
