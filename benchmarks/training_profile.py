"""Where the time of a training step goes, in milliseconds of a core, beside what the arithmetic alone takes.

    python -m benchmarks.training_profile [--batch_size N] [--rounds N] [--quick]

The arithmetic is the two matrix products of the hidden layer and Adam's update of its weights, in the same loop of a
TensorFlow function, in float32 and in bfloat16 (with the casts of its factors and products, because the weights are
float32). All variants run in turns. CPU time is compared and not wall time, so that other programs on the
machine change little. The difference of two variants is what the part costs that one of them lacks.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.report import Figure, finish, noise_of, say
from configs.errors import EXIT_OK
from configs.program import run_program
from preprocess.backbones.tensorflow_import import import_tensorflow

_SIZE, _HIDDEN, _CLASSES = 2048, 512, 20
_TARGET = 0.9
GROUP_STEPS = 20
_STATISTICS = (np.zeros(_SIZE, np.float32), np.ones(_SIZE, np.float32))


def _steps(*, bfloat16: bool = False) -> Callable[[Any, Any], Any]:
    """The steps of our loop."""
    tf = import_tensorflow()

    from trainer.training.head import build_head
    from trainer.training.loop import training_steps
    from trainer.training.optimizers import make_optimizer

    head = build_head(
        embedding_size=_SIZE, num_classes=_CLASSES, hidden_units=_HIDDEN, seed=0, mean_and_variance=_STATISTICS
    )
    variables = [variable.value for variable in head.trainable_variables]
    optimizer = make_optimizer("adam", variables, learning_rate=1e-3, weight_decay=0.0)

    def losses_of(logits: Any, targets: Any) -> Any:
        return tf.nn.softmax_cross_entropy_with_logits(labels=targets, logits=logits)

    return training_steps(head, optimizer, losses_of, l2=0.0, exchange=None, bfloat16=bfloat16)


def arithmetic(batch_size: int, *, update: bool, bfloat16: bool = False) -> Callable[[Any, Any], Any]:
    """The matrix products alone, or with Adam's update of the large layer."""
    tf = import_tensorflow()
    weights, momentum, velocity = (tf.Variable(tf.random.uniform([_SIZE, _HIDDEN])) for _ in range(3))
    outputs = tf.random.normal([batch_size, _HIDDEN])
    dtype = tf.bfloat16 if bfloat16 else tf.float32

    @tf.function(autograph=False)
    def steps(embeddings: Any, targets: Any) -> Any:
        def body(i: Any, total: Any) -> tuple[Any, Any]:
            inputs = tf.cast(embeddings[i], dtype)
            forward = tf.matmul(inputs, tf.cast(weights, dtype))
            gradient = tf.cast(tf.matmul(inputs, tf.cast(outputs, dtype), transpose_a=True), tf.float32)
            if update:
                tf.raw_ops.ResourceApplyAdam(
                    var=weights.handle,
                    m=momentum.handle,
                    v=velocity.handle,
                    beta1_power=0.9,
                    beta2_power=0.999,
                    lr=1e-3,
                    beta1=0.9,
                    beta2=0.999,
                    epsilon=1e-7,
                    grad=gradient,
                )
            return i + 1, total + tf.cast(forward[0, 0], tf.float32) + gradient[0, 0]

        return tf.while_loop(lambda i, _: i < GROUP_STEPS, body, (0, 0.0))[1]

    return steps


def _groups(examples: np.ndarray, batch_size: int, *, dropout: float, standardize: bool) -> Callable[[Any, Any], Any]:
    """Makes a step group, as the prefetching thread does, with or without two parts of it."""
    from trainer.data.embeddings import MemoryEmbeddings
    from trainer.training.batches import aligned_empty, tensor_of
    from trainer.training.inputs import TrainingInputs

    shuffle = MemoryEmbeddings(examples).shuffled(0)
    inputs = TrainingInputs(mean_and_variance=_STATISTICS if standardize else None, dropout=dropout, seed=0)

    def make(embeddings: Any, targets: Any) -> Any:
        group = aligned_empty(GROUP_STEPS * batch_size, _SIZE)
        shuffle.fill(group)
        of_steps = group.reshape(GROUP_STEPS, batch_size, _SIZE)
        for step, of_step in enumerate(of_steps):
            inputs.prepare(of_step, step=step)
        return tensor_of(of_steps)

    return make


def profile(batch_size: int, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of a core for a step, by variant, in each round."""
    tf = import_tensorflow()
    random = np.random.default_rng(0)
    examples = random.random((100 * batch_size, _SIZE), np.float32)
    embeddings = tf.constant(examples[: GROUP_STEPS * batch_size].reshape(GROUP_STEPS, batch_size, _SIZE))
    classes = random.integers(_CLASSES, size=(GROUP_STEPS, batch_size))
    targets = tf.constant(np.eye(_CLASSES, dtype=np.float32)[classes])
    variants = {
        "a step": _steps(),
        "a step in bfloat16": _steps(bfloat16=True),
        "the arithmetic": arithmetic(batch_size, update=True),
        "the arithmetic in bfloat16": arithmetic(batch_size, update=True, bfloat16=True),
        "the matrix products": arithmetic(batch_size, update=False),
        "the matrix products in bfloat16": arithmetic(batch_size, update=False, bfloat16=True),
        "making its group": _groups(examples, batch_size, dropout=0.5, standardize=True),
        "making its group without dropout": _groups(examples, batch_size, dropout=0.0, standardize=True),
        "making its group without standardization": _groups(examples, batch_size, dropout=0.5, standardize=False),
    }
    took: dict[str, list[float]] = {name: [] for name in variants}
    for run in variants.values():
        run(embeddings, targets)  # Traces it.
    for _ in range(rounds):
        for name, run in variants.items():
            started = time.process_time()
            np.asarray(run(embeddings, targets))
            took[name].append(1e3 * (time.process_time() - started) / GROUP_STEPS)
    return took


def figures(took: dict[str, list[float]]) -> list[Figure]:
    """The figures of the table: what the arithmetic takes, as a share of what a step takes with its group."""
    medians = {name: float(np.median(milliseconds)) for name, milliseconds in took.items()}
    found = []
    for precision, suffix in (("float32", ""), ("bfloat16", " in bfloat16")):
        step, least = f"a step{suffix}", f"the arithmetic{suffix}"
        ours = medians[step] + medians["making its group"]
        ratio = medians[least] / ours
        shares = [a / (b + c) for a, b, c in zip(took[least], took[step], took["making its group"], strict=True)]
        found.append(
            Figure(
                figure=f"a training step of a default head, of what the arithmetic allows ({precision}, CPU time)",
                ours=f"{ours:.3g} ms of a core",
                peer=f"{medians[least]:.3g} ms of a core",
                ratio=round(ratio, 4),
                target=f">= {_TARGET:g}",
                met=ratio >= _TARGET,
                noise=noise_of(shares),
            )
        )
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training_profile", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--batch_size", type=int, default=100, help="(default: 100)")
    parser.add_argument("--rounds", type=int, default=15, help="(default: 15)")
    parser.add_argument("--quick", action="store_true", help="three rounds")
    args = parser.parse_args(argv)
    took = profile(args.batch_size, 3 if args.quick else args.rounds)
    for name, milliseconds in took.items():
        say(f"{name}: {np.median(milliseconds):.2f} ms of a core (least {min(milliseconds):.2f})")
    finish("training_profile", figures(took), core_ms={name: float(np.median(values)) for name, values in took.items()})
    return EXIT_OK


if __name__ == "__main__":
    run_program(main)
