"""The wire format: values, tensors and messages as frames of bytes. `bridge/PROTOCOL.md` documents it for other languages."""

from neuroscope_bridge.wire.codec import decode, encode
from neuroscope_bridge.wire.values import BlockSource, Callback, ClassName, Handle

__all__ = ["BlockSource", "Callback", "ClassName", "Handle", "decode", "encode"]
