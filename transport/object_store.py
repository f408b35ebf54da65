"""An S3 bucket, over obstore: requests with a deadline, and one exception, StoreFault, for every way they fail.

Each request has one deadline for all of it, a body that trickles included, and can be bound to an object's version. obstore retries
nothing; the service does. obstore's messages quote addresses and answers, which can hold keys, so none of them is shown.
"""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from transport.addresses import canonical_address, shown_address

if TYPE_CHECKING:
    from obstore.store import ClientConfig

_T = TypeVar("_T")

#: Limit for a whole request.
TIMEOUT_S = 30.0
_CONNECT_TIMEOUT_S = 5.0

#: The endpoint if none is set.
_AMAZON = "https://s3.amazonaws.com"

#: Variables with which obstore needs no keys.
_OTHER_WAYS_IN = (
    *("AWS_SKIP_SIGNATURE", "AWS_WEB_IDENTITY_TOKEN_FILE"),
    *("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
)

#: The variable that keeps clients from asking the address below, when it is true; here it must be false to be asked.
_ROLE_SWITCH = "AWS_EC2_METADATA_DISABLED"

#: The ETag of no object.
_NO_VERSION = '"0"'

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z]{3,40})</Code>")

#: Error codes of a full store or a used-up quota; some stores send them with status 403.
_FULL = re.compile(r"Quota|StorageFull|InsufficientStorage|NotEnoughSpace")

#: Instance metadata of Amazon's machines, which hand out a role's keys. On other networks any host may answer there.
_ROLE_ADDRESS = "169.254.169.254"

#: Client errors that are worth a retry.
_PASSING_STATUS = {408, 425, 429}

HOW_TO_GIVE_KEYS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SHARED_CREDENTIALS_FILE and AWS_PROFILE, and for a store of your own "
    "AWS_ENDPOINT_URL"
)


class StoreFault(Exception):
    """A request failed. The message contains no key and no object name.

    Args:
        message: What was asked and what came back.
        is_denial: Whether only an operator can fix it: keys, bucket, region.
        is_missing: Whether the object does not exist.
        is_changed: Whether the object's version differs from the expected one.
        is_unknown_request: Whether the store does not implement the request.
        code: The store's error code; empty if it gives none.
    """

    def __init__(
        self,
        message: str,
        *,
        is_denial: bool = False,
        is_missing: bool = False,
        is_changed: bool = False,
        is_unknown_request: bool = False,
        code: str = "",
    ) -> None:
        super().__init__(message)
        self.is_unknown_request = is_unknown_request
        self.code = code
        self.is_denial = is_denial
        self.is_missing = is_missing
        self.is_changed = is_changed


@dataclass(frozen=True, slots=True)
class StoreAccess:
    """How to reach a store. `repr` shows no key.

    Args:
        endpoint: Its address, without a trailing slash.
        region: Empty: obstore's default.
        keys: The keys, by obstore's names for them.
        ca_file: Certificate authority for https; empty: the system's.
        proxy: Address of the proxy; empty: obstore follows the environment variables.
    """

    endpoint: str = _AMAZON
    region: str = ""
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    ca_file: str = ""
    proxy: str = field(default="", repr=False)

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> StoreAccess:
        """Return what the `AWS_` variables say; keys that they do not set come from the credentials file."""
        endpoint = (
            environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or environment.get("AWS_ENDPOINT")
        )
        region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or ""
        names = ("access_key_id", "secret_access_key", "session_token")
        keys = {name: environment.get(f"AWS_{name.upper()}", "") for name in names}
        if not keys["access_key_id"]:
            profile = _profile(environment)
            keys = {name: profile.get(f"aws_{name}", "") for name in names}
        given = {name: key for name, key in keys.items() if key}
        return cls(canonical_address(endpoint or _AMAZON), region, given, environment.get("AWS_CA_BUNDLE", ""))


