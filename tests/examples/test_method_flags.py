"""A method's flags are those of its dataclass, the user's own included."""

import dataclasses
import sys
import typing

import pytest
from absl import flags
from absl.testing import flagsaver

import keras_incremental as ki

MINE = '''
import dataclasses
from collections.abc import Callable

import keras_incremental as ki


@dataclasses.dataclass(frozen=True)
class Mine(ki.FineTune):
    """A method.

    Args:
            (no entry, but indented as one goes on)
        margin: How far
            apart, in nats.
        rounds: How often.

    Raises:
        ValueError: if `margin` is negative.
    """

    margin: float = 0.5
    rounds: int | None = None
    mirrored: bool = False
    rule: str = "nearest"
    noise: ki.methods.GradientNoise | None = None
    kernel: Callable = max
    derived: int = dataclasses.field(default=0, init=False)

    def __post_init__(self):
        if self.margin < 0:
            raise ValueError(f"margin={self.margin}; expected 0 or more.")


tight = Mine(margin=0.1)


@dataclasses.dataclass(frozen=True)
class Epochs(ki.FineTune):
    epochs: int = 3


@dataclasses.dataclass(frozen=True)
class Width(ki.FineTune):
    width: int = 3


@dataclasses.dataclass(frozen=True)
class Unfinished(ki.methods.Method):
    margin: float = 0.5


@dataclasses.dataclass(frozen=True)
class NoDefault(ki.FineTune):
    margin: float = dataclasses.field(kw_only=True)


@dataclasses.dataclass(frozen=True)
class Unknown(ki.FineTune):
    margin: "Margin" = 1


class Plain(ki.methods.Method):
    def phases(self, step):
        return []


class Stranger:
    pass
'''


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Writes the module `mine` into the current folder."""
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "torn.py").write_text("def (:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    sys.modules.pop("mine", None)


@pytest.fixture
def parse_own(train, tmp_path, mine):
    """Returns a function that parses as the script does; the flags go."""
    before = set(flags.FLAGS)

    def parse(*args):
        flags.FLAGS.unparse_flags()
        train.parse_flags(
            ["train.py", f"--output_dir={tmp_path / 'out'}", *args]
        )

    with flagsaver.flagsaver():
        yield parse
    for name in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, name)


def test_every_method_has_a_flag_for_each_field(train):
    for name, method in ki.methods.BY_NAME.items():
        fields = {field.name for field in dataclasses.fields(method)}
        assert train.method_flags.field_flags(method).keys() == fields, name


def test_flags_are_not_set_unless_they_are_given(parse, train):
    parse()
    for name, method in ki.methods.BY_NAME.items():
        assert train.method_flags.make(name) == method
        for field in train.method_flags.field_flags(method).values():
            assert {flags.FLAGS[f].value for f in field.flags} == {None}


GIVEN = {
    "nothing": ([], ki.EEIL()),
    "numbers": (
        ["--finetune_epochs=15", "--temperature=3"],
        ki.EEIL(finetune_epochs=15, temperature=3.0),
    ),
    "no distillation": (["--nodistillation"], ki.EEIL(distillation=False)),
    "an absolute rate": (
        ["--learning_rate=0.5", "--finetune_learning_rate=0.25"],
        ki.EEIL(finetune_learning_rate=0.5),
    ),
    "half a decay": (
        ["--learning_rate_decay_every=7"],
        ki.EEIL(learning_rate_factor=ki.methods.StepDecay(7)),
    ),
    "a decay": (
        ["--learning_rate_decay_every=7", "--learning_rate_decay_factor=0.5"],
        ki.EEIL(learning_rate_factor=ki.methods.StepDecay(7, 0.5)),
    ),
    "a decay at epochs": (
        ["--learning_rate_decay_at=4,6", "--learning_rate_decay_factor=0.2"],
        ki.EEIL(
            learning_rate_factor=ki.methods.StepDecay(factor=0.2, at=(4, 6))
        ),
    ),
    "noise of the paper": (
        ["--gradient_noise=text"],
        ki.EEIL(gradient_noise=ki.methods.GradientNoise()),
    ),
    "noise of the code": (
        ["--gradient_noise=code"],
        ki.EEIL(gradient_noise=ki.methods.GradientNoise(is_variance=False)),
    ),
    "the first task": (
        [
            "--first_epochs=60",
            "--first_augment=crop_flip",
            "--nofinetune_augmented",
        ],
        ki.EEIL(
            first_epochs=60,
            first_augment=ki.augmentation.CropFlip(),
            finetune_augmented=False,
        ),
    ),
    "from scratch": (
        ["--method=joint", "--from_scratch"],
        ki.Joint(from_scratch=True),
    ),
    "balanced softmax": (
        ["--classification=balanced_softmax"],
        ki.EEIL(classification=ki.objectives.BalancedSoftmax()),
    ),
    "cross-entropy": (
        ["--method=replay", "--classification=cross_entropy"],
        ki.Replay(classification=ki.objectives.CrossEntropy()),
    ),
    "no noise": (["--gradient_noise=none"], ki.EEIL()),
    "decay of a baseline": (
        ["--method=joint", "--learning_rate_decay_every=3"],
        ki.Joint(learning_rate_factor=ki.methods.StepDecay(3)),
    ),
    "lower bound": (["--method=finetune"], ki.FineTune()),
    "a closed form": (
        ["--method=analytic", "--solver=ridge", "--random_features=9"],
        ki.Analytic(ki.closed_form.Ridge(), random_features=9),
    ),
    "branches": (
        ["--method=partial_sharing", "--branch_at=0.5", "--width=0.5"],
        ki.PartialSharing(width=0.5),
    ),
}


@pytest.mark.parametrize("case", GIVEN)
def test_given_flags_set_the_fields_and_others_keep_defaults(
    case, parse, train
):
    args, expected = GIVEN[case]
    parse(*args)
    assert train.make_method() == expected


def test_settings_are_the_flags_in_effect(parse, train):
    parse("--learning_rate=0.4", "--temperature=3", "--gradient_noise=code")
    assert train.method_flags.settings(train.make_method()) == {
        "finetune_epochs": 30,
        "finetune_augmented": True,
        "first_epochs": None,
        "first_augment": "none",
        "temperature": 3.0,
        "distillation": True,
        "learning_rate_decay_every": 10,
        "learning_rate_decay_factor": 0.1,
        "learning_rate_decay_at": None,
        "finetune_learning_rate": 0.04,
        "gradient_noise": "code",
        "classification": "cross_entropy",
        "warm_start": False,
        "copies": 0,
    }


def test_help_is_that_of_the_docstring_with_default_and_methods(train):
    del train
    text = flags.FLAGS["temperature"].help
    assert text.startswith("T of the distillation")
    assert "(by default 2.0; of eeil, wa, bic, ssil, replay" in text
    shared = flags.FLAGS["learning_rate_decay_every"].help
    assert "of eeil, finetune, joint, partial_sharing, icarl" in shared


def test_help_names_defaults_that_differ(train):
    words = train.method_flags._defaults({"eeil": 2.0, "wa": 3.0})
    assert words == "(by default 2.0 of eeil, 3.0 of wa)"


# A method of the user's own.


def test_own_method_gets_its_fields_from_the_command_line(parse_own, train):
    parse_own(
        "--epochs",
        "5",
        "--method",
        "mine:Mine",
        "--margin=2",
        "--rounds=4",
        "--mirrored",
        "--rule=first",
        "--noise=code",
        "--learning_rate_decay_every=3",
    )
    experiment = train.make_experiment()
    method = experiment.incremental.method
    assert type(method).__name__ == "Mine"
    assert (method.margin, method.rounds, method.mirrored) == (2.0, 4, True)
    assert method.rule == "first"
    assert method.noise == ki.methods.GradientNoise(is_variance=False)
    assert method.learning_rate_factor == ki.methods.StepDecay(3)
    assert method.kernel is max
    assert experiment.method == "mine:Mine"
    expected = {"method": "mine:Mine", "margin": 2.0, "rule": "first"}
    assert experiment.flags.items() >= expected.items()
    assert not {"kernel", "derived"} & experiment.flags.keys()
    assert flags.FLAGS["margin"].help.startswith("How far apart, in nats.")
    assert flags.FLAGS["rounds"].help.startswith("How often. (")
    assert flags.FLAGS["mirrored"].help.startswith(" (by default False")


def test_own_method_of_a_flagfile_and_an_instance(parse_own, train, tmp_path):
    (tmp_path / "mine.flags").write_text("--method=mine:tight\n--rounds=2\n")
    parse_own(f"--flagfile={tmp_path / 'mine.flags'}")
    method = train.make_method()
    assert (method.margin, method.rounds) == (0.1, 2)


def test_own_value_that_the_method_refuses(parse_own, train):
    parse_own("--method=mine:Mine", "--margin=-1")
    with pytest.raises(ValueError, match=r"margin=-1\.0; expected 0"):
        train.make_method()


def test_own_method_takes_no_flag_of_others(parse_own, train):
    parse_own("--method=mine:Mine", "--width=0.5")
    with pytest.raises(ValueError, match=r"partial_sharing.*mine:Mine does"):
        train.make_method()


REFUSED = {
    "icarl2": "no method 'icarl2'.*eeil, finetune.*my_module:MyMethod",
    "mine": "no method 'mine'",
    ":Mine": "no method ':Mine'",
    "mine:": "no method 'mine:'",
    "..mine:Mine": "no method",
    "nowhere:Mine": "cannot be imported: No module named 'nowhere'",
    "torn:Mine": "cannot be imported: invalid syntax",
    "mine:Yours": "cannot be imported: .*no attribute 'Yours'",
    "mine:Stranger": "Stranger'>; expected a subclass of .*Method",
    "mine:MINE_TOO": "cannot be imported",
    "mine:Plain": "not a dataclass.*frozen=True",
    "mine:Unfinished": "abstract method '?phases",
    "mine:NoDefault": "without arguments.*'margin'",
    "mine:Unknown": "annotations of Unknown cannot be read: .*'Margin'",
    "mine:Epochs": "field 'epochs', and --epochs is another flag",
    "mine:Width": "field 'width', and --width is another flag",
}


@pytest.mark.parametrize("name", REFUSED)
def test_own_method_that_cannot_be_is_refused_in_one_line(name, parse_own):
    with pytest.raises(SystemExit, match=REFUSED[name]) as refused:
        parse_own(f"--method={name}")
    assert str(refused.value).startswith("train.py: ")
    assert "\n" not in str(refused.value)


def test_missing_flagfile_is_refused_in_one_line(parse_own):
    with pytest.raises(SystemExit, match=r"^train\.py: .*/nowhere/at/all"):
        parse_own("--flagfile=/nowhere/at/all")


def test_kinds_of_fields_are_told_by_their_annotation(train):
    bare = train.method_flags._without_none
    assert bare(int | None) is int
    assert bare(typing.Optional[float]) is float  # noqa: UP045
    assert bare(str) is str
    assert bare(int | float) == int | float
