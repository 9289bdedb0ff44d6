"""How every program of the package ends: one clear line for an error, and the exit status."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable

import tensorflow as tf


def run_program(program: Callable[[], int | None]) -> int:
    """Call `program` and return its exit status.

    Returns:
        What `program` returns (None counts as 0); 1 after an error that the user can mend, whose
        message goes to standard error in one line; 130 when interrupted.
    """
    logging.basicConfig(format="%(message)s")
    logging.getLogger("siamese_keras").setLevel(logging.INFO)
    warnings.showwarning = _show_warning
    try:
        return program() or 0
    except (ValueError, OSError) as error:
        message = str(error)
    except tf.errors.OpError as error:  # TensorFlow's file system reports a full disk so
        message = error.message
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    print("error: " + " ".join(message.split()), file=sys.stderr)
    return 1


def _show_warning(message: object, *_: object, **__: object) -> None:
    print(f"warning: {message}", file=sys.stderr)
