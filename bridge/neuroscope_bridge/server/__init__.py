"""The ZeroMQ door: `neuroscope serve --zmq`."""

from neuroscope_bridge.server.door import ZmqDoor

__all__ = ["ZmqDoor"]
