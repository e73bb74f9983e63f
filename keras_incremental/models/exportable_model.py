"""A model that Keras and TensorFlow export as one made of Keras' layers."""

import keras
import tensorflow as tf

from keras_incremental.models.copies import in_float32
from keras_incremental.models.labelled_model import LabelledModel


class ExportableModel(LabelledModel):
    """Leaves Python: raw images in, the logits of `predict` out.

    Args:
        network, score_rule, classes, name: as for `LabelledModel`.
    """

    def __init__(self, network, score_rule, classes, name=None):
        super().__init__(network, score_rule, classes, name)
        # `tf.lite.TFLiteConverter` reads the input's shape here and nowhere
        # else. Keras' `build` would set it, and lock the layers for good.
        self._build_shapes_dict = {"input_shape": self.input_shape}

    @property
    def input_dtype(self):
        """Raw images are float32; in mixed precision, layers cast them."""
        return "float32"

    def get_build_config(self):
        """Returns nothing: a model is built by its constructor."""
        return None

    def export(
        self,
        filepath,
        format="tf_saved_model",
        verbose=None,
        input_signature=None,
        **options,
    ):
        """As Keras' `export`, in all its formats, for inference.

        What is written takes batches of raw images, float32, and returns the
        logits of `predict`, one for each class that is known. It computes in
        float32, after training in mixed precision too. `class_names` are not
        part of it; `keras_incremental.export.publish` writes them as well.

        Args:
            filepath, format, verbose: as Keras'. "onnx", "openvino", and the
                runtimes of all formats: `pip install keras_incremental[edge]`.
            input_signature: as Keras'; by default batches of any size.
            **options: as Keras'.

        Raises:
            ValueError: if the model knows no classes, or as Keras' own.
            ImportError: if a package that writes the format is missing.

        >>> import tempfile
        >>> import keras_incremental as ki
        >>> model = ki.IncrementalClassifier(ki.backbones.small((8, 8, 1)))
        >>> model.add_classes(["cat", "dog"])
        >>> folder = tempfile.mkdtemp()
        >>> model.export(folder, verbose=False)
        >>> loaded = tf.saved_model.load(folder)
        >>> loaded.serve(np.ones((3, 8, 8, 1), "float32")).shape
        TensorShape([3, 2])
        """
        exported = self._exported("export")
        try:
            exported.export(
                str(filepath),
                format,
                verbose,
                input_signature or [exported.images],
                **options,
            )
        except ImportError as error:
            raise ImportError(
                f"format={format!r} needs a package that is not installed "
                f"({error}). Install it: pip install 'keras_incremental[edge]'."
            ) from error

    def _exported(self, action: str) -> "_Exported":
        self._check_taught(action)
        return _Exported(in_float32(self))

    def _trackable_children(self, save_type="checkpoint", **kwargs):
        """Returns what `tf.saved_model.save` writes: one signature.

        The method is private, but TensorFlow asks nothing else. By default
        all layers would be written, each with a signature in training mode.
        """
        if save_type != "savedmodel":
            return super()._trackable_children(save_type, **kwargs)
        exported = self._exported("tf.saved_model.save")
        function = tf.function(
            exported.call, input_signature=[exported.images], autograph=False
        ).get_concrete_function()
        return {
            "_default_save_signature": function,
            "read": list(function.variables),
        }


class _Exported(keras.Model):
    """A model in inference mode, with all of it in a function of its own.

    So that nothing of a layer comes out but what it returns: converters take
    what is left unused in a graph, such as the shape that `RandomFlip` looks
    at, for one more output.
    """

    def __init__(self, model: ExportableModel):
        super().__init__(name=model.name, dtype="float32")
        shape = (None, *model.input_shape[1:])
        self.images = tf.TensorSpec(shape, tf.float32, "images")
        classes = model.num_classes

        def logits(images):
            scores = model(images, training=False)
            # The head's number of columns is only known when the graph runs.
            scores.set_shape((None, classes))
            return scores

        self._logits = tf.function(logits, autograph=False)
        self.built = True

    def call(self, images):
        return self._logits(images)
