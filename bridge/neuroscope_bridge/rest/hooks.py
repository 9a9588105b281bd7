"""Hooks of HTTP requests: captures, and interventions as hooks of the model."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neuroscope.engines.architectures import table
from neuroscope.engines.sites import ATTENTION_MATRICES, GLOBAL, Component, Site
from neuroscope.errors import ArgumentError, SiteError, did_you_mean
from neuroscope.hooks.hook import ActivationHook
from neuroscope_bridge.rest.errors import HookNotFoundError
from neuroscope_bridge.rest.probes import Watch
from neuroscope_bridge.rest.schemas import HookSpec

if TYPE_CHECKING:
    from neuroscope.models.model import TransformerModel


def _outside(name: str | None) -> Component | None:
    """A component outside the layers, by its name in any architecture, or None."""
    known = table().values()
    if name == "embedding" or any(name == architecture.path("embedding") for architecture in known):
        return Component.EMBEDDING
    return Component.LOGITS if name == "logits" or any(name == one.unembedding for one in known) else None


def _layer(name: str) -> int | None:
    """The number of a layer, by its name in any architecture, or None."""
    known = table().values()
    bases = sorted({"decoder"}.union(*(one.base.split(".") for one in known)) - {""})
    lists = sorted({"layer", "blocks", *(one.layers for one in known)})
    within, listed = ("|".join(map(re.escape, names)) for names in (bases, lists))
    match = re.fullmatch(rf"(?:(?:{within})\.)*(?:(?:{listed})\.)?(\d{{1,6}})", name)
    return None if match is None else int(match[1])


def site_of(spec: HookSpec, model: TransformerModel) -> Site:
    """The site of a hook, checked against the model. Raises `SiteError`."""
    name = None if spec.layer_name is None else str(spec.layer_name).strip()
    component = Component.parse(spec.component)
    outside = _outside(name)
    layer: int | None = None
    if outside is not None:
        given = "component" in spec.model_fields_set
        component = component if given and component in GLOBAL else outside
    elif name is None or component in GLOBAL:
        if component not in GLOBAL:
            raise SiteError(f"{component} needs a layer_name.", remedy="transformer.h.5, model.layers.5 or 5.")
    else:
        layer = _layer(name)
        if layer is None:
            raise SiteError(
                f"{name!r} is not a layer.",
                site=name,
                remedy="Write transformer.h.5, model.layers.5 or 5, and the part of the layer as component.",
            )
    return Site(layer, component, spec.head, spec.neuron).checked(model.architecture)


@dataclass(frozen=True)
class Capture:
    """A hook that reads."""

    id: str
    site: Site
    spec: HookSpec


@dataclass(frozen=True)
class Plan:
    """A request's hooks, for one model."""

    captures: tuple[Capture, ...]
    interventions: tuple[ActivationHook, ...]
    watch: Watch | None = None

    @property
    def sites(self) -> list[Site]:
        """What is captured, for the answer and for the probe that reads along."""
        watched = [] if self.watch is None else [self.watch.site]
        return list(dict.fromkeys([*(capture.site for capture in self.captures), *watched]))

    def install(self, model: TransformerModel) -> None:
        for hook in self.interventions:
            model.hook_manager.add_hook(hook)


def plan(specs: Sequence[HookSpec], model: TransformerModel) -> Plan:
    """Hooks for a request. Raises `SiteError` and `ArgumentError`. May run the model."""
    captures: dict[str, Capture] = {}
    interventions: dict[str, ActivationHook] = {}
    for spec in specs:
        site = site_of(spec, model)
        name = spec.hook_id or (str(site) if spec.action == "capture" else f"{spec.action} {site}")
        if name in captures or name in interventions:
            raise ArgumentError(f"Two hooks are called {name!r}.", remedy="Give each its own hook_id.")
        if spec.action == "capture":
            captures[name] = Capture(name, site, spec)
        else:
            interventions[name] = _intervention(name, site, spec, model)
    return Plan(tuple(captures.values()), tuple(interventions.values()))


