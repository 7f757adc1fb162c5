"""What a large list costs with many workers on Dataflow, and where more workers stop being worth it."""

from __future__ import annotations

import math
from typing import Any

from pipelines.planning.dataflow_cost import Fleet, cost_of_all, cost_on_dataflow
from pipelines.planning.model import ListWork
from pipelines.planning.sample import EngineCost
from preprocess.jobs.estimate import Estimate

_WORKER_NUMBERS = (20, 200, 1000)
# Each of 200 workers has two blocks: about 400,000 rows in shards of 1,024.
_FEWEST_BLOCKS = 400
# Of one job: https://cloud.google.com/dataflow/quotas
MOST_WORKERS = 4000
# The last step reads the shards of images that occur twice, eight at a time. Not measured.
_SHARD_BYTES_PER_SEC = Estimate(1e8, 3e8, 6e8)
# What a bucket answers at first; then it doubles in 20 minutes: https://cloud.google.com/storage/docs/request-rate
FIRST_READS_PER_SEC = 5000


def scaling_of(works: list[ListWork], engine: EngineCost, fleet: Fleet) -> dict[str, Any] | None:
    """The cost with 20, 200 and 1,000 workers, and what limits them, as JSON; None for lists that are not so long.

    The recipe may allow fewer workers.

    Args:
      works: the lists; each is a job, and all jobs run at the same time.
      engine: the engine of the workers.
      fleet: the workers, as the recipe describes them.
    """
    longest = max(works, key=lambda work: work.blocks)
    if longest.blocks < _FEWEST_BLOCKS:
        return None
    rows = []
    for workers in _WORKER_NUMBERS:
        cost = cost_of_all(works, engine, fleet.allowing(workers), workers)
        job = cost.jobs[longest.split]
        rows.append(
            {
                **cost.to_json(),
                "blocks_per_worker": round(longest.blocks / job.workers, 1),
                "vcpus": sum(one.workers for one in cost.jobs.values()) * fleet.machine.vcpus,
                "reads_per_sec": round(sum(work.images / cost.jobs[work.split].embed_sec for work in works)),
            }
        )
    one = cost_on_dataflow(longest, engine, fleet.allowing(1), 1)
    most = cost_on_dataflow(longest, engine, fleet.allowing(_WORKER_NUMBERS[-1]), _WORKER_NUMBERS[-1])
    serial_sec = most.serial_sec.total.expected
    return {
        "split": longest.split,
        "lists": longest.lists,
        "blocks": longest.blocks,
        "by_workers": rows,
        "serial_sec": most.serial_sec.to_json(),
        # More than that, if each shard has an image that occurs twice.
        "duplicates_sec": (longest.output_bytes * (1.0 / _SHARD_BYTES_PER_SEC)).to_json(),
        # With so many workers half of the time is embedding. Twice as many save a quarter of the time.
        "half_embeds_at_workers": min(math.ceil(one.embed_sec / serial_sec), longest.blocks),
        "most_workers": min(MOST_WORKERS, longest.blocks),
        "first_reads_per_sec": FIRST_READS_PER_SEC,
    }
