"""Training a head on embeddings from TFRecords: time against a plain Keras loop, accuracy against logistic regression.

Usage: python -m benchmarks.training [--examples 100000] [--epochs 20] [--bottlenecks FILE.npz] [--json]

Both loops run in this process, one after the other, on the same files, with the same head, optimizer and batch size. A
lower bound for both is measured too: two matrix products and one update of the weights for each step, and nothing else.
The last printed line is one JSON object; with --json it is the only line on standard output.

Accuracy is compared with two logistic regressions on the same splits. The head needs examples to choose its checkpoint,
and a regression does not. The first regression learns from the head's training part, and chooses C on the part on which
the head chooses its checkpoint. The second learns from both parts together, and chooses C by cross-validation. The head
is trained in bfloat16, as the trainer does where the processor has it, and compared with the same head trained in
float32.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import io
import json
import os
import posixpath
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.training_profile import GROUP_STEPS, arithmetic
from configs.program import run_program
from preprocess.backbones.tensorflow_import import import_tensorflow
from preprocess.images.decode import IMAGE_DEFINITION
from preprocess.machine.processor import processor_has_bfloat16
from preprocess.records.backbone_identity import BackboneIdentity
from preprocess.records.example import EMBEDDING_FEATURE, LABEL_FEATURE, encode_example
from preprocess.records.record_set import MANIFEST_NAME, Manifest, Shard, shard_name, sidecar_path
from preprocess.records.tfrecord import frame_record

if TYPE_CHECKING:
    from trainer.data.dataset import EmbeddingDataset

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_BOTTLENECKS = os.path.join(os.path.dirname(_ROOT), "shared/data/inception_v3_bottlenecks/style.npz")
_SIZE = 2048
_CLASSES = 20
_SHARD_RECORDS = 1024
_BATCH = 100
_LEARNING_RATE = 1e-3
_SEEDS = 10
_C_GRID = (1e-4, 1e-3, 1e-2, 1e-1)
_FOLDS = 3


def say(text: str) -> None:
    """Prints a line for people at once."""
    print(text, file=sys.stderr, flush=True)


def synthetic(examples: int, *, seed: int) -> Iterator[tuple[np.ndarray, int]]:
    """Embeddings and their classes. Like those of a pooled ReLU layer, they are never negative; the classes overlap."""
    centres = np.random.default_rng(99).normal(0, 0.09, (_CLASSES, _SIZE)).astype(np.float32)
    random = np.random.default_rng(seed)
    for _ in range(examples):
        label = int(random.integers(_CLASSES))
        values = centres[label] + random.standard_normal(_SIZE, np.float32)
        yield np.maximum(values, 0) * np.float32(0.5), label


def write_set(prefix: str, examples: Iterator[tuple[np.ndarray, int]], count: int, labels: Sequence[str]) -> None:
    """Writes a record set as the pipeline does: shards and a manifest."""
    size = _SIZE
    identity = BackboneIdentity(
        architecture="inception_v3",
        weights="random",
        seed=0,
        weights_digest="sha256:" + "0" * 64,
        embedding_size=size,
        image_definition=IMAGE_DEFINITION,
    )
    os.makedirs(os.path.dirname(sidecar_path(prefix, MANIFEST_NAME)), exist_ok=True)
    num_shards = -(-count // _SHARD_RECORDS)
    shards = []
    for index in range(num_shards):
        records = min(_SHARD_RECORDS, count - index * _SHARD_RECORDS)
        raw = b"".join(
            frame_record(
                encode_example(
                    image_uri=f"photos/{label}/{index * _SHARD_RECORDS + i}.jpg", embedding=values, label_ids=[label]
                )
            )
            for i, (values, label) in zip(range(records), examples, strict=False)
        )
        name = shard_name(posixpath.basename(prefix), index, num_shards, "none")
        with open(os.path.join(os.path.dirname(prefix), name), "wb") as stream:
            stream.write(raw)
        digest = hashlib.sha256(raw).hexdigest()
        shards.append(Shard(name=name, records=records, num_bytes=len(raw), sha256=digest))
    manifest = Manifest(
        backbone=identity, labels=tuple(labels), compression="none", records=count, shards=tuple(shards)
    )
    with open(sidecar_path(prefix, MANIFEST_NAME), "wb") as stream:
        stream.write(manifest.to_bytes())


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds of a whole training, the seconds of reading in it, and the accuracy on held-out data."""

    total_sec: float
    read_sec: float
    accuracy: float


