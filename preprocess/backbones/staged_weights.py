"""Copies weights once to a place that workers on other machines can read, under the digest of their content.

So workers do not have to download them from the publisher's server, and do not need a file that only the launcher has.
"""

from __future__ import annotations

import dataclasses
import os
import shutil

from configs.errors import InputError, cause_in_one_line
from preprocess.backbones.architectures import ARCHITECTURES
from preprocess.backbones.backbone import IMAGENET, BackboneSpec, check_weights
from preprocess.backbones.network_files import packed_network
from preprocess.backbones.weights_files import StagedFile, local_copy
from preprocess.storage.base import Storage, is_file
from preprocess.storage.digests import digest_of_file


def stage_weights(spec: BackboneSpec, folder: str, storage: Storage) -> BackboneSpec:
    """Copies the weights of a backbone to a folder that workers can read, unless the folder has them already.

    If ImageNet weights are not on this machine, they are downloaded first. Random weights are drawn and not read, so
    there is nothing to copy.

    Args:
      spec: the backbone.
      folder: the folder for the file, which is named `SHA256-NAME`; local (on a disk that all workers share) or gs://.
      storage: opens the folder, and weights in a bucket.

    Returns:
      The spec, with `staged` if there is a file. It names the same network as before.

    Raises:
      InputError: the weights are not available, or the folder is not writable.
    """
    if spec.is_random:
        return spec
    if spec.weights == IMAGENET:
        source = ARCHITECTURES[spec.architecture].imagenet.fetch()
    else:
        check_weights(spec, storage)
        source = spec.weights
    with packed_network(source, storage) if spec.is_file else local_copy(source, storage) as path:
        sha256 = digest_of_file(path)
        uri = f"{folder.rstrip('/')}/{sha256}-{os.path.basename(path if spec.is_file else source)}"
        try:
            # A file appears in storage only when it is complete, so a file of this name has this content.
            if not is_file(storage, uri):
                with open(path, "rb") as stream, storage.create(uri) as target:
                    shutil.copyfileobj(stream, target, 1024 * 1024)
        except OSError as error:
            raise InputError(f"weights: cannot be put at {uri!r} ({cause_in_one_line(error)}).") from error
    return dataclasses.replace(spec, staged=StagedFile(uri=uri, sha256=sha256))
