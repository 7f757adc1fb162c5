"""Training with less memory than the embeddings take."""

from __future__ import annotations

import dataclasses
import json
import os

import numpy as np
import pytest

from tests.support.programs import end_program, start_program
from trainer.data.record_sets import find_record_sets
from trainer.options import TrainingOptions
from trainer.task import read_datasets
from trainer.training.loop import train_head

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SIZE = 2048

# Its own process, because the memory of one counts all that it ever did.
PROGRAM = """
import json, re, sys
from tests.trainer.test_streaming import run
accuracy, in_memory, steps = run(sys.argv[1], int(sys.argv[2]))
# Not ru_maxrss, which begins with that of the process before the exec.
peak = int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1]) / 1024
print(json.dumps([accuracy, in_memory, steps, peak]))
"""


def run(folder: str, max_memory_mb: int):
    options = TrainingOptions(
        train_data_paths=(f"{folder}/train*",),
        eval_data_paths=(f"{folder}/eval*",),
        output_path=f"{folder}/out-{max_memory_mb}",
        hidden_units=16,
        max_steps=200,
        eval_every_steps=100,
        max_memory_mb=max_memory_mb,
    )
    sets = {name: find_record_sets([f"{folder}/{name}*"], flag=name) for name in ("train", "eval")}
    data = read_datasets(sets, max_memory_mb=max_memory_mb)
    result = train_head(data["train"], data["eval"], options)
    return result.best.eval_accuracy, data["train"].embeddings.in_memory, [vars(point) for point in result.history]


def examples(count: int, seed: int):
    centres = np.random.default_rng(9).normal(0, 0.1, (3, SIZE)).astype(np.float32)
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 3, count)
    return centres[classes] + rng.standard_normal((count, SIZE), np.float32), [[int(c)] for c in classes]


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="peak memory is read from Linux")
def test_less_memory_than_the_set_takes_gives_the_same_accuracy(tmp_path, write_set, mean_colour_identity):
    identity = dataclasses.replace(mean_colour_identity, embedding_size=SIZE)
    # What else a process takes varies by 40 MB from run to run.
    write_set(f"{tmp_path}/train", *examples(24_000, 0), num_shards=24, identity=identity)  # 197 MB
    write_set(f"{tmp_path}/eval", *examples(300, 1), identity=identity)
    outcomes = {}
    for budget in (1000, 20):
        program = start_program(["-c", PROGRAM, str(tmp_path), str(budget)], tensorflow=True)
        stdout, stderr = end_program(program)
        outcomes[budget] = json.loads(stdout)
        assert ("does not fit" in stderr) == (budget == 20)
    assert outcomes[1000][1]
    assert not outcomes[20][1]
    assert outcomes[20][0] == pytest.approx(outcomes[1000][0], abs=0.03)
    assert outcomes[20][0] > 0.9
    assert outcomes[1000][3] - outcomes[20][3] > 40  # MB


def test_a_stream_is_the_same_by_seed_and_unlabelled_records_stay_out(tmp_path, write_set, mean_colour_identity):
    identity = dataclasses.replace(mean_colour_identity, embedding_size=SIZE)
    embeddings, label_ids = examples(2000, 0)
    label_ids[5:2000:7] = [[]] * len(label_ids[5:2000:7])
    embeddings[5:2000:7] = 1e30  # Would ruin statistics and training.
    write_set(f"{tmp_path}/train", embeddings, label_ids, num_shards=3, identity=identity, compression="gzip")
    write_set(f"{tmp_path}/eval", *examples(100, 1), identity=identity)
    one, again = run(str(tmp_path), 4), run(str(tmp_path), 4)
    assert one == again
    assert one[1] is False
    assert one[0] > 0.8