def train_ours(folder: str, *, steps: int, batch_size: int, eval_every: int, max_memory_mb: int | None) -> Timing:
    """Reads and trains with the functions of `trainer.task`, and with its defaults except for the number of steps."""
    from trainer.data.record_sets import find_record_sets
    from trainer.options import TrainingOptions
    from trainer.task import read_datasets
    from trainer.training.loop import train_head
    from trainer.training.progress import TrainingProgress

    options = TrainingOptions(
        train_data_paths=(f"{folder}/train*",),
        eval_data_paths=(f"{folder}/eval*",),
        output_path=f"{folder}/training",
        batch_size=batch_size,
        max_steps=steps,
        eval_every_steps=eval_every,
        max_memory_mb=max_memory_mb,
    )
    started = time.perf_counter()
    sets = {
        "train": find_record_sets(options.train_data_paths, flag="train_data_paths"),
        "eval": find_record_sets(options.eval_data_paths, flag="eval_data_paths"),
    }
    data = read_datasets(sets, max_memory_mb=options.max_memory_mb)
    read = time.perf_counter() - started
    with TrainingProgress(steps, stream=io.StringIO()) as progress:
        result = train_head(data["train"], data["eval"], options, on_progress=progress.update)
    return Timing(time.perf_counter() - started, read, result.best.eval_accuracy)


def train_naive(folder: str, *, epochs: int, batch_size: int) -> Timing:
    """The loop of a Keras tutorial: `TFRecordDataset` and `map` parse the records again in each epoch."""
    tf = import_tensorflow()
    import keras

    spec = {
        EMBEDDING_FEATURE: tf.io.FixedLenFeature([_SIZE], tf.float32),
        LABEL_FEATURE: tf.io.FixedLenFeature([], tf.int64),
    }

    def parse(record: Any) -> Any:
        example = tf.io.parse_single_example(record, spec)
        return example[EMBEDDING_FEATURE], example[LABEL_FEATURE]

    def batches(name: str) -> Any:
        files = sorted(tf.io.gfile.glob(f"{folder}/{name}-*.tfrecord"))
        return tf.data.TFRecordDataset(files).map(parse)

    keras.utils.set_random_seed(0)
    head = keras.Sequential(
        [
            keras.layers.Input((_SIZE,)),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(512, activation="relu"),
            keras.layers.Dense(_CLASSES),
        ]
    )
    head.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    started = time.perf_counter()
    head.fit(batches("train").shuffle(10_000, seed=0).batch(batch_size), epochs=epochs, verbose=0)
    total = time.perf_counter() - started
    return Timing(total, 0.0, float(head.evaluate(batches("eval").batch(batch_size), verbose=0)[1]))


def arithmetic_sec(*, batch_size: int, bfloat16: bool, repeats: int = 10) -> float:
    """Seconds of the arithmetic of one step: the matrix products of the large layer, and Adam's update.

    It is that of the fastest of `repeats` groups of steps, so it is a lower bound.
    """
    tf = import_tensorflow()
    run = arithmetic(batch_size, update=True, bfloat16=bfloat16)
    embeddings = tf.random.normal([GROUP_STEPS, batch_size, _SIZE])
    seconds = []
    for _ in range(1 + repeats):  # The first one traces it.
        started = time.perf_counter()
        run(embeddings, None).numpy()
        seconds.append((time.perf_counter() - started) / GROUP_STEPS)
    return min(seconds)


class _KerasAdam:
    """`keras.optimizers.Adam` in place of one of ours."""

    def __init__(self, head: Any):
        import keras

        self._variables = head.trainable_variables
        self._optimizer = keras.optimizers.Adam(_LEARNING_RATE)
        self._optimizer.build(self._variables)

    def apply(self, gradients: Sequence[Any]) -> None:
        """Updates the variables of the head."""
        self._optimizer.apply(gradients, self._variables)


