"""A model whose layers are shared among processes, by transformers' tensor and expert parallelism.

Each process holds some heads, neurons or experts of every layer; the residual stream is alike on all. `ParallelEngine` is `TorchEngine` on
such a share. On rank 0 it lets the other processes do what it does (see `ranks`): a run, gradients, reading and writing weights. Sites
are whole: what lies divided is joined before it is captured or edited, and divided again. Edits and metrics are called on rank 0 alone, and
what they make is sent to the others. So a program sees the model as in one process.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import DynamicCache
from transformers.distributed.parallel_utils import _AllReduceBackward, _AllReduceForward, _use_local_dtensor_params

from neuroscope.engines.layout import Stored, find_module
from neuroscope.engines.protocol import Edit, LogitRequest, Run, TokenBatch
from neuroscope.engines.sites import ATTENTION_MATRICES, Component, Site
from neuroscope.engines.spans import Span
from neuroscope.engines.torch.apart import by_caller
from neuroscope.engines.torch.engine import TorchEngine, TorchPrefix
from neuroscope.engines.torch.experts import NeuronTap, run_experts
from neuroscope.engines.torch.parameters import TorchParameters
from neuroscope.engines.torch.ranks import Ranks
from neuroscope.engines.torch.shards import divided, entry, heard, joined, told
from neuroscope.engines.torch.slots import HeadSlot
from neuroscope.engines.torch.taps import TorchTaps
from neuroscope.engines.tuning import StepSettings
from neuroscope.engines.weights import Bits, WeightSite
from neuroscope.errors import ArgumentError, UnsupportedArchitectureError

_keys = itertools.count(1)
#: Attribute of a cache: its `_Token`.
_TOKEN = "neuroscope_token"


@dataclass(frozen=True)
class _RunCall:
    """A run as the other processes get it. cache: of the others, its number, and how a prefix was narrowed since."""

    span: Span
    cache: tuple[int, tuple[tuple[str, Any], ...]] | None
    taps: tuple[Sequence[Site], Sequence[Edit], dict[str, Any]]
    start: int
    stop: int | None
    logits: LogitRequest | None
    residual: tuple[tuple[int, ...], torch.dtype] | None
    traced: bool


class ParallelPrefix(TorchPrefix):
    """`Prefix`, with what finds those of the other processes. token: lives as long as anything made of the prefix."""

    def __init__(self, *of: Any, token: _Token, steps: tuple[tuple[str, Any], ...] = ()) -> None:
        super().__init__(*of)
        self.token, self.steps = token, steps

    def repeat(self, times: int) -> ParallelPrefix:
        return self._next(super().repeat(times), "repeat", times)

    def take(self, rows: slice) -> ParallelPrefix:
        return self._next(super().take(rows), "take", rows)

    def _next(self, made: TorchPrefix, step: str, argument: Any) -> ParallelPrefix:
        of = made._layers, made.columns, made.weights, made._times
        return ParallelPrefix(*of, token=self.token, steps=(*self.steps, (step, argument)))


class _Token:
    """The number of what the other processes keep, until this is collected."""

    def __init__(self, ranks: Ranks, engine: int) -> None:
        self.key = next(_keys)
        weakref.finalize(self, ranks.dropped.append, (engine, self.key))


class ParallelTaps(TorchTaps):
    """`TorchTaps` of whole arrays, where components lie divided along `axes`."""

    def __init__(
        self, *what: Any, ranks: Ranks, axes: dict[Component, int], experts: int, home: torch.device | None = None, **where: Any
    ) -> None:
        super().__init__(*what, home=home, **where)
        self.asked = what[2], what[3]
        self._ranks, self._axes, self._experts = ranks, axes, experts

    def touch(self, layer: int | None, component: Component, value: Tensor) -> Tensor:
        axis = self._axes.get(component)
        if axis is None or self.paused or not self.wants(layer, component):
            return super().touch(layer, component, value)
        whole = joined(value, axis, self._ranks)
        new = super().touch(layer, component, whole)
        return value if new is whole and not torch.is_grad_enabled() else divided(new, axis, self._ranks)

    def _applied(self, edit: Edit, value: Tensor, scope: Any) -> Tensor:
        if not self._ranks.leads:
            return heard(value, self._ranks)
        read = entry(value, self._ranks)
        edited = super()._applied
        return told(by_caller(lambda: edited(edit, read, scope)), read, value, self._ranks)

    def _run_experts(self, experts: nn.Module, x: Tensor, indices: Tensor, weights: Tensor, tap: NeuronTap) -> Tensor:
        if Component.MLP not in self._axes:
            return super()._run_experts(experts, x, indices, weights, tap)
        group, count = torch.distributed.group.WORLD, self._experts // self._ranks.size
        x, weights = _AllReduceBackward.apply(x, group), _AllReduceBackward.apply(weights, group)
        with _use_local_dtensor_params(experts):
            first = count * self._ranks.rank
            out = run_experts(experts, x, indices, weights, tap, first=first, total=self._experts)
        return _AllReduceForward.apply(out, group)


class ParallelParameters(TorchParameters):
    """`TorchParameters` of which each process holds a part."""

    engine: ParallelEngine

    def _taken(self, site: WeightSite) -> tuple[Bits, str]:
        stored = self._places[site.weight]
        with self._exclusive():
            array = self.engine.whole(site.layer, stored.path)
            return self._bits(array, stored, site.index(self.anatomy)), self._type(array)

    def _put(self, layer: int | None, stored: Stored, index: tuple[Any, ...], bits: Bits) -> None:
        what = layer, stored, index, bits
        self.engine.ranks.call("put", self.engine.number, *what, here=lambda: self.put_here(*what))

    def put_here(self, layer: int | None, stored: Stored, index: tuple[Any, ...], bits: Bits) -> None:
        """What every process does of a write."""
        array = self._array(layer, stored.path)
        if not isinstance(array, DTensor):
            super()._put(layer, stored, index, bits)
            return
        whole = array.full_tensor().contiguous()
        self._write(whole, stored, index, bits)
        mine = distribute_tensor(whole, array.device_mesh, array.placements, src_data_rank=None)
        array.to_local().copy_(mine.to_local())


class ParallelEngine(TorchEngine):
    """`TorchEngine` for this process's share of a model. number: names the engine on all ranks."""

    parameters: ParallelParameters
    _parameters_class = ParallelParameters

    def __init__(self, model: Any, ranks: Ranks, number: int, *, part: bool = False) -> None:
        self.ranks, self.number = ranks, number
        self._kept: dict[int, Any] = {}  # of the other ranks: caches and prefixes
        self._traced: dict[int, tuple[Run, Sequence[Site]]] = {}  # by call: runs whose gradients may follow
        super().__init__(model, part=part)
        self._lock = self.placement.lock = ranks.lock
        if ranks.leads:
            weakref.finalize(self, ranks.dropped.append, (number, None))

    @property
    def device_name(self) -> str:
        return f"{super().device_name} (1 of {self.ranks.size} processes)"

    def _parameters(self) -> ParallelParameters:
        self.axes = self._sharded()
        divides = self.axes.get(Component.HEAD_OUTPUT) is not None
        anatomy, size = self.anatomy, self.ranks.size
        if divides:
            anatomy = dataclasses.replace(anatomy, heads=anatomy.heads // size, key_value_heads=anatomy.key_value_heads // size)
        self._own_slots = self.architecture.slots(anatomy, HeadSlot)
        found = super()._parameters()
        assert isinstance(found, ParallelParameters)
        found.engine = self
        return found

    def _sharded(self) -> dict[Component, int]:
        """The axis along which each component lies divided, by the plans that transformers applied."""
        a, layers = self.architecture, self.architecture.path("layers")
        plan = {**(self.model._tp_plan or {}), **(self.model._ep_plan or {})}

        def style(path: str | None) -> str | None:
            return plan.get(f"{layers}.*.{path}")

        heads = {style(path) for path in (a.query, a.key, a.value)}
        found: dict[Component, int] = {}
        if heads == {"colwise"} and style(a.output_projection) == "rowwise":
            found |= dict.fromkeys((Component.QUERY, Component.KEY, Component.VALUE, Component.HEAD_OUTPUT), 2)
            found |= dict.fromkeys(ATTENTION_MATRICES, 1)
        elif not heads <= {None, "colwise_gather_output"} or style(a.output_projection) not in (None, "rowwise_split_input"):
            raise self._unknown_plan(f"{a.query} {style(a.query)}, {a.output_projection} {style(a.output_projection)}")
        down = style("mlp.experts") if a.moe else style(a.down_projection)
        if down in ("rowwise", "ep_dispatch_experts"):
            found[Component.MLP] = 2
        elif down not in (None, "rowwise_split_input"):
            raise self._unknown_plan(f"{a.down_projection} {down}")
        return found

    def _unknown_plan(self, what: str) -> UnsupportedArchitectureError:
        return UnsupportedArchitectureError(
            f"transformers divides {self.architecture.name} in a way that is not known here: {what}.",
            remedy="Load it without tp.",
        )

    def _check(self, layers: Sequence[Any]) -> None:
        if self.ranks.leads:
            super()._check(layers)

    @property
    def _slots_here(self) -> dict[Component, HeadSlot]:
        return self._own_slots

    def _taps(self, batch: TokenBatch, capture: Sequence[Site], edits: Sequence[Edit], **where: Any) -> ParallelTaps:
        own: dict[str, Any] = {"ranks": self.ranks, "axes": self.axes, "experts": self.anatomy.experts}
        return ParallelTaps(self.anatomy, batch, capture, edits, **own, **where)

    # --- rank 0: each method lets the others do the `do_` of its name ------------------------------------------------

    def _run(
        self,
        span: Span,
        taps: TorchTaps,
        start: int,
        residual: Tensor | None,
        stop: int | None,
        logits: LogitRequest | None,
    ) -> Run:
        if not self.ranks.leads:
            return super()._run(span, taps, start, residual, stop, logits)
        if residual is not None:
            residual = self.ops.asarray(residual)
        call = self._described(span, taps, start, residual, stop, logits)
        run_here = super()._run

        def run() -> Run:
            if residual is not None:
                self.ranks.share(residual)
            found = run_here(span, taps, start, residual, stop, logits)
            if call.traced:
                self._traced = {self.ranks.number: (found, ())}
            return found

        return self.ranks.call("run", self.number, call, here=run)

    def _described(
        self,
        span: Span,
        taps: TorchTaps,
        start: int,
        residual: Tensor | None,
        stop: int | None,
        logits: LogitRequest | None,
    ) -> _RunCall:
        assert isinstance(taps, ParallelTaps)
        cache = None
        if isinstance(span.cache, ParallelPrefix):
            cache = span.cache.token.key, span.cache.steps
        elif span.cache is not None:
            cache = getattr(span.cache, _TOKEN).key, ()
        capture, edits = taps.asked
        where = {name: getattr(taps, name) for name in ("phase", "first_column", "columns", "tokens")}
        return _RunCall(
            dataclasses.replace(span, cache=None),
            cache,
            (list(capture), [dataclasses.replace(edit, apply=_elsewhere) for edit in edits], where),
            start,
            stop,
            logits,
            None if residual is None else (tuple(residual.shape), residual.dtype),
            torch.is_grad_enabled(),
        )

    def _differentiated(self, run: Run, values: Tensor, leaves: Sequence[Tensor]) -> Sequence[Tensor | None]:
        assert run.logits is not None
        found = torch.autograd.grad(values.sum(), run.logits, allow_unused=True)[0]
        if found is None:
            return [None] * len(leaves)
        (number,) = self._traced
        sites = [next(site for site, value in run.activations.items() if value is leaf) for leaf in leaves]

        def differentiate() -> Sequence[Tensor | None]:
            assert run.logits is not None
            self._traced.clear()
            return torch.autograd.grad(run.logits, leaves, self.ranks.share(found), allow_unused=True)

        about = number, sites, tuple(found.shape), found.dtype
        return self.ranks.call("differentiate", self.number, *about, here=differentiate)

    def _entry(self, span: Span) -> Tensor:
        return self.ranks.call("embed", self.number, dataclasses.replace(span, cache=None), here=lambda: self._embed(span))

    def _new_cache(self) -> DynamicCache:
        cache = super()._new_cache()
        setattr(cache, _TOKEN, _Token(self.ranks, self.number))
        return cache

    def _as_prefix(self, cache: DynamicCache, columns: int) -> ParallelPrefix:
        made, token = super()._as_prefix(cache, columns), _Token(self.ranks, self.number)
        found = ParallelPrefix(made._layers, made.columns, made.weights, token=token)
        self.ranks.call("prefix", self.number, getattr(cache, _TOKEN).key, columns, token.key, here=lambda: None)
        return found

    def _bare_logits(self, batch: TokenBatch) -> Tensor:
        if not self.ranks.leads:
            return super()._bare_logits(batch)
        bare = super()._bare_logits
        return self.ranks.call("bare_logits", self.number, batch, here=lambda: bare(batch))

    def _save(self, folder: Path) -> None:
        if not self.ranks.leads:
            super()._save(folder)
            return
        save = super()._save
        self.ranks.call("save", self.number, folder, here=lambda: save(folder))

    def whole(self, layer: int | None, path: str) -> Any:
        """A stored array, whole: what all ranks hold, or their parts joined."""
        array = find_module(self.model if layer is None else self.layers[layer], path).detach()
        if not isinstance(array, DTensor):
            return array
        return self.ranks.call("gather", self.number, layer, path, here=array.full_tensor)

    def _module(self, layer: int, path: str) -> nn.Module:
        held = super()._module(layer, path)
        names = [name for name, value in held.named_parameters(recurse=False) if isinstance(value, DTensor)]
        if not names:
            return held
        found = copy.copy(held)
        gathered = {name: nn.Parameter(self.whole(layer, f"{path}.{name}"), requires_grad=False) for name in names}
        found._parameters = {**held._parameters, **gathered}
        return found

    def _unembeddings(self, tokens: Tensor) -> Tensor:
        weight = self._head.weight
        if not isinstance(weight, DTensor):
            return super()._unembeddings(tokens)
        mine = weight.to_local().detach()
        each = -(-weight.shape[0] // self.ranks.size)  # the last rank may hold fewer
        at = tokens - self.ranks.rank * each
        here = (at >= 0) & (at < mine.shape[0])
        found = mine[torch.where(here, at, 0)] if len(mine) else mine.new_zeros(*at.shape, mine.shape[1])
        return self.ranks.summed(torch.where(here[..., None], found, 0).contiguous())

    def copy(self) -> NoReturn:
        raise self._untrained()

    def tuner(self, sites: Sequence[WeightSite] | None, settings: StepSettings) -> NoReturn:
        raise self._untrained()

    def differentiable(self, on: bool = True) -> NoReturn:
        raise self._untrained()

    def _untrained(self) -> ArgumentError:
        return ArgumentError("A model that is shared among processes is not trained.", remedy="Load it without tp.")

    # --- the others --------------------------------------------------------------------------------------------------

    def do_run(self, call: _RunCall) -> None:
        capture, edits, where = call.taps
        with self.exclusive(), torch.set_grad_enabled(call.traced):
            residual = None
            if call.residual is not None:
                shape, dtype = call.residual
                residual = self.ranks.share(self.ranks.empty(shape, dtype)).requires_grad_(call.traced)
            span = dataclasses.replace(call.span, cache=self._cache(call.cache))
            taps = self._taps(span.whole, capture, edits, **where)
            run = self._run(span, taps, call.start, residual, call.stop, call.logits)
        if call.traced:
            self._traced = {self.ranks.number: (run, capture)}

    def _cache(self, asked: tuple[int, tuple[tuple[str, Any], ...]] | None) -> Any:
        if asked is None:
            return None
        key, steps = asked
        found = self._kept.setdefault(key, DynamicCache())
        for step, argument in steps:
            found = getattr(found, step)(argument)
        return found

    def do_differentiate(self, number: int, sites: Sequence[Site], shape: tuple[int, ...], dtype: torch.dtype) -> None:
        run, _ = self._traced.pop(number)
        assert run.logits is not None
        gradient = self.ranks.share(self.ranks.empty(shape, dtype))
        torch.autograd.grad(run.logits, [run.activations[site] for site in sites], gradient, allow_unused=True)

    def do_embed(self, span: Span) -> None:
        with self.exclusive():
            self._embed(span)

    def do_prefix(self, cache: int, columns: int, key: int) -> None:
        layers = [(layer.keys, layer.values) for layer in self._kept[cache].layers]
        self._kept[key] = TorchPrefix(layers, columns, {})

    def do_bare_logits(self, batch: TokenBatch) -> None:
        self._bare_logits(batch)

    def do_save(self, folder: Path) -> None:
        self._save(folder)

    def do_gather(self, layer: int | None, path: str) -> None:
        find_module(self.model if layer is None else self.layers[layer], path).detach().full_tensor()

    def do_put(self, layer: int | None, stored: Stored, index: tuple[Any, ...], bits: Bits) -> None:
        self.parameters.put_here(layer, stored, index, bits)

    def drop(self, key: int) -> None:
        """Forget a cache or a prefix."""
        self._kept.pop(key, None)


def _elsewhere(*_: Any) -> NoReturn:
    """An edit's function on the ranks that do not call it."""
    raise AssertionError("edits are called on rank 0 alone")
