"""The model card of an export: true to its `model.json`, and with the shipped model."""

import json
from pathlib import Path

from siamese_keras.serving.model_card import MODEL_CARD, model_card

SHIPPED = Path(__file__).parents[2] / "saved_models" / "fashion_mnist" / "1"


def information(version):
    return json.loads((version / "assets.extra" / "model.json").read_text())


def test_an_export_has_a_card_of_its_data_and_limits(exported, tiny):
    card = (exported / MODEL_CARD).read_text()
    assert card.startswith("# tiny\n")
    assert "- Dataset: fashion-mnist-sample, images of 28 x 28 pixels, gray\n" in card
    assert "500 for training, 100 for validation and the threshold, 200 for the test" in card
    assert f"when their distance is at most {tiny.threshold:.4f}." in card
    assert "## Limits" in card


def test_the_card_of_the_shipped_model_has_its_figures():
    facts = information(SHIPPED)
    card = (SHIPPED / MODEL_CARD).read_text()
    assert card == model_card(facts), "write it again with `model_card`"
    assert f"{facts['metrics']['test']['accuracy']:.4f} (95 % interval" in card
    assert "T-shirt, trouser, pullover" in card


def test_many_classes_and_held_out_ones(exported):
    facts = information(exported)
    names = [f"class{number}" for number in range(31)]
    training = {**facts["training"], "classes": names}
    seen = {**facts, "class_names": [*names, "boot", "bag"], "training": training}
    card = model_card({**seen, "metrics": None})
    assert "- Classes (31): class0, " in card and "class29, ...\n" in card
    assert "- Classes held out of the training (2): boot, bag\n" in card
    assert "was not scored" in card


def test_a_chosen_threshold_is_not_passed_off_as_the_one_that_was_scored(exported):
    facts = information(exported)
    test = {"accuracy": 0.9, "accuracy_ci95": [0.8, 1], "num_pairs": 9, "threshold": 0.7}
    metrics = {"test": {**test, "roc_auc": 1, "eer": 0}, "retrieval": {"recall_at_1": 1}}
    fitted = model_card({**facts, "threshold": 0.7, "midpoint": 0.7, "metrics": metrics})
    assert "| accuracy on 9 pairs, half of them same |" in fitted
    assert "The threshold is meant for equal numbers of same and different pairs." in fitted
    chosen = model_card({**facts, "threshold": 0.2, "midpoint": 0.7, "metrics": metrics})
    assert "| accuracy on 9 pairs, half of them same, at the distance 0.7000 |" in chosen
    assert "For equal numbers of same and different pairs it is\n  0.7000." in chosen