def _steps_of(*, keras_layers: bool, keras_optimizer: bool) -> Callable[[np.ndarray, Any], Any]:
    """The steps of our loop for a default head, with our own parts or with those of Keras.

    Args:
      keras_layers: standardizes and drops by layers of the head. Else NumPy does it, and its time is part of the steps,
        although in a training another thread does it.
      keras_optimizer: uses Adam of Keras.
    """
    tf = import_tensorflow()
    import keras

    from trainer.training.batches import aligned_empty, tensor_of
    from trainer.training.head import build_head
    from trainer.training.inputs import TrainingInputs
    from trainer.training.loop import training_steps
    from trainer.training.optimizers import make_optimizer

    statistics = (np.zeros(_SIZE, np.float32), np.ones(_SIZE, np.float32))
    head = build_head(
        embedding_size=_SIZE, num_classes=_CLASSES, hidden_units=512, seed=0, mean_and_variance=statistics
    )
    inputs = TrainingInputs(mean_and_variance=statistics, dropout=0.5, seed=0)
    if keras_layers:
        _, *dense = head.layers
        mean, variance = statistics
        standardize = keras.layers.Normalization(mean=mean, variance=variance)
        dropout = keras.layers.Dropout(0.5, seed=0)
        head = keras.Sequential([keras.layers.Input((_SIZE,)), standardize, dropout, *dense])
    optimizer: Any = _KerasAdam(head)
    if not keras_optimizer:
        variables = [variable.value for variable in head.trainable_variables]
        optimizer = make_optimizer("adam", variables, learning_rate=_LEARNING_RATE, weight_decay=0.0)

    def losses_of(logits: Any, targets: Any) -> Any:
        return tf.nn.softmax_cross_entropy_with_logits(labels=targets, logits=logits)

    steps = training_steps(head, optimizer, losses_of, l2=0.0, exchange=None)

    def run(embeddings: np.ndarray, targets: Any) -> Any:
        count, batch_size, size = embeddings.shape
        group = aligned_empty(count * batch_size, size).reshape(embeddings.shape)
        np.copyto(group, embeddings)
        if not keras_layers:
            for step, of_step in enumerate(group):
                inputs.prepare(of_step, step=step)
        return steps(tensor_of(group), targets)

    return run


