"""The command line, `neuroscope`."""

from neuroscope_bridge.cli.app import main

__all__ = ["main"]
