"""Proxies of the server's objects and classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuroscope.errors import ArgumentError, did_you_mean
from neuroscope.naming import camel_case, fold
from neuroscope_bridge.wire.values import ClassName, Handle

if TYPE_CHECKING:
    from neuroscope_bridge.client.client import Client


def selector_for(
    name: str, parameters: Sequence[str], arguments: tuple[Any, ...], named: Mapping[str, Any]
) -> tuple[str, list[Any]]:
    """A Python call as a message: the first argument follows the method's name, the others their names."""
    given: dict[str, Any] = {}
    if len(arguments) > len(parameters):
        raise ArgumentError(f"{name} takes at most {len(parameters)} arguments, not {len(arguments)}.")
    given.update(zip(parameters, arguments, strict=False))
    for key, value in named.items():
        match = next((p for p in parameters if fold(p) == fold(key)), None)
        if match is None:
            raise ArgumentError(f"{name} has no argument {key!r}.", remedy=did_you_mean(key, parameters, listing="Arguments"))
        if match in given:
            raise ArgumentError(f"{name} was given {key!r} twice.")
        given[match] = value
    if not given:
        return camel_case(name), []
    first = parameters[0]
    if first not in given:
        raise ArgumentError(f"{name} needs {first!r} too: a message names its first argument first.")
    rest = [p for p in parameters[1:] if p in given]
    selector = "".join([f"{camel_case(name)}:", *(f"{camel_case(p)}:" for p in rest)])
    return selector, [given[first], *(given[p] for p in rest)]


class RemoteMethod:
    """A bound method of a remote object or class."""

    def __init__(self, client: Client, receiver: Any, operation: Mapping[str, Any]) -> None:
        self._client, self._receiver, self._operation = client, receiver, operation
        self.__doc__ = operation["comment"]
        self.__name__ = operation["name"]

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self.future(*arguments, **named).result()

    def future(self, *arguments: Any, **named: Any) -> Any:
        """The same call without waiting. Return a future."""
        selector, values = selector_for(self.__name__, self._operation["parameters"], arguments, named)
        return self._client.send_later(self._receiver, selector, *values)

    def __repr__(self) -> str:
        return f"<{self.__name__}({', '.join(self._operation['parameters'])}) of {self._receiver!r}>"


class RemoteObject:
    """An object on the server, with the attributes and methods of its class; operators and `[]` are messages."""

    def __init__(self, client: Client, handle: Handle) -> None:
        self._client = client
        self._handle = handle

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        operation = self._client.operation(self._handle, name)
        if operation is None:
            known = self._client.operations(self._handle)
            names = [known[key]["name"] for key in known]
            raise AttributeError(f"A {self._handle.class_name} has no {name!r}. {did_you_mean(name, names)}")
        if operation["kind"] == "method":
            return RemoteMethod(self._client, self, operation)
        return self._client.send(self, camel_case(operation["name"]))

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            self._client.send(self, f"{camel_case(name)}:", value)

    def __dir__(self) -> list[str]:
        known = self._client.operations(self._handle)
        return [operation["name"] for operation in known.values() if operation["kind"] != "class method"]

    def numpy(self, slice: Sequence[Any] | None = None) -> NDArray[Any]:  # noqa: A002 - the protocol's own word
        """A tensor's values; `slice` has one entry per axis: None, an index, or [start, stop]. Only the slice is sent."""
        wanted = {"form": "tensor", **({} if slice is None else {"slice": list(slice)})}
        return np.asarray(self._client.send_later(self, "yourself", wanted=wanted).result())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def plain(self) -> Any:
        """Nested plain data, as in JSON."""
        return self._client.send_later(self, "yourself", wanted={"form": "value"}).result()

    def print_string(self) -> str:
        """Its current printed form."""
        return str(self._client.send_later(self, "yourself", wanted={"form": "string"}).result())

    def __repr__(self) -> str:
        return self._handle.print_string

    def __len__(self) -> int:
        return int(self._client.send(self, "size"))

    def __iter__(self) -> Iterator[Any]:
        return iter(self._client.send(self, "asArray"))

    def __getitem__(self, key: Any) -> Any:
        return self._client.send(self, "at:", key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._client.send(self, "at:put:", key, value)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, RemoteObject) and other._client is self._client:
            return self._handle.id == other._handle.id or bool(self._client.send(self, "=", other))
        return False

    def __hash__(self) -> int:
        return hash(self._handle.class_name)  # equal objects may have different handles

    def __add__(self, other: Any) -> Any:
        return self._client.send(self, "+", other)

    def __sub__(self, other: Any) -> Any:
        return self._client.send(self, "-", other)

    def __mul__(self, other: Any) -> Any:
        return self._client.send(self, "*", other)

    def __truediv__(self, other: Any) -> Any:
        return self._client.send(self, "/", other)

    def __lt__(self, other: Any) -> Any:
        return self._client.send(self, "<", other)

    def __gt__(self, other: Any) -> Any:
        return self._client.send(self, ">", other)


class RemoteClass:
    """A class of the server's vocabulary: call it for an instance, or use its class methods."""

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self._name = name

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        operation = self._client.operation(self._name, "new")
        if operation is None:
            raise ArgumentError(f"{self._name} cannot be instantiated.")
        parameters = operation["parameters"]
        if not arguments and not named:
            return self._client.send(ClassName(self._name), "new")
        selector, values = selector_for(parameters[0], parameters, arguments, named)
        return self._client.send(ClassName(self._name), selector, *values)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        operation = self._client.operation(self._name, name)
        if operation is None or operation["kind"] != "class method":
            known = self._client.operations(self._name)
            names = [known[key]["name"] for key in known if known[key]["kind"] == "class method"]
            raise AttributeError(f"{self._name} has no class method {name!r}. {did_you_mean(name, names)}")
        return RemoteMethod(self._client, ClassName(self._name), operation)

    def __dir__(self) -> list[str]:
        known = self._client.operations(self._name)
        return [operation["name"] for operation in known.values() if operation["kind"] == "class method"]

    def __repr__(self) -> str:
        return f"<{self._name} at {self._client.address}>"
