"""A Dask cluster of this machine's processes, or one that is running already: found, reached, and waited for.

What is worked on there is not known here: `extract/cluster.py` does shards, `fuse/cluster.py` trainings.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

from distributed import Client, LocalCluster, WorkerPlugin

from .errors import BmlaError, UsageError
from .processes import POLL_S

ANSWER_S = 5.0  # for a scheduler to answer
START_S = 10.0  # for a first worker to be there
WITHOUT_WORKERS_S = 300.0  # for another worker when all have gone: a batch system may send a new one
DEATHS = 3  # workers that a task may take with it; an existing scheduler counts by its own allowed-failures


class ClusterError(BmlaError):
    """The cluster, or one of its workers, can't go on; what was given back before stands."""


def find_place(where: str) -> int | str:
    """The number of local workers, or a scheduler's address. Raises UsageError for any other text."""
    kind, _, count = where.partition(":")
    if kind == "local" and count.isascii() and count.isdigit() and int(count) > 0:
        return int(count)
    with suppress(ValueError):  # of a port that is none
        parts = urlsplit(where)
        if parts.scheme in ("tcp", "tls") and parts.hostname and parts.port and not parts.path:
            return where
    raise UsageError(f'--cluster: "{where}" is no cluster: expected local:N, tcp://host:port or tls://host:port')


@contextmanager
def connected(place: int | str, gpu: bool, tell: Callable[[str], None]) -> Iterator[Client]:
    """A client of the cluster; a local one is started and, at the end, stopped."""
    if isinstance(place, str):
        with reach(place) as client:
            tell(f"Dask dashboard: {client.dashboard_link}")
            yield client
        return
    with (
        LocalCluster(
            n_workers=place,
            threads_per_worker=1,
            memory_limit=0,  # Dask's share of memory a core knows nothing of models; the system's own limits hold
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,  # what matters becomes an error here
            scheduler_kwargs={"allowed_failures": DEATHS - 1},
            **({"resources": {"GPU": 1}} if gpu else {}),
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        tell(f"Dask dashboard: {cluster.dashboard_link}")
        yield client


def reach(address: str) -> Client:
    """A client of a running scheduler. Raises ClusterError where it does not answer."""
    try:
        return Client(address, timeout=ANSWER_S, set_as_default=False)
    except (OSError, TypeError, ValueError) as error:  # of a tls:// address: certificates that are not configured
        raise ClusterError(
            f"no Dask scheduler answers at {address}: {one_line(error)}; start one with `dask scheduler`"
        ) from error


@contextmanager
def registered(
    client: Client, plugin: WorkerPlugin, name: str, where: str, lost: str, hint: str = ""
) -> Iterator[None]:
    """Inside, every worker has the plugin, those that join later too.

    Args:
        name: unique to it.
        lost: what goes with the scheduler, such as "the shards".
        hint: what to look at where a worker can't load it.

    Raises:
        ClusterError: a worker can't load it, or the scheduler goes away.
    """
    try:
        try:
            client.register_plugin(plugin, name=name)
        except Exception as error:  # Dask wraps whatever the worker raised
            raise ClusterError(f"{where}: a worker can't load what it is to do: {one_line(error)}{hint}") from error
        yield
    except CancelledError as error:
        raise ClusterError(
            f"{where}: the scheduler is gone, with {lost} it was given: run the same command again to go on"
        ) from error
    finally:  # else workers that join later would be sent it too
        with suppress(Exception):  # whatever failed before is what is told
            if client.status == "running":
                client.unregister_worker_plugin(name)


def slots(client: Client, gpu: bool) -> dict[str, int]:
    """How many tasks each worker can work on at once; workers that can take none are left out."""
    found = {}
    for address, worker in client.scheduler_info(n_workers=-1)["workers"].items():
        offered = int(worker["resources"].get("GPU", 0)) if gpu else worker["nthreads"]
        if worker["status"] == "running" and (usable := min(offered, worker["nthreads"])):
            found[address] = usable
    return found


def wait_for_workers(client: Client, gpu: bool, where: str) -> None:
    """Raises ClusterError where no worker that fits is there within START_S."""
    end = time.monotonic() + START_S
    while not slots(client, gpu):
        if time.monotonic() > end:
            there = len(client.scheduler_info(n_workers=-1)["workers"])
            if gpu and there:
                raise ClusterError(
                    f"{where}: none of its {there} workers offers the resource GPU; "
                    "start them with `dask worker … --resources GPU=1`"
                )
            raise ClusterError(f"{where}: the scheduler has no workers; start some with `dask worker {where}`")
        time.sleep(POLL_S)


def since_alone(there: bool, since: float | None, tell: Callable[[str], None]) -> float | None:
    """Since when there has been no worker; None: there is one.

    Args:
        since: what this said before.
        tell: called with a line for a person when the last one has gone.

    Raises:
        ClusterError: no other came within WITHOUT_WORKERS_S.
    """
    if there:
        return None
    now = time.monotonic()
    if since is None:
        tell(f"all workers have gone: waiting up to {WITHOUT_WORKERS_S:.0f} s for another one")
        return now
    if now - since > WITHOUT_WORKERS_S:
        raise ClusterError("all workers have gone and no other came: run the same command again to go on")
    return since


def unlike(client: Mapping[str, str], worker: Mapping[str, str]) -> list[str]:
    """Lines such as `torch: 2.15.0 on the client, 2.14.0 there`."""
    return [
        f"{name}: {client.get(name, 'missing')} on the client, {worker.get(name, 'missing')} there"
        for name in sorted({*client, *worker})
        if client.get(name) != worker.get(name)
    ]


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
