"""The `Verifier`: do two images show the same class? From a run, a SavedModel or a server.

The module imports neither Keras nor scikit-learn before they are needed, so that asking an exported
model starts as fast as TensorFlow. It is longer than others since one class is the face of the
package; half of it is documentation.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from scipy.special import expit, logit

from siamese_keras.bulk import compare_file
from siamese_keras.config import Config
from siamese_keras.data.inputs import Batch, ImageInput, as_images, call_by_name
from siamese_keras.data.pair_file import read_pair_file
from siamese_keras.data.splits import Dataset
from siamese_keras.errors import ArgumentError, DataError, ModelError, RequestError, check_distance
from siamese_keras.files import check_output, expanded
from siamese_keras.gallery import Progress, embed_folder
from siamese_keras.gallery_index import (
    Changes,
    Index,
    build_index,
    check_index,
    one_model,
    read_index,
    warn_of_changes,
    write_index,
)
from siamese_keras.models.calibration import Calibration, prior_shift
from siamese_keras.models.false_accepts import FalseAccepts, OperatingPoint, read_false_accepts
from siamese_keras.nearest import near_pairs, rounding
from siamese_keras.search import search
from siamese_keras.serving.client import (
    ExportedModel,
    connect,
    is_one_request,
    newest_version,
    read_model_json,
)
from siamese_keras.serving.portable import load_version

if TYPE_CHECKING:
    import keras

    from siamese_keras.evaluation.report import Report


class _Model(Protocol):
    """What answers the questions: a Keras model here, or an `ExportedModel`."""

    batch_size: int
    image_shape: tuple[int, int, int] | None

    def embed(self, images: Batch) -> np.ndarray: ...

    def compare(self, left: Batch, right: Batch) -> dict[str, np.ndarray]: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """The answer about pairs of images: scalars for one pair, arrays `[n]` for many.

    Attributes:
        distance: Euclidean distance of the embeddings, float32.
        similarity: Estimated probability that the pair is of the same class at the prior of the
            call, float64, in [0, 1].
        same: The decision, bool.
    """

    distance: Any
    similarity: Any
    same: Any


class Verifier:
    """A base model with its calibration. Made by `fit` and `load_verifier`.

    Images are uint8 arrays `[height, width, channels]` or `[n, height, width, channels]`, 0 to 255,
    or paths or bytes of image files, one or many: PNG, JPEG, BMP, GIF, WebP, TIFF or PGM, of any
    size and color, decoded to the pixels that training and the exported graph see. One image gives
    one answer, a sequence of images an array.

    Attributes:
        outer_model: The Keras outer model, (left, right) -> distance; None for an exported model.
        base_model: The Keras base model, image -> embedding; None for an exported model.
        calibration: Threshold and slope, fitted on validation pairs; None for a server, which
            does not report them.
        config: Settings of the training; None for a server.
        class_names: Names of the dataset's classes, unseen ones too, by label.
        name: Name of the dataset; of an exported model the name that it was exported under.
        training: Facts of the training: `fit_seconds`, `epochs`, `interrupted`, `bfloat16`,
            `images_per_class`, `replicas`, `classes` (names of the classes trained on; models of
            earlier versions lack it), `images` (number in each split), `data` (fingerprint of the
            dataset) and `own_base_model` (whether `fit` was given a `base_model`, which `config`
            does not describe).
        history: Metrics after every epoch, by name; empty for an exported model.
        metrics: Metrics of the last report, or None.
        false_accepts: Table of false accepts by threshold, counted on validation pairs; None for a
            server.
        invert: Whether images are inverted before they are embedded: for dark objects on a
            light background, when the model was trained on light objects on black.
    """

    def __init__(
        self,
        model: _Model,
        calibration: Calibration | None,
        *,
        outer_model: keras.Model | None = None,
        base_model: keras.Model | None = None,
        config: Config | None = None,
        class_names: Sequence[str] = (),
        name: str = "dataset",
        training: Mapping[str, Any] | None = None,
        history: Mapping[str, Sequence[float]] | None = None,
        metrics: Mapping[str, Any] | None = None,
        false_accepts: FalseAccepts | None = None,
        invert: bool = False,
    ) -> None:
        self._model = model
        self.calibration = calibration
        self.outer_model = outer_model
        self.base_model = base_model
        self.config = config
        self.class_names = tuple(class_names)
        self.name = name
        self.training = dict(training or {})
        self.history = {key: list(values) for key, values in (history or {}).items()}
        self.metrics = metrics
        self.false_accepts = false_accepts
        self.invert = invert
        self._chosen_threshold: float | None = None

    @classmethod
    def of_model(
        cls, outer: keras.Model, calibration: Calibration | None, **facts: Any
    ) -> Verifier:
        """Make a verifier of a Keras outer model.

        Args:
            outer: The outer model, (left, right) -> distance.
            calibration: Threshold and slope.
            facts: Other attributes by name.
        """
        from siamese_keras.models.embedder import KerasEmbedder
        from siamese_keras.models.outer_model import base_model_of

        base = base_model_of(outer)
        return cls(KerasEmbedder(base), calibration, outer_model=outer, base_model=base, **facts)

    def __repr__(self) -> str:
        cut = "" if self.calibration is None else f", threshold {self.calibration.threshold:.3f}"
        return f"<Verifier {self.name}: {len(self.class_names)} classes{cut}>"

    @property
    def threshold(self) -> float | None:
        """The distance at which the decision flips; None for a server, which decides itself."""
        return self._chosen_threshold if self.calibration is None else self.calibration.threshold

    def with_threshold(
        self,
        threshold: float | None = None,
        *,
        far: float | None = None,
        prior: float | None = None,
    ) -> Verifier:
        """Return a verifier that decides at another threshold; this one stays as it is.

        Decisions, `near_duplicates` and an export follow the threshold; a search takes its own,
        `within`. Similarities stay as they are: of half same pairs, unless a call states another
        prior.

        Args:
            threshold: Distance up to which a pair is same.
            far: False accept rate: the threshold that accepts at most this share of the different
                pairs of validation images.
            prior: Share of same pairs: the threshold with the fewest errors among such pairs.

        Returns:
            A verifier of the same model.

        Raises:
            ArgumentError: When not exactly one of the three is given, or it is out of range.
            ModelError: When there are fewer than 10 / `far` different pairs, or the model lacks
                what `far` or `prior` need, as a server does.

        Example:
            strict = verifier.with_threshold(far=1e-3)
        """
        given = {"threshold": threshold, "far": far, "prior": prior}
        if sum(value is not None for value in given.values()) != 1:
            raise ArgumentError(
                "Exactly one of `threshold`, `far` and `prior` must be given. Received: "
                + (", ".join(f"{k}={v}" for k, v in given.items() if v is not None) or "none")
            )
        if far is not None:
            threshold = self.operating_point(far).threshold
        elif prior is not None:
            if self.calibration is None:
                raise ModelError(
                    "`prior` needs a run or an export: a server does not report its calibration."
                )
            threshold = self.calibration.threshold_at(prior)
        else:
            threshold = check_distance("threshold", threshold)
        verifier = copy.copy(self)
        if self.calibration is None:
            verifier._chosen_threshold = threshold
        else:
            verifier.calibration = dataclasses.replace(self.calibration, threshold=threshold)
        return verifier

    def operating_point(self, far: float) -> OperatingPoint:
        """Return the threshold for a false accept rate, with what it rests on.

        Args:
            far: False accept rate, in (0, 1).

        Returns:
            The threshold, its rate on validation pairs with a 95 % interval, and the number of
            different pairs.

        Raises:
            ArgumentError: When `far` is out of range.
            ModelError: When there are fewer than 10 / `far` different validation pairs, or the
                model has no table of them.
        """
        if self.false_accepts is None:
            raise ModelError(
                "The model has no table of false accepts, which `far` needs: it is on a server, or "
                "was trained by an earlier version."
            )
        return self.false_accepts.at(far)

    def decode(self, images: Any) -> np.ndarray:
        """Return images as the model sees them: decoded, scaled, centered, and perhaps inverted.

        Args:
            images: One or many images.

        Returns:
            uint8 `[height, width, channels]` for one image, `[n, height, width, channels]` for
            many.

        Raises:
            ModelError: When the model is a server, which decodes files itself.

        Also raises what `embed` raises.
        """
        images = as_images(images)
        self._check_shape(images)
        if self._model.image_shape is None and not isinstance(images.items, np.ndarray):
            raise ModelError("A server decodes image files itself: load its run or its export.")
        pixels = np.concatenate([np.asarray(batch) for batch, _ in self._batches(images)])
        return pixels[0] if images.is_single else pixels

    def embed(self, images: Any, *, progress: Progress | None = None) -> np.ndarray:
        """Compute embeddings.

        Args:
            images: One or many images.
            progress: Called with how many are embedded and how many there are.

        Returns:
            float32 `[embedding_dim]` for one image, `[n, embedding_dim]` for many.

        Raises:
            ArgumentError: When there is no image, or arrays and files are mixed.
            DataError: When an array is not uint8 or of another shape than the model's images.
            RequestError: When a file is not an image that can be decoded, which the message names,
                an exported model refuses the shape of an array, or an embedding is not finite.
            OSError: When a file cannot be read.
            ModelError: When the model does not answer, or a server switches to another one.
        """
        images = as_images(images)
        self._check_shape(images)
        parts: list[np.ndarray] = []
        done = 0
        batches: Iterable[tuple[Batch, list[str]]] = self._batches(images)
        at_once = len(images) <= self._model.batch_size
        if at_once:
            batches = list(batches)
            at_once = is_one_request(batches[0][0])
        with contextlib.nullcontext() if at_once else self._one_model():
            for batch, names in batches:
                parts.append(self._embed_batch(batch, names))
                done += len(names)
                if progress is not None:
                    progress(done, len(images))
        embeddings = np.concatenate(parts)
        return embeddings[0] if images.is_single else embeddings

    def compare(self, left: Any, right: Any, *, prior: float = 0.5) -> Comparison:
        """Compare left with right images, pair by pair.

        Args:
            left: One or many images.
            right: As many images.
            prior: Share of same pairs among the pairs that are asked about, in (0, 1). It changes
                the similarity, not the decision.

        Returns:
            Distance, similarity and decision.

        Raises:
            ArgumentError: When there are not as many left as right images, `prior` is out of range,
                or one side is arrays and the other files, which a server does not compare.

        Also raises what `embed` raises.
        """
        left, right = as_images(left), as_images(right)
        if (len(left), left.is_single) != (len(right), right.is_single):
            raise ArgumentError(
                "`left` and `right` must hold equally many images. Received: "
                f"{_count(left)} and {_count(right)}"
            )
        prior_shift(prior)  # refuses a prior out of range before images are read
        for side in (left, right):
            self._check_shape(side)
        batches = []
        for (a, names), (b, others) in zip(self._batches(left), self._batches(right), strict=True):
            batches.append(self._compare_batch(a, names, b, others, prior))
        columns = [np.concatenate(column) for column in zip(*batches, strict=True)]
        if left.is_single:
            columns = [column[0] for column in columns]
        return Comparison(*columns)

    def _one_model(self) -> contextlib.AbstractContextManager[Any]:
        """Refuse embeddings of several models, which a server may switch between."""
        is_server = self._model.image_shape is None
        return one_model(self.embed) if is_server else contextlib.nullcontext()

    def _batches(self, images: ImageInput) -> Iterator[tuple[Batch, list[str]]]:
        model = self._model
        return images.batches(model.batch_size, model.image_shape, invert=self.invert)

    def _embed_batch(self, batch: Batch, names: list[str]) -> np.ndarray:
        embeddings = call_by_name(names, self._model.embed, batch)
        finite = np.isfinite(embeddings).all(axis=1)
        if not finite.all():  # compared with others, it would be neither near nor far
            raise RequestError(f"{names[finite.argmin()]}: its embedding is not finite.")
        return embeddings

    def _compare_batch(
        self, left: Batch, names: list[str], right: Batch, others: list[str], prior: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if self.calibration is None:
            pairs = [f"{a} and {b}" for a, b in zip(names, others, strict=True)]
            try:
                answer = call_by_name(pairs, self._model.compare, left, right)
            except RequestError:
                for side, side_names in ((left, names), (right, others)):
                    if not isinstance(side, np.ndarray):
                        call_by_name(side_names, self._model.embed, side)  # names one file
                raise
            log_odds = logit(answer["similarity"].astype(np.float64)) + prior_shift(prior)
            distance, same = answer["distance"].astype(np.float32), answer["same"].astype(bool)
            if self._chosen_threshold is not None:
                same = distance <= self._chosen_threshold
            return distance, expit(log_odds), same
        embedded = self._embed_batch(left, names), self._embed_batch(right, others)
        return _decided(self.calibration, prior, *embedded)

    def distance(self, left: Any, right: Any) -> Any:
        """Return the Euclidean distance of each pair, float32; otherwise as `compare`."""
        return self.compare(left, right).distance

    def similarity(self, left: Any, right: Any, *, prior: float = 0.5) -> Any:
        """Return the probability that each pair is of the same class; otherwise as `compare`.

        At the default prior half of the pairs are taken to be same. Among random pairs of ten
        classes it is 0.1, in a search far less.
        """
        return self.compare(left, right, prior=prior).similarity

    def same(self, left: Any, right: Any) -> Any:
        """Return the decision for each pair, bool; otherwise as `compare`."""
        return self.compare(left, right).same

    def index(
        self,
        folder: str | os.PathLike[str],
        path: str | os.PathLike[str],
        *,
        progress: Progress | None = None,
    ) -> Changes:
        """Write an index of a folder's images, or bring one up to date, for `search`.

        When `path` is an index of this model, only files that are new or changed since, by size and
        modification time, are embedded, and those that are gone are dropped.

        Args:
            folder: Folder of image files. Files that cannot be decoded are skipped with a
                warning.
            path: The index, an `.npz` file, which is replaced whole or not at all.
            progress: Called with how many images are embedded and how many are to be.

        Returns:
            How many images were embedded, kept and removed.

        Raises:
            ArgumentError: When `path` does not end in `.npz`, or its folder does not exist or
                cannot be written to.
            DataError: When `folder` has no image that can be read, or `path` is an index of another
                folder, or another file.
            OSError: When the index cannot be written.

        Also raises what `embed` raises.
        """
        path = check_output(path, ".npz")
        folder = expanded(folder)
        before = read_index(path) if path.exists() else None
        if before is not None and before.folder != str(folder.resolve()):
            raise DataError(
                f"`{path}` is an index of another folder, `{before.folder}`: delete it, or write "
                f"to another file. Received: `{folder}`"
            )
        index, changes = build_index(
            self.embed, folder, batch_size=self._model.batch_size, invert=self.invert,
            before=before, progress=progress,
        )  # fmt: skip
        write_index(path, index)
        return changes

    def embed_folder(
        self,
        folder: str | os.PathLike[str],
        *,
        progress: Progress | None = None,
    ) -> tuple[list[Path], np.ndarray]:
        """Embed the images of a folder; files that cannot be decoded are skipped with a warning.

        Args:
            folder: Folder of image files.
            progress: Called with how many images are embedded and how many there are.

        Returns:
            The files, in order, and their embeddings, float32 `[n, embedding_dim]`.

        Raises:
            DataError: When `folder` has no image that can be read.

        Also raises what `embed` raises.
        """
        with self._one_model():
            return embed_folder(self.embed, expanded(folder), self._model.batch_size, progress)

    def open_gallery(
        self,
        source: str | os.PathLike[str],
        *,
        progress: Progress | None = None,
    ) -> Index:
        """Embed a folder of images, or read an index of one, for many searches.

        Args:
            source: Folder of image files; those that cannot be decoded are skipped with a
                warning. Or an index, the path of an `.npz` file that `index` wrote.
            progress: Called with how many images are embedded and how many there are.

        Returns:
            The gallery, for `search`.

        Raises:
            DataError: When `source` has no image that can be read.
            ModelError: When the index is of another model.

        Also raises what `embed` raises.
        """
        if Path(source).suffix.lower() == ".npz":
            return self._read_index(source)
        index, _ = build_index(
            self.embed, expanded(source), batch_size=self._model.batch_size, invert=self.invert,
            progress=progress,
        )  # fmt: skip
        return index

    def search(
        self,
        query: Any,
        gallery: Any,
        *,
        top: int = 5,
        within: float | None = None,
        progress: Progress | None = None,
    ) -> Any:
        """Find the images of a gallery that are nearest to a query.

        Args:
            query: One or many images.
            gallery: Many images; or a folder: all image files below it, except the query's
                own file, and those that cannot be decoded are skipped with a warning; or an index,
                the path of an `.npz` file that `index` wrote, or what `open_gallery` returns.
            top: How many to find at most, at least 1.
            within: Find only images up to this distance, such as `verifier.threshold`; None finds
                the nearest however far they are.
            progress: For a folder, called with how many images are embedded and how many there are.

        Returns:
            List of `Match`, the nearest first; for many queries a list of such lists.

        Raises:
            ArgumentError: When `top` or `within` is out of range.
            DataError: When a folder holds no image that can be read, except the query, or the
                index cannot be read.
            ModelError: When the index is of another model.

        Also raises what `embed` raises.
        """
        with self._one_model():
            if isinstance(gallery, (str, os.PathLike)):
                gallery = expanded(gallery)
                if gallery.suffix.lower() == ".npz":
                    gallery = self._read_index(gallery)
            elif isinstance(gallery, Index):
                check_index(gallery, gallery.folder, self.embed, invert=self.invert)
            return search(
                self.embed, query, gallery, top=top, batch_size=self._model.batch_size,
                within=within, progress=progress,
            )  # fmt: skip

    def near_duplicates(
        self,
        source: str | os.PathLike[str],
        *,
        progress: Progress | None = None,
    ) -> list[tuple[str, str, float]]:
        """Find the pairs of images of a folder, or of an index, within the threshold.

        Every image is compared with every other one. `with_threshold` with a small distance finds
        near-duplicates.

        Args:
            source: Folder of image files; those that cannot be decoded are skipped with a
                warning. Or an index, the path of an `.npz` file that `index` wrote.
            progress: Called with how many images are embedded and how many there are.

        Returns:
            The two files of each pair, relative to the folder for an index, and their distance, the
            smallest first.

        Raises:
            DataError: When `source` has no image that can be read, or more than a million pairs.
            ModelError: When the index is of another model, or a server has no threshold: its
                `with_threshold` sets one.

        Also raises what `embed` raises.
        """
        if self.threshold is None:
            raise ModelError(
                "A server does not report its threshold: set one with `with_threshold`."
            )
        index = None
        if Path(source).suffix.lower() == ".npz":
            index = self._read_index(source)
            names, embeddings = index.names.tolist(), index.embeddings
        else:
            files, embeddings = self.embed_folder(source, progress=progress)
            names = list(map(str, files))
        columns = [values.tolist() for values in near_pairs(embeddings, self.threshold)]
        if index is not None:
            warn_of_changes(index, [*columns[0], *columns[1]])
        return [(names[left], names[right], d) for left, right, d in zip(*columns, strict=True)]

    def compare_file(
        self,
        pairs: str | os.PathLike[str],
        output: str | os.PathLike[str],
        *,
        prior: float = 0.5,
        progress: Progress | None = None,
    ) -> tuple[int, int]:
        """Compare the pairs of a CSV file and write them with the answers to another one.

        Rows are read, compared and written a part at a time. A row that cannot be compared is
        logged with its line, and the others go on.

        Args:
            pairs: CSV file with a header line; the columns `left` and `right`, in any case, hold
                the paths of image files, relative to the folder of the CSV file. Other columns
                are kept. Commas, semicolons or tabs separate the values, in `output` too.
            output: CSV file to write, which gets the columns `distance`, `similarity`, `same` (1 or
                0) and `error`, of which either the last or the others are empty.
            prior: As in `compare`.
            progress: Called with how many lines are done and how many there are.

        Returns:
            How many pairs were compared, and how many could not be.

        Raises:
            ArgumentError: When `prior` is out of range, or `output` does not end in `.csv`, is the
                file of the pairs, or lies in a folder that does not exist or cannot be written to.
            DataError: When `pairs` lacks a column or is not CSV; nothing is written.
            ModelError: When the model is a server, or does not answer.
            OSError: When a CSV file cannot be read or written.
        """
        calibration = self.calibration
        if calibration is None:
            raise ModelError(
                "Pairs of a file need a run or an export: a server does not report its threshold."
            )
        prior_shift(prior)
        return compare_file(
            self.embed,
            functools.partial(_decided, calibration, prior),
            expanded(pairs),
            check_output(output, ".csv"),
            batch_size=self._model.batch_size,
            progress=progress,
        )

    def _read_index(self, path: str | os.PathLike[str]) -> Index:
        path = expanded(path)
        index = read_index(path)
        check_index(index, path, self.embed, invert=self.invert)
        return index

    def evaluate(
        self,
        dataset: Dataset,
        *,
        baselines: bool = False,
        pair_file: str | os.PathLike[str] | None = None,
        progress: Progress | None = None,
    ) -> Report:
        """Score the model on a dataset's test images.

        Args:
            dataset: The dataset that the model was trained on, unseen classes too.
            baselines: Score all baselines, not just raw pixels, and classify test images by their
                nearest train images. That takes several times as long.
            pair_file: CSV file of further test pairs, `left,right,same`, as `read_pair_file` has
                it: the pairs of a protocol that the dataset brings along.
            progress: Called, for each set of images, with how many are embedded and how many there
                are.

        Returns:
            The report.

        Raises:
            DataError: When it is not the dataset of the training, or `pair_file` cannot be read.
            ModelError: When the model is a server, or inverts images.
        """
        from siamese_keras.evaluation.report import evaluate

        if self.calibration is None or self.config is None:
            raise ModelError(
                "A server's model cannot be evaluated: it does not report its calibration."
            )
        if self.invert:
            raise ModelError(
                "A verifier with `invert` cannot be evaluated: load it without `invert`."
            )
        expected = self.training.get("data")
        if dataset.fingerprint != expected:
            raise DataError(
                "The dataset must be the one that the model was trained on: test images of another "
                f"one may have been training images. Its fingerprint: {str(expected)[:12]}..., "
                f"images: {self.training.get('images')}. Received: {dataset.fingerprint[:12]}..., "
                f"{dataset!r}"
            )
        given = None
        if pair_file is not None:
            given = read_pair_file(expanded(pair_file), dataset.image_shape)
        report = evaluate(
            functools.partial(self.embed, progress=progress),
            self.calibration,
            dataset,
            unseen_classes=self.config.unseen_classes,
            baselines=self._own_baselines() if baselines else None,
            training=self.training,
            history=self.history,
            given=given,
        )
        self.metrics = report.metrics
        return report

    def _own_baselines(self) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
        """Return the base model with random weights, the same ones every time."""
        if self.base_model is None or self.config is None:
            return {}
        import keras

        from siamese_keras.models.embedder import KerasEmbedder

        keras.utils.set_random_seed(self.config.seed)
        random = keras.models.clone_model(self.base_model)
        return {"random_base_model": Verifier(KerasEmbedder(random), None).embed}

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the run: its settings, models, history, table of false accepts and `model.json`.

        Args:
            folder: A folder; it is created when it is missing. A run in it is replaced, together
                with its report.

        Raises:
            ModelError: When the model is an exported one, or inverts images.
            OSError: When it cannot be written.
        """
        from siamese_keras.runs import save_run

        outer, calibration, config = self._trained("saved")
        facts = {"name": self.name, "class_names": self.class_names, "training": self.training}
        save_run(
            expanded(folder), config, outer, calibration, self.history, facts, self.false_accepts
        )

    def export(
        self,
        folder: str | os.PathLike[str],
        *,
        format: str = "saved_model",
        quantize: str | None = None,
    ) -> Path:
        """Write the model for a server or another runtime as the next version below `folder`.

        Args:
            folder: `saved_models/<name>`; created when it is missing.
            format: "saved_model", for TensorFlow Serving; "litert", for phones and small machines,
                which needs the extra `litert`; or "onnx", the base model for ONNX Runtime and other
                runtimes, which needs the extra `onnx`.
            quantize: "int8" rounds the weights of a LiteRT export to 8 bits.

        Returns:
            The version's folder, `<folder>/<n>`.

        Raises:
            ArgumentError: When `folder` holds versions of a model of other classes or images, or in
                another format, or what the format needs is not installed.
            ModelError: When the model is an exported one or inverts images, or the export does not
                answer as it.
            OSError: When it cannot be written; nothing is left behind.
        """
        from siamese_keras.serving.exporter import export

        outer, calibration, config = self._trained("exported")
        facts = {
            "dataset": self.name,
            "config": dataclasses.asdict(config),
            "training": self.training,
            "metrics": self.metrics,
        }
        return export(
            outer, calibration, folder, class_names=self.class_names, facts=facts,
            false_accepts=self.false_accepts, format=format, quantize=quantize,
        )  # fmt: skip

    def _trained(self, verb: str) -> tuple[keras.Model, Calibration, Config]:
        if self.outer_model is None or self.calibration is None or self.config is None:
            raise ModelError(f"An exported model cannot be {verb} again: load its run instead.")
        if self.invert:
            raise ModelError(
                f"A verifier with `invert` cannot be {verb}, because only the model itself is "
                "stored: load it without `invert`."
            )
        return self.outer_model, self.calibration, self.config

    def _check_shape(self, images: ImageInput) -> None:
        if self.base_model is None or not isinstance(images.items, np.ndarray):
            return
        expected = tuple(self.base_model.input_shape[1:])
        if images.items.shape[1:] != expected:
            raise DataError(
                f"Images must have the shape {expected} of the model's images. Received: "
                f"{images.items.shape[1:]}"
            )


