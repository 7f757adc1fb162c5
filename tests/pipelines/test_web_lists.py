"""The whole program on a list whose images lie on web hosts."""

import hashlib
import json
import socket

import pytest

from configs.errors import InputError
from pipelines import embed, ingest
from pipelines.checks.preflight import ScannedLists
from pipelines.checks.web_hosts import check_web_hosts
from preprocess.records.example import decode_example
from preprocess.records.tfrecord import whole_records
from tests.support.photos import write_photos
from tests.support.programs import end_program, start_program
from tests.support.web_host import Page, WebHost

_ROWS = 30


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = write_photos(tmp_path_factory.mktemp("photos"), _ROWS, side=40)
    rows = [line.split(",") for line in (folder / "train.csv").read_text().splitlines()]
    return folder, [(uri, (folder / uri).read_bytes(), label) for uri, label in rows]


@pytest.fixture
def host(photos):
    with WebHost() as host:
        for number, (_, data, _) in enumerate(photos[1]):
            host.pages[f"/{number}.png"] = Page(body=data)
        yield host


def closed_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def run(folder, data, *flags, expect=0):
    command = ["-m", "tests.support.slow_job", "0", "--weights", "random"]
    command += ["--input_path", f"{folder}/train.csv", "--input_dict", f"{data}/dict.txt"]
    command += ["--output_path", f"{folder}/out/train", "--rows_per_shard", "8", *flags]
    return end_program(start_program(command, {"TRY_AGAIN_SEC": "0.5"}), expect=expect)


def digests(folder):
    shards = [path.read_bytes() for path in (folder / "out").glob("train-*")]
    examples = [decode_example(data) for shard in shards for data in whole_records(shard)]
    return {example.image_uri: example.image_sha256 for example in examples}


def report_of(folder):
    return json.loads((folder / "out/_train/report.json").read_text())


def test_images_of_web_hosts_become_records_or_failures_with_reasons(host, photos, tmp_path):
    data, rows = photos
    gone = f"http://127.0.0.1:{closed_port()}"
    host.pages["/page.html"] = Page(body=b"<!DOCTYPE html><html>Log in</html>")
    host.pages["/moved.png"] = Page(status=301, headers={"Location": "/0.png"})
    host.pages["/busy.png"] = [Page(status=503), Page(body=rows[1][1])]
    host.pages["/secret.png"] = Page(status=403)
    names = [f"{host.url}/{number}.png" for number in range(_ROWS)]
    names += [f"{host.url}/{name}" for name in ("moved.png", "busy.png", "page.html", "secret.png", "none.png")]
    names += [f"{gone}/{number}.png" for number in range(3)]
    (tmp_path / "train.csv").write_text("".join(f"{name},{rows[n % _ROWS][2]}\n" for n, name in enumerate(names)))
    flags = ["--storage_retry_sec", "1", "--max_failed_percent", "50", "--web_contact", "me@example.org"]
    _, said = run(tmp_path, data, *flags, "--connections_per_host", "3")
    assert f"note: {len(names)} of {len(names)} images are read from 2 web hosts ({host.name}, " in said
    assert host.most_at_once <= 3
    (agent,) = host.agents
    assert "(me@example.org)" in agent
    report = report_of(tmp_path)
    assert report["failed"] == {"no_permission": 1, "not_an_image": 1, "not_found": 1, "unreachable": 3}
    assert report["embedded"] == _ROWS + 2
    duplicates = [json.loads(line) for line in (tmp_path / "out/_train/duplicates.jsonl").read_text().splitlines()]
    assert any(f"{host.url}/moved.png" in json.dumps(line) for line in duplicates)

    assert digests(tmp_path) == {
        **{f"{host.url}/{number}.png": hashlib.sha256(rows[number][1]).digest() for number in range(_ROWS)},
        f"{host.url}/moved.png": hashlib.sha256(rows[0][1]).digest(),
        f"{host.url}/busy.png": hashlib.sha256(rows[1][1]).digest(),
    }

    # The failures are tried again once the host is back, and nothing else is.
    host.pages["/none.png"] = Page(body=rows[2][1])
    host.requests.clear()
    run(tmp_path, data, *flags, "--retry_failures", "not_found,no_permission")
    assert sorted(host.requests) == ["/none.png", "/secret.png"]
    assert report_of(tmp_path)["failed"] == {"no_permission": 1, "not_an_image": 1, "unreachable": 3}