def _profile(environment: Mapping[str, str]) -> Mapping[str, str]:
    """Return a profile's entries in the credentials file; none if there is no such file or profile."""
    home = environment.get("HOME") or environment.get("USERPROFILE")
    usual = str(Path(home) / ".aws" / "credentials") if home else ""
    import configparser  # imported only if used

    parser = configparser.RawConfigParser()
    try:
        parser.read(environment.get("AWS_SHARED_CREDENTIALS_FILE") or usual, encoding="utf-8")
    except (configparser.Error, OSError, UnicodeDecodeError):
        return {}
    name = environment.get("AWS_PROFILE") or "default"
    return dict(parser[name]) if parser.has_section(name) else {}


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as a listing shows it.

    Args:
        key: Its name in the bucket.
        size: In bytes.
        version: Its ETag; if the store gives none, the time of its last change.
    """

    key: str
    size: int
    version: str


class ObjectStore:
    """One bucket. Every method raises StoreFault, and nothing else, when a request fails.

    Args:
        bucket: Its name.
        access: How to reach its store.
        timeout_s: Limit for a whole request.
    """

    def __init__(self, bucket: str, access: StoreAccess, *, timeout_s: float = TIMEOUT_S) -> None:
        self.bucket = bucket
        self.endpoint = access.endpoint
        self._access = access
        self._timeout_s = timeout_s
        self._client: Any = None

    @property
    def name(self) -> str:
        """The bucket and its endpoint, for messages."""
        return f"bucket {self.bucket} at {shown_address(self.endpoint)}"

    def objects(self, prefix: str, *, after: str = "") -> Iterator[StoredObject]:
        """Yield the objects below a prefix (a whole number of path segments) whose keys sort after `after`."""
        import obstore

        try:
            for page in obstore.list(self._connected(), f"{prefix}/" if prefix else None, offset=after or None):
                for found in page:
                    yield StoredObject(found["path"], found["size"], found["e_tag"] or found["last_modified"].isoformat())
        except Exception as error:
            raise self._fault(error) from None

    def find(self, key: str) -> StoredObject | None:
        """Return one object's facts; None if it does not exist."""
        import obstore

        try:
            found = obstore.head(self._connected(), key)
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._fault(error) from None
        return StoredObject(found["path"], found["size"], found["e_tag"] or found["last_modified"].isoformat())

    def read(self, key: str, begin: int, end: int, *, version: str) -> bytes:
        """Return bytes `begin` to `end` (exclusive) of an object, which must still have the given version."""
        import obstore

        options: dict[str, Any] = {"range": (begin, end)}
        if '"' in version:
            options["if_match"] = version
        try:
            answer = obstore.get(self._connected(), key, options=options)  # type: ignore[arg-type]
            found = answer.meta["e_tag"] or answer.meta["last_modified"].isoformat()
            content = bytes(answer.bytes())
        except Exception as error:
            raise self._fault(error) from None
        if found != version:
            raise StoreFault(f"an object of {self.name} is another version than it was", is_changed=True)
        if len(content) != end - begin:
            raise StoreFault(f"{self.name} returned {len(content)} bytes where {end - begin} were asked for")
        return content

    def read_whole(self, key: str) -> bytes | None:
        """Return an object's content; None if it does not exist."""
        import obstore

        try:
            return bytes(obstore.get(self._connected(), key).bytes())
        except Exception as error:
            fault = self._fault(error)
            if fault.is_missing:
                return None
            raise fault from None

    def put_new(self, key: str, content: bytes) -> bool:
        """Store an object in one request; return False, and change nothing, if the key exists."""
        # Some stores ignore the condition of the next request, and some refuse it.
        if self.find(key) is not None:
            return False
        try:
            return self._put(key, content, mode="create")
        except StoreFault as fault:
            if not fault.is_unknown_request:
                raise
        return self._put(key, content, mode="overwrite")

    def _put(self, key: str, content: bytes, *, mode: Literal["create", "overwrite"]) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError

        try:
            # An interrupted multipart upload would leave invisible parts that the bucket's owner pays for.
            obstore.put(self._connected(), key, content, mode=mode, use_multipart=False)
        except AlreadyExistsError:
            return False
        except Exception as error:
            raise self._fault(error) from None
        return True

    def put(self, key: str, content: bytes) -> None:
        """Store an object whole, in one request, in place of one of that name. Raises StoreFault."""
        self._put(key, content, mode="overwrite")

    def remove(self, key: str) -> None:
        """Remove an object, if it is there. Raises StoreFault."""
        import obstore

        try:
            obstore.delete(self._connected(), key)
        except FileNotFoundError:
            return
        except Exception as error:
            raise self._fault(error) from None

    def look(self, prefix: str) -> bool:
        """Check that the bucket answers and accepts the keys. Return whether they may list it."""
        try:
            next(self.objects(prefix), None)
        except StoreFault as fault:
            if fault.code != "AccessDenied":
                raise
            return False
        return True

    def try_to_write(self, key: str) -> None:
        """Raise StoreFault if the keys may not store objects. Stores nothing: the request is to replace a version that no object has.

        A store that ignores such a condition stores an empty object under the key.
        """
        import obstore

        try:
            obstore.put(self._connected(), key, b"", mode={"e_tag": _NO_VERSION}, use_multipart=False)
        except Exception as error:
            fault = self._fault(error)
            if fault.code == "AccessDenied":
                raise StoreFault(
                    f"{self.name} answered 403 (AccessDenied) to a request to store: give the keys the right to store objects "
                    "(s3:PutObject), or name another bucket or prefix",
                    is_denial=True,
                    code=fault.code,
                ) from None

    def _connected(self) -> Any:
        if self._client is None:
            self._client = self._connect()
        return self._client

    def _connect(self) -> Any:
        from obstore.store import S3Store

        access = self._access
        is_role_asked = access.endpoint == _AMAZON and os.environ.get(_ROLE_SWITCH, "").lower() == "false"
        if not (access.keys or is_role_asked or any(os.environ.get(name) for name in _OTHER_WAYS_IN)):
            of_role = f"; on a machine of Amazon's that has a role, {_ROLE_SWITCH}=false" if access.endpoint == _AMAZON else ""
            raise StoreFault(f"{self.name} needs keys: {HOW_TO_GIVE_KEYS}{of_role}", is_denial=True)
        options: ClientConfig = {
            "allow_http": access.endpoint.startswith("http://"),
            "timeout": timedelta(seconds=self._timeout_s),
            "connect_timeout": timedelta(seconds=min(_CONNECT_TIMEOUT_S, self._timeout_s)),
        }
        if access.proxy:
            options["proxy_url"] = access.proxy
        if access.ca_file:
            options["root_certificate"] = self._authority(access.ca_file)
        config: dict[str, Any] = {"region": access.region, "endpoint": access.endpoint if access.endpoint != _AMAZON else ""}
        return S3Store(
            self.bucket,
            config={name: value for name, value in (config | dict(access.keys)).items() if value},  # type: ignore[arg-type]
            client_options=options,
            retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=self._timeout_s)},
        )

    def _authority(self, path: str) -> bytes:
        try:
            return Path(path).read_bytes()
        except OSError as error:
            raise StoreFault(f"AWS_CA_BUNDLE {path} cannot be read ({error.strerror})", is_denial=True) from None

    def _fault(self, error: Exception) -> StoreFault:
        if isinstance(error, StoreFault):
            return error
        text = str(error)
        status, found = _STATUS.search(text), _CODE.search(text)
        if status is None or _ROLE_ADDRESS in text:
            return self._without_answer(text)
        number, code = int(status[1]), found[1] if found else ""
        said = f"{self.name} answered {number}{f' ({code})' if code else ''}"
        if number == 507 or _FULL.search(code):
            return StoreFault(f"{said}: it is full, or its quota is used up", code=code)
        if number == 412:
            return StoreFault(said, is_changed=True, code=code)
        if number == 404 and code not in {"NoSuchBucket", "XAdminUserNotFound"}:
            return StoreFault(said, is_missing=True, code=code)
        if number < 500 and number not in _PASSING_STATUS:
            return StoreFault(f"{said}: check its name, AWS_REGION and the keys ({HOW_TO_GIVE_KEYS})", is_denial=True, code=code)
        return StoreFault(said, is_unknown_request=number == 501, code=code)

    def _without_answer(self, text: str) -> StoreFault:
        if _ROLE_ADDRESS in text:
            return StoreFault(f"{self.name} needs keys: {HOW_TO_GIVE_KEYS}", is_denial=True)
        if "ertificate" in text or "InvalidContentType" in text:
            return StoreFault(
                f"{self.name} makes no secure connection that is trusted: check https, and AWS_CA_BUNDLE", is_denial=True
            )
        if "redirect" in text:
            return StoreFault(f"{self.name} is elsewhere: check AWS_REGION", is_denial=True)
        if "kind: Timeout," in text or "TimedOut" in text:
            return StoreFault(f"{self.name} did not answer within {self._timeout_s:.0f} s")
        if "kind: Connect," in text:
            return StoreFault(f"{self.name} cannot be reached")
        return StoreFault(f"{self.name} broke off its answer")


