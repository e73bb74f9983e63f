"""A model's state in another model, and a model in float32 throughout."""

_HALVES = ("float16", "bfloat16")


def copy_state(model, other) -> None:
    """Assigns the state of a model that is made alike.

    Args:
        model: the `IncrementalClassifier` to assign to.
        other: the one to read.
    """
    variables = zip(
        model.state_variables(), other.state_variables(), strict=True
    )
    for mine, theirs in variables:
        mine.assign(theirs)
    model.finalize_state()


def in_float32(model):
    """Returns the model with every layer computing in float32.

    A model that was trained in mixed precision has float32 weights already;
    its copy shares none of them. A float32 model is returned as it is.

    Args:
        model: an `IncrementalClassifier`.
    """
    config = model.get_config()
    converted = _in_float32(config)
    if converted == config:
        return model
    copy = type(model).from_config(converted)
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
