"""TransformerModel: a loaded model, with its hooks: one forward pass, and generation."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from neuroscope import events, settings
from neuroscope.elsewhere import OF_MODELS
from neuroscope.engines import usual_engine
from neuroscope.engines.anatomy import Anatomy
from neuroscope.engines.devices import Devices
from neuroscope.engines.lengths import new_tokens
from neuroscope.engines.patterns import expanded
from neuroscope.engines.protocol import (
    ALL_LOGITS,
    Engine,
    GenerationSettings,
    LogitRequest,
    Run,
    Step,
    TokenBatch,
)
from neuroscope.engines.sites import Component, Site
from neuroscope.engines.weights import WeightSite, WeightView, hash_of
from neuroscope.errors import ArgumentError, NonFiniteActivationError
from neuroscope.hooks.manager import HookManager
from neuroscope.models import batching
from neuroscope.models.generation import TextStream, Written, continued, written
from neuroscope.models.tokenized import Prompts, Tokenized
from neuroscope.results import titled
from neuroscope.tensors.cache import ActivationCache
from neuroscope.tensors.tensor import ActivationTensor
from neuroscope.vocabulary import for_python, public, python_only

if TYPE_CHECKING:
    from neuroscope.analyses.extensions import AnalysesOfModels
    from neuroscope.editing.extensions import EditsOfModels
    from neuroscope.models.verify import VerificationReport
    from neuroscope.tasks.extensions import RunsOfModels
    from neuroscope.transfer.extensions import TransfersOfModels

    class _Extended(AnalysesOfModels, EditsOfModels, RunsOfModels, TransfersOfModels): ...
else:
    from neuroscope.extensions import Extensible as _Extended

#: Default length of a continuation, in tokens.
_USUAL_TOKENS = 64


@public
class TransformerModel(Tokenized, _Extended):
    """A decoder-only language model.

    `weights_hash` identifies the weights as the engine loaded them. `task_type` is the default of `context taskType` in hooks.
    """

    task_type: str | None
    names_elsewhere: ClassVar[Mapping[str, str]] = OF_MODELS

    def __init__(self, engine: Engine, tokenizer: Any, name: str, weights_hash: str, ran: str | None = None) -> None:
        super().__init__(tokenizer, name)
        self._engine = engine
        self._ran = ran or name
        self._loaded_hash = weights_hash
        self._recipe: dict[str, Any] | None = None
        self._hook_manager = HookManager(self)
        self.task_type = None

    @classmethod
    @for_python("allow_pickle")
    def from_hugging_face(
        cls,
        name: str,
        *,
        engine: str | None = None,
        device: str | None = None,
        devices: Sequence[str] | None = None,
        max_memory: Mapping[str, int | str] | None = None,
        tp: int | None = None,
        dtype: settings.DtypeLike | None = None,
        allow_pickle: bool = False,
        revision: str | None = None,
        packed: bool = False,
    ) -> Self:
        """Load a model by name or path: a local folder, the local cache, the hub, a GGUF file, or an alias.

        device: "cpu", "cuda:1" …, or "auto": as many GPUs as it needs. devices: several, among which the layers are shared out. max_memory:
        by device, the bytes that weights may take ("20GiB"); layers that fit nowhere rest in main memory and visit the last device to run.
        tp: processes of torchrun among which each layer is shared (tensor or expert parallelism); this returns on the first alone, the others
        do what it does until its program ends.
        dtype: floating type by name or as torch.bfloat16: float32 (unless `--dtype` says otherwise), bfloat16 or float16. packed: leave MXFP4
        weights as they are stored on torch, a quarter of bfloat16's memory, slower (MLX always does). Raises `ModelNotFoundError` (lists the places
        searched), `ModelLoadError`, `UnsupportedArchitectureError`, and `ArgumentError` for devices that are missing or do not fit.
        """
        from neuroscope.models import loading, registry, resolve

        source = resolve.resolve(str(name), revision=revision)
        chosen, floats = settings.engine(engine) or usual_engine(), settings.dtype(dtype)
        if not devices and not max_memory:
            tp = settings.tp(tp) if device is None else tp
            device = settings.device(device) if tp in (None, 1) else device
        where = Devices.of(device, devices, max_memory, tp)

        def load() -> TransformerModel:
            new = loading.load_onto(
                chosen, source, devices=where, dtype=floats, allow_pickle=allow_pickle, revision=revision, packed=packed
            )
            return TransformerModel(new.engine, new.tokenizer, str(name), new.weights_hash, source.target)

        shared = registry.current()
        version = revision if source.path is None else None  # a folder is one revision
        key = (chosen, source.identity, where, floats, allow_pickle, version, packed)
        loaded = load() if shared is None else shared.get(key, load)
        found = cls(loaded.engine, loaded.tokenizer, str(name), loaded.loaded_hash, source.target)
        options = {
            "device": device,
            "devices": devices,
            "max_memory": max_memory,
            "tp": tp,
            "allow_pickle": allow_pickle,
            "revision": revision,
            "packed": packed,
        }
        place = str(source.path.absolute()) if source.kind in ("folder", "gguf") and source.path is not None else source.target
        found._recipe = {
            "name": place,
            "engine": chosen,
            "dtype": floats,
            **{key: value for key, value in options.items() if value},
        }
        return found

    @classmethod
    @python_only
    def from_pretrained(cls, name: str, **options: Any) -> Self:
        """`from_hugging_face`, under the name that it has in transformers and TransformerLens."""
        known = ("engine", "device", "dtype", "allow_pickle", "revision")
        for option in options:
            if option not in known:
                instead = {"torch_dtype": "dtype", "device_map": "device"}.get(option)
                raise ArgumentError(
                    f"from_pretrained has no argument {option!r}.",
                    remedy=f"It is called {instead} here." if instead else f"Arguments: {', '.join(known)}.",
                )
        return cls.from_hugging_face(name, **options)

    @classmethod
    @for_python("allow_imports")
    def load(
        cls, path: str, engine: str | None = None, *, allow_imports: Sequence[str] = (), dtype: settings.DtypeLike | None = None
    ) -> Self:
        """Load a model that `save:` wrote, with its persistent hooks, task type and steering vectors.

        Hooks that are blocks are compiled, and run without access to files. Those that are Python functions are taken from the modules
        that `allow_imports` names, and from no others, since the folder chooses the functions; only Python can name modules. Raises
        `HookError` for a hook that cannot be restored, and the errors of `from_hugging_face`.
        """
        from neuroscope.models import resolve, saving

        model = cls.from_hugging_face(path, engine=engine, dtype=dtype)
        folder = resolve.resolve(str(path)).path
        if folder is not None:
            saving.restore(model, folder, allow_imports=allow_imports)
        return model

    def save(self, path: str) -> str:
        """Write weights, tokenizer, persistent hooks and steering vectors to a new folder, whole or not at all. Return its
        path.

        A notice names each hook that cannot be stored (see `hooks.storage`). Raises `ArgumentError` if the folder exists.
        """
        from neuroscope.models import saving

        return str(saving.save(self, path))

    @property
    def ran(self) -> str:
        """The bundled model, folder, file or repository behind the name. Equal to the name unless that is an alias."""
        return self._ran

    @property
    def title(self) -> str:
        """The model and the name asked for: "bundled:gpt-oss-20b (for gpt-oss-20b)"."""
        return titled(self._ran, self._name)

    @property
    def precision(self) -> str:
        """The floating type of the layers, such as "float32"."""
        return self._engine.precision

    @property
    def device(self) -> str:
        """The device of the layers, such as "cpu"."""
        return self._engine.device_name

    @property
    def architecture(self) -> Anatomy:
        """Sizes of the model."""
        return self._engine.anatomy

    @property
    def hook_manager(self) -> HookManager:
        return self._hook_manager

    @property
    def weights_hash(self) -> str:
        """Hash of the current weights; results record it."""
        return hash_of(self._loaded_hash, self._engine.changed_weights())

    @property
    @python_only
    def recipe(self) -> dict[str, Any] | None:
        """The arguments of `from_hugging_face` that load this model in another process; None for one that was made in memory."""
        return self._recipe

    @property
    @python_only
    def loaded_hash(self) -> str:
        """`weights_hash` at loading; other model objects on the same engine are made with it."""
        return self._loaded_hash

    def weights(self, site: WeightSite | str) -> WeightView:
        """A weight to read and write: `model weights: '10.mlp.W_out'`. `neuroscope.engines.weights` lists the names.

        Raises `SiteError` if the model does not have it.
        """
        return self._engine.weights(str(site) if isinstance(site, str) else site)

    @property
    def changed_weights(self) -> list[str]:
        """Names of the weights changed since loading."""
        return list(self._engine.changed_weights())

    @property
    @python_only
    def engine(self) -> Engine:
        return self._engine

    # --- runs -----------------------------------------------------------------------------------------------------

    @python_only
    def run(
        self,
        prompts: Prompts | TokenBatch,
        sites: Sequence[Site | str] = (),
        *,
        logits: LogitRequest | None = ALL_LOGITS,
        task_type: str | None = None,
    ) -> Run:
        """Run one forward pass with the model's hooks. Raises `NonFiniteActivationError` with the first bad layer."""
        batch = prompts if isinstance(prompts, TokenBatch) else self.encode(prompts)
        prompt = prompts if isinstance(prompts, str) else None
        parsed = [Site.parse(site) for site in sites]
        with self._hook_manager.edits(prompt=prompt, task_type=task_type or self.task_type) as edits:
            run = self._engine.forward(batch, capture=parsed, edits=edits, logits=logits)
        if run.logits is not None and not self._engine.ops.is_finite(run.logits):
            raise self._non_finite(batch)
        return run

    def logits(self, prompt: Prompts, task_type: str | None = None) -> ActivationTensor:
        """(rows, positions, vocabulary), hooks included."""
        return ActivationTensor(self.run(prompt, task_type=task_type).logits, self._engine.ops)

    def run_with_caching(
        self, prompts: Prompts, sites: Sequence[str] | str | None = None, task_type: str | None = None
    ) -> ActivationCache:
        """Activations at `sites`, hooks included: by default the embedding, and residual, attention and MLP output of every layer.

        sites: a site or several, or patterns (`engines.patterns`): `'*.attentionPattern'`, `'5.residual@-1'`, `'logits'`. Raises
        `SiteError` for one that the model lacks.
        """
        batch = self.encode(prompts)
        run = self.run(batch, self.capturable(sites, batch), logits=None, task_type=task_type)
        return ActivationCache(run.activations, self._engine.ops, self.token_text_rows(batch), batch.real, engine=self._engine)

    @python_only
    def capturable(self, sites: Any, batch: TokenBatch) -> list[Site]:
        """The sites that texts and patterns name, or the usual ones for None; a component's name alone is that of every layer."""
        if sites is None:
            kinds = (Component.RESIDUAL, Component.ATTENTION, Component.MLP_OUTPUT)
            layers = range(self.architecture.layers)
            return [Site(None, Component.EMBEDDING), *(Site(layer, kind) for layer in layers for kind in kinds)]
        lengths = np.unique(batch.lengths)
        return expanded(sites, self.architecture, int(lengths[0]) if len(lengths) == 1 else None, by_head=False)

    @python_only
    def token_text_rows(self, batch: TokenBatch) -> list[list[str]]:
        """The texts of each row's tokens, without padding."""
        return [[self.token_text(token) for token in ids[real]] for ids, real in zip(batch.ids, batch.real, strict=True)]

    def predictions(self, prompt: str, count: int = 5) -> list[tuple[str, float]]:
        """The `count` most likely next tokens, with their probabilities. Raises `ArgumentError` for fewer than one."""
        if count < 1:
            raise ArgumentError(f"predictions needs a count of at least 1, not {count}.")
        batch = self.encode(prompt)
        run = self.run(batch, logits=LogitRequest.last(batch))
        ops = self._engine.ops
        logs = ops.to_numpy(ops.log_softmax(run.logits))[0]
        best = np.argsort(-logs)[: int(count)]
        return [(self.token_text(token), float(np.exp(logs[token]))) for token in best]

    @python_only
    def written(
        self,
        prompt: str | TokenBatch,
        settings: GenerationSettings,
        sites: Sequence[Site | str] = (),
        *,
        task_type: str | None = None,
        ahead: bool = False,
    ) -> Generator[Written]:
        """Generate step by step with the model's hooks, capturing `sites`: each token with its text, the last with its reason
        to end. Generations of several threads share passes (`models.batching`).

        ahead: join the others now, before the first token is asked for, and let theirs bring one token before it is asked for. At its end it
        raises `InertHookError` if a hook never fired. Raises `ArgumentError` for several prompts: see `continuations`.
        """
        batch = prompt if isinstance(prompt, TokenBatch) else self.encode(prompt, side="left")
        if batch.rows != 1:
            raise ArgumentError(f"`written` takes one prompt, not {batch.rows}.", remedy="Use `stream`, or `continuations`.")
        text = TextStream(self._tokenizer, batch.ids[0][batch.real[0]], settings.stop)
        steps = self._steps(batch, settings, sites, prompt, task_type, lambda: text.stopped, ahead)
        if ahead:
            next(steps)  # None
        return written(steps, text, settings)

    @python_only
    def stream(
        self,
        prompt: str | TokenBatch,
        settings: GenerationSettings,
        sites: Sequence[Site | str] = (),
        *,
        task_type: str | None = None,
    ) -> Generator[Step]:
        """Generate step by step with the model's hooks, capturing `sites` at every step. Stop strings need a single prompt."""
        batch = prompt if isinstance(prompt, TokenBatch) else self.encode(prompt, side="left")
        if batch.rows > 1 and settings.stop:
            raise ArgumentError("Stop texts work for one prompt, not for several.", remedy="Give one prompt.")
        if settings.stop:
            with closing(self.written(prompt, settings, sites, task_type=task_type)) as written:
                for piece in written:
                    yield piece.step
        else:
            yield from self._steps(batch, settings, sites, prompt, task_type, lambda: False)

    def _steps(
        self,
        batch: TokenBatch,
        settings: GenerationSettings,
        sites: Sequence[Site | str],
        prompt: str | TokenBatch,
        task_type: str | None,
        ended: Callable[[], bool],
        ahead: bool = False,
    ) -> Generator[Any]:
        """The engine's steps until `ended` returns true; then raises for inert hooks. With `ahead`, first None, when it has joined."""
        parsed = [Site.parse(site) for site in sites]
        text = prompt if isinstance(prompt, str) else None
        with self._hook_manager.edits(prompt=text, task_type=task_type or self.task_type) as edits:
            own = self._hook_manager.of_a_script
            with closing(batching.steps(self._engine, batch, settings, parsed, edits, alone=own, ahead=ahead)) as steps:
                if ahead:
                    yield None
                for step in steps:
                    yield step
                    if ended():
                        return

    def generate(
        self,
        prompt: str,
        max_tokens: int | None = None,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        stop: Sequence[str] | str = (),
        task_type: str | None = None,
    ) -> str:
        """The continuation of `prompt`, hooks included. Temperature 0 is greedy; `stop` texts end it.

        It also ends at the model's end tokens and stop strings, and after `max_tokens`: by default 64, or as many as fit the
        context. Raises `InertHookError` for a hook that never fired, `ArgumentError` if the prompt and the requested tokens
        exceed the context.
        """
        settings = self.generation_settings(
            max_tokens=_USUAL_TOKENS if max_tokens is None else max_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            stop=stop,
        )
        total = new_tokens(self.architecture.context, self.encode(prompt).positions, max_tokens, settings.max_tokens)
        settings = replace(settings, max_tokens=total)
        parts: list[str] = []
        with events.progress("generating", total=total, unit="tokens") as job:
            for piece in self.written(prompt, settings, task_type=task_type):
                parts.append(piece.text)
                job.advance()
        return "".join(parts)

    @python_only
    def continuations(self, prompts: Sequence[str], max_tokens: int, *, task_type: str | None = None) -> list[str]:
        """Greedy continuations of many prompts in one batch, hooks included; each ends on its own."""
        batch = self.encode(prompts, side="left")
        with self._hook_manager.edits(task_type=task_type or self.task_type) as edits:
            rows = continued(self._engine, self._tokenizer, batch, self.generation_settings(max_tokens=max_tokens), edits)
        return [row.text for row in rows]

    @python_only
    def generation_settings(self, *, stop: Sequence[str] | str = (), **chosen: Any) -> GenerationSettings:
        """The `chosen` settings, with the end tokens and stop strings of the model's files in addition to `stop`."""
        stops = [stop] if isinstance(stop, str) or not isinstance(stop, Iterable) else list(stop)
        if not all(isinstance(text, str) for text in stops):
            raise ArgumentError(f"stop must be a text or a list of texts, not {stop!r}.")
        return GenerationSettings(stop=(*stops, *self._engine.stop_texts), end_tokens=self.end_tokens, **chosen)

    @property
    @python_only
    def end_tokens(self) -> tuple[int, ...]:
        """Token ids that end a generation: those of the model's files and the tokenizer's."""
        own = self._tokenizer.eos_token_id
        found = dict.fromkeys((*(() if own is None else (int(own),)), *self._engine.end_tokens))
        return tuple(token for token in found if 0 <= token < self.architecture.vocabulary)

    # --- questions ------------------------------------------------------------------------------------------------

    def verify(self) -> VerificationReport:
        """Check that the engine's runs equal the bare model's. Raises `ParityError` with every check that fails."""
        from neuroscope.models.verify import verify

        return verify(self)

    def _non_finite(self, batch: TokenBatch) -> NonFiniteActivationError:
        sites = [Site(layer, Component.RESIDUAL) for layer in range(self.architecture.layers)]
        run = self._engine.forward(batch, capture=sites, logits=None)
        for site in sites:
            if not self._engine.ops.is_finite(run[site]):
                return NonFiniteActivationError(
                    f"The activations are NaN or infinite from {site} on.",
                    site=site,
                    remedy="Check the weights of that layer, or load the model in float32.",
                )
        return NonFiniteActivationError("The logits are NaN or infinite.", remedy="Check the hooks and the output weights.")

    def print_string(self) -> str:
        return f"a TransformerModel({self.title}, {self.architecture.print_string()})"

    def __repr__(self) -> str:
        return self.print_string()

    def as_dictionary(self) -> dict[str, Any]:
        """Name, the model behind it, weights' hash, engine, precision, device and sizes."""
        return {
            "name": self._name,
            "ran": self._ran,
            "weightsHash": self.weights_hash,
            "engine": self._engine.name,
            "precision": self.precision,
            "device": self.device,
            "architecture": self.architecture.as_dictionary(),
        }
