"""A server that speaks S3, which goes away and comes back with what it had."""

import os
import urllib.request
from contextlib import contextmanager

import boto3
from moto.server import ThreadedMotoServer

from mis.storage.remote import RemoteFolder, ask_again

SECRET = "a-secret-that-nobody-may-see"  # noqa: S105 - of no server


class Bucket:
    """A bucket on a server of this process.

    Attributes:
        uri: The server's address.
        env: The variables that a process needs to use it.
    """

    def __init__(self, name="mis", host="127.0.0.1"):
        self.name = name
        self._host = host
        self._server = ThreadedMotoServer(host, 0, verbose=False)
        self._server.start()
        _, self._port = self._server.get_host_and_port()
        self.uri = f"http://{host}:{self._port}"
        self.env = {
            "AWS_ACCESS_KEY_ID": "a-key",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL": self.uri,
        }
        for path, method in (("moto-api/reset", "POST"), (name, "PUT")):  # other buckets of this process are gone
            with urllib.request.urlopen(urllib.request.Request(f"{self.uri}/{path}", method=method)):  # noqa: S310
                pass

    def down(self):
        """Let nobody listen."""
        self._server.stop()

    def up(self):
        """Listen again, with all objects; this process may ask at once."""
        self._server = ThreadedMotoServer(self._host, self._port, verbose=False)
        self._server.start()
        ask_again()

    def raw_listing(self):
        """Return the keys of all objects, also of those that stand for a folder, as the server lists them."""
        listing = boto3.client("s3", endpoint_url=self.uri).list_objects_v2(Bucket=self.name)
        return [found["Key"] for found in listing.get("Contents", [])]

    def folder(self, name, wait_s=600.0):
        """Return a folder of the bucket, for this process."""
        return RemoteFolder(f"s3://{self.name}/{name}", wait_s)


@contextmanager
def bucket(host="127.0.0.1"):
    """Yield a bucket, which this process and those that it starts may use."""
    server = Bucket(host=host)
    before = {name: os.environ.get(name) for name in server.env}
    os.environ.update(server.env)
    try:
        yield server
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        server.down()