def _intervention(name: str, site: Site, spec: HookSpec, model: TransformerModel) -> ActivationHook:
    """The hook that steers, ablates or scales the whole array, at every position."""
    change = _change(site, spec, model)
    if site.neuron is None:
        return ActivationHook(site.layer, site.component, change, head=site.head, name=name)
    neuron = site.neuron

    def on_neuron(activations: Any) -> Any:
        activations[..., neuron] = change(activations[..., neuron])
        return activations

    return ActivationHook(site.layer, site.component, on_neuron, name=name)


def _change(site: Site, spec: HookSpec, model: TransformerModel) -> Callable[[Any], Any]:
    if spec.action == "ablate":
        return lambda activations: activations * 0.0
    if spec.action == "scale":
        assert spec.factor is not None
        factor = spec.factor
        return lambda activations: activations * factor
    if site.component in ATTENTION_MATRICES or site.neuron is not None:
        raise ArgumentError(
            f"{site} has no direction to steer in.", remedy="Steer residual, attention, mlp or a head's output."
        )
    if spec.contrast is not None:
        from neuroscope.steering.vectors import contrast_direction

        direction = contrast_direction(model, spec.contrast.more, spec.contrast.less, site)
    else:
        direction = np.asarray(spec.vector, dtype=np.float32)
    width = vector_width(site, model)
    if len(direction) != width:
        raise ArgumentError(
            f"The vector for {site} has {len(direction)} numbers, but the site is {width} wide.",
            site=site,
            remedy=f"Send {width} numbers, or a contrast of texts to compute them from.",
        )
    step = direction * spec.strength
    return lambda activations: activations + step


def vector_width(site: Site, model: TransformerModel) -> int:
    """Size of the last axis of a site's array."""
    width = model.architecture.width(site.component)
    return model.architecture.d_head if width is None else width


class HookRegistry:
    """Registered hooks by id. They act only in requests that name them. Thread-safe."""

    _MOST = 10_000
    _LARGEST = 64 << 20  # bytes of JSON of all of them

    def __init__(self) -> None:
        self._hooks: dict[str, HookSpec] = {}
        self._sizes: dict[str, int] = {}
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)

    def add(self, specs: Sequence[HookSpec]) -> list[str]:
        """Register hooks, all or none. Return their ids. Raises `ArgumentError` for an id in use."""
        with self._lock:
            names = [spec.hook_id or f"hook-{next(self._numbers)}" for spec in specs]
            taken = [name for at, name in enumerate(names) if name in self._hooks or name in names[:at]]
            if taken:
                raise ArgumentError(f"A hook {taken[0]!r} already exists.", remedy="DELETE it first, or choose another id.")
            if len(self._hooks) + len(names) > self._MOST:
                raise ArgumentError(f"More than {self._MOST} hooks cannot be registered.", remedy="DELETE some.")
            sizes = {name: len(spec.model_dump_json()) for name, spec in zip(names, specs, strict=True)}
            if sum(self._sizes.values()) + sum(sizes.values()) > self._LARGEST:
                raise ArgumentError(
                    f"Registered hooks take at most {self._LARGEST >> 20} MiB.",
                    remedy="DELETE some, or send hooks with the request.",
                )
            self._sizes |= sizes
            for name, spec in zip(names, specs, strict=True):
                self._hooks[name] = spec.model_copy(update={"hook_id": name})
            return names

    def remove(self, name: str | None) -> list[str]:
        """Remove one hook, or all for None. Return the ids."""
        with self._lock:
            gone = list(self._hooks) if name is None else [name]
            for one in gone:
                self._sizes.pop(one, None)
                if self._hooks.pop(one, None) is None:
                    raise HookNotFoundError(
                        f"No hook {one!r} is registered.", remedy=did_you_mean(one, self._hooks, listing="Registered")
                    )
            return gone

    def all(self) -> Mapping[str, HookSpec]:
        with self._lock:
            return dict(self._hooks)

    def resolve(self, hooks: Sequence[str | HookSpec] | None) -> list[HookSpec]:
        """A request's hooks, registered ones by their ids."""
        known = self.all()
        found = []
        for hook in hooks or ():
            spec = known.get(hook) if isinstance(hook, str) else hook
            if spec is None:
                raise HookNotFoundError(
                    f"No hook {hook!r} is registered.", remedy=did_you_mean(str(hook), known, listing="Registered")
                )
            found.append(spec)
        return found