def test_a_host_that_goes_away_for_good_stops_the_job_and_it_goes_on_when_it_is_back(photos, tmp_path):
    data, rows = photos
    with WebHost() as host:
        for number in range(16):
            host.pages[f"/{number}.png"] = Page(body=rows[number][1], headers={"Connection": "close"})
        names = [f"{host.url}/{number}.png" for number in range(_ROWS)]
        (tmp_path / "train.csv").write_text("".join(f"{name},{rows[n][2]}\n" for n, name in enumerate(names)))
        for number in range(16, _ROWS):
            host.pages[f"/{number}.png"] = lambda: host.stop() or Page(status=503, headers={"Connection": "close"})
        _, said = run(tmp_path, data, "--storage_retry_sec", "1", expect=2)
        last = said.splitlines()[-1]
        assert "lost its network" in last
        assert "To go on, give the same command again" in last
        assert not (tmp_path / "out/_train/report.json").exists()
        with WebHost(port=host.port) as back:
            for number, (_, photo, _) in enumerate(rows):
                back.pages[f"/{number}.png"] = Page(body=photo)
            run(tmp_path, data, "--storage_retry_sec", "1")
            assert len(back.requests) < _ROWS
    report = report_of(tmp_path)
    assert report["embedded"] == _ROWS
    assert report["embedded_by"]["earlier_run"] >= 8


def test_without_a_connection_to_any_host_nothing_starts(photos, tmp_path, monkeypatch):
    monkeypatch.delenv("http_proxy", raising=False)
    (tmp_path / "train.csv").write_text(f"http://127.0.0.1:{closed_port()}/a.png,a\nhttp://[::1/b.png,a\n")
    (tmp_path / "dict.txt").write_text("a\n")
    with pytest.raises(InputError, match="no connection to any of the web hosts"):
        embed.main(
            [
                *("--input_path", f"{tmp_path}/train.csv", "--input_dict", f"{tmp_path}/dict.txt"),
                *("--output_path", f"{tmp_path}/out/train", "--weights", "random"),
            ]
        )
    assert not (tmp_path / "out").exists()


def test_one_host_of_several_is_enough_to_start(host, capsys):
    hosts = {"gone": f"http://127.0.0.1:{closed_port()}/a", "here": f"{host.url}/b", "c": "http://c/", "d": "http://d/"}
    lists = ScannedLists(paths=(), sha256=(), rows=9, images=9, sample=(), web_images=5, web_hosts=hosts)
    check_web_hosts(lists, connections_per_host=8, from_here=True)
    assert "note: 5 of 9 images are read from 4 web hosts (gone, here, c, ...), at most 8" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["input_path", "input_dict", "output_path", "embedding_cache"])
@pytest.mark.parametrize(
    ("uri", "words"), [("https://h/x?k=secret", "only the images"), ("az://h/x", "nothing here opens az")]
)
def test_other_files_at_web_addresses_are_refused_in_one_line(tmp_path, flag, uri, words):
    (tmp_path / "train.csv").write_text("a.png,a\n")
    (tmp_path / "dict.txt").write_text("a\n")
    paths = {"input_path": f"{tmp_path}/train.csv", "input_dict": f"{tmp_path}/dict.txt"}
    paths |= {"output_path": f"{tmp_path}/out/train", flag: uri}
    with pytest.raises(InputError, match=words) as caught:
        embed.main([*(f"--{name}={path}" for name, path in paths.items()), "--weights=random"])
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("flags", [("https://h/photos", "out"), ("photos", "https://h/out"), ("az://c/photos", "out")])
def test_ingest_says_at_once_what_it_cannot_open(tmp_path, monkeypatch, flags):
    monkeypatch.chdir(tmp_path)
    for label in "ab":
        (tmp_path / "photos" / label).mkdir(parents=True)
        write_photos(tmp_path / "photos" / label, 2, side=20)
    with pytest.raises(InputError, match="only the images|nothing here opens"):
        ingest.main(["--image_dir", flags[0], "--output_dir", flags[1], "--eval_percent", "0", "--test_percent", "0"])
