"""The S3 server under other tests checks keys, keeps what it was given, and stores a name at most once when asked to."""

from __future__ import annotations

from pathlib import Path

import obstore
import pytest
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import S3Store

from testbed.s3_server import REGION, S3Server, find_versitygw, start_s3_server
from testbed.server_process import NoServer


@pytest.mark.s3
def test_a_name_is_stored_once_where_that_is_asked_for(s3_server: S3Server, s3_bucket: str) -> None:
    store = s3_server.store(s3_bucket)
    s3_server.put(s3_bucket, "a/b", b"first")

    with pytest.raises(AlreadyExistsError):
        obstore.put(store, "a/b", b"second", mode="create")

    assert s3_server.objects(s3_bucket) == {"a/b": b"first"}
    assert bytes(obstore.get(store, "a/b").bytes()) == b"first"


@pytest.mark.s3
def test_a_wrong_secret_is_refused(s3_server: S3Server, s3_bucket: str) -> None:
    stranger = S3Store(
        s3_bucket,
        endpoint=s3_server.url,
        region=REGION,
        access_key_id=s3_server.access_key,
        secret_access_key="wrong" * 8,
        client_options={"allow_http": True},
    )

    with pytest.raises((BaseError, PermissionError), match="SignatureDoesNotMatch"):
        obstore.put(stranger, "a", b"")


@pytest.mark.s3
def test_a_killed_server_comes_back_with_its_objects_at_the_same_address(s3_server: S3Server) -> None:
    with start_s3_server(program=Path(s3_server.origin)) as server:
        server.make_bucket("kept")
        server.put("kept", "a", b"content")
        url = server.url

        server.kill()
        server.restart()

        assert bytes(obstore.get(server.store("kept"), "a").bytes()) == b"content"
        assert server.url == url


def test_without_a_program_it_is_said_how_to_get_one(tmp_path: Path) -> None:
    nothing = {"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}

    with pytest.raises(NoServer, match="make s3-server"):
        find_versitygw(build=False, environment=nothing)
    with pytest.raises(NoServer, match="VERSITYGW=/nowhere/versitygw"):
        find_versitygw(environment={**nothing, "VERSITYGW": "/nowhere/versitygw"})
