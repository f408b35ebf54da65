"""An S3 bucket on a real server: what is listed and read, and what each refusal means. No message holds a key."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest

from testbed.s3_server import S3Server
from tests.servers.socket_server import Pause, SocketServer
from transport.object_store import ObjectStore, StoreAccess, StoreFault

KEYS = {"access_key_id": "AKIAEXAMPLE", "secret_access_key": "a-secret-nobody-sees"}


def access_to(server: S3Server) -> StoreAccess:
    return StoreAccess.of(server.variables())


def fault_of(store: ObjectStore, key: str = "a/b", *, version: str = '"0"', end: int = 4) -> StoreFault:
    with pytest.raises(StoreFault) as caught:
        store.read(key, 0, end, version=version)
    assert not any(secret in str(caught.value) for secret in (*KEYS.values(), key)), caught.value
    return caught.value


def test_objects_below_a_prefix_are_listed_and_read_by_their_version(s3_server: S3Server, s3_bucket: str) -> None:
    for key in ("set/a.parquet", "set/day=1%2F2/b.parquet", "settled/c.parquet", "set.parquet"):
        s3_server.put(s3_bucket, key, key.encode())
    store = ObjectStore(s3_bucket, access_to(s3_server))

    found = {one.key: one for one in store.objects("set")}

    assert sorted(found) == ["set/a.parquet", "set/day=1%2F2/b.parquet"]
    one = found["set/day=1%2F2/b.parquet"]
    assert store.read(one.key, 4, one.size, version=one.version) == one.key.encode()[4:]
    assert store.find("set.parquet") is not None
    assert store.find("set/none") is None
    assert len(list(store.objects(""))) == 4

    s3_server.put(s3_bucket, one.key, b"another")
    assert fault_of(store, one.key, version=one.version).is_changed
    assert fault_of(store, "set/none", version=one.version).is_missing


def test_each_refusal_is_told_from_what_may_pass(s3_server: S3Server, s3_bucket: str) -> None:
    access = access_to(s3_server)
    for wrong in (
        ObjectStore(s3_bucket, dataclasses.replace(access, keys={**access.keys, **KEYS})),
        ObjectStore(s3_bucket, dataclasses.replace(access, keys={**access.keys, "secret_access_key": KEYS["secret_access_key"]})),
        ObjectStore("no-such-bucket", access),
        ObjectStore(s3_bucket, dataclasses.replace(access, region="eu-west-3")),
        ObjectStore(s3_bucket, dataclasses.replace(access, keys={})),
    ):
        assert fault_of(wrong).is_denial
        with pytest.raises(StoreFault) as caught:
            list(wrong.objects(""))
        assert caught.value.is_denial, caught.value
    gone = fault_of(ObjectStore(s3_bucket, dataclasses.replace(access, endpoint="http://127.0.0.1:9")))
    assert (gone.is_denial, "cannot be reached" in str(gone)) == (False, True)


@pytest.mark.parametrize("pause_s", [0.2, 60.0], ids=["trickles", "says nothing"])
def test_an_answer_that_does_not_end_is_given_up_in_time(pause_s: float) -> None:
    head = 'HTTP/1.1 206 Partial Content\r\nContent-Length: 1000\r\nContent-Range: bytes 0-999/1000\r\nETag: "0"\r\n'
    begin = f"{head}Last-Modified: Sat, 01 Nov 2025 00:00:00 GMT\r\n\r\n".encode()
    server = SocketServer([begin, *(part for _ in range(20) for part in (b"x", Pause(pause_s)))])
    server.start()
    try:
        store = ObjectStore("bucket", StoreAccess(server.url, "", KEYS), timeout_s=1.0)
        began_s = time.monotonic()
        fault = fault_of(store, end=1000)
    finally:
        server.stop()

    assert time.monotonic() - began_s < 5
    assert (fault.is_denial, "within 1 s" in str(fault)) == (False, True), fault


def test_keys_come_from_variables_or_else_from_the_usual_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(
        "[default]\naws_access_key_id = d\naws_secret_access_key = s\n[ward]\naws_access_key_id=w\naws_secret_access_key=t\n"
    )
    variables = {"AWS_SHARED_CREDENTIALS_FILE": str(file), "AWS_ENDPOINT_URL": "HTTP://Store:9000/"}

    assert StoreAccess.of(variables) == StoreAccess("http://store:9000", "", {"access_key_id": "d", "secret_access_key": "s"})
    assert StoreAccess.of({**variables, "AWS_PROFILE": "ward"}).keys == {"access_key_id": "w", "secret_access_key": "t"}
    given = StoreAccess.of({**variables, "AWS_ACCESS_KEY_ID": "v", "AWS_SECRET_ACCESS_KEY": "u", "AWS_SESSION_TOKEN": "x"})
    assert given.keys == {"access_key_id": "v", "secret_access_key": "u", "session_token": "x"}
    assert StoreAccess.of({"AWS_PROFILE": "none", "HOME": str(tmp_path)}).keys == {}
    assert "keys" not in repr(given), "keys are shown nowhere"
