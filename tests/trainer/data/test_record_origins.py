from __future__ import annotations

import json

import numpy as np
import pytest

from preprocess.engines.base import EngineInfo
from preprocess.records.record_set import REPORT_NAME, sidecar_path
from trainer.data.record_origins import engine_words, origin_warnings, record_origins
from trainer.data.record_sets import find_record_sets


def engine(name: str, precision: str, device: str = "cpu") -> dict:
    info = EngineInfo(engine=name, precision=precision, device=device, fidelity=None, why="", libraries=(f"{name} 1",))
    return info.to_json()


@pytest.fixture
def origins_of(write_set, tmp_path):
    def read(content: str | None):
        prefix = write_set(str(tmp_path / "train"), np.eye(3, dtype=np.float32), [[0], [1], [2]])
        if content is not None:
            with open(sidecar_path(prefix, REPORT_NAME), "w", encoding="utf-8") as stream:
                stream.write(content)
        return record_origins({"train": find_record_sets([prefix], flag="train_data_paths")})["train"]

    return read


def test_lists_and_engines_are_those_of_the_report(origins_of):
    (origin,) = origins_of(json.dumps({"input": ["a.csv"], "engines": [engine("openvino", "int8")]}))
    assert origin["lists"] == ["a.csv"]
    assert origin["engines"] == [
        {"engine": "openvino", "precision": "int8", "device": "cpu", "libraries": ["openvino 1"]}
    ]


@pytest.mark.parametrize("content", [None, "", "[]", '{"input": 5}', '{"input": [], "engines": [3]}'])
def test_a_set_that_does_not_say_how_it_was_made_is_passed_over(origins_of, content):
    (origin,) = origins_of(content)
    assert (origin["lists"], origin["engines"]) == ([], [])
    assert engine_words([origin]) == ""


def test_engines_in_words():
    def made(*engines):
        return {"prefix": "", "lists": [], "engines": list(engines)}

    int8, float32 = engine("openvino", "int8"), engine("tensorflow", "float32", "gpu")
    assert engine_words([made(int8), made(int8)]) == "OpenVINO in int8"
    assert engine_words([made(int8, float32)]) == "OpenVINO in int8 and TensorFlow in float32 on a GPU"
    assert origin_warnings({"train": [made(int8)], "eval": [made(int8)], "test": [made()]}) == []
    (warning,) = origin_warnings({"train": [made(int8)], "eval": [made(float32)]})
    assert "those of train by OpenVINO in int8, those of eval by TensorFlow in float32 on a GPU" in warning
