"""Losses of all distances of a batch: every image is an anchor, compared with many others.

Contrastive loss looks at each pair by itself. These losses weigh the pairs of an anchor against
each other, which pays where there are many classes: most different pairs are easy then.

Each is a pure function of `different` and `distance`, both `[anchors, others]`, and a thin
`keras.losses.Loss`. The loss classes also take class labels and embeddings, as in any Keras model
that maps an image to an embedding; `fit` gives them the distances of the outer model.

The module is long since every loss is documented with its formula and source.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from siamese_keras.errors import ArgumentError
from siamese_keras.models.distances import pairwise_euclidean_distance
from siamese_keras.models.unit_length import unit_length
from siamese_keras.training.losses import check_same_shape

_HUGE = 1e9  # stands for infinity, which would turn into NaN in a gradient


def _prepared(different: Any, distance: Any, valid: Any) -> tuple[Any, Any, Any]:
    """Return float32 distances, and bool masks of the same and of the different pairs."""
    distance = ops.cast(ops.convert_to_tensor(distance), "float32")
    different = ops.cast(ops.convert_to_tensor(different), "float32") > 0.5
    check_same_shape(different.shape, distance.shape)
    if len(distance.shape) != 2:
        raise ArgumentError(
            f"`distance` must have the shape [anchors, others]. Received: {tuple(distance.shape)}"
        )
    same = ops.logical_not(different)
    if valid is not None:
        valid = ops.cast(ops.convert_to_tensor(valid), "bool")
        check_same_shape(valid.shape, distance.shape)
        same, different = ops.logical_and(same, valid), ops.logical_and(different, valid)
    return distance, same, different


def _cosine(distance: Any) -> Any:
    """Return the cosine similarity of embeddings of length 1 at a Euclidean distance."""
    return 1.0 - ops.square(distance) / 2.0


def _log_one_plus_sum_exp(values: Any, mask: Any) -> Any:
    """Return log(1 + sum of exp over the masked values) of each row; 0 where there are none."""
    kept = ops.where(mask, values, -_HUGE)
    return ops.logsumexp(ops.pad(kept, ((0, 0), (0, 1))), axis=1)  # exp(0) of the padding is the 1


def multi_similarity_loss(
    different: Any,
    distance: Any,
    *,
    valid: Any = None,
    alpha: float = 2.0,
    beta: float = 50.0,
    base: float = 0.5,
    epsilon: float | None = 0.1,
) -> Any:
    """Compute the multi-similarity loss of each anchor.

    With s the cosine similarity, 1 - distance**2 / 2:
    `log(1 + sum(exp(-alpha * (s - base)))) / alpha` over the same pairs of the anchor plus
    `log(1 + sum(exp(beta * (s - base)))) / beta` over its different pairs.

    Args:
        different: `[anchors, others]`, 1 = different classes, 0 = same class.
        distance: `[anchors, others]`, distances of embeddings of length 1, in [0, 2].
        valid: bool `[anchors, others]`, the pairs that count; None counts all.
        alpha: Scale of the same pairs.
        beta: Scale of the different pairs.
        base: Cosine similarity that same pairs are to exceed and different pairs not to reach.
        epsilon: Margin of the mining, at least 0: only same pairs that are less similar than the
            most similar different pair plus `epsilon` count, and only different pairs that are more
            similar than the least similar same pair minus `epsilon`. None counts all.

    Returns:
        float32 `[anchors]`; 0 for an anchor without pairs that count.

    Raises:
        ArgumentError: When the shapes differ, or are not `[anchors, others]`.

    Reference:
        Wang et al., "Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning"
        (2019).
    """
    distance, same, other = _prepared(different, distance, valid)
    similarity = _cosine(distance)
    if epsilon is not None:
        nearest_other = ops.max(ops.where(other, similarity, -_HUGE), axis=1, keepdims=True)
        farthest_same = ops.min(ops.where(same, similarity, _HUGE), axis=1, keepdims=True)
        same = ops.logical_and(same, similarity - epsilon < nearest_other)
        other = ops.logical_and(other, similarity + epsilon > farthest_same)
    pull = _log_one_plus_sum_exp(-alpha * (similarity - base), same) / alpha
    push = _log_one_plus_sum_exp(beta * (similarity - base), other) / beta
    return pull + push


def semi_hard_triplet_loss(
    different: Any, distance: Any, *, valid: Any = None, margin: float = 1.0
) -> Any:
    """Compute the triplet loss of each same pair with a semi-hard different image.

    `max(distance to same - distance to different + margin, 0)`, where the different image is the
    nearest one that is farther from the anchor than the same image, or the farthest one of all
    when none is. Takes memory for `anchors * others * others` numbers.

    Args:
        different: As in `multi_similarity_loss`.
        distance: `[anchors, others]`, at least 0.
        valid: As in `multi_similarity_loss`.
        margin: How much farther than the same image the different one is to be; positive.

    Returns:
        float32 `[anchors, others]`; 0 at different pairs, and for anchors without different images.

    Raises:
        ArgumentError: When the shapes differ, or are not `[anchors, others]`.

    Reference:
        Schroff, Kalenichenko & Philbin, "FaceNet: A Unified Embedding for Face Recognition and
        Clustering" (2015), there with squared distances. With distances as they are it is the loss
        of TensorFlow Addons.
    """
    distance, same, other = _prepared(different, distance, valid)
    of_pair, of_other = ops.expand_dims(distance, 2), ops.expand_dims(distance, 1)
    beyond = ops.logical_and(ops.expand_dims(other, 1), of_other > of_pair)
    nearest_beyond = ops.min(ops.where(beyond, of_other, _HUGE), axis=2)
    farthest = ops.max(ops.where(other, distance, -_HUGE), axis=1, keepdims=True)
    chosen = ops.where(ops.any(beyond, axis=2), nearest_beyond, farthest)
    counted = ops.logical_and(same, ops.any(other, axis=1, keepdims=True))
    # The inner `where` keeps the infinities of the rows that do not count out of the gradient.
    gap = ops.where(counted, distance - chosen, -_HUGE)
    return ops.where(counted, ops.maximum(gap + margin, 0.0), 0.0)


def supervised_contrastive_loss(
    different: Any, distance: Any, *, valid: Any = None, temperature: float = 0.1
) -> Any:
    """Compute the supervised contrastive loss (InfoNCE with many same pairs) of each anchor.

    The mean over its same pairs of `-log(exp(s / temperature) / sum(exp(s / temperature)))`, the
    sum being over all its pairs, with s the cosine similarity, 1 - distance**2 / 2.

    Args:
        different: As in `multi_similarity_loss`.
        distance: As in `multi_similarity_loss`.
        valid: As in `multi_similarity_loss`.
        temperature: Scale of the similarities; positive.

    Returns:
        float32 `[anchors]`; 0 for an anchor without same pairs.

    Raises:
        ArgumentError: When the shapes differ, or are not `[anchors, others]`.

    Reference:
        Khosla et al., "Supervised Contrastive Learning" (2020), its loss "out".
    """
    distance, same, other = _prepared(different, distance, valid)
    scores = _cosine(distance) / temperature
    counted = ops.logical_or(same, other)
    total = ops.logsumexp(ops.where(counted, scores, -_HUGE), axis=1, keepdims=True)
    log_share = ops.where(same, scores - total, 0.0)
    pairs = ops.sum(ops.cast(same, "float32"), axis=1)
    return -ops.sum(log_share, axis=1) / ops.maximum(pairs, 1.0)


class _BatchLoss(keras.losses.Loss):
    """A loss of all distances of a batch. Subclasses say what an anchor costs.

    `y_true` and `y_pred` are either `different` and `distance`, both `[n, m]`, then left and right
    images are anchors in turn; or class labels `[batch]` or `[batch, 1]` and embeddings
    `[batch, embedding_dim]`, then every image is an anchor among the others.
    """

    unit_length = True  # whether the loss is of embeddings of length 1

    def __init__(
        self, *, reduction: str = "sum_over_batch_size", name: str, dtype: Any = None
    ) -> None:
        super().__init__(reduction=reduction, name=name, dtype=dtype)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return losses whose mean is the loss of the batch."""
        if len(y_true.shape) == 2 and y_true.shape[1] != 1:
            sides = [(y_true, y_pred), (ops.transpose(y_true), ops.transpose(y_pred))]
            return ops.concatenate([ops.reshape(self.losses(*s, None), [-1]) for s in sides])
        labels = ops.reshape(y_true, [-1])
        if len(y_pred.shape) != 2:
            raise ArgumentError(
                f"Embeddings must have the shape [batch, embedding_dim]. Received: {y_pred.shape}"
            )
        if self.unit_length:
            y_pred = unit_length(y_pred)
        distance = pairwise_euclidean_distance([y_pred, y_pred])
        different = ops.not_equal(ops.expand_dims(labels, 1), ops.expand_dims(labels, 0))
        not_itself = ops.logical_not(ops.cast(ops.eye(ops.shape(labels)[0]), "bool"))
        return self.losses(different, distance, not_itself)

    def losses(self, different: Any, distance: Any, valid: Any) -> Any:
        """Return losses whose mean is the loss of the anchors in the rows."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of this loss."""
        return {**super().get_config(), "dtype": self.dtype}  # which Keras leaves out


