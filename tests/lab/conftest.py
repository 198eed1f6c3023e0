import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowvis.lab import isolation
from waiting import PATIENCE_S

Script = Callable[..., list[Any]]


ROOT = "as root"
USER = "in a user namespace"


@pytest.fixture(scope="session", params=[ROOT, USER] if os.geteuid() == 0 else [USER])
def script(request: pytest.FixtureRequest) -> Script:
    """Runs a script of this directory in a private world and returns its JSON lines.

    A user namespace gives it no more than an ordinary user gets. What tests share it can import.
    """
    user = request.param == USER
    shared = os.pathsep.join(path for path in sys.path if path)

    def run(name: str, *arguments: object) -> list[Any]:
        path = Path(__file__).with_name(name)
        command = isolation.wrap([sys.executable, str(path), *map(str, arguments)], user=user)
        environment = {**os.environ, "PYTHONPATH": shared}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run
