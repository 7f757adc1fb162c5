"""`gs://` over loopback, with and without faults."""

import concurrent.futures
import contextlib
import os
import random
import subprocess
import sys

import pytest
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions
from google.api_core.exceptions import PreconditionFailed

pytest.importorskip("gcp_storage_emulator", reason="gcp-storage-emulator is not installed")

from configs.errors import InputError
from preprocess.backbones.backbone import BackboneSpec
from preprocess.beam import beam_storage
from preprocess.beam.beam_storage import BeamStorage
from preprocess.beam.image_source import ImageSource
from preprocess.beam.transforms import EngineLoader
from preprocess.engines.select import EngineSpec
from preprocess.storage import gcs_objects
from preprocess.storage.base import TooLarge, read_file, write_file
from preprocess.storage.buckets import NUM_CONNECTIONS
from preprocess.storage.gcs import GcsStorage
from preprocess.storage.globs import glob_regex
from preprocess.storage.retry import RetriesExhausted, RetryPolicy
from tests.support.faulty_gcs import ALL_FAULTS, FaultPlan, FaultyGcs

QUICK = RetryPolicy(limit_sec=30, first_wait_sec=0.005, max_wait_sec=0.02)


@pytest.fixture
def gcs(monkeypatch):
    with FaultyGcs(buckets=["bucket", "other"]) as gcs:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield gcs


@pytest.fixture
def storage():
    return BeamStorage(QUICK)


def blob(seed, size=60_000):
    return random.Random(seed).randbytes(size)


def read(uri, **more):
    return GcsStorage(QUICK, **more).read(uri)


def test_a_read_is_one_request(gcs):
    gcs.put("bucket", "x", blob(1))
    assert read("gs://bucket/x") == blob(1)
    assert [one.request for one in gcs.exchanges] == ["GET /download/storage/v1/b/bucket/o/x?alt=media"]


NAMES = [
    "a b.jpg",
    "ü/日本.jpg",
    "100%.jpg",
    "%41%2F.jpg",
    "x[1]*?.jpg",
    "q?a=b&c#d.jpg",
    "+.jpg",
    "'\".jpg",
    "a\nb.jpg",
]


@pytest.mark.parametrize("name", NAMES)
def test_names(gcs, storage, name):
    uri = f"gs://bucket/{name}"
    write_file(storage, uri, blob(2, 100))
    assert gcs.names("bucket") == [name]
    assert storage.match(uri) == [uri]
    assert read_file(storage, uri) == blob(2, 100)
    storage.move(uri, f"gs://other/sub/{name}")
    assert gcs.get("other", f"sub/{name}") == blob(2, 100)
    storage.delete_file(f"gs://other/sub/{name}")
    assert gcs.names("bucket") == gcs.names("other") == []


@pytest.mark.parametrize("size", [0, 1, 100_000, 9_000_000], ids=["empty", "byte", "multipart", "resumable"])
def test_content_comes_back_as_it_was(gcs, storage, size):
    data = blob(3, size)
    write_file(storage, "gs://bucket/x", data)
    assert read_file(storage, "gs://bucket/x") == data
    with storage.open("gs://bucket/x") as stream:
        assert stream.read() == data


@pytest.mark.parametrize("fault", ALL_FAULTS)
def test_a_read_survives_each_fault(gcs, fault):
    gcs.put("bucket", "x", blob(4))
    gcs.plan = FaultPlan(share=1, faults=[fault], max_faults=2, stall_sec=5)
    assert read("gs://bucket/x", timeout_sec=0.4 if fault == "stall" else 30) == blob(4)
    assert gcs.faults() == {fault: 2}
    assert len(gcs.exchanges) == 3


@pytest.mark.parametrize("fault", ["429", "503", "drop", "lost", "cut"])
@pytest.mark.parametrize("size", [1000, 9_000_000], ids=["multipart", "resumable"])
def test_a_write_survives_each_fault(gcs, storage, fault, size):
    gcs.plan = FaultPlan(share=1, faults=[fault], max_faults=3)
    write_file(storage, "gs://bucket/x", blob(5, size))
    assert gcs.get("bucket", "x") == blob(5, size)
    assert gcs.faults() == {fault: 3}


