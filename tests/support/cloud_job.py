"""A finished job directory in a bucket, an exported model in it, and a stand-in for gcloud."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

from preprocess.images.decode import IMAGE_DEFINITION
from preprocess.records.backbone_identity import BackboneIdentity
from preprocess.records.record_set import Manifest
from tests.support.faulty_gcs import FaultyGcs
from trainer.export.model_info import MODEL_INFO_PATH, ModelInfo

JOB_DIR = "gs://bucket/hugs_1"
LABELS = ("hugs", "not-hugs")


def identity(weights: str = "imagenet") -> BackboneIdentity:
    return BackboneIdentity(
        architecture="inception_v3",
        weights=weights,
        seed=0 if weights == "random" else None,
        weights_digest="sha256:" + "0" * 64,
        embedding_size=2048,
        image_definition=IMAGE_DEFINITION,
    )


def put_records(gcs: FaultyGcs, *splits: str, weights: str = "imagenet") -> None:
    manifest = Manifest(backbone=identity(weights), labels=LABELS, compression="none", records=0, shards=())
    for split in splits:
        gcs.put("bucket", f"hugs_1/preproc/_{split}/manifest.json", manifest.to_bytes())


def put_model(gcs: FaultyGcs, folder: str = "hugs_1/training/model", *, takes_images: bool = True) -> None:
    info = ModelInfo(
        labels=LABELS, backbone=identity("random"), head_digest="sha256:1", threshold=0.5, takes_images=takes_images
    )
    files = {
        MODEL_INFO_PATH: json.dumps(info.to_json()).encode(),
        "saved_model.pb": b"graph",
        "fingerprint.pb": b"fingerprint",
        "variables/variables.index": b"index",
        "variables/variables.data-00000-of-00001": b"data",
        "model.tflite": b"not for serving",
    }
    for name, content in files.items():
        gcs.put("bucket", f"{folder}/{name}", content)


class FakeGcloud:
    """Answers commands by their words up to the first flag; keeps the commands.

    Attributes:
      answers: what each command answers as JSON; a text is what it says as it fails; a function is called with the
        command.
    """

    def __init__(self, **answers: Any) -> None:
        self.answers: dict[str, Any] = {"version": {"Google Cloud SDK": "528.0.0"}, **answers}
        self.commands: list[list[str]] = []

    def __call__(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        self.commands.append(list(command))
        words = [word for word in command[1:] if not word.startswith("-")]
        answer = next(
            answer for key, answer in self.answers.items() if " ".join(words).removeprefix("ai ").startswith(key)
        )
        if isinstance(answer, Callable):
            answer = answer(command)
        if isinstance(answer, str):
            return subprocess.CompletedProcess(command, 1, "", answer)
        return subprocess.CompletedProcess(command, 0, "" if answer is None else json.dumps(answer), "")

    def named(self, *words: str) -> list[list[str]]:
        """The commands that begin with these words after `gcloud`."""
        return [command for command in self.commands if command[1 : 1 + len(words)] == list(words)]
