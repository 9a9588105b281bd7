"""Which device runs which layer of a model."""

from __future__ import annotations

import numbers
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from neuroscope.errors import ArgumentError

AUTO = "auto"
_UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}


@dataclass(frozen=True)
class Devices:
    """The devices asked for: one `device`, several, or as many as needed (`device` is "auto").

    limits: by device, the bytes that weights may take there; empty for no limits. tp: processes among which each layer is shared.
    """

    device: str | None = None
    several: tuple[str, ...] = ()
    limits: tuple[tuple[str, int], ...] = ()
    tp: int = 1

    @classmethod
    def of(
        cls,
        device: str | None = None,
        devices: Sequence[str] | None = None,
        max_memory: Mapping[str, int | str] | None = None,
        tp: int | None = None,
    ) -> Devices:
        """From the arguments of `TransformerModel.from_hugging_face`. Raises `ArgumentError` if they do not fit together."""
        if tp is not None and (tp != 1 or isinstance(tp, bool)):
            if isinstance(tp, bool) or not isinstance(tp, numbers.Integral) or tp < 1:
                raise ArgumentError(f"tp is a number of processes, not {tp!r}.", remedy="tp=2")
            if device is not None or devices or max_memory:
                raise ArgumentError(
                    "With tp, every process has a device of its own.", remedy="Leave out device, devices and max_memory."
                )
            return cls(tp=int(tp))
        if isinstance(devices, str):
            raise ArgumentError(f"devices is a list, not {devices!r}.", remedy="devices=['cuda:0', 'cuda:1']")
        named = tuple(str(name) for name in devices or ())
        limits = {str(name): _bytes(str(name), size) for name, size in (max_memory or {}).items()}
        if device is not None and named:
            raise ArgumentError(
                f"Both a device, {device!r}, and devices, {', '.join(named)}, are given.", remedy="Give one of the two."
            )
        if len(set(named)) < len(named):
            raise ArgumentError(f"A device is named twice: {', '.join(named)}.", remedy="Name each once.")
        if limits and not named and device != AUTO:
            named = (device,) if device is not None else tuple(limits)
            device = None
        strange = [name for name in limits if named and name not in named]
        if strange:
            raise ArgumentError(f"max_memory names {strange[0]!r}, which is not among the devices {', '.join(named)}.")
        if len(named) == 1 and not limits:
            return cls(named[0])
        return cls(device, named, tuple(limits.items()))

    @property
    def split(self) -> bool:
        """Whether the layers may lie on more than one device."""
        return bool(self.several) or self.device == AUTO


def _bytes(name: str, size: int | str) -> int:
    text = str(size).strip().upper()
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?I?B?)", text)
    if found is None or found[2] not in _UNITS or float(found[1]) <= 0:
        raise ArgumentError(f"max_memory of {name!r} is {size!r}, not a size.", remedy="Give bytes, or a text such as '10GiB'.")
    return int(float(found[1]) * _UNITS[found[2]])


def shares(sizes: Sequence[int], outside: int, limits: Sequence[int | None]) -> list[int | None]:
    """The number of the device of each layer; None for a layer that rests in main memory and visits the last device to run.

    sizes: bytes of each layer. outside: bytes of embedding, final norm and unembedding, which lie on the first device. limits: of each
    device; without any, the devices get equal shares. With limits the devices are filled in order, and only layers that fit nowhere
    rest; the last device then keeps room for one of them. Raises `ArgumentError` for more devices than layers, and for a limit that is
    too small.
    """
    if len(limits) > len(sizes):
        raise ArgumentError(
            f"{len(limits)} devices are more than the model's {len(sizes)} layers.",
            remedy=f"Name at most {len(sizes)} devices.",
        )
    if all(limit is None for limit in limits):
        return list(_even(sizes, outside, len(limits)))
    room = [float("inf") if limit is None else float(limit) for limit in limits]
    room[0] -= outside
    if room[0] < 0:
        raise ArgumentError(
            f"The first device may hold {limits[0]} bytes, but embedding, final norm and unembedding need {outside}.",
            remedy="Raise its max_memory, or name a larger device first.",
        )
    found = _filled(sizes, room)
    if None in found:
        room[-1] -= max(sizes)
        if room[-1] < 0:
            raise ArgumentError(
                f"The last device may hold {limits[-1]} bytes, too few for a layer of {max(sizes)} to visit.",
                remedy="Raise its max_memory.",
            )
        found = _filled(sizes, room)
    return found


def _filled(sizes: Sequence[int], room: Sequence[float]) -> list[int | None]:
    left, device = list(room), 0
    found: list[int | None] = []
    for size in sizes:
        while device < len(left) and left[device] < size:
            device += 1
        if device < len(left):
            left[device] -= size
        found.append(device if device < len(left) else None)
    return found


def _even(sizes: Sequence[int], outside: int, count: int) -> Sequence[int]:
    """Each device gets at least one layer, and the next begins where a device has its share of what is left."""
    found: list[int] = []
    filled, left = outside, outside + sum(sizes)
    for index, size in enumerate(sizes):
        device = found[-1] if found else 0
        begun = bool(found)
        others = count - device - 1
        full = begun and filled + size / 2 > left / (others + 1)
        if others and begun and (full or len(sizes) - index <= others):
            left -= filled
            filled, device = 0, device + 1
        filled += size
        found.append(device)
    return found
