"""An S3 bucket on a real server: what is listed, read and written, and what each refusal means. No message holds a key."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest

from testbed.s3_server import S3Server, start_s3_server
from tests.servers.socket_server import Answer, Pause, Reset, Serve, SocketServer, http_answer
from transport.object_store import BucketPrefix, ObjectStore, StoreAccess, StoreFault

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


def test_refusals_are_distinguished_from_passing_faults(s3_server: S3Server, s3_bucket: str) -> None:
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

    assert time.monotonic() - began_s < 20
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


def test_of_the_usual_variables_those_are_read_that_the_page_names() -> None:
    everything = {
        "AWS_REGION": "a",
        "AWS_DEFAULT_REGION": "b",
        "AWS_ENDPOINT_URL": "http://one",
        "AWS_ENDPOINT_URL_S3": "http://two",
        "HOME": "/nonexistent",
    }

    assert StoreAccess.of(everything) == StoreAccess("http://two", "a")
    assert StoreAccess.of({**everything, "AWS_REGION": "", "AWS_ENDPOINT_URL_S3": ""}) == StoreAccess("http://one", "b")
    assert StoreAccess.of({"AWS_CONFIG_FILE": "/etc/hostname", "HOME": "/nonexistent"}) == StoreAccess()


NOTHING_THERE = http_answer("404 Not Found")


def refusal_of(store: ObjectStore) -> StoreFault:
    with pytest.raises(StoreFault) as caught:
        store.put_new("a/b", b"content")
    assert not any(secret in str(caught.value) for secret in KEYS.values()), caught.value
    return caught.value


def asked(serve: Serve, answer: Answer) -> ObjectStore:
    return ObjectStore("bucket", StoreAccess(serve([NOTHING_THERE], answer).url, "", KEYS), timeout_s=1.0)


def test_an_object_is_stored_once_in_one_request_and_never_replaced(s3_server: S3Server, s3_bucket: str) -> None:
    store = ObjectStore(s3_bucket, access_to(s3_server))
    store.look("a")

    assert store.put_new("a/x", b"first")
    assert not store.put_new("a/x", b"second")
    # Nor where it came between the look and the write.
    assert not store._put("a/x", b"second", mode="create")
    assert store.put_new("a/large", bytes(30_000_000))

    assert store.read_whole("a/x") == b"first"
    assert store.read_whole("a/y") is None
    assert {key: len(content) for key, content in s3_server.objects(s3_bucket).items()} == {"a/x": 5, "a/large": 30_000_000}


def test_refusals_are_distinguished_before_and_during_a_write(s3_server: S3Server, s3_bucket: str) -> None:
    access = access_to(s3_server)
    wrong_secret = dataclasses.replace(access, keys={**access.keys, "secret_access_key": KEYS["secret_access_key"]})
    for wrong, code in (
        (ObjectStore("no-such-bucket", access), "NoSuchBucket"),
        (ObjectStore(s3_bucket, dataclasses.replace(access, keys=KEYS)), "XAdminUserNotFound"),
        (ObjectStore(s3_bucket, wrong_secret), ""),
        (ObjectStore(s3_bucket, dataclasses.replace(access, endpoint=access.endpoint.replace("http:", "https:"))), ""),
        (ObjectStore(s3_bucket, dataclasses.replace(access, ca_file="/nowhere/ca.pem")), ""),
    ):
        with pytest.raises(StoreFault) as caught:
            wrong.look("")
        assert caught.value.is_denial, caught.value
        fault = refusal_of(wrong)
        assert (fault.is_denial, fault.code) == (True, code), fault
        assert access.keys["access_key_id"] not in str(fault)


def test_keys_that_may_not_store_are_told_before_there_is_something_to_store(s3_server: S3Server, s3_bucket: str) -> None:
    ObjectStore(s3_bucket, access_to(s3_server)).try_to_write("rows/.probe")
    assert s3_server.objects(s3_bucket) == {}, "nothing is stored to find out"

    with start_s3_server(program=Path(s3_server.origin), is_read_only=True) as server:
        server.make_bucket("read-only")
        store = ObjectStore("read-only", access_to(server))
        store.look("rows")
        with pytest.raises(StoreFault, match="the right to store objects") as caught:
            store.try_to_write("rows/.probe")
    assert caught.value.is_denial


@pytest.mark.parametrize("answer", ["501 Not Implemented", "400 Bad Request", "503 Slow Down", "200 OK"])
def test_a_store_that_does_not_know_the_question_is_not_taken_for_one_that_refuses(serve: Serve, answer: str) -> None:
    ObjectStore("bucket", StoreAccess(serve([http_answer(answer, b"", 'ETag: "e"')]).url, "", KEYS), timeout_s=1.0).try_to_write(
        "x"
    )


def test_without_keys_nothing_asks_the_address_for_a_machines_role_unless_told_to(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve([NOTHING_THERE])
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", server.url)
    for said, is_requested in (("", False), ("true", False), ("false", True)):
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", said)
        with pytest.raises(StoreFault) as caught:
            ObjectStore("bucket", StoreAccess()).look("")
        asks_for_keys = "needs keys: set AWS_ACCESS_KEY_ID" in str(caught.value) and caught.value.is_denial
        assert (bool(server.requests), asks_for_keys) == (is_requested, not is_requested)


@pytest.mark.parametrize(
    ("answer", "sentence", "is_denial"),
    [
        ([http_answer("503 Slow Down", b"<Code>SlowDown</Code>")], "503 (SlowDown)", False),
        ([http_answer("500 Internal Server Error", b"<Message>AKIAEXAMPLE</Message>")], "500", False),
        ([http_answer("507 Insufficient Storage")], "it is full", False),
        ([http_answer("403 Forbidden", b"<Code>QuotaExceeded</Code>")], "it is full", False),
        ([http_answer("403 Forbidden", b"<AWSAccessKeyId>AKIAEXAMPLE</AWSAccessKeyId>")], "check its name", True),
        ([http_answer("400 Bad Request", b"<Code>AuthorizationHeaderMalformed</Code>")], "AWS_REGION", True),
        ([http_answer("301 Moved Permanently")], "AWS_REGION", True),
        ([Reset()], "broke off", False),
        ([b""], "broke off", False),
        ([b"HTTP/1.1 200 OK\r\nContent-Le"], "broke off", False),
        ([Pause(30)], "within 1 s", False),
        ([b"HTTP/1.1 200 OK\r\n", *(part for _ in range(30) for part in (Pause(0.2), b"X-A: b\r\n"))], "within 1 s", False),
    ],
    ids=range(12),
)
def test_the_answer_to_a_write_says_whether_to_wait(serve: Serve, answer: Answer, sentence: str, is_denial: bool) -> None:
    began_s = time.monotonic()
    fault = refusal_of(asked(serve, answer))

    assert time.monotonic() - began_s < 20
    assert (fault.is_denial, sentence in str(fault)) == (is_denial, True), fault


def test_a_store_that_knows_no_conditional_write_is_written_to_once_nothing_is_there(serve: Serve) -> None:
    server = serve([NOTHING_THERE], [http_answer("501 Not Implemented")], [http_answer("200 OK", b"", 'ETag: "e"')])
    store = ObjectStore("bucket", StoreAccess(server.url, "", KEYS), timeout_s=1.0)

    assert store.put_new("x", b"content")

    assert [request.split(b" ")[0] for request in server.requests] == [b"HEAD", b"PUT", b"PUT"]
    assert [b"if-none-match" in request.lower() for request in server.requests] == [False, True, False]


@pytest.mark.parametrize(("is_denial", "clients"), [(True, 2), (False, 1)])
def test_after_a_denial_a_prefix_is_asked_with_the_keys_of_now(is_denial: bool, clients: int) -> None:
    class Refusing(ObjectStore):
        def read_whole(self, key: str) -> bytes | None:
            raise StoreFault(f"no {key}", is_denial=is_denial)

    made: list[ObjectStore] = []

    def connect() -> ObjectStore:
        made.append(Refusing("b", StoreAccess("http://s3.invalid", "", KEYS)))
        return made[-1]

    prefix = BucketPrefix(connect, name="s3.invalid/b/p", prefix="p", error_of=lambda fault: RuntimeError(f"SETTING: {fault}"))
    for _ in range(2):
        with pytest.raises(RuntimeError, match="SETTING: no p/x"):
            prefix.read("x")

    assert len(made) == clients
