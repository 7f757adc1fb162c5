"""Two processes on loopback train one model, as `TF_CONFIG` tells them."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from configs.errors import InputError
from tests.support.programs import start_program
from tests.trainer.data.test_foreign_sets import example, write
from tests.trainer.test_resume import options_for
from tests.trainer.training.test_loop import clusters
from trainer.training.checkpoints import Saving
from trainer.training.head import head_digest
from trainer.training.loop import train_head

PROGRAM = "import sys; from tests.trainer.test_two_workers import run_to_the_end; run_to_the_end(sys.argv[1:])"


def run_to_the_end(folders):
    """What a worker does: one training after the other, with the results in these folders.

    A folder that is named "other" has other data.
    """
    from preprocess.backbones.tensorflow_import import import_tensorflow
    from trainer.training.distributed import GradientExchange, read_cluster

    cluster = read_cluster(os.environ)
    import_tensorflow()
    exchange = GradientExchange(cluster)
    for folder in folders:
        train, saving = clusters(400, 2 if folder.endswith("other") else 0), Saving(resumes=True)
        try:
            result = train_head(train, clusters(200, 1), options_for(folder), saving=saving, exchange=exchange)
        except InputError as error:
            print(error, file=sys.stderr)
            print("refused", flush=True)
            sys.stdin.readline()  # Until the other one has refused, too: it needs what this one sends.
            continue
        print(json.dumps([head_digest(result.head), result.best.eval_accuracy, result.best.eval_loss]), flush=True)
        sys.stdin.readline()


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def run_both(commands, expect=0, waits=0):
    """Chief and worker; gives what each printed on standard output and standard error.

    So many times they print a line and wait until the other one has done so too.
    """
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    cluster = {"chief": addresses[:1], "worker": addresses[1:]}
    workers = []
    for role, command in zip(("chief", "worker"), commands, strict=True):
        config = json.dumps({"cluster": cluster, "task": {"type": role, "index": 0}})
        workers.append(start_program(command, {"TF_CONFIG": config}, stdin=subprocess.PIPE, tensorflow=True))
    lines = [[] for _ in workers]
    for _ in range(waits):
        for line, worker in zip(lines, workers, strict=True):
            line.append(worker.stdout.readline())
        for worker in workers:
            worker.stdin.write("\n")
            worker.stdin.flush()
    results = []
    for before, worker in zip(lines, workers, strict=True):
        printed, said = worker.communicate(timeout=120)
        assert worker.returncode == expect, said
        results.append(("".join(before) + printed, said))
    return results


def test_two_processes_train_the_model_of_one(tmp_path):
    # Given again, both find the chief's checkpoint. Workers that do not share a folder would train different heads.
    folders = [("two", "two", "two", "two"), ("worker", "two", "elsewhere", "other")]
    commands = [["-c", PROGRAM, *(str(tmp_path / name) for name in names)] for names in folders]
    results = run_both(commands, waits=4)
    chief, worker = ([json.loads(line) for line in printed.splitlines() if line[0] == "["] for printed, _ in results)
    assert chief == worker  # The same head, to the bit.
    assert (tmp_path / "two/checkpoints").is_dir()
    assert not (tmp_path / "worker").exists()  # The chief alone writes.
    alone = train_head(clusters(400, 0), clusters(200, 1), options_for(tmp_path / "one"))
    assert chief[0][0] != head_digest(alone.head)  # Dropout has other random numbers,
    assert abs(chief[0][1] - alone.best.eval_accuracy) <= 0.03  # which is all that differs.
    assert abs(chief[0][2] - alone.best.eval_loss) <= 0.05
    assert chief == [chief[0]] * 2
    for _, said in results:
        assert said.count("this training was finished before") == 1
        assert "the workers do not see the same checkpoints" in said
        assert said.count("their records, corrections or options differ") == 1


def test_a_worker_that_ends_first_is_one_line_for_the_others():
    import tensorflow as tf

    from trainer.training.distributed import GradientExchange

    class Exchange(GradientExchange):
        def __init__(self):
            pass

        def run(self, step, *args):
            raise tf.errors.UnavailableError(None, None, "recvmsg:Connection reset by peer")

    with pytest.raises(InputError, match="another worker has ended before all of them agreed"):
        Exchange().means([1, 2])


def test_the_program_as_vertex_ai_starts_it(tmp_path):
    random_numbers = np.random.default_rng(0)
    for name, rows in (("train", 120), ("eval", 40)):
        embeddings = random_numbers.normal(size=(rows, 8)).astype(np.float32)
        labels = random_numbers.integers(2, size=rows)
        embeddings[:, :4] += 3 * labels[:, None]
        examples = [example(f"{name}{i}.jpg", embeddings[i], [labels[i]]) for i in range(rows)]
        write(f"{tmp_path}/{name}.tfrecord", examples)
    (tmp_path / "dict.txt").write_text("no\nyes\n")
    flags = ["-m", "trainer.task", "--input_dict", f"{tmp_path}/dict.txt", "--max_steps", "200", "--hidden_units", "8"]
    for name in ("train", "eval"):
        flags += [f"--{name}_data_paths", f"{tmp_path}/{name}.tfrecord"]
    (tmp_path / "c.csv").write_text("image_uri,action,label\ntrain3.jpg,change,yes\ntrain4.jpg,remove,\n")
    flags += ["--output_path", f"{tmp_path}/out", "--corrections", f"{tmp_path}/c.csv", "--no-compare_corrections"]
    (printed, _), (nothing, said) = run_both([flags, flags])
    assert "eval: accuracy" in printed
    assert nothing == ""
    assert "worker 1 of 2 is done; the chief evaluates and writes the model" in said
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["eval"]["accuracy"] > 0.85
    assert metrics["train"]["examples"] == 119 and (tmp_path / "out/corrections.jsonl").read_text().count("\n") == 2
