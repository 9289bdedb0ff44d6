"""Image datasets of TensorFlow Datasets (TFDS), without minutes of waiting for a network."""

from __future__ import annotations

import logging
import queue
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from siamese_keras.data.splits import Source, Split
from siamese_keras.errors import DataError, NotPreparedError

_log = logging.getLogger(__name__)

SUPERCLASS_FEATURES = ("alphabet", "coarse_label")
PROBE_SECONDS = 8  # for a host to answer before a download


def load_tfds(name: str, data_dir: Path, *, download: bool = True) -> Source:
    """Load a dataset that TFDS knows.

    Args:
        name: Its name.
        data_dir: TFDS's data folder.
        download: Download and prepare it when it is not there.

    Returns:
        Train and test images, the names of the classes, and their superclasses where the dataset
        has any, as Omniglot and CIFAR-100 do.

    Raises:
        DataError: When TFDS does not know it, cannot get it, or it is not of classified images of
            one size.
        NotPreparedError: When it is not there and `download` is False.
    """
    import tensorflow_datasets as tfds  # takes seconds: only where it is needed

    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except Exception:  # of the name, the version, the configuration or the network
        raise DataError(f"TFDS has no dataset {name!r}. See tensorflow.org/datasets.") from None
    features = builder.info.features
    if not {"image", "label"} <= set(features or ()) or not hasattr(features["label"], "names"):
        raise DataError(f"TFDS dataset {name!r} must have images and labels of classes.")
    if None in (shape := features["image"].shape):
        raise DataError(f"TFDS dataset {name!r} must have images of one size, not {shape}.")
    if not builder.is_prepared():
        if not download:
            raise NotPreparedError
        _prepare(builder, name, tfds)
    test_name = next((s for s in ("test", "validation") if s in builder.info.splits), None)
    if "train" not in builder.info.splits or test_name is None:
        raise DataError(f"TFDS dataset {name!r} must have the splits train and test.")
    superclass = next((f for f in SUPERCLASS_FEATURES if f in features), None)
    superclasses = np.full(features["label"].num_classes, -1)
    splits = []
    for split in ("train", test_name):
        columns = tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1))
        splits.append(Split(columns["image"], columns["label"]))
        if superclass is not None:
            superclasses[columns["label"]] = columns[superclass]
    return Source(
        splits[0],
        splits[1],
        class_names=tuple(features["label"].names),
        superclasses=None if superclass is None else superclasses,
    )


def _prepare(builder: Any, name: str, tfds: Any) -> None:
    hosts = {urllib.parse.urlsplit(url).netloc: url for url in builder.url_infos or ()}
    if problem := _unreachable(list(hosts.values())):
        ways = f"connect once and run it again so that TFDS can prepare {name!r}"
        if name == "fashion_mnist":
            ways += (
                ", run `make data` (needs Debian's or Ubuntu's apt-get), or name the folder of "
                "the four IDX files (from github.com/zalandoresearch/fashion-mnist) with --data-dir"
            )
        raise DataError(f"{name!r} is not on this machine and {problem}: {ways}.")
    _log.info("Downloading %s into %s with TensorFlow Datasets.", name, builder.data_path)
    try:
        builder.download_and_prepare()
    except (OSError, AssertionError, tfds.download.DownloadError) as error:
        raise DataError(f"TFDS could not prepare {name!r}. {error}") from None


def _unreachable(urls: Sequence[str]) -> str | None:
    """Say which of `urls` cannot be reached, within `PROBE_SECONDS`; TFDS itself takes minutes."""

    def probe(url: str) -> str | None:
        request = urllib.request.Request(url, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=PROBE_SECONDS).close()
        except urllib.error.HTTPError:
            return None  # some servers refuse HEAD: the host answered
        except (OSError, ValueError) as error:
            return str(getattr(error, "reason", error))
        return None

    # Threads, since no time-out covers the look-up of a host's name; daemons, which do not keep the
    # program from ending.
    answers: queue.SimpleQueue[tuple[str, str | None]] = queue.SimpleQueue()
    for url in urls:
        threading.Thread(target=lambda url=url: answers.put((url, probe(url))), daemon=True).start()
    waiting, deadline = set(urls), time.monotonic() + PROBE_SECONDS
    while waiting:
        try:
            url, reason = answers.get(timeout=max(deadline - time.monotonic(), 0))
        except queue.Empty:
            return f"{urllib.parse.urlsplit(min(waiting)).netloc} does not answer"
        if reason:
            return f"{urllib.parse.urlsplit(url).netloc} cannot be reached ({reason})"
        waiting.remove(url)
    return None