def _mean_over(losses: Any, counted: Any) -> Any:
    """Weigh losses so that their mean is the mean over those that are counted."""
    counted = ops.cast(counted, "float32")
    size = ops.cast(ops.size(losses), "float32")
    return losses * counted * (size / ops.maximum(ops.sum(counted), 1.0))


@keras.saving.register_keras_serializable(package="siamese_keras")
class MultiSimilarityLoss(_BatchLoss):
    """`multi_similarity_loss` for `model.compile`, the mean over all anchors.

    `y_true` holds class labels, integers `[batch]` or `[batch, 1]`, and `y_pred` float embeddings
    `[batch, embedding_dim]`; or they are `different` and `distance`, both `[n, m]`.

    Args:
        alpha: As in `multi_similarity_loss`.
        beta: As in `multi_similarity_loss`.
        base: As in `multi_similarity_loss`.
        epsilon: As in `multi_similarity_loss`.
        reduction: As in `keras.losses.Loss`.
        name: Name of the loss.
        dtype: As in `keras.losses.Loss`.

    Raises:
        ArgumentError: When `alpha` or `beta` is not positive; when called, if labels or embeddings
            have another shape.

    Example:
        >>> model.compile("adam", MultiSimilarityLoss())
        >>> model.fit(images, labels)  # a model that maps images to embeddings of any length
    """

    def __init__(
        self,
        alpha: float = 2.0,
        beta: float = 50.0,
        base: float = 0.5,
        epsilon: float | None = 0.1,
        *,
        reduction: str = "sum_over_batch_size",
        name: str = "multi_similarity_loss",
        dtype: Any = None,
    ):
        super().__init__(reduction=reduction, name=name, dtype=dtype)
        _check_positive(alpha=alpha, beta=beta)
        self.alpha = alpha
        self.beta = beta
        self.base = base
        self.epsilon = epsilon

    def losses(self, different: Any, distance: Any, valid: Any) -> Any:
        """Return the loss of each anchor."""
        return multi_similarity_loss(
            different, distance, valid=valid, alpha=self.alpha, beta=self.beta, base=self.base,
            epsilon=self.epsilon,
        )  # fmt: skip

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of this loss."""
        own = {"alpha": self.alpha, "beta": self.beta, "base": self.base, "epsilon": self.epsilon}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="siamese_keras")
class TripletSemiHardLoss(_BatchLoss):
    """`semi_hard_triplet_loss` for `model.compile`, the mean over all same pairs.

    With labels and embeddings it is `TripletSemiHardLoss` of TensorFlow Addons. The embeddings are
    taken as they are; scale them to length 1 in the model, as there.

    `y_true` holds class labels, integers `[batch]` or `[batch, 1]`, and `y_pred` float embeddings
    `[batch, embedding_dim]`; or they are `different` and `distance`, both `[n, m]`.

    Args:
        margin: As in `semi_hard_triplet_loss`.
        reduction: As in `keras.losses.Loss`.
        name: Name of the loss.
        dtype: As in `keras.losses.Loss`.

    Raises:
        ArgumentError: When `margin` is not positive; when called, if labels or embeddings have
            another shape.

    Example:
        >>> model.compile("adam", TripletSemiHardLoss())
        >>> model.fit(images, labels)  # a model that maps images to embeddings
    """

    unit_length = False

    def __init__(
        self,
        margin: float = 1.0,
        *,
        reduction: str = "sum_over_batch_size",
        name: str = "triplet_semi_hard_loss",
        dtype: Any = None,
    ):
        super().__init__(reduction=reduction, name=name, dtype=dtype)
        _check_positive(margin=margin)
        self.margin = margin

    def losses(self, different: Any, distance: Any, valid: Any) -> Any:
        """Return the weighted loss of each same pair."""
        found = semi_hard_triplet_loss(different, distance, valid=valid, margin=self.margin)
        same = 1.0 - ops.cast(different, "float32")
        return _mean_over(found, same if valid is None else same * ops.cast(valid, "float32"))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of this loss."""
        return {**super().get_config(), "margin": self.margin}


