from __future__ import annotations

import numpy as np
import pytest

from preprocess.records.record_set import REPORT_NAME, sidecar_path
from trainer.data.embedding_findings import embedding_findings
from trainer.data.record_sets import find_record_sets


@pytest.mark.parametrize("report", [None, "", "[]", '{"duplicates": 5}', '{"duplicates": {"extra_records": 1}}'])
def test_a_report_that_says_nothing_of_duplicates_is_passed_over(write_set, tmp_path, report):
    prefix = write_set(str(tmp_path / "train"), np.eye(3, dtype=np.float32), [[0], [1], [2]])
    if report is not None:
        with open(sidecar_path(prefix, REPORT_NAME), "w", encoding="utf-8") as stream:
            stream.write(report)
    sets = {"train": find_record_sets([prefix], flag="train_data_paths")}
    assert embedding_findings(sets) == {}