def test_damage_on_the_way_up_is_noticed(gcs, storage):
    for size in (1000, 9_000_000):
        damaged = []

        def damage(body, damaged=damaged):
            if len(body) < 900 or damaged:
                return body
            damaged.append(True)
            return body[:-500] + bytes([body[-500] ^ 1]) + body[-499:]

        gcs.alter_upload = damage
        write_file(storage, "gs://bucket/x", blob(6, size))
        assert gcs.get("bucket", "x") == blob(6, size)
        assert damaged


@pytest.mark.parametrize("fault", ["503", "drop", "lost", "cut"])
def test_a_move_whose_answers_are_lost_is_done_once(gcs, storage, fault):
    gcs.put("bucket", "x", blob(7))
    gcs.plan = FaultPlan(share=0.6, faults=[fault], seed=1)
    storage.move("gs://bucket/x", "gs://bucket/y")
    assert gcs.names("bucket") == ["y"]
    assert gcs.get("bucket", "y") == blob(7)
    assert gcs.faults()[fault]


def test_a_fifth_of_faults_loses_nothing(gcs, storage):
    gcs.plan = FaultPlan(share=0.2, faults=[fault for fault in ALL_FAULTS if fault != "stall"])
    paths = [f"gs://bucket/a/{number}" for number in range(60)]
    moved = [f"gs://bucket/b/{number}" for number in range(60)]
    with concurrent.futures.ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda number: write_file(storage, paths[number], blob(number, 2000)), range(60)))
        assert storage.match("gs://bucket/a/*") == sorted(paths)
        list(threads.map(storage.move, paths, moved))
        assert list(threads.map(storage.read, moved)) == [blob(number, 2000) for number in range(60)]
    assert storage.match("gs://bucket/a/**") == []
    storage.delete_file(moved[0])
    storage.delete_tree("gs://bucket/b")
    assert gcs.names("bucket") == []
    assert len(gcs.faults()) > 5
    assert sum(gcs.faults().values()) > 30


@pytest.mark.parametrize(("status", "kind"), [("401", PermissionError), ("403", PermissionError), ("412", OSError)])
def test_permanent_faults_are_not_tried_again(gcs, storage, status, kind):
    gcs.put("bucket", "x", b"x")
    gcs.plan = FaultPlan(share=1, faults=[status])
    operations = [
        lambda: storage.read("gs://bucket/x"),
        lambda: storage.open("gs://bucket/x"),
        lambda: write_file(storage, "gs://bucket/x", b"y"),
        lambda: storage.match("gs://bucket/x*"),
        lambda: storage.move("gs://bucket/x", "gs://bucket/y"),
        lambda: storage.delete_file("gs://bucket/x"),
        lambda: storage.delete_tree("gs://bucket/x"),
    ]
    for operation in operations:
        before = len(gcs.exchanges)
        with pytest.raises(kind, match=r"gs://bucket/") as caught:
            operation()
        assert len(gcs.exchanges) == before + 1
        assert "\n" not in str(caught.value)


def test_what_is_not_there(gcs, storage):
    for call in (storage.read, storage.open, lambda uri: storage.move(uri, "gs://bucket/y")):
        before = len(gcs.exchanges)
        with pytest.raises(FileNotFoundError, match="No such object: gs://bucket/x"):
            call("gs://bucket/x")
        assert len(gcs.exchanges) == before + 1
        with pytest.raises(FileNotFoundError, match="No such bucket: gs://nowhere/x"):
            call("gs://nowhere/x")
    with pytest.raises(FileNotFoundError, match="No such bucket: gs://nowhere"):
        storage.match("gs://nowhere/x*")
    with pytest.raises(FileNotFoundError, match="No such bucket: gs://nowhere"):
        write_file(storage, "gs://nowhere/x", b"x")
    assert storage.match("gs://bucket/x") == storage.match("gs://bucket/x*") == []
    storage.delete_file("gs://bucket/x")
    storage.delete_tree("gs://bucket/x")


def test_the_limit_is_respected(gcs):
    gcs.put("bucket", "x", b"x")
    gcs.plan = FaultPlan(share=1, faults=["503"])
    now = [0.0]

    def sleep(sec):
        now[0] += sec

    policy = RetryPolicy(limit_sec=100, clock=lambda: now[0], sleep=sleep, random=lambda: 1.0)
    with pytest.raises(RetriesExhausted, match=r"^gs://bucket/x: HTTP 503: .* \(tried \d+ times in \d\d s\)$"):
        GcsStorage(policy).read("gs://bucket/x")
    # 0.2, 0.4 ... 12.8, then 16 each: the next would end beyond 100 s.
    assert now[0] == pytest.approx(89.4)
    assert len(gcs.exchanges) == 12


