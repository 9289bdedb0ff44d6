"""What the documentation site needs beyond its pages: files of other folders, formulas, settings.

MkDocs calls the functions named `on_...`; see `hooks` in `mkdocs.yml`.
"""

import dataclasses
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

from latex2mathml.converter import convert
from mkdocs.structure.files import File

from siamese_keras.config import Config

ROOT = Path(__file__).parent.parent
SHARED = ("diagrams/*.png", "examples/*", "benchmarks/README.md")


def formula(source, language, css_class, options, md, **_):
    """Turn the LaTeX of a `math` block, which GitHub shows as a formula too, into MathML."""
    return f'<div class="formula">{convert(source, display="block")}</div>'


def on_config(config):
    """Name `formula` as what formats `math` blocks."""
    fence = {"name": "math", "class": "formula", "format": formula}
    config.mdx_configs.setdefault("pymdownx.superfences", {})["custom_fences"] = [fence]
    return config


def on_files(files, config):
    """Add the files outside `docs/` that pages link to."""
    for pattern in SHARED:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def settings():
    """Return a Markdown table of the settings of a training, with the values of preset `fast`."""
    hints = get_type_hints(Config)
    rows = (
        f"| `{field.name}` | `{field.default!r}` | {choices(field, hints[field.name])} "
        f"| {field.metadata['help']} |"
        for field in dataclasses.fields(Config)
    )
    header = ["| setting | default | choices | meaning |", "| --- | --- | --- | --- |"]
    return "\n".join([*header, *rows])


def choices(field, hint):
    """Return the values of a setting, or their range, where it has such."""
    if get_origin(hint) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(hint))
    limits = field.metadata["limits"].items()
    return ", ".join(f"{name.replace('_', ' ')} {v}" for name, v in limits if v is not None)


def on_page_markdown(markdown, page, **_):
    """Fill in the settings; let links that leave `docs/`, as on GitHub, stay within the site."""
    markdown = markdown.replace("<!-- settings -->", settings())
    if page.file.src_uri == "benchmarks/README.md":
        return markdown.replace("](../docs/", "](../")
    return markdown.replace("](../", "](")