@keras.saving.register_keras_serializable(package="siamese_keras")
class SupervisedContrastiveLoss(_BatchLoss):
    """`supervised_contrastive_loss` for `model.compile`, the mean over anchors with a same pair.

    `y_true` holds class labels, integers `[batch]` or `[batch, 1]`, and `y_pred` float embeddings
    `[batch, embedding_dim]`; or they are `different` and `distance`, both `[n, m]`.

    Args:
        temperature: As in `supervised_contrastive_loss`.
        reduction: As in `keras.losses.Loss`.
        name: Name of the loss.
        dtype: As in `keras.losses.Loss`.

    Raises:
        ArgumentError: When `temperature` is not positive; when called, if labels or embeddings have
            another shape.

    Example:
        >>> model.compile("adam", SupervisedContrastiveLoss())
        >>> model.fit(images, labels)  # a model that maps images to embeddings of any length
    """

    def __init__(
        self,
        temperature: float = 0.1,
        *,
        reduction: str = "sum_over_batch_size",
        name: str = "supervised_contrastive_loss",
        dtype: Any = None,
    ):
        super().__init__(reduction=reduction, name=name, dtype=dtype)
        _check_positive(temperature=temperature)
        self.temperature = temperature

    def losses(self, different: Any, distance: Any, valid: Any) -> Any:
        """Return the weighted loss of each anchor."""
        found = supervised_contrastive_loss(
            different, distance, valid=valid, temperature=self.temperature
        )
        same = 1.0 - ops.cast(different, "float32")
        same = same if valid is None else same * ops.cast(valid, "float32")
        return _mean_over(found, ops.any(same > 0.5, axis=1))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of this loss."""
        return {**super().get_config(), "temperature": self.temperature}


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ArgumentError(f"`{name}` must be positive. Received: {name}={value}")
