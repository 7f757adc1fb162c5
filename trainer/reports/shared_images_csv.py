"""shared_images.csv: the images of the held-out sets that other sets of the run have too, one on each line."""

from __future__ import annotations

from collections.abc import Mapping

from configs.csv_text import LABEL_SEPARATOR, csv_writer
from trainer.data.dataset import LabeledExamples
from trainer.data.photos import PhotoFinder
from trainer.data.shared_images import SharedImages


def write_shared_images(
    path: str,
    shared: Mapping[str, SharedImages],
    data: Mapping[str, LabeledExamples],
    photos: Mapping[str, PhotoFinder],
) -> None:
    """Writes the table.

    Columns: `set`, `uri` and `label` of the held-out image; `also_in`: the other set ("train" or "eval"); `other_uri`
    and `other_label`: the first example there with this image; `compared_by`: "content" if the files are equal, "uri"
    if at least one of the records has no digest, "twins" if the table of twins says that they are copies; `location`
    and `other_location`: where the two photos lie, empty if not known. Several labels are separated by " | ".

    Args:
      path: a local path.
      shared: what the held-out sets share, by their names.
      data: the data sets of the run by name.
      photos: finds the photos of each of them.
    """
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer = csv_writer(stream)
        header = ["set", "uri", "label", "also_in", "other_uri", "other_label", "compared_by"]
        writer.writerow([*header, "location", "other_location"])
        for name, images in shared.items():
            for other, overlap in images.overlaps.items():
                for row, other_row, by_content, is_twin in zip(
                    overlap.rows.tolist(),
                    overlap.other_rows.tolist(),
                    overlap.by_content.tolist(),
                    overlap.is_twin.tolist(),
                    strict=True,
                ):
                    writer.writerow(
                        [
                            name,
                            data[name].uris[row],
                            LABEL_SEPARATOR.join(data[name].labels_of(row)),
                            other,
                            data[other].uris[other_row],
                            LABEL_SEPARATOR.join(data[other].labels_of(other_row)),
                            "twins" if is_twin else "content" if by_content else "uri",
                            photos[name].location(data[name].uris[row]),
                            photos[other].location(data[other].uris[other_row]),
                        ]
                    )
