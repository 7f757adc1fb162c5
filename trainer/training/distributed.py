"""Several workers that train one model: who they are, by `TF_CONFIG`, and how their gradients become one.

Every worker holds the whole data and the whole head, takes its share of each batch, and makes the same update with the
mean of all gradients, so all heads stay equal and the model is the one that a single worker would train. The exchange
is TensorFlow's (`MultiWorkerMirroredStrategy`, over gRPC). An update of a default head is 4 MB a worker, so this pays
where batches are large; training a head on embeddings rarely needs it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from configs.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

_TRAINING_ROLES = ("chief", "master", "worker")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cluster:
    """The workers that train together.

    Attributes:
      count: how many there are.
      index: which of them this process is; 0 is the chief, which alone writes.
    """

    count: int = 1
    index: int = 0

    @property
    def is_chief(self) -> bool:
        """True for the worker that writes."""
        return self.index == 0

    def share_of(self, batch_size: int) -> int:
        """Examples of each batch that one worker takes: equal shares, so a batch may grow by less than `count`."""
        return -(-batch_size // self.count)


ALONE = Cluster()


def read_cluster(environ: Mapping[str, str]) -> Cluster:
    """The cluster that `TF_CONFIG` describes, as Vertex AI sets it; `ALONE` without it.

    Roles other than those that train (`ps`, `evaluator`) are not counted.

    Raises:
      InputError: it is not what TensorFlow documents, or this process has a role that does not train.
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

    To be made before TensorFlow has run anything, since its collective operations are set up at the start.

    Attributes:
      cluster: the workers.
    """

    def __init__(self, cluster: Cluster) -> None:
        import tensorflow as tf

        self.cluster = cluster
        self._strategy = tf.distribute.MultiWorkerMirroredStrategy()

    def run(self, step: Callable[..., Any], *args: tf.Tensor) -> Any:
        """Calls `step` so that `mean` may be called in it. Control flow stands around this call, never within."""
        return self._strategy.run(step, args=args)

    def mean(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The means of the workers' tensors; each worker gets them."""
        import tensorflow as tf

        context = tf.distribute.get_replica_context()
        return list(context.all_reduce(tf.distribute.ReduceOp.MEAN, list(tensors)))
