"""Score a run and write its verification report.

    python -m siamese_keras.evaluate RUN [--data-dir FOLDER] [--baselines] [--pairs FILE]

Writes `metrics.json`, `classes.csv`, `embeddings.npz`, `figures/` and `report.html` into the run
and prints the main figures.
"""

from __future__ import annotations

import sys

from siamese_keras.command_line import local_path, make_parser, run_program
from siamese_keras.progress import progress_line
from siamese_keras.train_command import data_of_run


def main(argv: list[str] | None = None, prog: str = "python -m siamese_keras.evaluate") -> int:
    """Run the command line and return its exit status."""
    parser = make_parser(
        prog, "Score a run on its test images: metrics.json and report.html are written into it."
    )
    parser.add_argument("run", type=local_path, metavar="RUN", help="folder that training wrote")
    parser.add_argument(
        "--data-dir",
        type=local_path,
        help="folder or file with the data (default: where the training read them)",
    )
    parser.add_argument(
        "--cache-dir",
        type=local_path,
        help="keep the decoded pixels of image files in this folder, not in memory (default: the "
        "cache of the training, if it had one, unless --data-dir is given)",
    )
    parser.add_argument(
        "--baselines",
        action="store_true",
        help="score all baselines and nearest neighbors, not just raw pixels; takes a minute",
    )
    parser.add_argument(
        "--pairs",
        type=local_path,
        metavar="FILE",
        help="CSV file of further test pairs: left,right,same, the paths of two images and 1 or 0",
    )
    options = parser.parse_args(argv)

    def program() -> None:
        from siamese_keras.data.datasets import load_config_dataset
        from siamese_keras.errors import ModelError
        from siamese_keras.evaluation.report_page import write_run_page
        from siamese_keras.verifier import load_verifier

        verifier = load_verifier(options.run)
        if verifier.outer_model is None or verifier.config is None:
            raise ModelError(f"`{options.run}` is not the folder of a run.")
        data_dir, cache_dir = options.data_dir, options.cache_dir
        if data_dir is None:
            data_dir, its_cache = data_of_run(options.run)
            cache_dir = cache_dir or its_cache
        dataset = load_config_dataset(
            verifier.config, data_dir, cache_dir=cache_dir,
            progress=progress_line("images"),
        )  # fmt: skip
        report = verifier.evaluate(
            dataset, baselines=options.baselines, pair_file=options.pairs,
            progress=progress_line("images embedded"),
        )  # fmt: skip
        report.save(options.run)
        print(report)
        print(f"written: {options.run / 'metrics.json'}, {write_run_page(options.run)}")

    return run_program(program, traceback=options.traceback, quiet=options.quiet)


if __name__ == "__main__":
    sys.exit(main())
