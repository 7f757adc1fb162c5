"""Training on views of images beside a loop that distorts and embeds images in each step, as TensorFlow's retrain.py.

    python -m benchmarks.training_on_views [--photos DIR] [--backbone NAME] [--views K] [--steps N] [--quick]

Ours is the training loop of `trainer.task` with its default head, which draws one of K views of each example. The views
are embedded once, before. Their numbers are random here, because the time of a step does not depend on them.

The peer is the loop of `retrain.py` (2015 to 2018) with distortions: each step decodes a batch of photos, resizes,
crops, mirrors and brightens them at random, runs the network on them, and makes one training step of the same head.
Here it runs the network on the whole batch in one call of Keras, and decodes in parallel threads; retrain.py did both
one image at a time, so this peer is faster than the original. **A few of its steps are measured, and their mean is
multiplied by the number of steps.** The first step is not counted.

The second figure adds to ours the time for embedding all views once, at the price that an image has for the peer.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.photos import add_photos_flag, find_photos
from benchmarks.report import Figure, at_least, finish, say
from benchmarks.training import dataset_of
from configs.counts import counted
from configs.errors import EXIT_OK
from configs.program import run_program
from preprocess.backbones.backbone import BackboneSpec, load_keras_backbone
from preprocess.backbones.tensorflow_import import import_tensorflow

_BACKBONE = "efficientnet_lite0"
_CROP, _SCALE, _BRIGHTNESS = 10, 10, 10
_TARGET = 20.0
_HELD_OUT_SHARE = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distortion:
    """The distortions of retrain.py's `add_input_distortions`, as TensorFlow operations.

    Attributes:
      size: the side of the square that the network takes.
      flip_left_right: whether half of the images are mirrored.
      crop: by how many percent the image is larger than what is cut out.
      scale: by how many percent it is enlarged further, at most.
      brightness: by how many percent its pixels become darker or brighter, at most.
    """

    size: int
    flip_left_right: bool
    crop: int
    scale: int
    brightness: int

    def __call__(self, path: Any, seed: Any) -> Any:
        """The pixels of one photo, float32 [size, size, 3] from 0 to 255, not clipped.

        Args:
          path: the file, a scalar string.
          seed: int32 [2].
        """
        tf = import_tensorflow()
        pixels = tf.cast(tf.io.decode_jpeg(tf.io.read_file(path), channels=3), tf.float32)

        def numbered(number: int) -> Any:
            return tf.add(seed, [number, 0])

        def uniform(number: int, low: float, high: float) -> Any:
            return tf.random.stateless_uniform([], numbered(number), low, high)

        larger = (1 + self.crop / 100) * uniform(1, 1, 1 + self.scale / 100)
        side = tf.cast(larger * self.size, tf.int32)
        resized = tf.compat.v1.image.resize_bilinear(pixels[tf.newaxis], tf.stack([side, side]))[0]
        cropped = tf.image.stateless_random_crop(resized, [self.size, self.size, 3], numbered(2))
        if self.flip_left_right:
            cropped = tf.image.stateless_random_flip_left_right(cropped, numbered(3))
        return cropped * uniform(4, 1 - self.brightness / 100, 1 + self.brightness / 100)


def _options(batch_size: int, steps: int) -> Any:
    from trainer.options import TrainingOptions

    return TrainingOptions(
        train_data_paths=("-",), eval_data_paths=("-",), output_path="-", batch_size=batch_size, max_steps=steps
    )


def train_on_views(
    labels: np.ndarray, *, size: int, num_views: int, batch_size: int, steps: int, seed: int = 0
) -> float:
    """Seconds of a whole training on views in memory, with its evaluations.

    Args:
      labels: int64 [n], of the examples.
      size: floats in an embedding.
      num_views: views of each example.
      batch_size: examples in a step.
      steps: of the training.
      seed: of the random numbers that stand for embeddings.
    """
    from trainer.data.embeddings import MemoryViews
    from trainer.search.cross_validation import fit

    random = np.random.default_rng(seed)
    views = random.random((num_views, len(labels), size), np.float32)
    everything = np.arange(len(labels))
    train = dataclasses.replace(dataset_of(views[0], labels, everything), embeddings=MemoryViews(views))
    evaluation = dataset_of(views[0], labels, everything[::_HELD_OUT_SHARE])
    started = time.perf_counter()
    fit(train, evaluation, _options(batch_size, steps))
    return time.perf_counter() - started


def distorting_loop(
    backbone: BackboneSpec, photos: Sequence[str], labels: np.ndarray, *, batch_size: int, steps: int
) -> tuple[float, float]:
    """The loop that distorts and embeds in each step.

    Returns:
      Mean seconds of a step, and the part of it that distorts and embeds. At least one step more is made.
    """
    tf = import_tensorflow()
    from preprocess.images.decode_graph import scale_pixels
    from trainer.training.head import build_head
    from trainer.training.inputs import TrainingInputs
    from trainer.training.loop import training_steps
    from trainer.training.optimizers import make_optimizer

    network, _ = load_keras_backbone(backbone)
    image = backbone.image
    distort = Distortion(size=image.size, flip_left_right=True, crop=_CROP, scale=_SCALE, brightness=_BRIGHTNESS)
    size, num_classes = network.output_shape[-1], int(labels.max()) + 1
    head = build_head(embedding_size=size, num_classes=num_classes, hidden_units=512, seed=0, mean_and_variance=None)
    optimizer = make_optimizer(
        "adam", [variable.value for variable in head.trainable_variables], learning_rate=1e-3, weight_decay=0.0
    )

    def losses_of(logits: Any, targets: Any) -> Any:
        return tf.nn.softmax_cross_entropy_with_logits(labels=targets, logits=logits)

    train = training_steps(head, optimizer, losses_of, l2=0.0, exchange=None)
    inputs = TrainingInputs(mean_and_variance=None, dropout=0.5, seed=0)
    random = np.random.default_rng(0)
    rows = random.integers(len(photos), size=(steps + 1, batch_size))
    images = tf.data.Dataset.from_tensor_slices(
        (np.array(photos)[rows.ravel()], np.stack([np.zeros(rows.size), np.arange(rows.size)], 1).astype(np.int32))
    )
    batches = images.map(distort, num_parallel_calls=tf.data.AUTOTUNE).batch(batch_size)
    embed_sec, step_sec = [], []
    started = time.perf_counter()
    for step, pixels in enumerate(batches):
        embeddings = network.predict_on_batch(scale_pixels(pixels, image.scaling))
        embed_sec.append(time.perf_counter() - started)
        inputs.prepare(embeddings, step=step)
        train(embeddings[np.newaxis], np.eye(num_classes, dtype=np.float32)[labels[rows[step]]][np.newaxis]).numpy()
        now = time.perf_counter()
        step_sec.append(now - started)
        started = now
    return float(np.mean(step_sec[1:])), float(np.mean(embed_sec[1:]))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training_on_views", description=(__doc__ or "").split("\n")[0]
    )
    add_photos_flag(parser)
    parser.add_argument("--backbone", default=_BACKBONE, metavar="NAME", help="(default: %(default)s)")
    parser.add_argument("--views", type=int, default=4, help="of each photo (default: 4)")
    parser.add_argument("--steps", type=int, default=1000, help="of the training (default: 1000)")
    parser.add_argument("--batch_size", type=int, default=100, help="(default: 100)")
    parser.add_argument("--peer_steps", type=int, default=5, help="of the peer, that are measured (default: 5)")
    parser.add_argument("--quick", action="store_true", help="100 photos, 2 steps of the peer")
    args = parser.parse_args(argv)
    if args.quick:
        args.peer_steps = min(args.peer_steps, 2)
    photo_set = find_photos(args.photos)
    say(photo_set.describe())
    # TensorFlow's reader of JPEGs, as in retrain.py.
    chosen = [photo for photo in photo_set.photos if not photo[0].lower().endswith(".png")]
    chosen = list(itertools.islice(chosen, 100 if args.quick else len(chosen)))
    photos = [path for path, _ in chosen]
    labels = np.array([photo_set.classes.index(label) for _, label in chosen])
    backbone = BackboneSpec(architecture=args.backbone, weights="random", seed=0)
    import_tensorflow()
    step_sec, embed_sec = distorting_loop(backbone, photos, labels, batch_size=args.batch_size, steps=args.peer_steps)
    size = load_keras_backbone(backbone)[0].output_shape[-1]
    ours_sec = train_on_views(labels, size=size, num_views=args.views, batch_size=args.batch_size, steps=args.steps)
    peer_sec = step_sec * args.steps
    image_sec = embed_sec / args.batch_size
    once_sec = image_sec * len(photos) * args.views
    say(
        f"{args.backbone}: a step of the loop that distorts and embeds takes {step_sec:.2f} s (mean of "
        f"{args.peer_steps}), of which {1e3 * image_sec:.1f} ms for each image; ours {1e3 * ours_sec / args.steps:.1f} "
        f"ms with evaluations; embedding {args.views} views of {counted(len(photos), 'photo')} once: {once_sec:.0f} s"
    )
    what = f"{args.steps:,} training steps of {args.batch_size} on {args.views} views of {len(photos)} photos"
    rows: list[Figure] = [
        _figure(f"{what}, {args.backbone}", ours_sec, peer_sec, _TARGET),
        _figure(f"{what}, {args.backbone}, with embedding the views once", ours_sec + once_sec, peer_sec, 1.0),
    ]
    finish("training_on_views", rows, photos=photo_set.name, peer_is=f"{args.peer_steps} steps, scaled to {args.steps}")
    return EXIT_OK


def _figure(name: str, ours_sec: float, peer_sec: float, target: float) -> Figure:
    """A figure of two durations; its ratio says how many times as long the peer takes."""
    compared = at_least(name, 1 / ours_sec, 1 / peer_sec, target, unit="")
    return dataclasses.replace(
        compared, ours=f"{ours_sec:.4g} s", peer=f"{peer_sec:.4g} s (distorts and embeds in each step; extrapolated)"
    )


if __name__ == "__main__":
    run_program(main)
