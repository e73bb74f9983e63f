"""How many exemplars go with a network into so many bytes."""

import numpy as np
import scenario_flags
import train
from absl import flags

import keras_incremental as ki
from keras_incremental.samples import ArraySamples
from keras_incremental.scenarios.schedule import ClassSchedule

_BYTES_OF_A_PARAMETER = 4


def exemplars_within(limit: int, scenario) -> list[str]:
    """Returns the flag of the memory that the network leaves room for.

    Args:
        limit: Bytes of network and exemplars.
        scenario: The scenario that train.py's flags ask for.

    Returns:
        `["--memory=..."]`, or nothing where the flags ask for no memory.

    Raises:
        ValueError: if there is no room for an image of each class.
    """
    method = train.make_method()
    if train.make_memory(method) is None:
        return []
    if flags.FLAGS.memory is None or flags.FLAGS.memory_storage == "jpeg":
        raise ValueError(
            "--equal_bytes sets --memory, in images of one size. Leave "
            "--memory_per_class and --memory_storage=jpeg out."
        )
    parameters = final_parameters(method, scenario)
    spec = scenario.image_spec
    image = spec.shape.num_elements() * spec.dtype.size
    room = limit - _BYTES_OF_A_PARAMETER * parameters
    if room < image * scenario.num_classes:
        raise ValueError(
            f"--equal_bytes={limit} leaves no room for exemplars beside "
            f"--method={flags.FLAGS.method}: its network has {parameters:,} "
            f"parameters in the end, {_BYTES_OF_A_PARAMETER * parameters:,} "
            f"bytes, and an image of each of {scenario.num_classes} classes "
            f"takes {image * scenario.num_classes:,}."
        )
    return [f"--memory={room // image}"]


def final_parameters(method: ki.methods.Method, scenario) -> int:
    """Returns the parameters of the network once all classes are known.

    An untrained model grows by the method over all tasks, on black images.
    """
    model = train.make_model(scenario)
    schedule = ClassSchedule(
        scenario_flags.classes_per_task(), scenario.class_order
    )
    past = []
    for labels in schedule.tasks(scenario.class_order):
        images = np.zeros((len(labels), *scenario.image_shape), "float32")
        samples = ArraySamples(images, np.array(labels))
        task = ki.methods.TaskStep(
            model=model,
            memory=None,
            samples=samples,
            past=list(past),
            new_labels=labels,
            new_names=[scenario.class_names[label] for label in labels],
            known_classes=model.num_classes,
            epochs=1,
            batch_size=len(labels),
            augment=None,
        )
        method.grow(task)
        past.append(samples)
    return model.network.count_params()
