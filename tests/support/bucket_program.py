"""Google Cloud Storage of `tests.support.faulty_gcs` as a program, for hosts of a test.

python -m tests.support.bucket_program ADDRESS FOLDER: a bucket with the files of FOLDER below data/. It prints the
environment of its clients as JSON. Each line of standard input is a folder, into which it writes the objects; it
answers with their number.
"""

import contextlib
import json
import pathlib
import shutil
import subprocess
import sys

from tests.support.faulty_gcs import FaultyGcs
from tests.support.hosts import LOOPBACK
from tests.support.programs import start_program


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


class Bucket:
    """The program, as a test uses it; a context manager. `environment` is that of its clients."""

    def __init__(self, data, host=LOOPBACK):
        self._words = ["-m", "tests.support.bucket_program", host.address, str(data)]
        self._prefix = host.prefix

    def __enter__(self):
        self._process = start_program(self._words, prefix=self._prefix, stdin=subprocess.PIPE)
        self.environment = json.loads(self._process.stdout.readline())
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.communicate()

    def put_out(self, folder):
        """Writes what is in the bucket into a folder; gives the one that is called out/ there."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)
        self._process.stdin.write(f"{folder}\n")
        self._process.stdin.flush()
        self._process.stdout.readline()
        return folder / "out"


if __name__ == "__main__":
    main(*sys.argv[1:])
