"""Write the embeddings of a folder of images.

    python -m siamese_keras.embed FOLDER --output embeddings.npz [--model MODEL]
    python -m siamese_keras.embed FOLDER --output embeddings.csv

The `.npz` file holds `names`, the files' paths relative to FOLDER, and `embeddings`, float32
`[n, embedding_dim]`. The `.csv` file has a line for each image: its name and its embedding.
"""

from __future__ import annotations

import csv
import sys

from siamese_keras.command_line import local_path, make_parser, run_program
from siamese_keras.model_options import add_model_options, load_from_options


def main(argv: list[str] | None = None, prog: str = "python -m siamese_keras.embed") -> int:
    """Run the command line and return its exit status."""
    parser = make_parser(prog, "Write the embeddings of a folder of images.")
    parser.add_argument("folder", type=local_path, metavar="FOLDER", help="folder of images")
    parser.add_argument(
        "--output",
        type=local_path,
        required=True,
        metavar="FILE",
        help="file to write: NAME.npz (names and embeddings) or NAME.csv (a line for each image)",
    )
    add_model_options(parser)
    options = parser.parse_args(argv)

    def program() -> None:
        import numpy as np

        from siamese_keras.files import atomic_path, check_output
        from siamese_keras.progress import progress_line

        output = check_output(options.output, ".npz", ".csv")
        verifier = load_from_options(options)
        files, embeddings = verifier.embed_folder(options.folder, progress=progress_line("images"))
        names = [path.relative_to(options.folder).as_posix() for path in files]
        with atomic_path(output) as temporary:
            if output.suffix.lower() == ".npz":
                with temporary.open("wb") as archive:  # given a name, NumPy may add `.npz` to it
                    np.savez(archive, names=np.array(names), embeddings=embeddings)
            else:
                with temporary.open(
                    "w", newline="", encoding="utf-8", errors="surrogateescape"
                ) as file:
                    writer = csv.writer(file)
                    writer.writerow(["name", *(f"e{i}" for i in range(embeddings.shape[1]))])
                    rows = zip(names, embeddings, strict=True)
                    writer.writerows([name, *map(str, row)] for name, row in rows)
        print(f"{output}: {len(names)} embeddings of {embeddings.shape[1]} numbers")

    return run_program(program, traceback=options.traceback, quiet=options.quiet)


if __name__ == "__main__":
    sys.exit(main())
