"""What the figures of a report are called, and what they mean, for the report page."""

from __future__ import annotations

# Groups of pairs in `metrics.json`, and what they are.
GROUPS = {
    "test": "test pairs",
    "test_hard": "hard pairs",
    "test_deduplicated": "without duplicates",
    "unseen": "unseen classes",
    "given_pairs": "given pairs",
}
GROUP_NOTES = {
    "test_hard": "Hard pairs: the different pairs are of classes that are easily confused.",
    "test_deduplicated": "Without duplicates: without the {removed_images:,} test images that are "
    "also training or validation images.",
    "unseen": "Unseen classes: pairs of classes that are not in the training data.",
    "given_pairs": "Given pairs: the pairs of the file named with --pairs.",
}
# Figures of a group: key, name, meaning, whether more is better.
PAIR_ROWS = (
    ("accuracy", "accuracy", "share of pairs that are decided correctly", True),
    ("roc_auc", "ROC-AUC", "chance that a same pair is nearer than a different pair", True),
    ("average_precision", "average precision", "area under the precision-recall curve", True),
    ("eer", "equal error rate", "error rate where both kinds of error are equally frequent", False),
    (
        "tar_at_far_1e-2",
        "TAR at FAR 1 %",
        "same pairs accepted when 1 % of different ones are",
        True,
    ),
    ("tar_at_far_1e-3", "TAR at FAR 0.1 %", "the same when 0.1 % of different ones are", True),
    ("d_prime", "d'", "distance between the two kinds of pairs, in standard deviations", True),
    ("brier", "Brier score", "mean squared error of the similarity", False),
    ("ece", "calibration error", "mean gap between similarity and share of same pairs", False),
)
RETRIEVAL_ROWS = (
    ("recall_at_1", "Recall@1", "the nearest image is of the same class", True),
    ("recall_at_2", "Recall@2", "one of the two nearest images is", True),
    ("recall_at_5", "Recall@5", "one of the five nearest images is", True),
    (
        "map_at_r",
        "MAP@R",
        "mean average precision over the first R neighbors, R being the number of other images of "
        "the class",
        True,
    ),
    ("map", "mAP", "mean average precision over the whole ranking", True),
    (
        "ap_at_10",
        "AP@10",
        "a tenth of the sum of the precision at each hit among the first ten",
        True,
    ),
    ("nmi", "NMI", "agreement of k-means clusters with the classes", True),
)
# Name of a figure's file: title, what it means, and its class in the page: a chart may be shown in
# inverted colors, and a wide figure takes the whole width.
FIGURES = {
    "test-pairs": (
        "Test pairs",
        "Pairs drawn at random, with their distance, similarity and decision: correct decisions in "
        "green, wrong ones in red.",
        "wide",
    ),
    "worst-mistakes": (
        "Worst mistakes",
        "The wrong decisions that are farthest from the threshold. Wrong labels in the data often "
        "show up here.",
        "wide",
    ),
    "distances": (
        "Distances",
        "How often each distance occurs among same and among different pairs. Pairs to the left of "
        "the threshold are accepted as same; where the two overlap, errors are unavoidable.",
        "chart",
    ),
    "reliability": (
        "Reliability of the similarity",
        "Of the pairs with a similarity of 0.8, 80 % should be same: on the diagonal, the "
        "similarity can be read as a probability.",
        "chart",
    ),
    "roc-and-det": (
        "ROC and DET curve",
        "The two kinds of error at every threshold. A threshold that accepts fewer different pairs "
        "also accepts fewer same pairs.",
        "chart wide",
    ),
    "class-errors": (
        "Errors by class",
        "The error rate for the pairs of every two classes. On the diagonal are same pairs.",
        "chart",
    ),
    "embedding": (
        "Map of the embedding",
        "Test images placed by t-SNE so that near embeddings stay near. Distances between far "
        "groups mean little.",
        "chart",
    ),
    "history": (
        "History of the training",
        "Loss and accuracy after each epoch. A validation loss that rises while the training loss "
        "falls is a sign of overfitting.",
        "chart wide",
    ),
}
