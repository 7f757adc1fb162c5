"""The whole workflow in a few minutes: photos, lists, records, a model, its accuracy, a prediction.

It runs the programs with the commands that a person would type, prints each command before it runs, and summarizes the
results. If an earlier run finished records for the same lists and weights, they are used again.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from configs.activity import doing
from configs.arguments import OneLineParser
from configs.counts import counted
from configs.errors import EXIT_INPUT_ERROR, EXIT_OK, InputError
from configs.file_uris import path_argument
from configs.list_names import SPLITS
from configs.printed_commands import module_words, program_command
from configs.program import run_program
from demo import solar_cells
from preprocess.records.record_set import FAILED_NAME, MANIFEST_NAME, REPORT_FORMAT, REPORT_NAME, sidecar_path
from trainer.data.shared_images import SHARED_IMAGES_NAME
from trainer.reports.console import confusion_table

# Its weights come from the package index, as all that `make setup` installs.
_INSTALLED = "efficientnet_lite0"


def _say(text: str) -> None:
    print(text, flush=True)


def _run(module: str, *arguments: str) -> None:
    """Runs one of our programs and shows its output. If it fails, the demo ends with its exit code."""
    command = [*module_words(module), *arguments]
    _say(f"\n$ {shlex.join(command)}")
    done = subprocess.run(command, check=False)
    if done.returncode != EXIT_OK:
        sys.exit(done.returncode)


def _photos(image_dir: str | None, out: pathlib.Path) -> tuple[str, pathlib.Path]:
    """The name of the photos, and the folder with their class folders."""
    if image_dir is not None:
        folder = pathlib.Path(image_dir)
        if not folder.is_dir():
            raise InputError(
                f"DATA: there is no folder {image_dir!r}. Give one that holds a folder of photos for each class."
            )
        return str(folder), folder
    folder = out / "photos"
    if not folder.is_dir():
        partial = out / "photos.partial"
        solar_cells.make_class_folders(partial)
        partial.rename(folder)
    return solar_cells.NAME, folder


def _choose_backbone(weights: str) -> list[str]:
    """The flags for a network: Inception v3 if its ImageNet weights can be had, else EfficientNet-Lite0 with its own.

    Args:
      weights: "random" for random weights of Inception v3, else "imagenet".

    Raises:
      InputError: the weights of neither can be had.
    """
    from preprocess.backbones.backbone import BackboneSpec, check_weights

    if weights == "random":
        return ["--weights", "random", "--seed", "0"]
    try:
        with doing("looking for ImageNet weights"):
            check_weights(BackboneSpec())
    except InputError:
        check_weights(BackboneSpec(architecture=_INSTALLED))
        _say(
            "\nThe ImageNet weights of Inception v3 are not available (no network, none cached), so the demo uses\n"
            f"{_INSTALLED}, whose ImageNet weights are installed with this project."
        )
        return ["--backbone", _INSTALLED, "--weights", "imagenet"]
    return ["--weights", "imagenet"]


def _out_name(image_dir: pathlib.Path) -> str:
    """The folder for the results of one's own photos: without characters that mean something in patterns of paths."""
    return "data-" + re.sub(r"[^\w.-]+", "_", image_dir.resolve().name)


def _rows(list_path: pathlib.Path) -> Iterator[tuple[str, str]]:
    """(path of the photo, label) of each row of a list."""
    with list_path.open(newline="", encoding="utf-8") as stream:
        for uri, label, *_ in csv.reader(stream):
            yield os.path.normpath(list_path.parent / uri), label


def _job_dir(out: pathlib.Path, data: pathlib.Path, flags: Sequence[str]) -> pathlib.Path:
    """A folder for each combination of lists, photos, flags and program. What changed is embedded again."""
    from preprocess.images.decode import IMAGE_DEFINITION  # here: --help does not need NumPy

    digest = hashlib.sha256(shlex.join([*flags, IMAGE_DEFINITION, str(REPORT_FORMAT)]).encode())
    for path in sorted(data.iterdir()):
        if path.suffix not in (".csv", ".txt"):
            continue
        digest.update(path.name.encode() + path.read_bytes())
        for photo, _ in _rows(path) if path.suffix == ".csv" else ():
            try:
                status = os.stat(photo)
                digest.update(f"{os.path.abspath(photo)}{status.st_size}{status.st_mtime_ns}".encode())
            except OSError:  # A link to nowhere; embedding accounts for it.
                continue
    return out / f"job-{digest.hexdigest()[:12]}"


def _embed(data: pathlib.Path, job: pathlib.Path, flags: Sequence[str]) -> None:
    splits = [split for split in SPLITS if (data / f"{split}.csv").exists()]
    if all(os.path.exists(sidecar_path(str(job / "preproc" / split), MANIFEST_NAME)) for split in splits):
        _say(f"\nThe records of these photos are already in {job}; using them again.")
        return
    _run("pipelines.preproc", "--data_dir", str(data), "--job_dir", str(job), *flags)


