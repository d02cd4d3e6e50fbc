"""Raw data and shards at URLs: memory, and a real S3 server on loopback behind a proxy that is slow, refuses, or hangs up."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import fsspec
import pytest

import cmelt.remote
from cmelt.datasets import open_dataset
from cmelt.errors import InputError, MissingExtra, OutputError, RecordError
from cmelt.ingest import ingest
from cmelt.raw import Raw
from cmelt.remote import Remote
from cmelt.status import status
from tests.test_ingest import files_of, recipe

MakeRaw = Callable[..., Path]

pytestmark = pytest.mark.filterwarnings(  # aiobotocore and moto leave sockets to the garbage collector
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::DeprecationWarning"
)


class Faults(socketserver.ThreadingTCPServer):
    """A proxy before a server on loopback, that does to a connection what `next_fault` says: '', slow, 503, or cut (at half the answer)."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), Connection)
        self.behind = port
        self.faults: list[str] = []
        self.met: list[str] = []
        self.lock = threading.Lock()

    def next_fault(self) -> str:
        """Return what is to happen to the next request."""
        with self.lock:
            fault = self.faults.pop(0) if self.faults else ""
            self.met += [fault] if fault else []
            return fault


class Connection(socketserver.BaseRequestHandler):
    """One connection: requests go on to the server, answers come back, each as the proxy says."""

    server: Faults

    def handle(self) -> None:
        with socket.create_connection(("127.0.0.1", self.server.behind)) as there, self.request.makefile("rb") as asked:
            answers = there.makefile("rb")
            while (line := asked.readline()).strip():
                head, body = read_message(asked, line, go_on=self.request.sendall)
                fault = self.server.next_fault()
                if fault == "503":
                    said = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
                    self.request.sendall(
                        b"HTTP/1.1 503 Slow Down\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n\r\n" % len(said) + said
                    )
                    continue
                if fault == "slow":
                    time.sleep(0.3)
                there.sendall(head + body)
                bodiless = line.startswith(b"HEAD ")
                head, body = read_message(answers, answers.readline(), bodiless)
                if fault == "cut":
                    self.request.sendall((head + body)[: len(head) + len(body) // 2 - (not body) * 9])
                    return
                self.request.sendall(head + body)


def read_message(file: BinaryIO, line: bytes, bodiless: bool = False, go_on: Callable[[bytes], None] | None = None) -> tuple[bytes, bytes]:
    """Return head and body of an HTTP message that begins with `line`; who waits to be told to send its body is told so by `go_on`."""
    head, length, chunked = line, 0, False
    while (line := file.readline()).strip():
        name, _, value = line.lower().partition(b":")
        if name == b"expect" and go_on:
            go_on(b"HTTP/1.1 100 Continue\r\n\r\n")
            continue
        head += line
        length = int(value) if name == b"content-length" else length
        chunked |= name == b"transfer-encoding"
    body = b""
    while chunked and not bodiless and (size := file.readline()):
        body += size + file.read(int(size.partition(b";")[0], 16) + 2)
        if int(size.partition(b";")[0], 16) == 0:
            break
    return head + b"\r\n", body or (b"" if bodiless else file.read(length))


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    """Return the port of an S3 server."""
    from moto.server import ThreadedMotoServer

    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    yield moto.get_host_and_port()[1]
    moto.stop()


@pytest.fixture
def s3(server: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    """Give the proxy before the server, which the environment names, with a bucket 'ecgs'."""
    proxy = Faults(server)
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.server_address[1]}",
        "AWS_ACCESS_KEY_ID": "AKIAMADEUP",
        "AWS_SECRET_ACCESS_KEY": "made-up-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cmelt.remote, "PAUSES_S", (0.01, 0.05))
    fs = fsspec.filesystem("s3", use_listings_cache=False)
    if not fs.exists("ecgs"):
        fs.mkdir("ecgs")
    yield proxy
    proxy.shutdown()
    proxy.server_close()
    fs.clear_instance_cache()


def upload(raw: Path, url: str) -> None:
    """Put a raw folder at a URL."""
    fs, root = fsspec.core.url_to_fs(url)
    for file in raw.rglob("*"):
        if file.is_file():
            fs.pipe_file(f"{root}/{file.relative_to(raw)}", file.read_bytes())


def download(url: str) -> dict[str, bytes]:
    """Return every file at a URL."""
    fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
    root = root.rstrip("/")
    return {name[len(root) :].lstrip("/"): fs.cat_file(name) for name in fs.find(root)}


def test_memory_in_and_out_is_as_from_disk_to_disk(make_raw: MakeRaw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = make_raw(12)
    (raw / "records500/00000/00003_hr.hea").unlink()
    upload(raw, "memory://raw")
    ingest("ptbxl", raw, tmp_path / "whole", recipe(), workers=1)
    real, calls = cmelt.ingest.make_windows, []

    def dies_at_the_eighth(*args: object) -> object:
        calls.append(args)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr("cmelt.ingest.make_windows", dies_at_the_eighth)
        with pytest.raises(KeyboardInterrupt):
            ingest("ptbxl", "memory://raw", "memory://out", recipe(), workers=1)
    assert (status("memory://out")["state"], status("memory://out")["shards_done"]) == ("stopped", 1)
    with pytest.raises(OutputError, match="unfinished from another plan"):
        ingest("ptbxl", "memory://raw", "memory://out", recipe("signal.fs_hz=250"), workers=1)
    assert ingest("ptbxl", "memory://raw", "memory://out", recipe(), workers=1).kept == 11
    assert download("memory://out") == files_of(tmp_path / "whole")
    assert ingest("ptbxl", raw, "memory://out", recipe(), workers=1).done_before
    with pytest.raises(OutputError, match="something else"):
        ingest("ptbxl", raw, "memory://raw", recipe(), workers=1)
    ingest("ptbxl", f"file://{raw}", f"file://{tmp_path}/file", recipe(), workers=1)
    assert files_of(tmp_path / "file") == files_of(tmp_path / "whole")
    fsspec.filesystem("memory").store.clear()


def test_a_url_is_read_as_a_folder_is(tmp_path: Path) -> None:
    files = {"RECORDS": b"a/r1\n", "a/r1.hea": b"r1 1 500 4\n" * 40, "a/b/R2.HEA": b"", "æ/ö.hea": b"x"}
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    upload(tmp_path, "memory://here")
    raw = Raw("memory://here")
    assert list(raw.files(".hea")) == list(Raw(tmp_path).files(".hea"))
    assert {name: (raw.read(name), raw.read(name, 3), raw.size(name), raw.exists(name)) for name in files} == {
        name: (data, data[:3], len(data), True) for name, data in files.items()
    }
    assert not raw.exists("a")
    assert not raw.exists("a/r9.hea")
    with raw.on_disk(["a/r1.hea"]) as there:
        assert Path(there, "a/r1.hea").read_bytes() == files["a/r1.hea"]
    for path, reason in (("../x", "path_outside"), ("a/r9.hea", "missing_file")):
        with pytest.raises(RecordError, match=reason):
            raw.read(path)
    with pytest.raises(InputError, match="holds nothing"):
        Raw("memory://nowhere")
    fsspec.filesystem("memory").store.clear()


def test_s3_with_faults_ends_in_the_same_bytes(make_raw: MakeRaw, tmp_path: Path, s3: Faults) -> None:
    raw = make_raw(12)
    ingest("ptbxl", raw, tmp_path / "whole", recipe(), workers=1)
    upload(raw, "s3://ecgs/raw")
    for number, (source, kinds) in enumerate((("s3://ecgs/raw", ["slow", "503", "cut"]), (raw, ["cut", "503"]))):
        s3.faults, s3.met = ([*kinds, *[""] * 3] * 8), []
        out = f"s3://ecgs/out{number}"
        assert ingest("ptbxl", source, out, recipe(), workers=1).kept == 12
        assert set(s3.met) == set(kinds)
        s3.faults = []
        assert download(out) == files_of(tmp_path / "whole")


def test_s3_two_workers_write_through_their_own_spools(make_raw: MakeRaw, tmp_path: Path, s3: Faults) -> None:
    raw = make_raw(12)
    ingest("ptbxl", raw, tmp_path / "whole", recipe(), workers=1)
    ingest("ptbxl", raw, "s3://ecgs/two", recipe(), workers=2)
    assert download("s3://ecgs/two") == files_of(tmp_path / "whole")


def test_a_server_that_stays_away_refuses_no_recording(make_raw: MakeRaw, tmp_path: Path, s3: Faults) -> None:
    upload(make_raw(6), "s3://ecgs/away")
    raw = Raw("s3://ecgs/away")
    assert len(list(open_dataset("ptbxl", raw).sources())) == 6
    s3.faults = ["503"] * 200
    with pytest.raises(InputError, match="run the same command again later") as error:
        raw.read("records500/00000/00001_hr.hea")
    assert not isinstance(error.value, RecordError)


def test_an_ingest_that_lost_its_server_goes_on_where_it_was(
    make_raw: MakeRaw, tmp_path: Path, s3: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = make_raw(12)
    ingest("ptbxl", raw, tmp_path / "whole", recipe(), workers=1)
    upload(raw, "s3://ecgs/lost-raw")
    real, calls = cmelt.ingest.make_windows, []

    def away_from_the_eighth_on(*args: object) -> object:
        calls.append(args)
        s3.faults = ["cut"] * 200 if len(calls) == 8 else s3.faults
        return real(*args)

    monkeypatch.setattr("cmelt.ingest.make_windows", away_from_the_eighth_on)
    with pytest.raises(InputError, match="run the same command again later") as error:
        ingest("ptbxl", "s3://ecgs/lost-raw", "s3://ecgs/lost", recipe(), workers=1)
    assert not isinstance(error.value, RecordError)
    s3.faults = []
    assert "manifest.json" not in download("s3://ecgs/lost")
    found = status("s3://ecgs/lost")
    assert (found["state"], found["shards_done"], found["done"]) == ("stopped", 1, 5)
    with pytest.raises(OutputError, match=r"fs_hz is 500\.0 there, 250\.0 now"):
        ingest("ptbxl", "s3://ecgs/lost-raw", "s3://ecgs/lost", recipe("signal.fs_hz=250"), workers=1)
    assert ingest("ptbxl", "s3://ecgs/lost-raw", "s3://ecgs/lost", recipe(), workers=1).kept == 12
    assert len(calls) == 8 + 7  # the finished shard was not made again
    assert download("s3://ecgs/lost") == files_of(tmp_path / "whole")


def test_keys_come_from_the_environment_alone(make_raw: MakeRaw, tmp_path: Path, s3: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = make_raw(6)
    ingest("ptbxl", raw, "s3://ecgs/keys", recipe(), workers=1)
    assert not [name for name, data in download("s3://ecgs/keys").items() if b"AKIAMADEUP" in data or b"made-up-secret" in data]
    with pytest.raises(OutputError, match="make the bucket first"):
        ingest("ptbxl", raw, "s3://no-such-bucket/out", recipe(), workers=1)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    fsspec.filesystem("s3").clear_instance_cache()
    with pytest.raises(InputError, match=r"no access .*; put credentials for it into the environment"):
        ingest("ptbxl", raw, "s3://ecgs/keys", recipe(), workers=1)


@pytest.fixture
def gs(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Give the name of a bucket on a Google Cloud Storage server on loopback, which the environment names."""
    from gcp_storage_emulator.server import create_server

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = create_server("127.0.0.1", port, in_memory=True, default_bucket="hearts")
    server.start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield "hearts"
    server.stop()
    fsspec.filesystem("gs").clear_instance_cache()


def test_gs_in_and_out_is_as_from_disk_to_disk(make_raw: MakeRaw, tmp_path: Path, gs: str) -> None:
    raw = make_raw(7)
    ingest("ptbxl", raw, tmp_path / "whole", recipe(), workers=1)
    upload(raw, f"gs://{gs}/raw")
    assert ingest("ptbxl", f"gs://{gs}/raw", f"gs://{gs}/out", recipe(), workers=1).kept == 7
    assert download(f"gs://{gs}/out") == files_of(tmp_path / "whole")
    assert status(f"gs://{gs}/out")["state"] == "finished"


def test_a_request_is_tried_again_and_an_upload_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cmelt.remote, "PAUSES_S", (0.0, 0.0))
    (tmp_path / "x").write_bytes(b"twelve bytes")
    remote, failures = Remote("memory://again"), list[Exception]()
    real_put, real_cat, short = remote.fs.put_file, remote.fs.cat_file, [b"twelve"]

    def put_file(here: str, there: str) -> None:
        remote.fs.pipe_file(there, short.pop()) if short else real_put(here, there)

    def cat_file(path: str, **options: object) -> bytes:
        if failures:
            raise failures.pop()
        return real_cat(path, **options)

    monkeypatch.setattr(remote.fs, "put_file", put_file)
    monkeypatch.setattr(remote.fs, "cat_file", cat_file)
    remote.put(tmp_path / "x", "x")  # the first time half of it arrives
    failures[:] = [ConnectionResetError(), TimeoutError()]
    assert remote.read("x") == b"twelve bytes"
    failures[:] = [ConnectionResetError("gone")] * 3
    with pytest.raises(InputError, match=r"gone\); run the same command again later"):
        remote.read("x")
    failures[:] = [PermissionError("no")]
    with pytest.raises(InputError, match="put credentials"):
        remote.read("x")
    remote.fs.store.clear()


def test_keys_and_unknown_places_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="do not belong in a URL") as error:
        Remote("s3://key:secret@bucket/x")
    assert "secret" not in str(error.value)
    with pytest.raises(InputError, match="no place that fsspec knows"):
        Remote("nonsense://bucket/x")

    def absent(*args: object, **kwargs: object) -> None:
        raise ImportError

    monkeypatch.setattr("fsspec.core.url_to_fs", absent)
    with pytest.raises(MissingExtra, match=r"cmelt\[s3\]"):
        Remote("s3://bucket/x")