def load_verifier(
    source: str | os.PathLike[str], *, timeout: float = 10.0, invert: bool = False
) -> Verifier:
    """Load a verifier.

    Args:
        source: Folder of a run; folder of an exported model, `saved_models/<name>`, or of one of
            its versions; or the address of a model of a TensorFlow Serving,
            `http://host:8501/v1/models/<name>`.
        timeout: Seconds to wait for a server's answer.
        invert: Invert images before they are embedded.

    Returns:
        The verifier. An exported model and a server answer the same questions, without Keras, but
        cannot be saved or exported again; a server cannot be evaluated, and is first contacted when
        it is asked.

    Raises:
        ModelError: When it cannot be loaded; the message names the file.
        DataError: When its table of false accepts or its history is damaged.
        ArgumentError: When `source` is an address of another kind.
    """
    text = os.fspath(source)
    path = expanded(text)
    if "://" in text:
        name = text.rstrip("/").partition("/v1/models/")[2].partition("/")[0]
        verifier = Verifier(ExportedModel(connect(text, timeout=timeout)), None, name=name)
    elif any((path / name).is_file() for name in ("config.json", "outer.keras")):
        from siamese_keras.runs import load_run

        outer, facts = load_run(path)
        verifier = Verifier.of_model(outer, **facts)
    else:
        verifier = _load_export(newest_version(path))
    verifier.invert = invert
    return verifier


def _load_export(version: Path) -> Verifier:
    ask = load_version(version)
    facts = read_model_json(version)
    false_accepts = read_false_accepts(version / "assets.extra")
    try:
        threshold = facts["threshold"]
        height, width, channels = facts["image_shape"]
        return Verifier(
            ExportedModel(ask, (height, width, channels)),
            Calibration(threshold, facts["slope"], facts.get("midpoint", threshold)),
            config=Config(**facts["config"]),
            class_names=facts["class_names"],
            name=str(facts["name"]),
            training=facts["training"],
            metrics=facts.get("metrics"),
            false_accepts=false_accepts,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"`{version}/assets.extra/model.json` is damaged: {error!r}") from None


def _decided(
    calibration: Calibration, prior: float, left: np.ndarray, right: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return distance, similarity and decision of pairs of embeddings."""
    distance = np.linalg.norm(left - right, axis=1)
    same = calibration.same(distance - max(rounding(left), rounding(right)))
    return distance, calibration.similarity(distance, prior=prior), same


def _count(images: ImageInput) -> str:
    return "one image" if images.is_single else f"{len(images)} images"
