"""The record sets that a server searches: found and compared with the model before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence

from configs.errors import InputError
from insight.index.photo_index import require_index_folder
from preprocess.records.backbone_identity import difference_of
from trainer.data.record_sets import RecordSet, find_record_sets, require_agreement
from trainer.export.model_info import ModelInfo


def find_searched_sets(paths: Sequence[str], *, index_folder: str | None) -> tuple[RecordSet, ...]:
    """The sets that `--search` names.

    Args:
      paths: shards, globs or prefixes of sets; local or in a bucket.
      index_folder: where the index is to be; None for a temporary folder.

    Raises:
      InputError: a path names no whole set, the sets come from different networks, or nothing says from which one; or
        the folder can hold no index.
    """
    if index_folder is not None:
        require_index_folder(index_folder, flag="search_index")
    sets = find_record_sets(paths, flag="search")
    require_agreement(sets)
    if not sets[0].verified or not sets[0].manifest.backbone.is_known:
        raise InputError(
            f"--search: nothing says which network made the records of {sets[0].prefix}, so no photo can be compared "
            "with them. Embed the photos with the network of the model."
        )
    return sets


def require_network_of_model(sets: Sequence[RecordSet], info: ModelInfo, model_dir: str) -> None:
    """Refuses sets whose embeddings cannot be compared with those of a model.

    Args:
      sets: at least one; all of one network.
      info: of the model.
      model_dir: its folder, for the message.

    Raises:
      InputError: the model has another network.
    """
    ours, theirs = info.backbone, sets[0].manifest.backbone
    if not ours.agrees_with(theirs):
        raise InputError(
            f"--search: the model in {model_dir} and the records of {sets[0].prefix} have different networks: "
            f"{difference_of(ours, theirs)}. Name sets that were made with the network of the model."
        )
