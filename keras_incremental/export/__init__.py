"""From a model in Python to a version that TensorFlow Serving picks up.

    keras_incremental.export.publish(model, "serving/my_model")

writes `serving/my_model/<next version>/` while a server goes on answering from
the versions that are there. `docs/serving.md` has the server's side. `litert`
writes a file for small devices, in float32 or int8; `docs/edge.md` has that and
all other formats, which `model.export` writes.
"""

from keras_incremental.export.gate import Gate
from keras_incremental.export.litert_file import litert
from keras_incremental.export.publishing import (
    check_publication,
    publish,
    published_version,
)

__all__ = [
    "Gate",
    "check_publication",
    "litert",
    "publish",
    "published_version",
]
