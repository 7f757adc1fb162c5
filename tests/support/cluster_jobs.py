"""Jobs on a cluster with a stand-in for the network, and what is asked of the set that they leave."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import time

from tests.support.programs import start_program

# A job that would hang is ended, and fails its test.
LIMIT_SEC = 200


class ClusterJob:
    """A job of `tests.support.portable_job` on the lists in `data` that writes into `out`, or into `bucket`.

    `embedders` is a folder with a file for each process that embeds. None begins before `meet` of them are there.
    """

    def __init__(self, data, out, *flags, batch_sec=0.0, rows_per_shard=10, meet=0, times=1, bucket=None, prefix=()):
        self.out = pathlib.Path(out)
        self.embedders = self.out / "embedders"
        self.embedders.mkdir(parents=True, exist_ok=True)
        command = ["-m", "tests.support.portable_job", str(batch_sec), "--weights", "random"]
        command += ["--input_path", f"{data}/train.csv", "--input_dict", f"{data}/dict.txt"]
        command += ["--output_path", f"{bucket or self.out}/train", "--rows_per_shard", str(rows_per_shard), *flags]
        of_engine = {"EMBEDDERS": str(self.embedders), "MEET": str(meet), "TIMES": str(times)}
        self.process = start_program(command, of_engine, prefix=prefix)

    def end(self, *, expect=0):
        """Waits for the end; gives what was written on standard output and standard error."""
        try:
            stdout, stderr = self.process.communicate(timeout=LIMIT_SEC)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise AssertionError(f"The job hangs: {self.process.communicate()[1]}") from None
        assert self.process.returncode == expect, stderr
        return stdout, stderr

    def wait_until_embedding(self, *, workers=1, blocks=1):
        """Waits until so many workers embed and so many blocks are done; gives the process ids of the workers."""
        deadline = time.monotonic() + LIMIT_SEC
        while True:
            found = [int(path.name) for path in self.embedders.iterdir() if is_alive(int(path.name))]
            done = len(list(self.out.glob("_train/parts-*/*.result.json")))
            if len(found) >= workers and done >= blocks:
                return sorted(found)
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < deadline, f"{found} embed, {done} blocks are done"
            time.sleep(0.02)


def is_alive(pid):
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def decoders_of(pid):
    """The process ids of the decoders of a worker."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and b"decode_worker" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
    return found


def files_of(out):
    """The shards, and what of the report does not tell who embedded."""
    report = json.loads((pathlib.Path(out) / "_train/report.json").read_text())
    names = ("status", "rows_read", "embedded", "failed", "skipped", "backbone")
    shards = {path.name: path.read_bytes() for path in pathlib.Path(out).glob("train-*")}
    return shards, {name: report[name] for name in names}
