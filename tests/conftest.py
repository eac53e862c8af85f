"""What tests of several parts need."""

from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import forkserver

import pytest

from bmla.store.place import REMOTE

# One process from which the workers of all tests are forked; see `worker_context`, which would have it import less.
forkserver.set_forkserver_preload(["bmla.extract.executors", "bmla.fuse.workers", "torchvision.ops", "torch._dynamo"])
with suppress(OSError):  # where the folder for temporary files has too long a name
    forkserver.ensure_running()


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A server that speaks S3 on loopback, with one empty bucket; yields the URL of the bucket."""
    boto3 = pytest.importorskip("boto3", reason="the S3 server of the tests needs moto: pip install 'bmla[test]'")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setattr(REMOTE, "endpoint", endpoint)
        client = boto3.client("s3", endpoint_url=endpoint)
        client.create_bucket(Bucket="team")
        yield "s3://team"
    client.close()
    server.stop()
