"""Publishes one small model again and again, as one of several processes.

    python tests/export/publish_often.py BASE NAME TIMES START_FILE

The model's two classes are `NAME` and `other`. It writes a line when it is
ready, and begins when START_FILE is there.
"""

import pathlib
import sys
import time

import keras

import keras_incremental as ki
from keras_incremental.export import publish


def main(base, name, times, start_file):
    backbone = keras.Sequential(
        [keras.Input((4, 4, 1)), keras.layers.Flatten()]
    )
    model = ki.IncrementalClassifier(backbone)
    model.add_classes([0, 1], [name, "other"])
    print("ready", flush=True)
    while not pathlib.Path(start_file).exists():
        time.sleep(0.01)
    for _ in range(int(times)):
        version = publish(model, base, keep=None, verbose=0)
        print(version.name, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
