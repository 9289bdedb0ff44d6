"""Image datasets by TensorFlow Datasets (TFDS), without its minutes of waiting for a network."""

from __future__ import annotations

import concurrent.futures
import logging
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from siamese_keras.errors import DataError

_log = logging.getLogger(__name__)

_PROBE_SECONDS = 8


class NotPreparedError(Exception):
    """TFDS has the folder but not the dataset in it."""


def load_tfds(
    name: str, data_dir: Path, *, download: bool = True
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray], tuple[str, ...]]:
    """Load a dataset that TFDS knows.

    Args:
        name: Its name.
        data_dir: TFDS's data folder.
        download: Download and prepare it when it is not there.

    Returns:
        (images, labels) of train and of test, images uint8 `[n, height, width, channels]`, labels
        int32 `[n]`, and the names of the classes.

    Raises:
        DataError: When TFDS does not know it, cannot get it, or it is not of classified images of
            one size.
        NotPreparedError: When it is not there and `download` is False.
    """
    import tensorflow_datasets as tfds  # takes seconds: only where it is needed

    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except (tfds.core.DatasetNotFoundError, AssertionError):  # or no such version
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
    splits = []
    for split in ("train", test_name):
        columns = tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1))
        splits.append((columns["image"], columns["label"].astype(np.int32)))
    return splits[0], splits[1], tuple(features["label"].names)


def _prepare(builder: Any, name: str, tfds: Any) -> None:
    hosts = {urllib.parse.urlsplit(url).netloc: url for url in builder.url_infos}
    if problem := _unreachable(list(hosts.values())):
        ways = f"connect once and run it again so that TFDS can prepare {name!r}"
        if name == "fashion_mnist":
            ways += (
                ", run `make data` (needs Debian's or Ubuntu's apt-get), or name the folder of "
                "the four IDX files (from github.com/zalandoresearch/fashion-mnist) by --data-dir"
            )
        raise DataError(f"{name!r} is not on this machine and {problem}: {ways}.")
    _log.info("Downloading %s into %s by TensorFlow Datasets.", name, builder.data_path)
    try:
        builder.download_and_prepare()
    except (OSError, AssertionError, tfds.download.DownloadError) as error:
        raise DataError(f"TFDS could not prepare {name!r}. {error}") from None


def _unreachable(urls: Sequence[str]) -> str | None:
    """Say which of `urls` cannot be reached, within `_PROBE_SECONDS`; TFDS itself takes minutes."""

    def probe(url: str) -> str | None:
        request = urllib.request.Request(url, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=_PROBE_SECONDS).close()
        except urllib.error.HTTPError:
            return None  # some servers refuse HEAD: the host answered
        except (OSError, ValueError) as error:
            return str(getattr(error, "reason", error))
        return None

    # A thread, since no time-out covers the look-up of the host's name.
    pool = concurrent.futures.ThreadPoolExecutor(max_workers=max(len(urls), 1))
    probes = {pool.submit(probe, url): url for url in urls}
    done, pending = concurrent.futures.wait(probes, timeout=_PROBE_SECONDS)
    pool.shutdown(wait=False, cancel_futures=True)
    for future in done:
        if reason := future.result():
            return f"{urllib.parse.urlsplit(probes[future]).netloc} cannot be reached ({reason})"
    for future in pending:
        return f"{urllib.parse.urlsplit(probes[future]).netloc} does not answer"
    return None