def step_row(*, batch_size: int, steps: int = 20, rounds: int = 30) -> dict[str, Any]:
    """Measures a step of our loop with its own parts, and with those of Keras.

    All run in turns, some steps at a time, so other programs on the machine slow all of them down. The medians are
    compared.
    """
    random = np.random.default_rng(0)
    embeddings = random.random((steps, batch_size, _SIZE), np.float32)
    targets = np.eye(_CLASSES, dtype=np.float32)[random.integers(_CLASSES, size=(steps, batch_size))]
    variants = {
        "ours": _steps_of(keras_layers=False, keras_optimizer=False),
        "Keras's layers": _steps_of(keras_layers=True, keras_optimizer=False),
        "Keras's Adam": _steps_of(keras_layers=False, keras_optimizer=True),
        "both of Keras": _steps_of(keras_layers=True, keras_optimizer=True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for run in variants.values():
        run(embeddings, targets).numpy()  # Traces it.
    for _ in range(rounds):
        for name, run in variants.items():
            started = time.perf_counter()
            run(embeddings, targets).numpy()
            seconds[name].append((time.perf_counter() - started) / steps)
    milliseconds = {name: 1e3 * float(np.median(times)) for name, times in seconds.items()}
    say("a step: " + ", ".join(f"{name} {value:.2f} ms" for name, value in milliseconds.items()))
    ratio = milliseconds["both of Keras"] / milliseconds["ours"]
    return {
        "figure": f"a step of a default head on {batch_size} embeddings, milliseconds",
        "ours": round(milliseconds["ours"], 2),
        "peer": round(milliseconds["both of Keras"], 2),
        "ratio": round(ratio, 2),
        "target": ">= 1.1x",
        "met": ratio >= 1.1,
        "peer_is": "the same loop with keras.layers.Normalization and Dropout and keras.optimizers.Adam",
        "keras_layers_ms": round(milliseconds["Keras's layers"], 2),
        "keras_optimizer_ms": round(milliseconds["Keras's Adam"], 2),
    }


def speed_row(args: argparse.Namespace) -> dict[str, Any]:
    """Measures both loops, and describes how they were measured."""
    labels = [f"class {i}" for i in range(_CLASSES)]
    with tempfile.TemporaryDirectory(dir=args.temp_dir) as folder:
        say(f"writing {args.examples} embeddings of {_SIZE} floats to TFRecords")
        held_out = max(_CLASSES, args.examples // 50)
        write_set(f"{folder}/train", synthetic(args.examples, seed=0), args.examples, labels)
        write_set(f"{folder}/eval", synthetic(held_out, seed=1), held_out, labels)
        per_epoch = -(-args.examples // args.batch_size)
        # Each loop runs in two halves, in turns, so other programs on the machine slow both down.
        naive_epochs = min(args.naive_epochs, args.epochs)
        first = train_naive(folder, epochs=max(1, naive_epochs // 2), batch_size=args.batch_size)
        ours = train_ours(
            folder,
            steps=per_epoch * args.epochs,
            batch_size=args.batch_size,
            eval_every=per_epoch,
            max_memory_mb=args.max_memory_mb,
        )
        second = train_naive(folder, epochs=max(1, naive_epochs - naive_epochs // 2), batch_size=args.batch_size)
    ran = max(1, naive_epochs // 2) + max(1, naive_epochs - naive_epochs // 2)
    naive_sec = (first.total_sec + second.total_sec) / ran * args.epochs
    say(
        f"ours   {ours.total_sec:7.1f} s for {args.epochs} epochs with an evaluation after each, of which "
        f"{ours.read_sec:.1f} s reading; best accuracy {ours.accuracy:.3f}"
    )
    say(
        f"naive  {naive_sec:7.1f} s for {args.epochs} epochs without evaluation, extrapolated from {ran} epochs "
        f"({first.total_sec + second.total_sec:.1f} s); accuracy after {naive_epochs - naive_epochs // 2 or 1} of them "
        f"{second.accuracy:.3f}"
    )
    precision = "bfloat16" if processor_has_bfloat16() else "float32"  # As "auto" takes it.
    least_sec = arithmetic_sec(batch_size=args.batch_size, bfloat16=precision == "bfloat16") * per_epoch * args.epochs
    say(
        f"least  {least_sec:7.1f} s for the arithmetic of these steps alone, in {precision} as ours: at most "
        f"{naive_sec / least_sec:.1f} times as fast as the plain loop; ours is {naive_sec / ours.total_sec:.1f} times"
    )
    return {
        "figure": f"head, {args.epochs} epochs on {args.examples} embeddings from TFRecords, seconds",
        "ours": round(ours.total_sec, 2),
        "peer": round(naive_sec, 2),
        "ratio": round(naive_sec / ours.total_sec, 2),
        "target": ">= 5x",
        "met": naive_sec / ours.total_sec >= 5,
        "peer_is": f"Keras fit on TFRecordDataset, {ran} epochs extrapolated to {args.epochs}",
        "ours_read_sec": round(ours.read_sec, 2),
        "arithmetic_sec": round(least_sec, 2),
        "arithmetic_in": precision,
    }


def split(labels: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rows for training, for choosing and for measuring: 60, 20 and 20 % of each class."""
    random = np.random.default_rng(seed)
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        for part, piece in zip(parts, np.split(rows, [round(0.6 * len(rows)), round(0.8 * len(rows))]), strict=True):
            part.extend(piece.tolist())
    return np.array(parts[0]), np.array(parts[1]), np.array(parts[2])


def dataset_of(embeddings: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> EmbeddingDataset:
    """Some rows of labelled embeddings as a data set of the trainer."""
    from trainer.data.dataset import EmbeddingDataset
    from trainer.data.embeddings import MemoryEmbeddings

    return EmbeddingDataset(
        uris=rows.astype(str).astype(object),
        embeddings=MemoryEmbeddings(embeddings[rows].astype(np.float32)),
        label_ids=labels[rows].astype(np.int64),
        label_splits=np.arange(len(rows) + 1),
        labels=tuple(map(str, range(int(labels.max()) + 1))),
        num_unlabeled=0,
    )


def head_accuracy(
    embeddings: np.ndarray, labels: np.ndarray, parts: Sequence[np.ndarray], *, seed: int, **changes: Any
) -> float:
    """Accuracy of the default head on the third part. The first part trains it, the second chooses its checkpoint."""
    from trainer.evaluation.metrics import measure
    from trainer.options import TrainingOptions
    from trainer.training.head import predict_logits
    from trainer.training.loop import train_head

    train, evaluation, test = (dataset_of(embeddings, labels, rows) for rows in parts)
    with tempfile.TemporaryDirectory() as folder:
        options = TrainingOptions(
            train_data_paths=("-",), eval_data_paths=("-",), output_path=folder, seed=seed, **changes
        )
        result = train_head(train, evaluation, options)
    return measure(predict_logits(result.head, test.embeddings.pieces()), test).accuracy


def regression_accuracies(
    embeddings: np.ndarray, labels: np.ndarray, parts: Sequence[np.ndarray]
) -> tuple[float, float]:
    """Accuracies of two standardized logistic regressions on the third part.

    One learns from the first part and chooses C by accuracy on the second part. The other learns from both parts and
    chooses C by cross-validation.
    """
    import threadpoolctl  # type: ignore[import-untyped]
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def regression(strength: float) -> Any:
        return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=200))

    train, choose, test = parts
    both = np.concatenate([train, choose])
    # These matrices are so small that threads only wait for each other.
    with threadpoolctl.threadpool_limits(1):
        fitted = [regression(strength).fit(embeddings[train], labels[train]) for strength in _C_GRID]
        best = max(fitted, key=lambda model: model.score(embeddings[choose], labels[choose]))
        search = GridSearchCV(regression(1.0), {"logisticregression__C": list(_C_GRID)}, cv=_FOLDS)
        search.fit(embeddings[both], labels[both])
        return tuple(float(model.score(embeddings[test], labels[test])) for model in (best, search))  # type: ignore[return-value]


def accuracy_rows(path: str) -> list[dict[str, Any]]:
    """Measures the head, the same head trained in float32, and both regressions on the same splits."""
    with np.load(path) as stored:
        embeddings, labels = stored["embedding"], stored["label"]
    name = os.path.basename(path)
    say(f"{len(labels)} embeddings of {name}, {len(np.unique(labels))} classes, {_SEEDS} splits")
    ours: list[float] = []
    regression = "scikit-learn LogisticRegression, standardized, taught"
    peers: dict[str, tuple[list[float], str]] = {
        "the same head trained in float32": ([], "--training_precision float32"),
        "logistic regression of the same 60 % of the examples": ([], f"{regression} the same 60 % of the examples"),
        "logistic regression of 80 % of the examples": ([], f"{regression} 80 % of the examples"),
    }
    for seed in range(_SEEDS):
        parts = split(labels, seed=seed)
        ours.append(head_accuracy(embeddings, labels, parts, seed=seed, training_precision="bfloat16"))
        in_float32 = head_accuracy(embeddings, labels, parts, seed=seed, training_precision="float32")
        measured = (in_float32, *regression_accuracies(embeddings, labels, parts))
        for (accuracies, _), accuracy in zip(peers.values(), measured, strict=True):
            accuracies.append(accuracy)
        words = ", ".join(f"{accuracy:.3f} {peer}" for peer, accuracy in zip(peers, measured, strict=True))
        say(f"split {seed}: {ours[-1]:.3f} default head in bfloat16, {words}")
    rows = []
    for peer, (accuracies, peer_is) in peers.items():
        difference = float(np.mean(ours) - np.mean(accuracies))
        standard_error = float(np.std(np.subtract(ours, accuracies), ddof=1) / _SEEDS**0.5)
        say(
            f"mean ± deviation: {np.mean(ours):.3f} ± {np.std(ours, ddof=1):.3f} against {np.mean(accuracies):.3f} ± "
            f"{np.std(accuracies, ddof=1):.3f} of {peer}; difference {difference:+.3f}, standard error "
            f"{standard_error:.3f}"
        )
        rows.append(
            {
                "figure": f"accuracy of the default head in bfloat16, {name}, {_SEEDS} splits, against {peer}",
                "ours": round(float(np.mean(ours)), 4),
                "peer": round(float(np.mean(accuracies)), 4),
                "ratio": round(float(np.mean(ours) / np.mean(accuracies)), 3),
                "target": "not below by more than two standard errors of the paired difference",
                "met": difference >= -2 * standard_error,
                "peer_is": peer_is,
                "ours_deviation": round(float(np.std(ours, ddof=1)), 4),
                "peer_deviation": round(float(np.std(accuracies, ddof=1)), 4),
                "difference": round(difference, 4),
                "difference_standard_error": round(standard_error, 4),
            }
        )
    return rows


def main() -> None:
    """Runs the parts that the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__.partition("\n")[0])
    parser.add_argument("--examples", type=int, default=100_000, help="embeddings to train on; 0 skips this part")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument(
        "--naive_epochs", type=int, default=2, help="epochs that the plain loop really runs (at least 2)"
    )
    parser.add_argument("--batch_size", type=int, default=_BATCH, help="of both loops")
    parser.add_argument("--max_memory_mb", type=int, help="as trainer.task takes it; a small one measures streaming")
    parser.add_argument("--bottlenecks", default=_BOTTLENECKS, help="npz with `embedding` and `label`")
    parser.add_argument("--temp_dir", help="where the records go: 8.3 KB an example (default: the system's)")
    parser.add_argument("--json", action="store_true", help="nothing on standard error")
    parser.add_argument("--quick", action="store_true", help="10,000 embeddings, 5 epochs: does everything run?")
    args = parser.parse_args()
    if args.quick:
        args.examples, args.epochs = 10_000, 5
    rows = []
    with contextlib.ExitStack() as stack:
        if args.json:
            quiet = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stderr(quiet))
        import_tensorflow()
        if args.examples:
            rows.append(speed_row(args))
            rows.append(step_row(batch_size=args.batch_size))
        if os.path.exists(args.bottlenecks):
            rows += accuracy_rows(args.bottlenecks)
        else:
            say(f"accuracy: skipped, there is no {args.bottlenecks}")
    print(json.dumps({"benchmark": "training", "rows": rows}))


if __name__ == "__main__":
    run_program(lambda _: main())
