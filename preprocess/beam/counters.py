"""Beam counters: with them a runner's own page shows the row accounting while a job runs.

They are increased on the bundle's thread, because Beam loses the counts of other threads.
"""

from __future__ import annotations

from apache_beam.metrics import Metrics

from preprocess.jobs.block_results import BlockResult

NAMESPACE = "hugs"


def count_block(result: BlockResult, backbone_name: str = "") -> None:
    """Adds the row accounting of one block: `rows`, `embedded`, `failed_<reason>`, `skipped_<rule>`.

    If several backbones make sets in one run, the names begin with that of the backbone.
    """
    prefix = f"{backbone_name}_" if backbone_name else ""
    counts = {"rows": result.rows, "embedded": result.embedded}
    counts.update({f"failed_{reason}": count for reason, count in result.failed.items()})
    counts.update({f"skipped_{rule}": count for rule, count in result.skipped.items()})
    for name, count in counts.items():
        Metrics.counter(NAMESPACE, f"{prefix}{name}").inc(count)
