"""The connection to Dask. Submits tasks, and resubmits them when workers or the scheduler die.

Dask may run a task several times, and a scheduler that dies loses all results. So a call keeps its task, and the caller checks every
answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import threading
from collections.abc import Callable, Mapping
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anonymizer.errors import ConfigurationError, WorkersUnavailable
from service.clock import Clock, Stopped, SystemClock
from service.log_event import WARNING, LogEvent
from service.retry import RetriesExhausted
from service.scale.answers import Answer, Code
from service.scale.dask_log import QUIET_VARIABLE, silence_dask
from service.scale.tasks import ENV_FILE_VARIABLE
from service.settings.declared import Settings
from service.telemetry.events import Events
from service.telemetry.hub import Telemetry

if TYPE_CHECKING:
    from distributed import Client, Future, LocalCluster
    from distributed.security import Security

_CONNECTED = LogEvent("workers_connected", "🧩 Chunks go to Dask workers at %s", "scheduler")
_DASHBOARD = LogEvent("workers_dashboard", "   Dask's own dashboard: %s", "address")
_DASHBOARD_ELSEWHERE = LogEvent(
    "workers_dashboard_elsewhere", "   Dask's own dashboard is where the scheduler was told to serve it (--dashboard-address)"
)
_CHANGED = LogEvent("workers_changed", "🧩 Workers: %d", "workers")

#: How often a call checks whether it was lost, and how often workers are counted.
_LOOK_S, _COUNT_S = 0.25, 1.0

#: How long a run may have no worker before it counts as waiting for one.
_NO_WORKER_S = 15.0

_CONNECT_S, _CLOSE_S = 5.0, 1.0

#: A task whose worker died so often (after four attempts by Dask each time) is given up: it may be the cause.
_MOST_DEATHS = 10

#: Tasks in flight, besides two per worker.
_MORE_IN_FLIGHT = 2

#: After so many refusals of one task, no worker fits.
_MOST_REFUSALS = 20


class Cluster:
    """A scheduler and its workers.

    Args:
        settings: Names the scheduler, and how to connect.
        env_file: What workers of this machine load.
        clock: Tells when to stop.
        telemetry: Receives the number of workers.
    """

    def __init__(self, settings: Settings, env_file: Path, clock: Clock, telemetry: Events) -> None:
        self._settings = settings
        self._env_file = env_file
        self._clock = clock
        self._telemetry = telemetry
        self._lock = threading.RLock()
        self._client: Client | None = None
        self._local: LocalCluster | None = None
        self._closing = threading.Event()
        self._without_workers_since_s: float | None = None
        self._refused: set[str] = set()
        self._why_refused = ""
        self._unfit_since_s: float | None = None
        self._known: frozenset[str] = frozenset()
        self._told: int | None = None
        self.generation = 0

    def open(self) -> None:
        """Start the workers of this machine, or connect to a scheduler.

        Raises:
            WorkersUnavailable: It cannot be reached now.
        """
        self.connect()
        threading.Thread(target=self._count, name="workers", daemon=True).start()
        address = self._settings.dask_scheduler
        _CONNECTED.log(address)
        if self._local is not None:
            _DASHBOARD.log(self._local.dashboard_link)
        else:
            _DASHBOARD_ELSEWHERE.log()

    def connect(self) -> None:
        """Connect, and log how many workers there are. Raises as `open` does."""
        with self._lock:
            self._connect()

    def close(self) -> None:
        """Disconnect from the scheduler; stop local workers."""
        self._closing.set()
        with self._lock:
            self._drop_client()
            if self._local is not None:
                with contextlib.suppress(Exception):
                    self._local.close(timeout=_CLOSE_S)

    def most_at_a_time(self) -> int:
        """Return how many tasks of one kind may run or wait at a time."""
        return 2 * max(1, len(self._known)) + _MORE_IN_FLIGHT

    def submit(
        self, function: Callable[[Any], Any], task: Mapping[str, Any], priority: int
    ) -> tuple[Future, int, frozenset[str]]:
        """Submit a task; return its future, the connection's number, and, if not all workers fit, those that do.

        Raises:
            WorkersUnavailable: The scheduler cannot be reached now, or no worker fits.
            ConfigurationError: No worker fits, and no other has joined for a while.
        """
        with self._lock:
            client = self._connected()
            fit = self._fit()
            try:
                future = client.submit(
                    function,
                    task,
                    # Dask shows and logs keys, and would merge two equal tasks under one key.
                    key=f"task-{secrets.token_hex(16)}",
                    pure=False,
                    priority=priority,
                    workers=sorted(fit) or None,
                )
            except Exception as error:  # noqa: BLE001  (Dask has many exceptions, which quote arguments)
                raise self._unreachable(error) from None
            return future, self.generation, fit

    def _fit(self) -> frozenset[str]:
        """Return the workers that may get a task; empty: all.

        Raises:
            WorkersUnavailable: None may, but others may be starting.
            ConfigurationError: None may, and no other has joined for a while.
        """
        fit = self._known - self._refused
        if fit or not (self._known and self._refused):
            self._unfit_since_s = None
            return fit if self._refused else frozenset()
        now_s = self._clock.monotonic_s()
        self._unfit_since_s = now_s if self._unfit_since_s is None else self._unfit_since_s
        sentence = f"{self._why_refused}: no other worker is left"
        if now_s - self._unfit_since_s > _NO_WORKER_S:
            raise ConfigurationError(sentence)
        raise WorkersUnavailable(sentence)

    def see_that_it_works(self) -> None:
        """Raise WorkersUnavailable if the scheduler is gone, or there has been no worker for a while."""
        with self._lock:
            self._connected()
        since_s = self._without_workers_since_s
        if since_s is not None and self._clock.monotonic_s() - since_s > _NO_WORKER_S:
            raise WorkersUnavailable(
                f"the Dask scheduler at {self._settings.dask_scheduler} has no workers: start some (documentation/DEPLOYMENT.md)"
            )

    def is_stranded(self, fit: frozenset[str]) -> bool:
        """Return whether all workers that may run a task are gone."""
        return bool(fit) and not fit & self._known

    def refuse_worker_of(self, future: Future, said: str) -> None:
        """Submit no more tasks to the worker that does not fit."""
        with self._lock:
            addresses: set[str] = set()
            with contextlib.suppress(Exception):
                addresses = {address for found in self._connected().who_has([future]).values() for address in found}
                # It may have joined since the last count.
                self._known = frozenset(self._connected().nthreads())
            if addresses - self._refused:
                WARNING.log(f"{said}. It gets no more work")
            self._refused |= addresses
            self._why_refused = said

    def is_stopping(self) -> bool:
        """Return whether the service was asked to stop."""
        return self._clock.is_stopping()

    # The connection

    def _connected(self) -> Client:
        if self._client is None or self._client.status != "running":
            self._connect()
        assert self._client is not None, "it was just connected"
        return self._client

    def _connect(self) -> None:
        self._drop_client()
        silence_dask()
        from distributed import Client

        silence_dask()
        try:
            if self._settings.dask_scheduler.startswith("local:"):
                self._local = self._local or self._start_workers()
                self._client = Client(self._local, set_as_default=False, timeout=_CONNECT_S)
            else:
                address, security = self._settings.dask_scheduler, self._security()
                asyncio.run(_greet(address, security))
                self._client = Client(address, security=security, set_as_default=False, timeout=_CONNECT_S)
            self._known = frozenset(self._client.nthreads())
            # After a scheduler restart, other workers may have the same addresses.
            self._refused.clear()
        except Exception as error:  # noqa: BLE001  (as above)
            raise self._unreachable(error) from None
        self.generation += 1
        self._mind_workers()

    def _drop_client(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):
                client.close(timeout=_CLOSE_S)

    def _start_workers(self) -> LocalCluster:
        from distributed import LocalCluster
        from distributed.security import Security

        _start_tracker()
        return LocalCluster(
            n_workers=int(self._settings.dask_scheduler.removeprefix("local:")),
            threads_per_worker=1,
            processes=True,
            protocol="tls",
            # Certificates for this run only: no other process on this machine can connect.
            security=Security.temporary(),
            dashboard_address="127.0.0.1:0",
            # MAX_RECORDS_PER_QUERY bounds memory; a worker that Dask kills for its memory use would get the same chunk again.
            memory_limit=0,
            local_directory=str(Path(self._settings.state_dir) / "dask"),
            env={ENV_FILE_VARIABLE: str(self._env_file), QUIET_VARIABLE: "true"},
            preload="service.scale.preload",
        )

    def _security(self) -> Security:
        from distributed.security import Security

        settings = self._settings
        if settings.dask_scheduler.startswith("tcp://"):
            return Security()
        cert, key = settings.dask_tls_cert_file, settings.dask_tls_key_file
        return Security(tls_ca_file=settings.dask_tls_ca_file, tls_client_cert=cert, tls_client_key=key, require_encryption=True)

    def _unreachable(self, error: Exception) -> WorkersUnavailable:
        address = self._settings.dask_scheduler
        return WorkersUnavailable(f"the Dask scheduler at {address} cannot be reached ({type(error).__name__})")

    # The workers

    def _count(self) -> None:
        """Keep the number of workers up to date."""
        while not self._closing.wait(_COUNT_S):
            client = self._client
            if client is None:
                continue
            with contextlib.suppress(Exception):
                self._known = frozenset(client.nthreads())
                self._mind_workers()

    def _mind_workers(self) -> None:
        if self._known:
            self._without_workers_since_s = None
        elif self._without_workers_since_s is None:
            self._without_workers_since_s = self._clock.monotonic_s()
        if len(self._known) != self._told:
            self._told = len(self._known)
            _CHANGED.log(self._told)
            self._telemetry.workers(self._told)


async def _greet(address: str, security: Security) -> None:
    """Connect once and disconnect. A client waits for ever for a scheduler that takes connections and says nothing."""
    from distributed.comm import connect

    comm = await asyncio.wait_for(connect(address, timeout=_CONNECT_S, **security.get_connection_args("client")), _CONNECT_S)
    await comm.close()


def why_unreachable(settings: Settings) -> str:
    """Return why the scheduler that DASK_SCHEDULER names cannot be reached, empty if it can. Workers of this machine are not started."""
    if settings.dask_scheduler.startswith("local:"):
        return ""
    cluster = Cluster(settings, Path(), SystemClock(), Telemetry(k=0, verbose=False))
    try:
        cluster.connect()
    except WorkersUnavailable as error:
        return str(error)
    finally:
        cluster.close()
    return ""


class Call:
    """One task, until it is answered.

    Args:
        cluster: Runs the task.
        function: The function to run.
        task: Its argument.
        priority: Higher runs first.
    """

    def __init__(self, cluster: Cluster, function: Callable[[Any], Any], task: Mapping[str, Any], *, priority: int = 0) -> None:
        self._cluster = cluster
        self._function = function
        self._task = task
        self._priority = priority
        self._future: Future | None = None
        self._generation = 0
        self._fit: frozenset[str] = frozenset()
        self._finished = threading.Event()
        self._deaths = self._refusals = 0
        # Without a scheduler or a fitting worker, `answer` submits it.
        with contextlib.suppress(WorkersUnavailable, ConfigurationError):
            self._begin()

    def wait(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Return once it is answered or has failed, which `answer` reports. Raises Stopped.

        Args:
            meanwhile: Called several times a second.
        """
        with contextlib.suppress(WorkersUnavailable, ConfigurationError):
            self._wait(meanwhile)

    def answer(self) -> Answer:
        """Return a worker's answer; the same one on each call, until `forget`.

        Raises:
            WorkersUnavailable: It cannot be done now.
            RetriesExhausted: Every worker that ran it died.
            ConfigurationError: No worker fits.
            Stopped: The service was asked to stop.
        """
        while True:
            self._wait()
            answer = self._fetched()
            if answer is None:
                self.forget()
            elif answer.get("code") == Code.UNFIT:
                self._refuse(str(answer.get("said")))
            else:
                return answer

    def forget(self) -> None:
        """Drop the answer: the next `answer` submits the task again."""
        future, self._future = self._future, None
        if future is not None:
            with contextlib.suppress(Exception):
                future.release()

    def _begin(self) -> None:
        finished = self._finished = threading.Event()
        self._future, self._generation, self._fit = self._cluster.submit(self._function, self._task, self._priority)
        self._future.add_done_callback(lambda _: finished.set())

    def _wait(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Return once the future is finished, failed or lost; resubmit a task that was lost before."""
        if self._future is None or self._is_lost():
            self._begin()
        while not self._finished.wait(_LOOK_S):
            if self._cluster.is_stopping():
                raise Stopped
            meanwhile()
            self._cluster.see_that_it_works()
            if self._is_lost():
                self._begin()

    def _is_lost(self) -> bool:
        assert self._future is not None, "the task was submitted"
        is_gone = self._generation != self._cluster.generation or self._future.status in ("cancelled", "lost")
        return is_gone or (self._future.status == "pending" and self._cluster.is_stranded(self._fit))

    def _fetched(self) -> Answer | None:
        """Return the answer; None if there is none, or it was lost."""
        assert self._future is not None, "it was waited for"
        if self._cluster.is_stopping():
            raise Stopped
        try:
            found = self._future.result(timeout=_CONNECT_S)
        except Exception as error:  # noqa: BLE001  (Dask's messages may quote arguments)
            self._count_death(error)
            return None
        return found if isinstance(found, Mapping) else None

    def _count_death(self, error: Exception) -> None:
        """Give up a task that kills its workers, or that no worker can start."""
        if isinstance(error, TimeoutError):
            return
        self._deaths += 1
        if self._deaths >= _MOST_DEATHS:
            kind = type(error).__name__
            raise RetriesExhausted(
                WorkersUnavailable(
                    f"a chunk was given to workers {self._deaths} times, and none of them finished it ({kind}): are they out of memory "
                    "(set MAX_RECORDS_PER_QUERY lower), or is the scheduler or a worker without the program's code (PYTHONPATH)?"
                )
            )

    def _refuse(self, said: str) -> None:
        self._refusals += 1
        if self._refusals >= _MOST_REFUSALS:
            raise ConfigurationError(f"{said}: so said every worker that was asked")
        assert self._future is not None, "it was answered"
        self._cluster.refuse_worker_of(self._future, said)
        self.forget()


def _start_tracker() -> None:
    """Start the process of Python's that cleans up after this one; of a coordinator that was killed it would print a warning."""
    name, before = "PYTHONWARNINGS", os.environ.get("PYTHONWARNINGS")
    os.environ[name] = f"{before},ignore" if before else "ignore"
    try:
        resource_tracker.ensure_running()
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before
