"""Your own images in an .npz file, such as Keras's mnist.npz."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from siamese_keras.data.splits import Source, Split, numbered_names
from siamese_keras.errors import DataError

# Of images and labels: the names that Keras's files have, and those of MedMNIST.
_NAMES = {
    "train": (("x_train", "y_train"), ("train_images", "train_labels")),
    "test": (("x_test", "y_test"), ("test_images", "test_labels")),
    "validation": (("x_val", "y_val"), ("val_images", "val_labels")),
}


def load_npz(path: Path) -> Source:
    """Read `x_train`, `y_train`, `x_test` and `y_test`, and `x_val` and `y_val` where they are.

    Images are uint8 `[n, height, width]` or `[n, height, width, channels]`, labels are integers
    from 0, `[n]` or `[n, 1]`.

    Args:
        path: The file.

    Returns:
        The images, with the labels as names. Without `x_test` all are training images.

    Raises:
        DataError: When the file cannot be read or an array is missing or does not fit; the message
            names it.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not hasattr(archive, "files"):
                raise DataError(f"`{path}` must be an .npz file. Received: a single array")
            arrays = {name: archive[name] for name in archive.files}
    except DataError:
        raise
    except Exception as error:  # NumPy raises many kinds for damaged files
        # NumPy takes what is no archive for a pickle, and advises to load it.
        reason = error if zipfile.is_zipfile(path) else "It is not a zip archive."
        raise DataError(f"`{path}` must be an .npz file of arrays. {reason}") from None
    splits = {part: _split(path, arrays, part) for part in _NAMES}
    train = splits["train"]
    if train is None:
        raise DataError(
            f"`{path}` must hold the arrays x_train and y_train, and perhaps x_test and y_test. "
            f"Received: {', '.join(sorted(arrays)) or 'none'}"
        )
    for part, split in splits.items():
        if split is not None and not len(split):
            raise DataError(f"`{path}` must hold {part} images. Received: none")
    found = [split for split in splits.values() if split is not None]
    return Source(train, splits["test"], numbered_names(found), splits["validation"])


def _split(path: Path, arrays: dict[str, np.ndarray], part: str) -> Split | None:
    for x, y in _NAMES[part]:
        if (x in arrays) != (y in arrays):
            missing = y if x in arrays else x
            raise DataError(f"`{path}` must hold {missing} too. Received: {', '.join(arrays)}")
        if x in arrays:
            images, labels = arrays[x], arrays[y]
            try:
                return Split(
                    images[..., np.newaxis] if images.ndim == 3 else images,
                    labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels,
                )
            except DataError as error:
                raise DataError(f"`{path}`, {x} and {y}: {error}") from None
    return None
