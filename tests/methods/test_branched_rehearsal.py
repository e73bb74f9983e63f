"""BranchedRehearsal: a branch for each task, with exemplars."""

import functools
import logging
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_incremental as ki
from keras_incremental.methods import TaskStep
from keras_incremental.networks import (
    OneHeadNetwork,
    SingleNetwork,
    TrainedTrunkNetwork,
)
from keras_incremental.objectives import (
    Auxiliary,
    Batch,
    CrossDistilled,
    CrossEntropy,
    OldClassifier,
)

MODES = pytest.mark.parametrize("train_trunk", [False, True])
TASKS = ([3, 1], [0, 2], [4])
Counting = keras.saving.get_registered_object("test_methods>Counting")


def make_backbone():
    """A trunk of a normalised dense layer, and a tail of one."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(16, use_bias=False),
            keras.layers.BatchNormalization(momentum=0.8),
            keras.layers.ReLU(name="cut"),
            keras.layers.Dense(16, use_bias=False),
            keras.layers.BatchNormalization(momentum=0.8),
            keras.layers.ReLU(),
        ]
    )


def start(method, **options):
    model = ki.IncrementalClassifier(
        make_backbone(), capacity=8, branch_at="cut"
    )
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    memory = ki.ExemplarMemory(40)
    return model, ki.IncrementalCallback(memory, method, **options)


def learn(model, incremental, blobs, tasks=TASKS, epochs=8, callbacks=()):
    for labels in tasks:
        model.fit(
            *blobs(labels, per_class=30),
            epochs=epochs,
            verbose=0,
            callbacks=[incremental, *callbacks],
        )


def grow(model, method, labels):
    """Grows the model for a task, as the method does before its phases."""
    names = [*map(str, labels)]
    known = model.num_classes
    method.grow(TaskStep(model, None, (), (), labels, names, known, 1, 8))


class Look(keras.callbacks.Callback):
    """Calls a function with the model at the start and the end of a fit."""

    def __init__(self, function):
        super().__init__()
        self.function, self.found = function, []

    def on_train_begin(self, logs=None):
        self.found.append(self.function(self.model))

    def on_train_end(self, logs=None):
        self.found.append(self.function(self.model))


def values(variables):
    return [keras.ops.convert_to_numpy(v) for v in variables]


# The loss.


def log_softmax(z):
    z = z - z.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


@pytest.fixture(name="batch")
def _batch():
    """Three old classes in two heads and two new ones; 4 + 3 features."""
    random = np.random.default_rng(0)
    return Batch(
        units=tf.constant([0, 2, 3, 4, 1], tf.int32),
        logits=tf.constant(random.normal(size=(5, 5)), tf.float32),
        features=tf.constant(random.normal(size=(5, 7)), tf.float32),
        head_of_unit=tf.constant([0, 0, 1, 2, 2]),
        teacher_logits=lambda: pytest.fail("There is no teacher network."),
    )


def test_auxiliary_loss_is_over_new_classes_and_one_for_all_old(batch):
    classifier = keras.layers.Dense(3)
    classifier.build((None, 3))
    objective = Auxiliary(CrossEntropy(), classifier, old_units=3, weight=0.5)
    terms = objective.terms(batch)
    kernel, bias = values(classifier.variables)
    logits = batch.features.numpy()[:, 4:] @ kernel + bias
    by_hand = -log_softmax(logits)[np.arange(5), [0, 0, 1, 2, 0]]
    np.testing.assert_allclose(terms["auxiliary"], 0.5 * by_hand, rtol=1e-5)
    assert objective.term_names == tuple(terms)


def test_the_old_classifier_on_old_features_is_the_teacher(batch):
    random = np.random.default_rng(1)
    kernel, bias = random.normal(size=(4, 3)), random.normal(size=3)
    objective = OldClassifier(CrossDistilled(3), kernel, bias)
    objective = ki.objectives.TracedObjective(objective).objective
    terms = objective.terms(batch)
    teacher = batch.features.numpy()[:, :4] @ kernel + bias
    by_hand = np.zeros(5)
    for head in (slice(0, 2), slice(2, 3)):
        p = np.exp(log_softmax(teacher[:, head] / 2))
        student = batch.logits.numpy()[:, head]
        by_hand -= (p * log_softmax(student / 2)).sum(axis=1)
    np.testing.assert_allclose(terms["distillation"], by_hand, rtol=1e-5)
    assert not objective.needs_teacher and objective.distils


# Task after task.


@pytest.mark.slow
@MODES
def test_three_tasks_then_saved_and_published(train_trunk, blobs, tmp_path):
    method = ki.BranchedRehearsal(train_trunk=train_trunk)
    model, incremental = start(method)
    learn(model, incremental, blobs)
    assert model.train_function_traces <= 3  # one a network
    x, y = blobs([0, 1, 2, 3, 4], seed=9)
    assert model.evaluate(x, y, verbose=0, return_dict=True)["accuracy"] > 0.8
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    scores = model.predict(x, verbose=0)
    np.testing.assert_allclose(
        loaded.predict(x, verbose=0), scores, rtol=1e-4, atol=1e-5
    )
    assert ki.export.publish(model, tmp_path / "served")
    learn(loaded, start(method)[1], blobs, [[5]], epochs=1)
    assert type(loaded.network) is type(model.network)
    assert len(loaded.network.branches) == 3


@pytest.fixture(name="with_base", scope="module")
def _with_base(blobs):
    """A model that has learned two classes, and the memory of them."""
    model, incremental = start(ki.BranchedRehearsal())
    learn(model, incremental, blobs, TASKS[:1], epochs=2)
    return model, incremental.memory


@pytest.fixture(name="grown")
def _grown(with_base, restored):
    """The same with a callback; all that a test does to it is undone."""
    with restored(*with_base):
        model, memory = with_base
        yield model, ki.IncrementalCallback(memory, ki.BranchedRehearsal())


def objectives_of(
    method, model, incremental, blobs, callbacks=(), tasks=TASKS[1:2]
):
    """Returns the objectives of a task's phases, a second one's by default."""
    found, use = [], model.use_objective
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            model, "use_objective", lambda o: (found.append(o), use(o))[1]
        )
        incremental.method = method
        learn(model, incremental, blobs, tasks, 1, callbacks)
    return found


@pytest.fixture(name="second_task", scope="module")
def _second_task(with_base, restored, blobs):
    """Returns a function that runs a second task once for each kind of trunk.

    It gives what was there before, within and after it.
    """

    def look(model):
        network = model.network
        heads = [*map(network.head_weights, range(len(network.heads)))]
        return heads, len(getattr(network, "auxiliary", ()))

    @functools.cache
    def run(train_trunk):
        method = ki.BranchedRehearsal(train_trunk=train_trunk)
        with restored(*with_base):
            model, memory = with_base
            trunk, tail = model.network.trunk, model.network.tail
            x, _ = blobs(TASKS[0])
            traces = model.train_function_traces
            before = values(tail.variables), values(trunk.variables)
            watch = Look(look)
            task = types.SimpleNamespace(
                before=look(model), logits=model.predict(x, verbose=0)
            )
            incremental = ki.IncrementalCallback(memory)
            task.objectives = objectives_of(
                method, model, incremental, blobs, [watch]
            )
            task.begin, task.end = watch.found
            task.after = look(model)
            after = values(tail.variables), values(trunk.variables)
            task.parts = [*zip(before, after, strict=True)]
            task.traces = model.train_function_traces - traces
            task.optimized = len(model.optimizer.variables)
            task.trained = len(model.trainable_variables)
            task.frozen = model.network.frozen(tf.constant(x))
        return task

    return run


@pytest.mark.parametrize(
    "train_trunk", [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_what_a_task_changes(train_trunk, second_task):
    task = second_task(train_trunk)
    tail, trunk = (
        any((a != b).any() for a, b in zip(old, now, strict=True))
        for old, now in task.parts
    )
    assert not tail
    assert trunk == train_trunk
    auxiliary = [count for _, count in (task.begin, task.end, task.after)]
    assert auxiliary == [1, 1, 0]
    assert task.traces == 1  # one a network
    assert task.optimized - 2 == task.trained  # but for step and rate


def test_growth_copies_the_old_block(second_task):
    task = second_task(False)
    [(kernel, bias)], _ = task.before
    [(old, old_bias), (new, _)], _ = task.begin
    np.testing.assert_array_equal(old[:16], kernel)
    np.testing.assert_array_equal(old_bias, bias)
    assert not old[16:].any() and new.all()
    [(trained, _), _], _ = task.end
    assert trained[16:].any() and (trained[:16] != kernel).any()
    # What was there before is whole: the teacher of every task.
    np.testing.assert_allclose(
        task.frozen[1] @ kernel + bias, task.logits, rtol=1e-4, atol=1e-4
    )


@pytest.mark.slow
def test_stages_with_balanced_fine_tuning(grown, blobs):
    method = ki.BranchedRehearsal(
        finetune_epochs=1, align=True, classification=CrossEntropy()
    )
    first, second = objectives_of(method, *grown, blobs)
    assert (first.weight, second.weight) == (1.0, 0.0)
    assert first.old_units == 2
    assert isinstance(first.objective, OldClassifier)
    assert first.objective.objective == CrossDistilled(2)
    assert second.objective == CrossDistilled(4)
    network = grown[0].network
    lengths = [
        np.linalg.norm(network.head_weights(i)[0], axis=0).mean()
        for i in (0, 1)
    ]
    assert lengths[0] == pytest.approx(lengths[1], rel=1e-5)


def test_a_trained_trunk_has_the_old_network_as_teacher(second_task):
    (only,) = second_task(True).objectives
    assert only.needs_teacher
    assert isinstance(only.objective, CrossDistilled)


@pytest.mark.slow
def test_more_images_of_known_classes_add_no_branch(grown, blobs):
    model, incremental = grown
    learn(model, incremental, blobs, [TASKS[1], TASKS[1]], epochs=1)
    assert len(model.network.branches) == 1
    assert len(model.heads) == 2


@pytest.mark.slow
def test_the_newest_branch_goes_on_where_there_are_enough(grown, blobs):
    model, incremental = grown
    method = ki.BranchedRehearsal(most_branches=1)
    grow(model, method, TASKS[1])
    model.network.auxiliary.clear()  # as at the end of a task
    incremental.memory.add_from(model, *blobs(TASKS[1]))
    (branch,) = model.network.branches
    before = values(branch.trainable_variables)
    tail = values(model.network.tail.variables)
    found = objectives_of(method, model, incremental, blobs, tasks=TASKS[2:])
    assert model.network.branches == [branch] and len(model.heads) == 3
    assert found[0].needs_teacher and isinstance(found[0], CrossDistilled)
    for mine, other in zip(before, branch.trainable_variables, strict=True):
        assert (mine != other.numpy()).any()
    for mine, other in zip(tail, model.network.tail.variables, strict=True):
        np.testing.assert_array_equal(mine, other)


# When the trunk is frozen, and what branches are cloned from.


def test_the_first_tasks_train_one_network():
    method = ki.BranchedRehearsal(free_tasks=2)
    model, _ = start(method)
    kinds = []
    for labels in TASKS:
        grow(model, method, labels)
        kinds.append(type(model.network))
    assert kinds == [SingleNetwork, SingleNetwork, OneHeadNetwork]
    assert [head.stop for head in model.heads] == [2, 4, 5]


def test_a_small_base_is_warned_of_once_it_is_frozen(grown, caplog):
    model, incremental = grown
    with caplog.at_level(logging.WARNING):
        for labels in TASKS[1:]:
            grow(model, incremental.method, labels)
    (message,) = [
        record.getMessage()
        for record in caplog.records
        if "frozen from now on" in record.getMessage()
    ]
    assert "learned 2 classes" in message and "free_tasks" in message


@pytest.mark.slow
@pytest.mark.parametrize("clone_base", [False, True])
def test_a_branch_starts_as_the_newest_or_as_the_base(clone_base, grown, blobs):
    model, incremental = grown
    incremental.method = ki.BranchedRehearsal(clone_base=clone_base)
    learn(model, incremental, blobs, TASKS[1:2], epochs=2)
    source = model.network.networks[0 if clone_base else 1]
    other = model.network.networks[1 if clone_base else 0]
    look = Look(lambda model: values(model.network.branches[-1].variables))
    learn(model, incremental, blobs, TASKS[2:], epochs=1, callbacks=[look])

    def same(part):
        pairs = zip(look.found[0], values(part.variables), strict=True)
        return all((a == b).all() for a, b in pairs)

    assert same(source) and not same(other)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"free_tasks": -1}, "free_tasks=-1"),
        ({"copies": -1}, "copies=-1"),
        ({"auxiliary_weight": -1.0}, "auxiliary_weight=-1"),
        ({"most_branches": 0}, "most_branches=0"),
        ({"closed_form_weight": -1.0}, "closed_form_weight=-1"),
    ],
)
def test_wrong_knobs_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        ki.BranchedRehearsal(**options)


def test_models_that_do_not_fit_are_refused():
    model = ki.IncrementalClassifier(make_backbone())
    with pytest.raises(ValueError, match="needs a branch point"):
        ki.BranchedRehearsal().check(model, None)
    model = ki.IncrementalClassifier(make_backbone(), branch_at=0.0)
    ki.BranchedRehearsal().check(model, None)  # DER
    with pytest.raises(ValueError, match="no layer comes before"):
        ki.BranchedRehearsal(train_trunk=True).check(model, None)
    model = ki.IncrementalClassifier(make_backbone(), branch_at="cut")
    model.network = TrainedTrunkNetwork.on(model.network)
    with pytest.raises(TypeError, match="branches of a TrainedTrunkNetwork"):
        ki.BranchedRehearsal().check(model, None)


# What a task costs.


def operations_of_a_step(branches):
    """Float operations of a forward pass of what is trained."""
    backbone = ki.backbones.resnet20((32, 32, 3))
    network = OneHeadNetwork(SingleNetwork(backbone, branch_at="stage2"))
    for _ in range(branches):
        network = network.with_branch()
        network.grow(10)
    frozen = network.frozen(tf.zeros((1, 32, 32, 3)))
    step = tf.function(lambda *frozen: network.trained(frozen, training=True))
    options = tf.compat.v1.profiler.ProfileOptionBuilder
    return tf.compat.v1.profiler.profile(
        step.get_concrete_function(*frozen).graph,
        options=options(options.float_operation()).with_empty_output().build(),
    ).total_float_ops


@pytest.mark.slow
def test_a_step_at_the_fifth_task_costs_that_at_the_second():
    ratio = operations_of_a_step(branches=4) / operations_of_a_step(branches=1)
    assert 1.0 < ratio <= 1.1


@pytest.mark.slow
def test_old_branches_are_run_once_an_image_however_long_a_task(blobs):
    def images_of_task(epochs):
        """Images that run through an old branch in a task of so many epochs."""
        model, incremental = start(ki.BranchedRehearsal())
        model.add_classes([0])
        network = OneHeadNetwork.on(model.network)
        inputs = keras.Input((16,))
        old = keras.Model(inputs, Counting()(keras.layers.Dense(4)(inputs)))
        new = keras.Sequential([keras.Input((16,)), keras.layers.Dense(4)])
        for label, branch in ((1, old), (2, new)):
            model.network = network = network.with_branch(branch)
            model.add_classes([label])
        Counting.images = 0
        learn(model, incremental, blobs, [[3]], epochs=epochs)
        return Counting.images

    assert images_of_task(5) == images_of_task(1) > 0


# A killed run.


class Kill(keras.callbacks.Callback):
    """Interrupts a run at the start of an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize(
    "train_trunk,epoch",
    [(False, 1), (True, 3)],  # within each stage
)
def test_a_killed_task_ends_with_the_same_weights(
    train_trunk, epoch, blobs, tmp_path
):
    method = ki.BranchedRehearsal(train_trunk=train_trunk, finetune_epochs=2)

    def run(tasks, *callbacks, **options):
        # Layers get the names that they have in a new process: TensorFlow's
        # optimizer of graphs orders what it adds up by them.
        keras.backend.clear_session()
        model, incremental = start(method, **options)
        learn(model, incremental, blobs, tasks[:-1], epochs=2)
        learn(model, incremental, blobs, tasks[-1:], 2, callbacks)
        return values(model.state_variables())

    whole = run(TASKS)
    with pytest.raises(KeyboardInterrupt):
        run(TASKS, Kill(epoch), backup_dir=tmp_path)
    resumed = run(TASKS, backup_dir=tmp_path)
    for mine, other in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.slow
@MODES
def test_learns_the_digits(train_trunk):
    scenario = ki.ClassIncrementalScenario.from_arrays(
        *ki.scenarios.load_digits(), classes_per_task=2
    )
    keras.utils.set_random_seed(0)
    model = ki.IncrementalClassifier(
        ki.backbones.small(scenario.image_shape), branch_at="stage1"
    )
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    incremental = ki.IncrementalCallback(
        ki.ExemplarMemory(100),
        ki.BranchedRehearsal(train_trunk=train_trunk),
    )
    for task in scenario:
        model.fit(
            task.train.batch(32), epochs=15, callbacks=[incremental], verbose=0
        )
    data = scenario[4].seen_test.batch(450)
    logs = model.evaluate(data, return_dict=True, verbose=0)
    assert logs["accuracy"] >= 0.92