def test_more_than_enough_is_refused_without_reading_it_all(gcs, storage):
    gcs.put("bucket", "x", blob(8, 20_000_000))
    assert storage.read("gs://bucket/x", max_bytes=20_000_000) == blob(8, 20_000_000)
    received = []
    write = gcs_objects._Bounded.write

    def counting(self, data):
        received.append(len(data))
        return write(self, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gcs_objects._Bounded, "write", counting)
        before = len(gcs.exchanges)
        with pytest.raises(TooLarge, match="gs://bucket/x has more than 100000 bytes"):
            storage.read("gs://bucket/x", max_bytes=100_000)
    assert sum(received) < 200_000
    assert len(gcs.exchanges) == before + 1


def test_a_fault_while_writing_sends_nothing(gcs, storage):
    with pytest.raises(RuntimeError), storage.create("gs://bucket/x") as stream:
        stream.write(b"half")
        raise RuntimeError
    assert gcs.exchanges == []


def test_a_process_has_one_client_with_room_for_its_threads(gcs):
    with concurrent.futures.ThreadPoolExecutor(32) as threads:
        clients = list(threads.map(lambda _: gcs_objects.client_of_process(), range(64)))
    assert len(set(map(id, clients))) == 1
    adapter = clients[0]._http.get_adapter("https://storage.googleapis.com")
    assert adapter._pool_maxsize == NUM_CONNECTIONS
    assert adapter.max_retries.total == 0


def test_patterns(gcs, storage):
    for name in ("p/", "p/a.jpg", "p/b.png", "p/q/c.jpg", "p/q/r/d.jpg", "pp.jpg"):
        gcs.put("bucket", name, b"x")

    def matched(pattern):
        return [path.removeprefix("gs://bucket/") for path in storage.match(f"gs://bucket/{pattern}")]

    assert matched("p/*.jpg") == ["p/a.jpg"]
    assert matched("p/**/*.jpg") == ["p/a.jpg", "p/q/c.jpg", "p/q/r/d.jpg"]
    assert matched("p/**") == ["p/a.jpg", "p/b.png", "p/q/c.jpg", "p/q/r/d.jpg"]
    assert matched("p/[!a].*") == ["p/b.png"]
    assert matched("p*") == ["pp.jpg"]
    assert matched("p") == []
    assert storage.sizes("gs://bucket/p/*") == {"gs://bucket/p/a.jpg": 1, "gs://bucket/p/b.png": 1}
    assert storage.sizes("gs://bucket/pp.jpg") == {"gs://bucket/pp.jpg": 1}
    assert storage.sizes("gs://bucket/p/q/*.png") == {}
    storage.delete_tree("gs://bucket/p")
    assert gcs.names("bucket") == ["pp.jpg"]
    gcs.put("bucket", "p*", b"the glob is its name")
    assert matched("p*") == ["p*"]
    assert storage.sizes("gs://bucket/p*") == {"gs://bucket/p*": 20}


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("[ab", "[ab", True),
        ("[]]", "]", True),
        ("[!]]", "]", False),
        ("[a-c]", "b", True),
        ("[^a]", "^", True),
        ("[!a]", "/", False),
        ("a?c", "a/c", False),
        ("a.c", "abc", False),
        ("a\\c", "a\\c", True),
        ("[\\]", "\\", True),
        ("**/x", "x", True),
        ("**x", "a/bx", True),
    ],
)
def test_globs(pattern, name, matches):
    assert bool(glob_regex(pattern).fullmatch(name)) == matches


def test_what_is_no_object():
    with pytest.raises(OSError, match="must be gs://bucket/object"):
        GcsStorage().match("gs://bucket")


