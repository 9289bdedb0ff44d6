"""One of several workers that train together: a program for tests, which `TF_CONFIG` tells apart.

    python worker.py FOLDER EPOCHS [resume]

Writes the run to FOLDER/run if it is the chief, and its weights to FOLDER/weights-INDEX.npz.
"""

import dataclasses
import json
import os
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers.tiny import SAMPLE, TINY
from siamese_keras import connect_workers, fit, load_dataset
from siamese_keras.errors import SiameseKerasError

folder, epochs = Path(sys.argv[1]), int(sys.argv[2])
index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
connect_workers()
dataset = load_dataset("idx", data_dir=SAMPLE, validation_size=100)
config = dataclasses.replace(TINY, filters=(4,), epochs=epochs, schedule="constant", batch_size=48)
verbose = 2 if index == 0 else 0
try:
    verifier = fit(
        dataset, config, run_dir=folder / "run", verbose=verbose, resume=sys.argv[3:] == ["resume"]
    )
except SiameseKerasError as error:
    print(error, file=sys.stderr)
    sys.exit(1)
np.savez(folder / f"weights-{index}.npz", *verifier.base_model.get_weights())
