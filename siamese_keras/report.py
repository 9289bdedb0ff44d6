"""Write the report page of a run, or a page that compares several.

    python -m siamese_keras.report RUN
    python -m siamese_keras.report RUN RUN ... [--output comparison.html]

Writes `report.html` into the run: one file with all figures, which opens in a browser without a
network.
"""

from __future__ import annotations

import sys
from pathlib import Path

from siamese_keras.command_line import local_path, make_parser, run_program


def main(argv: list[str] | None = None, prog: str = "python -m siamese_keras.report") -> int:
    """Run the command line and return its exit status."""
    parser = make_parser(
        prog, "Write the report page of a run, or a page that compares several runs."
    )
    parser.add_argument(
        "runs",
        type=local_path,
        nargs="+",
        metavar="RUN",
        help="folder that training wrote; several are compared, and so are the seeds of a folder "
        "that `train --seeds` wrote",
    )
    parser.add_argument(
        "--output",
        type=local_path,
        metavar="FILE",
        help="HTML file to write (default: report.html in the run, comparison.html for several)",
    )
    options = parser.parse_args(argv)

    def program() -> None:
        from siamese_keras.evaluation.report_page import (
            run_folders,
            write_comparison_page,
            write_run_page,
        )
        from siamese_keras.files import check_output

        output = options.output and check_output(options.output, ".html")
        folders = [folder for path in options.runs for folder in run_folders(path)]
        if len(folders) == 1:
            path = write_run_page(folders[0], output)
        else:
            path = write_comparison_page(folders, output or Path("comparison.html"))
        print(f"written: {path}")

    return run_program(program, traceback=options.traceback, quiet=options.quiet)


if __name__ == "__main__":
    sys.exit(main())