def test_credentials_that_name_no_project_will_do(monkeypatch, tmp_path):
    """As `gcloud auth application-default login` leaves them on a machine without `gcloud config set project`."""
    path = tmp_path / "credentials.json"
    path.write_text('{"type": "authorized_user", "client_id": "x", "client_secret": "y", "refresh_token": "z"}')
    for name in ("GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT", "CLOUDSDK_CORE_PROJECT", "STORAGE_EMULATOR_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    assert gcs_objects.make_client()._credentials.refresh_token == "z"


def test_credentials_are_those_of_the_pipeline(monkeypatch):
    from apache_beam.io.gcp import gcsio

    made = []
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setattr(gcs_objects, "_clients", {})
    monkeypatch.setattr(gcsio, "create_storage_client", lambda options: made.append(options) or _AnyClient())
    with contextlib.suppress(OSError):
        BeamStorage(RetryPolicy(limit_sec=0)).read("gs://bucket/x")
    assert len(made) == 1
    assert beam_storage.FileSystems._pipeline_options in (None, made[0])


def test_who_comes_first_chooses_the_credentials_of_nobody_else(monkeypatch):
    """Not with our clients, and not with Beam's, which keeps the first credentials of a process for all."""
    from apache_beam.internal.gcp import auth
    from apache_beam.io.gcp import gcsio

    made = []

    def note(options):
        made.append(
            (options.view_as(GoogleCloudOptions).impersonate_service_account, auth._Credentials._credentials_init)
        )
        return _AnyClient()

    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setattr(gcs_objects, "_clients", {})
    monkeypatch.setattr(auth._Credentials, "_credentials_init", True)
    monkeypatch.setattr(gcsio, "create_storage_client", note)
    gcs_objects.client_of_process(_AnyClient)  # Whoever came first, with credentials of its own.
    for account in ("a@x", "b@x", "b@x"):
        options = PipelineOptions([f"--impersonate_service_account={account}"])
        monkeypatch.setattr(beam_storage.FileSystems, "_pipeline_options", options)
        with contextlib.suppress(OSError):
            BeamStorage(RetryPolicy(limit_sec=0)).read("gs://bucket/x")
    assert made == [("a@x", False), ("b@x", False)]


def test_a_worker_reads_weights_in_a_bucket_with_the_credentials_of_the_pipeline(monkeypatch):
    from apache_beam.io.gcp import gcsio

    made = []
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setattr(gcs_objects, "_clients", {})
    monkeypatch.setattr(gcsio, "create_storage_client", lambda options: made.append(options) or _AnyClient())
    monkeypatch.setattr("google.cloud.storage.Client", lambda **_: pytest.fail("the machine's own credentials"))
    load = EngineLoader(
        backbone=BackboneSpec(weights="gs://bucket/mine.weights.h5"),
        engine=EngineSpec(),
        images=ImageSource(retry=RetryPolicy(limit_sec=0)),
    )
    with pytest.raises(InputError, match="weights: 'gs://bucket/mine.weights.h5' cannot be read"):
        load()
    assert len(made) == 1


class _AnyClient:
    class _http:  # noqa: N801
        @staticmethod
        def mount(*_):
            pass

    def bucket(self, _name):
        raise OSError("no such thing here")

    def list_blobs(self, *_, **__):
        raise OSError("no such thing here")


def test_a_process_of_its_own_reads_with_credentials(gcs):
    """Beam's own client, which does not do without credentials, gets a token and is told the address."""
    gcs.put("bucket", "x", b"content")
    script = (
        "from apache_beam.io.filesystems import FileSystems\n"
        "from preprocess.beam.beam_storage import BeamStorage\n"
        "print(FileSystems.open('gs://bucket/x').read(), BeamStorage().read('gs://bucket/x'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | gcs.environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "b'content' b'content'"


def test_of_several_who_write_a_new_object_one_does(gcs, storage, monkeypatch):
    """The service is asked for generation 0, which only an object that is not there has."""
    assert storage.create_new("gs://bucket/new", b"mine")
    assert gcs.get("bucket", "new") == b"mine"
    (sent,) = [exchange.request for exchange in gcs.exchanges if exchange.request.startswith("POST")]
    assert "ifGenerationMatch=0" in sent

    def refuse(*_, **__):
        raise PreconditionFailed("At least one of the pre-conditions you specified did not hold.")

    monkeypatch.setattr("google.cloud.storage.Blob.upload_from_file", refuse)
    assert not storage.create_new("gs://bucket/new", b"another")
    assert storage.create_new("gs://bucket/new", b"mine")  # The answer to a first try was lost.
