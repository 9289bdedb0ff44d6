"""Siamese networks in Keras: do two images belong to the same class?

Each module is imported by its own name, `from siamese_keras.train import train`. Importing
`siamese_keras.models.base_model` registers the distances that a saved outer model needs to be
loaded.
"""

import os
import sys
import tempfile

__version__ = "0.1.0"


def _import_tensorflow_quietly() -> None:
    """Import TensorFlow and hold back what its C++ libraries print while they are loaded.

    They print before they read any setting, so only the file descriptor can be turned aside. Who
    sets TF_CPP_MIN_LOG_LEVEL sees everything, and so does who gets an error.
    """
    if "tensorflow" in sys.modules or "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    try:
        stderr = os.dup(2)
    except OSError:  # there is no standard error to keep clean
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            import tensorflow  # noqa: F401
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # before the first `import keras`
_import_tensorflow_quietly()