class BucketPrefix:
    """The objects of a bucket below a prefix, by their paths from there.

    Args:
        connect: Returns a client with the current keys; called again after each refusal, since keys are rotated.
        name: The canonical address.
        prefix: The prefix; empty for the whole bucket.
        error_of: Returns the exception to raise for a fault.
    """

    def __init__(
        self, connect: Callable[[], ObjectStore], *, name: str, prefix: str, error_of: Callable[[StoreFault], Exception]
    ) -> None:
        self._connect = connect
        self._store: ObjectStore | None = None
        self._error_of = error_of
        self._prefix = f"{prefix}/" if prefix else ""
        self.name = name

    def read(self, path: str) -> bytes | None:
        """Return an object's content; None if it does not exist."""
        return self._ask(lambda store: store.read_whole(self._prefix + path))

    def paths(self, folder: str, *, after: str = "", before: str = "") -> list[str]:
        """Return the paths of all objects in a folder and below that sort after `after` and before `before`, in order."""
        first = self._prefix + after if after else ""
        stop = self._prefix + before if before else chr(sys.maxunicode)

        def ask(store: ObjectStore) -> list[str]:
            # A store lists in order, so that nothing of what comes after has to be listed.
            keys = (found.key for found in store.objects(self._prefix + folder, after=first))
            return list(itertools.takewhile(lambda key: key < stop, keys))

        return sorted(key.removeprefix(self._prefix) for key in self._ask(ask))

    def _ask(self, request: Callable[[ObjectStore], _T]) -> _T:
        try:
            self._store = self._store or self._connect()
            return request(self._store)
        except StoreFault as fault:
            if fault.is_denial:
                self._store = None
            raise self._error_of(fault) from None
