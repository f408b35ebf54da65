"""Where servers and object stores are, and how each is reached: address, credentials, proxy."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from anonymizer.errors import ConfigurationError
from service.settings.declared import Settings
from service.settings.types import Secret
from transport.addresses import canonical_address
from transport.proxies import UnusableProxy, proxy_for

if TYPE_CHECKING:
    from transport.influx_connection import InfluxConnection
    from transport.influx_versions import Address
    from transport.object_store import StoreAccess

_T = TypeVar("_T")


def input_address(settings: Settings, token: Secret) -> Address:
    """Return the address of the input server, to be used with a token."""
    return _address(settings, settings.influx_url, settings.influx_org, token, policy=settings.influx_retention_policy)


def output_address(settings: Settings, token: Secret) -> Address:
    """Return the address of the output server, to be used with a token."""
    url = settings.influx_output_url or settings.influx_url
    address = _address(settings, url, settings.influx_output_org or settings.influx_org, token)
    return dataclasses.replace(address, org_setting="INFLUX_OUTPUT_ORG") if settings.influx_output_org else address


def _address(settings: Settings, url: str, org: str, token: Secret, *, policy: str = "") -> Address:
    from transport.influx_versions import Address

    # Another token than the usual one was set in place of the usual user too.
    is_usual = token is settings.influx_token or not token
    return Address(
        url=url,
        org=org,
        ca_file=settings.influx_ca_file,
        timeout_s=settings.influx_query_timeout,
        gzip=settings.influx_gzip,
        proxy=proxy_of(url),
        language=settings.influx_query_language,
        username=settings.influx_username if is_usual else "",
        password=settings.influx_password.current,
        retention_policy=policy,
        token_setting=_token_setting(settings, token),
    )


def _token_setting(settings: Settings, token: Secret) -> str:
    others = {"INFLUX_VERIFY_TOKEN": settings.influx_verify_token, "INFLUX_OUTPUT_TOKEN": settings.influx_output_token}
    return next((name for name, secret in others.items() if token is secret), "INFLUX_TOKEN")


def reading_token(settings: Settings) -> Secret:
    """Return the token for reading from the output server."""
    return settings.influx_verify_token or settings.influx_output_token or settings.influx_token


@contextmanager
def connection_to(address: Address, token: Secret) -> Iterator[InfluxConnection]:
    """Yield a connection to InfluxDB, and close it."""
    from transport.influx_connection import InfluxConnection

    connection = InfluxConnection(address, token.current)
    try:
        yield connection
    finally:
        connection.close()


def store_access(settings: Settings) -> StoreAccess:
    """Return the current access to object stores; keys in files may have been rotated."""
    from transport.object_store import StoreAccess

    keys = (settings.aws_access_key_id, settings.aws_secret_access_key, settings.aws_session_token)
    given = {
        "AWS_ENDPOINT_URL": settings.aws_endpoint_url,
        "AWS_REGION": settings.aws_region,
        "AWS_CA_BUNDLE": settings.aws_ca_bundle,
        **dict(
            zip(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"), (key.current() for key in keys), strict=True)
        ),
    }
    access = StoreAccess.of({**os.environ, **{name: text for name, text in given.items() if text}})
    return dataclasses.replace(access, proxy=proxy_of(access.endpoint))


def in_bucket(make: Callable[..., _T], settings: Settings, address: str) -> _T:
    """Return what keeps files in a bucket, at the address `bucket/prefix`."""
    from transport.object_store import ObjectStore

    bucket, _, prefix = address.partition("/")
    return make(
        lambda: ObjectStore(bucket, store_access(settings), timeout_s=settings.parquet_timeout_seconds),
        name=canonical_address(f"{store_access(settings).endpoint}/{address}"),
        prefix=prefix,
    )


def proxies_in_use(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield, for each server in use, the setting that names it and its proxy; empty: no proxy.

    Raises:
        ConfigurationError: A variable names a proxy that cannot be used.
    """
    own_output = settings.output_to_influx and bool(settings.influx_output_url)
    used = {
        "INFLUX_URL": not settings.input_file or (settings.output_to_influx and not own_output),
        "INFLUX_OUTPUT_URL": own_output,
        "API_ENDPOINT": settings.output_to_api,
    }
    for name in (name for name, is_used in used.items() if is_used):
        yield name, proxy_of(getattr(settings, name.lower()))
    if settings.input_file.lower().startswith("s3://"):
        yield "INPUT_FILE", store_access(settings).proxy
    if settings.output_to_parquet and settings.parquet_url.startswith("s3://"):
        yield "PARQUET_URL", store_access(settings).proxy


def proxy_of(url: str) -> str:
    """Return the proxy for an address; empty: none. Raises as above."""
    try:
        return proxy_for(url, os.environ)
    except UnusableProxy as error:
        raise ConfigurationError(str(error)) from None
