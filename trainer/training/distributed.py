"""Several workers that train one model: who they are, by `TF_CONFIG`, and how their gradients become one.

Every worker holds the whole data and the whole head, takes its share of each batch, and makes the same update with the
mean of all gradients. So all heads stay equal, and the model is the one that a single worker would train. TensorFlow
exchanges the gradients (`MultiWorkerMirroredStrategy`, over gRPC). Each worker sends 4 MB for an update of a default
head, so several workers are useful only for large batches; training a head on embeddings rarely needs them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from configs.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

_TRAINING_ROLES = ("chief", "master", "worker")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cluster:
    """The workers that train together.

    Attributes:
      count: the number of workers.
      index: the number of this worker. Worker 0 is the chief, and only the chief writes.
    """

    count: int = 1
    index: int = 0

    @property
    def is_chief(self) -> bool:
        """True for the worker that writes."""
        return self.index == 0

    def share_of(self, batch_size: int) -> int:
        """The examples of a batch that each worker takes: equal shares, so a batch may grow by less than `count`."""
        return -(-batch_size // self.count)


ALONE = Cluster()


def read_cluster(environ: Mapping[str, str]) -> Cluster:
    """The cluster that `TF_CONFIG` describes (Vertex AI sets it); `ALONE` if it is not set.

    Roles that do not train (`ps`, `evaluator`) are not counted.

    Raises:
      InputError: `TF_CONFIG` is not as TensorFlow documents it, or this process has a role that does not train.
    """
    raw = environ.get("TF_CONFIG", "").strip()
    if not raw:
        return ALONE
    try:
        config = json.loads(raw)
        cluster, task = config.get("cluster") or {}, config.get("task") or {}
        members = [(role, index) for role in _TRAINING_ROLES for index in range(len(cluster.get(role, ())))]
        if len(members) <= 1:
            return ALONE
        this = (str(task["type"]), int(task["index"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"TF_CONFIG: must be JSON with `cluster` and `task` as TensorFlow documents it ({error!r}). "
            "Unset it to train with one worker."
        ) from error
    if this not in members:
        raise InputError(
            f"TF_CONFIG: task {this[0]} {this[1]} is not one that trains; the cluster has "
            f"{', '.join(f'{role} {index}' for role, index in members)}."
        )
    return Cluster(count=len(members), index=members.index(this))


class GradientExchange:
    """Averages gradients over the workers of a cluster.

    Make it before TensorFlow runs anything: TensorFlow sets up its collective operations when it starts.

    Attributes:
      cluster: the workers.
    """

    def __init__(self, cluster: Cluster) -> None:
        import tensorflow as tf

        self.cluster = cluster
        self._strategy = tf.distribute.MultiWorkerMirroredStrategy()

    def run(self, step: Callable[..., Any], *args: tf.Tensor) -> Any:
        """Calls `step`, in which `mean` may be called. Put control flow around this call, never inside `step`."""
        return self._strategy.run(step, args=args)

    def mean(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The mean of each tensor over all workers; every worker gets the means."""
        import tensorflow as tf

        context = tf.distribute.get_replica_context()
        return list(context.all_reduce(tf.distribute.ReduceOp.MEAN, list(tensors)))

    def means(self, numbers: Sequence[float]) -> np.ndarray:
        """The mean of each number over all workers, float32 [n]. Called outside of `run`, before any training.

        Raises:
          InputError: another worker has ended.
        """
        import tensorflow as tf

        mine = tf.constant(list(numbers), tf.float32)
        try:
            return np.asarray(tf.function(lambda: self.run(lambda: self.mean([mine])[0]))())
        except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
            # A worker that refuses to train ends, maybe before this one has all that it sent.
            raise InputError(
                "TF_CONFIG: another worker has ended before all of them agreed on what they train. Its output says why."
            ) from error
