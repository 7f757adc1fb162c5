"""Google Cloud Storage of `tests.support.faulty_gcs` as a program, for hosts of a test.

python -m tests.support.bucket_program ADDRESS FOLDER: a bucket with the files of FOLDER below data/. It prints the
environment of its clients as JSON. Each line of standard input is a folder, into which it writes the objects; it
answers with their number.
"""

import json
import pathlib
import sys

from tests.support.faulty_gcs import FaultyGcs


def main(address, folder):
    with FaultyGcs(buckets=["bucket"], host=address) as gcs:
        for path in pathlib.Path(folder).iterdir():
            gcs.put("bucket", f"data/{path.name}", path.read_bytes())
        print(json.dumps(gcs.environment), flush=True)
        for line in sys.stdin:
            names = gcs.names("bucket")
            for name in names:
                path = pathlib.Path(line.strip()) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(gcs.get("bucket", name))
            print(len(names), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
