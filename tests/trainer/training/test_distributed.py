import json

import pytest

from configs.errors import InputError
from trainer.training.distributed import ALONE, Cluster, read_cluster


def config(task, **cluster):
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})}


CHIEF_AND_TWO = {"chief": ["a:1"], "worker": ["b:1", "c:1"]}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, ALONE),
        ({"TF_CONFIG": ""}, ALONE),
        ({"TF_CONFIG": "{}"}, ALONE),
        (config({"type": "chief", "index": 0}, chief=["a:1"]), ALONE),
        (config({"type": "worker", "index": 0}, worker=["a:1"], ps=["p:1"]), ALONE),
        (config({"type": "chief", "index": 0}, **CHIEF_AND_TWO), Cluster(count=3, index=0)),
        (config({"type": "worker", "index": 1}, **CHIEF_AND_TWO), Cluster(count=3, index=2)),
        (config({"type": "worker", "index": 0}, worker=["a:1", "b:1"]), Cluster(count=2, index=0)),
    ],
)
def test_tf_config_as_vertex_sets_it(environ, expected):
    assert read_cluster(environ) == expected


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"TF_CONFIG": "nonsense"}, "must be JSON"),
        ({"TF_CONFIG": "[1]"}, "must be JSON"),
        (config({}, **CHIEF_AND_TWO), "must be JSON with `cluster` and `task`"),
        (config({"type": "evaluator", "index": 0}, **CHIEF_AND_TWO), "task evaluator 0 is not one that trains"),
        (config({"type": "worker", "index": 2}, **CHIEF_AND_TWO), "the cluster has chief 0, worker 0, worker 1"),
    ],
)
def test_a_tf_config_that_will_not_do_is_one_line(environ, words):
    with pytest.raises(InputError, match=words) as error:
        read_cluster(environ)
    assert "\n" not in str(error.value)


def test_shares_are_equal():
    assert [Cluster(count=3).share_of(size) for size in (1, 3, 100)] == [1, 1, 34]
