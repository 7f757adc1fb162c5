"""Lists the networks that `--backbone` may name, and whether their ImageNet weights are on this machine.

python -m preprocess.list_backbones
"""

from __future__ import annotations

from collections.abc import Sequence

from configs.arguments import OneLineParser
from configs.console import require_printed
from configs.errors import EXIT_OK
from configs.program import run_program

_EPILOG = (
    "--backbone takes the path of a frozen graph (.pb), of the folder of a SavedModel or TF Hub module, or of a .keras "
    "file as well."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program."""
    parser = OneLineParser(
        module="preprocess.list_backbones", description=(__doc__ or "").partition("\n\n")[0], epilog=_EPILOG
    )
    parser.parse_args(argv)
    # Imported here so that --help answers at once.
    from preprocess.backbones.architectures import ARCHITECTURES
    from preprocess.backbones.weights_files import PackagedFile

    rows = [("backbone", "pixels", "scaling", "embedding", "classes", "weights here", "from", "licence")]
    for name, architecture in ARCHITECTURES.items():
        file, image = architecture.imagenet, architecture.image
        rows.append(
            (
                name,
                str(image.size),
                image.scaling,
                str(architecture.embedding_size),
                "1000" if architecture.build_classifier else "-",
                "yes" if file.find() else "no",
                file.distribution if isinstance(file, PackagedFile) else "keras.applications",
                architecture.licence,
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip())
    print(f"\n{_EPILOG} --weights random works for all of them.")
    require_printed()
    return EXIT_OK


if __name__ == "__main__":
    run_program(main)
