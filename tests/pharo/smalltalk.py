"""GNU Smalltalk as a process, where there is one."""

from __future__ import annotations

import ctypes.util
import os
import shutil
import subprocess
from pathlib import Path

import pytest

HOME = Path(__file__).parents[2]

needs_gst = pytest.mark.skipif(
    shutil.which("gst") is None or ctypes.util.find_library("zmq") is None,
    reason="GNU Smalltalk or libzmq is not installed; make test-smalltalk says how to get them",
)


def gst(*files: Path | str, address: str | None = None, timeout: float = 120) -> str:
    """What GNU Smalltalk prints after loading the packages and then some files. It exits with 0 whatever happens."""
    environment = {key: value for key, value in os.environ.items() if key != "NEUROSCOPE_ADDRESS"}
    environment["NEUROSCOPE_HOME"] = str(HOME)
    if address is not None:
        environment["NEUROSCOPE_ADDRESS"] = address
    command = ["gst", str(HOME / "pharo" / "gst" / "load.st"), *map(str, files)]
    done = subprocess.run(command, capture_output=True, env=environment, timeout=timeout, check=False)
    return done.stdout.decode() + done.stderr.decode()