def _held_out_photo(data: pathlib.Path, job: pathlib.Path) -> tuple[str, str]:
    """The first photo that training never saw, not even as a copy, and that could be read, and its label.

    If there is none, it is the first photo of the held-out list.
    """
    split = "test" if (data / "test.csv").exists() else "eval"
    copies = _photos_of_other_sets(data, job, split)
    failed_path = pathlib.Path(sidecar_path(str(job / "preproc" / split), FAILED_NAME))
    failed = set()
    if failed_path.exists():
        failed = {json.loads(line)["line"] for line in failed_path.read_text(encoding="utf-8").splitlines()}
    rows = enumerate(_rows(data / f"{split}.csv"), start=1)
    unseen = (row for number, row in rows if number not in failed and row[0] not in copies)
    return next(unseen, next(_rows(data / f"{split}.csv")))


def _photos_of_other_sets(data: pathlib.Path, job: pathlib.Path, split: str) -> set[str]:
    """The paths of the photos of a held-out set that the trainer found in another set too."""
    path = job / "training" / SHARED_IMAGES_NAME
    if not path.exists():
        return set()
    with path.open(newline="", encoding="utf-8") as stream:
        return {os.path.normpath(data / row["uri"]) for row in csv.DictReader(stream) if row["set"] == split}


def _prediction(model: pathlib.Path, photo: str) -> dict[str, Any] | None:
    """The model's prediction for a photo; None if there is none, which `trainer.predict` has explained."""
    command = [*module_words("trainer.predict"), "--model_dir", str(model), "--json", photo]
    _say(f"\n$ {shlex.join(command)}")
    # Both streams of that program get the encoding of this one's messages, so this program can read its output, and its
    # messages are shown as they are meant.
    encoding = sys.stderr.encoding or "utf-8"
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, encoding=encoding, env=environment)
    _say(done.stdout.rstrip())
    return json.loads(done.stdout) if done.returncode == EXIT_OK else None


def _rate(report: dict[str, Any]) -> str:
    """Images a second once the pipeline runs; a dash if there were too few to measure that."""
    rate = report["steady_images_per_sec"]
    return "–" if rate is None else f"{rate:.1f}"


def accuracy_lines(split: str, result: dict[str, Any]) -> list[str]:
    """The accuracy on a held-out set, on the photos that no other set has, and how far it can be trusted.

    Args:
      split: "eval" or "test".
      result: its evaluation, as in metrics.json.
    """
    always = f"always predicting {result['majority_class']!r}: {result['majority_share']:.1%}"
    rest = result.get("without_shared_images")
    if not rest:
        return [f"{split:<5} accuracy {_of_photos(result)} that no other set has ({always})"]
    if not rest["examples"]:
        return [f"{split:<5} all its photos are in other sets too, so it says nothing about new photos ({always})"]
    differing = rest.get("labels_differ", 0)
    there = f", {differing} of them with another label" if differing else ""
    return [
        f"{split:<5} accuracy {_of_photos(rest)} that no other set has",
        f"      with the {rest['left_out']} that other sets have too{there}: {_of_photos(result)} ({always})",
    ]


def _of_photos(result: dict[str, Any]) -> str:
    return f"{result['accuracy']:.1%} on {counted(result['examples'], 'photo')}"


def answer_line(prediction: dict[str, Any], label: str) -> str:
    """What the model says of a photo, whether it is sure of it, and what the folder of the photo says."""
    best = prediction["predictions"][0]
    unsure = "" if prediction["confident"] else f", NOT SURE: below its threshold of {prediction['threshold']:.1%}"
    right = "the same" if best["label"] == label else f"{label}, so it is wrong"
    return f"{prediction['image']}: {best['label']} ({best['score']:.1%}{unsure}); its folder says {right}"


