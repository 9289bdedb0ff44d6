"""Can more images be trained than fit into memory?

    python benchmarks/memory.py FOLDER [--images 240000]

Writes JPEG files of 64 x 64 pixels in 100 classes below FOLDER, 2.9 GB as pixels by default, and
trains one epoch of preset `fast` on them, from a cache on disk (`cache_dir`), in a process that may
allocate at most 2 GB (`RLIMIT_DATA`; what is mapped from files does not count, since the system
drops it when memory gets short). Then reads them once more. Prints and writes
`benchmarks/memory.json`. Linux.
"""

from __future__ import annotations

import argparse
import dataclasses
import resource
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from compare import in_own_process
from PIL import Image

from siamese_keras import PRESETS, fit, load_dataset
from siamese_keras.files import write_json

LIMIT = 2_000_000_000
CLASSES = 100
SIZE = 64


def write_images(folder: Path, count: int) -> None:
    """Write noisy images, each class around a pattern of its own, unless they are there."""
    rng = np.random.default_rng(0)
    for number in range(CLASSES):
        path = folder / f"class{number:02d}"
        path.mkdir(parents=True, exist_ok=True)
        pattern = rng.integers(0, 256, (8, 8, 3)).repeat(SIZE // 8, 0).repeat(SIZE // 8, 1)
        missing = range(len(list(path.iterdir())), count // CLASSES)
        for i in missing:
            noise = rng.integers(-60, 61, (SIZE, SIZE, 3), np.int16)
            image = np.clip(pattern + noise, 0, 255).astype(np.uint8)
            Image.fromarray(image).save(path / f"{i:06d}.jpg", quality=90)


class Peak(threading.Thread):
    """Watches how much memory this process has of its own, files that it maps aside."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes = 0
        self.start()

    def run(self) -> None:
        """Look twenty times a second."""
        while True:
            text = Path("/proc/self/status").read_text()
            (line,) = (line for line in text.splitlines() if line.startswith("RssAnon:"))
            self.bytes = max(self.bytes, int(line.split()[1]) * 1024)
            time.sleep(0.05)


def train(folder: Path, cache_dir: Path) -> dict[str, Any]:
    """Read and train under the limit, and return what it took."""
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))
    peak = Peak()
    seconds = {}
    started = time.perf_counter()
    dataset = load_dataset("folder", folder, cache_dir=cache_dir)
    seconds["read"] = time.perf_counter() - started
    config = dataclasses.replace(PRESETS["fast"], epochs=1)
    verifier = fit(dataset, config, verbose=0)
    seconds["fit"] = verifier.training["fit_seconds"]
    started = time.perf_counter()
    load_dataset("folder", folder, cache_dir=cache_dir)
    seconds["read_again"] = time.perf_counter() - started
    count = sum(map(len, dataset.splits.values()))
    return {
        "images": count,
        "pixel_bytes": count * int(np.prod(dataset.image_shape)),
        "limit_bytes": LIMIT,
        "peak_bytes": peak.bytes,
        **{f"{name}_seconds": round(value, 2) for name, value in seconds.items()},
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--images", type=int, default=240_000)
    options = parser.parse_args()
    images = options.folder / "images"
    write_images(images, options.images)
    result = in_own_process(train, images, options.folder / "cache")
    for name, value in result.items():
        print(f"{name:<20}  {value:,}")
    write_json(Path(__file__).with_suffix(".json"), result)


if __name__ == "__main__":
    main()
