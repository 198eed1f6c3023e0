"""SeaweedFS as a process of ours: a store that speaks S3, and checks signatures."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from ports import free_port
from waiting import PATIENCE_S, block_until

KEY, SECRET = "flowvis", "a secret"
PARTS = ("master", "volume", "filer", "s3")


class ObjectStore:
    """Objects come in by S3; the test reads them by another door, without signatures."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ports = {part: free_port() for part in PARTS}
        self._rpc = {part: free_port() for part in PARTS}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.ports['s3']}"

    def start(self) -> None:
        """Start it, and wait until it takes objects."""
        identity = {
            "name": "flowvis",
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin"],
        }
        path = self.directory / "identities.json"
        path.write_text(json.dumps({"identities": [identity]}))
        data = self.directory / "data"
        data.mkdir(exist_ok=True)
        ports = [f"-{part}.port={port}" for part, port in self.ports.items()]
        rpc = [f"-{part}.port.grpc={port}" for part, port in self._rpc.items()]
        weed = Path(sys.executable).parent / "weed"
        address = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3.iam=false"]
        alone = ["-s3.port.iceberg=0", "-s3.port.lance=0"]
        # A bucket takes several volumes.
        room = ["-volume.max=1000", "-master.volumeSizeLimitMB=64"]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    weed,
                    "server",
                    f"-dir={data}",
                    "-s3",
                    f"-s3.config={path}",
                    *address,
                    *alone,
                    *room,
                    *ports,
                    *rpc,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        block_until(self._answers, self._log, despite=(URLError, ConnectionError))

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def make_bucket(self, name: str) -> str:
        """Make a bucket, as its directory, once the store can."""
        url = self._door(f"buckets/{name}/")
        block_until(lambda: _status(Request(url, method="POST")) == 201, self._log)
        return name

    def objects(self, bucket: str, under: str = "") -> dict[str, bytes]:
        """What is in a bucket, by name."""
        found: dict[str, bytes] = {}
        for entry in self._listed(f"buckets/{bucket}/{under}"):
            name = f"{under}{entry['FullPath'].rpartition('/')[2]}"
            if entry["Mode"] & 1 << 31:
                if not name.startswith(".uploads"):
                    found |= self.objects(bucket, f"{name}/")
            else:
                with urlopen(self._door(f"buckets/{bucket}/{name}")) as answer:
                    found[name] = answer.read()
        return found

    def unfinished(self, bucket: str) -> list[str]:
        """Uploads in parts that were neither completed nor aborted."""
        return [entry["FullPath"] for entry in self._listed(f"buckets/{bucket}/.uploads/")]

    def _listed(self, path: str) -> list[dict[str, Any]]:
        request = Request(f"{self._door(path)}?limit=1000", headers={"Accept": "application/json"})
        try:
            with urlopen(request) as answer:
                return json.load(answer)["Entries"] or []
        except HTTPError as error:
            if error.code == 404:
                return []
            raise

    def _door(self, path: str) -> str:
        return f"http://127.0.0.1:{self.ports['filer']}/{path}"

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log()
        return _status(Request(self.endpoint)) == 403 and _status(Request(self._door(""))) == 200

    def _log(self) -> str:
        return (self.directory / "log").read_text()[-2000:]


def _status(request: Request) -> int:
    try:
        with urlopen(request, timeout=PATIENCE_S) as answer:
            status: int = answer.status
            return status
    except HTTPError as error:
        return error.code
