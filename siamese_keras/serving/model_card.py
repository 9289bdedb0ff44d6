"""The model card of an export: what the model was trained on, its figures and its limits.

After Mitchell et al., "Model Cards for Model Reporting" (2019).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jinja2

MODEL_CARD = "assets.extra/model_card.md"  # in the folder of a version


def model_card(information: Mapping[str, Any]) -> str:
    """Return the model card of an export as Markdown.

    Args:
        information: Content of its `model.json`.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("siamese_keras.serving"),
        autoescape=False,  # Markdown
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["figure"] = "{:.4f}".format
    return environment.get_template("model_card.md").render(information)
