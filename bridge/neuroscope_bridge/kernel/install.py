"""Where Jupyter finds the kernel."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from neuroscope.errors import MissingExtraError, reason
from neuroscope_bridge.files import FileError

NAME = "neuroscope"

#: Settings of a kernel, read from the environment since Jupyter starts it without options: the environment variable of each.
EMBEDDED = "NEUROSCOPE_EMBEDDED"


def install(prefix: Path | None = None) -> str:
    """Install the kernel for the user, or below a folder (`sys.prefix` of an environment). Return what was done.

    Raises `MissingExtraError` without Jupyter, `FileError` for a folder that cannot be written.
    """
    described = {
        "argv": [sys.executable, "-m", "neuroscope_bridge.kernel", "-f", "{connection_file}"],
        "display_name": "NeuroScope",
        "language": "smalltalk",
        "interrupt_mode": "signal",
        "metadata": {"debugger": False},
    }
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "kernel.json").write_text(json.dumps(described, indent=1), encoding="utf-8")
        Path(folder).chmod(0o755)
        try:
            where = _specifications().install_kernel_spec(
                folder, NAME, user=prefix is None, prefix=None if prefix is None else str(prefix)
            )
        except OSError as error:
            raise FileError(f"The kernel cannot be installed: {reason(error)}.", remedy="Give --prefix FOLDER.") from error
    return f"Installed in {where}. Choose NeuroScope when you make a notebook; `neuroscope kernel uninstall` removes it."


def uninstall(prefix: Path | None = None) -> str:
    """Remove the kernel. Raises `FileError` if it is not installed."""
    found = _specifications(prefix).find_kernel_specs().get(NAME)
    if found is None:
        raise FileError("The kernel is not installed here.", remedy="`jupyter kernelspec list` shows what is.")
    _specifications(prefix).remove_kernel_spec(NAME)
    return f"Removed {found}."


def _specifications(prefix: Path | None = None) -> Any:
    try:
        from ipykernel import kernelbase  # noqa: F401  # the kernel needs it when Jupyter starts it
        from jupyter_client.kernelspec import KernelSpecManager
    except ImportError as error:
        raise MissingExtraError(
            f"The kernel needs the package {error.name}.", remedy="pip install 'neuroscope-interp[notebook]'"
        ) from error
    manager = KernelSpecManager()
    if prefix is not None:
        manager.kernel_dirs = [os.fspath(prefix / "share" / "jupyter" / "kernels")]
    return manager
