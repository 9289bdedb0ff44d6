"""A training on two CPU devices: a program for tests, since devices are set before TensorFlow runs.

    python mirrored.py FOLDER

Trains, copies the run on the way, and resumes the copy; writes the weights of both to FOLDER.
"""

import dataclasses
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import keras
import numpy as np
import tensorflow as tf

from helpers.tiny import SAMPLE, TINY
from siamese_keras import fit, load_dataset

folder = Path(sys.argv[1])
# Each device waits for the other one in a thread of its own.
tf.config.threading.set_inter_op_parallelism_threads(8)
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
dataset = load_dataset("idx", data_dir=SAMPLE, validation_size=100)
config = dataclasses.replace(
    TINY, batch_size=48, filters=(4,), dropout=0.5, units=(16,), augment="shift"
)


class Copy(keras.callbacks.Callback):
    """Copy the folder as a training that is killed leaves it."""

    def on_train_batch_end(self, batch, logs=None):
        if int(np.asarray(self.model.optimizer.iterations)) == 7:
            shutil.copytree(folder / "two", folder / "killed")


def train(name, **options):
    verifier = fit(dataset, config, run_dir=folder / name, verbose=0, **options)
    np.savez(folder / f"{name}.npz", *verifier.base_model.get_weights())


train("two", devices=2, checkpoint_minutes=1e-9, callbacks=[Copy()])
train("killed", devices=2, resume=True)
