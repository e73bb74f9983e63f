"""A model as it is, in float32 throughout."""

from keras_incremental.models import IncrementalClassifier, copy_state

_HALVES = ("float16", "bfloat16")


def in_float32(model: IncrementalClassifier) -> IncrementalClassifier:
    """Returns the model with every layer computing in float32.

    A model that was trained in mixed precision has float32 weights already;
    its copy shares none of them. A float32 model is returned as it is.
    """
    config = model.get_config()
    converted = _in_float32(config)
    if converted == config:
        return model
    copy = IncrementalClassifier.from_config(converted)
    copy_state(copy, model)
    return copy


def _in_float32(item):
    """Returns a layer's config, nested ones included, with another policy."""
    if isinstance(item, dict):
        if item.get("class_name") == "DTypePolicy":
            return {**item, "config": {**item["config"], "name": "float32"}}
        return {
            # The dtype of an input, not of a layer with a policy.
            key: "float32"
            if key == "dtype" and value in _HALVES
            else _in_float32(value)
            for key, value in item.items()
        }
    if isinstance(item, (list, tuple)):
        return type(item)(_in_float32(part) for part in item)
    return item