def _print_summary(
    name: str, *, job: pathlib.Path, model: pathlib.Path, label: str, prediction: dict[str, Any] | None, seconds: float
) -> None:
    metrics = json.loads((job / "training" / "metrics.json").read_text())
    _say("\n" + "=" * 78)
    _say(f"From photos of {name} to a prediction, in {seconds:.0f} s")
    _say(f"\n{'':<8}{'rows':>8}{'records':>9}{'failed':>8}{'skipped':>9}{'images/s':>10}")
    for split in SPLITS:
        report_path = sidecar_path(str(job / "preproc" / split), REPORT_NAME)
        if os.path.exists(report_path):
            report = json.loads(pathlib.Path(report_path).read_text())
            failed, skipped = sum(report["failed"].values()), sum(report["skipped"].values())
            _say(f"{split:<8}{report['rows_read']:>8}{report['embedded']:>9}{failed:>8}{skipped:>9}{_rate(report):>10}")
            if failed:
                _say(f"        why they failed: {sidecar_path(str(job / 'preproc' / split), FAILED_NAME)}")
    _say("")
    for split in ("eval", "test"):
        result = metrics.get(split)
        if result:
            for line in accuracy_lines(split, result):
                _say(line)
    _say("eval chose the step, the temperature and the threshold, so its numbers are slightly too good.")
    held_out = "test" if metrics.get("test") else "eval"
    _say(f"\nof the {held_out} set:")
    for line in confusion_table(metrics[held_out]).splitlines():
        _say(line.removeprefix("  "))
    if prediction is not None:
        _say(f"\n{answer_line(prediction, label)}")
    _say(f"\nreport   {job / 'training' / 'report.html'}  (open it in a browser)")
    _say(f"records  {job / 'preproc'}\nmetrics  {job / 'training' / 'metrics.json'}\nmodel    {model}")
    if metrics["backbone"]["random_weights"]:
        _say("RANDOM weights: these numbers show that everything works, not what a model with ImageNet weights can do.")


def next_steps(job: pathlib.Path, photo: str) -> dict[str, str]:
    """The commands that go on from here, by what they do.

    Args:
      job: the folder with the records in `preproc` and the model in `training/model`.
      photo: one to answer for.
    """
    model = str(job / "training" / "model")
    sets = [str(job / "preproc" / split) for split in SPLITS]
    sets = [prefix for prefix in sets if os.path.exists(sidecar_path(prefix, MANIFEST_NAME))]
    return {
        "a web page that answers for photos": program_command("serve", "--model_dir", model),
        "the same answer again; name photos of yours instead": program_command("predict", "--model_dir", model, photo),
        "which labels are probably wrong": _look(job, "audit", sets),
        "which photos are copies of each other": _look(job, "twins", sets),
        "a map on which similar photos lie together": _look(job, "map", sets),
    }


def _look(job: pathlib.Path, name: str, sets: Sequence[str]) -> str:
    """A command that makes a page of the records, in a folder of the job; again if it is there already."""
    out = job / name
    again = ["--overwrite"] if out.exists() else []
    return program_command(name, "--data_paths", ",".join(sets), "--output_path", str(out), *again)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the demo.

    Raises:
      InputError: the folder of photos is missing.
    """
    parser = OneLineParser(module="demo.run", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument(
        "--image_dir",
        type=path_argument,
        metavar="DIR",
        help="your photos, one folder for each class (default: solar cells)",
    )
    parser.add_argument(
        "--max_failed_percent",
        metavar="N",
        default="50",
        help="go on although up to this share of a list's photos cannot be read (default: %(default)s)",
    )
    parser.add_argument(
        "--weights",
        choices=["imagenet", "random"],
        default="imagenet",
        help="random ones show that everything runs, and no accuracy (default: %(default)s)",
    )
    args = parser.parse_args(argv)
    started = time.monotonic()
    root = pathlib.Path(os.path.relpath(pathlib.Path(__file__).parent / "out"))
    name, image_dir = _photos(args.image_dir, root / "solar_cells")
    out = root / ("solar_cells" if args.image_dir is None else _out_name(image_dir))
    data = out / "data"
    # Of few photos of one's own, each class shall have some to evaluate on.
    stratify = [] if args.image_dir is None else ["--stratify"]
    _run("pipelines.ingest", "--image_dir", str(image_dir), "--output_dir", str(data), *stratify)
    if not (data / "eval.csv").exists():
        raise InputError(f"DATA: {image_dir}: there are so few photos that the evaluation list is empty. Add photos.")
    weights = _choose_backbone(args.weights)
    job = _job_dir(out, data, weights)
    _embed(data, job, [*weights, "--max_failed_percent", args.max_failed_percent])
    training = job / "training"
    records = [
        flag
        for split in SPLITS
        if (data / f"{split}.csv").exists()
        for flag in (f"--{split}_data_paths", str(job / "preproc" / split))
    ]
    _run("trainer.task", *records, "--output_path", str(training))
    photo, label = _held_out_photo(data, job)
    prediction = _prediction(training / "model", photo)
    _print_summary(
        name,
        job=job,
        model=training / "model",
        label=label,
        prediction=prediction,
        seconds=time.monotonic() - started,
    )
    if prediction is None:
        _say(f"demo: it embedded, trained and evaluated, but did not predict; all results are in {out}")
        return EXIT_INPUT_ERROR
    _say("")
    for what, command in next_steps(job, photo).items():
        _say(f"next:    {command}  ({what})")
    _say(f"demo: done; it embedded, trained, evaluated and predicted, and all results are in {out}")
    return EXIT_OK


if __name__ == "__main__":
    run_program(main)
