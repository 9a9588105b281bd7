"""TransformerModel: a loaded model, its tokenizer and its hooks."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from neuroscope import events, settings
from neuroscope.engines import usual_engine
from neuroscope.engines.anatomy import Anatomy
from neuroscope.engines.lengths import new_tokens
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
from neuroscope.models.generation import TextStream, Written, continued
from neuroscope.models.text import ChatText, Texts, answer_token, continuation
from neuroscope.models.token_texts import TokenTexts
from neuroscope.results import titled
from neuroscope.tensors.cache import ActivationCache
from neuroscope.tensors.tensor import ActivationTensor
from neuroscope.vocabulary import public, python_only

if TYPE_CHECKING:
    from neuroscope.analyses.extensions import AnalysesOfModels
    from neuroscope.editing.extensions import EditsOfModels
    from neuroscope.models.verify import VerificationReport

    class _Extended(AnalysesOfModels, EditsOfModels): ...
else:
    from neuroscope.extensions import Extensible as _Extended

#: Most tokens of a continuation whose length nobody names.
_USUAL_TOKENS = 64


@public
class TransformerModel(_Extended):
    """A decoder-only language model to look into.

    `weights_hash` identifies the weights as the engine loaded them. `task_type` is what hooks see as `context taskType` in
    runs that do not name one of their own.
    """

    task_type: str | None

    def __init__(self, engine: Engine, tokenizer: Any, name: str, weights_hash: str, ran: str | None = None) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._name = name
        self._ran = ran or name
        self._loaded_hash = weights_hash
        self._hook_manager = HookManager(self)
        self.task_type = None

    @classmethod
    def from_hugging_face(
        cls,
        name: str,
        *,
        engine: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        allow_pickle: bool = False,
        revision: str | None = None,
    ) -> Self:
        """Load a model by name or path: a local folder, the local cache, the hub, a GGUF file, or an alias.

        dtype: what it computes in, float32 (unless `--dtype` says otherwise), bfloat16 or float16.
        Raises `ModelNotFoundError` (says where it looked), `ModelLoadError`, `UnsupportedArchitectureError`.
        """
        from neuroscope.models import loading, registry, resolve

        source = resolve.resolve(str(name), revision=revision)
        chosen, dtype = settings.engine(engine) or usual_engine(), settings.dtype(dtype)

        def load() -> TransformerModel:
            new = loading.load_onto(chosen, source, device=device, dtype=dtype, allow_pickle=allow_pickle, revision=revision)
            return TransformerModel(new.engine, new.tokenizer, str(name), new.weights_hash, source.target)

        shared = registry.current()
        key = (chosen, source.kind, source.target, source.path, device, dtype, allow_pickle, revision)
        loaded = load() if shared is None else shared.get(key, load)
        return cls(loaded.engine, loaded.tokenizer, str(name), loaded.loaded_hash, source.target)

    @classmethod
    def load(cls, path: str, engine: str | None = None, allow_imports: bool = False, dtype: str | None = None) -> Self:
        """A model that `save:` wrote, with its persistent hooks, its task type and its steering vectors.

        Hooks that are Python functions are looked up in modules that are loaded; `allow_imports` imports what is not. Raises
        `HookError` for a hook that cannot be restored, and what `from_hugging_face` raises.
        """
        from neuroscope.models import saving

        model = cls.from_hugging_face(path, engine=engine, dtype=dtype)
        saving.restore(model, path, allow_imports=allow_imports)
        return model

    def save(self, path: str) -> str:
        """Write weights, tokenizer, persistent hooks and steering vectors into a new folder, whole or not at all; answers its path.

        A hook that cannot be kept (`hooks.storage` says which) is told. `ArgumentError` when the folder is there already.
        """
        from neuroscope.models import saving

        return str(saving.save(self, path))

    @property
    def name(self) -> str:
        """The name it was asked for by."""
        return self._name

    @property
    def ran(self) -> str:
        """What runs under that name: a bundled model, a folder or file, a repository. Equal to the name without an alias."""
        return self._ran

    @property
    def title(self) -> str:
        """What runs, and for what: "bundled:gpt-oss-20b (for gpt-oss-20b)"."""
        return titled(self._ran, self._name)

    @property
    def precision(self) -> str:
        """The type that the layers compute in, such as "float32"."""
        return self._engine.precision

    @property
    def device(self) -> str:
        """Where they compute, such as "cpu"."""
        return self._engine.device_name

    @property
    def architecture(self) -> Anatomy:
        """Sizes and shape of the model."""
        return self._engine.anatomy

    @property
    def hook_manager(self) -> HookManager:
        return self._hook_manager

    @property
    def weights_hash(self) -> str:
        """Identifies the weights as they are now, so that results can say what they were measured on."""
        return hash_of(self._loaded_hash, self._engine.changed_weights())

    @property
    @python_only
    def loaded_hash(self) -> str:
        """`weights_hash` as it was when the weights were loaded; what another model object on the same engine is made with."""
        return self._loaded_hash

    def weights(self, site: WeightSite | str) -> WeightView:
        """A weight to read and to write: `model weights: '10.mlp.W_out'`. `neuroscope.engines.weights` lists the names.

        Raises `SiteError` where the model does not have it.
        """
        return self._engine.weights(str(site) if isinstance(site, str) else site)

    @property
    def changed_weights(self) -> list[str]:
        """Names of the weights that are not as they were loaded."""
        return list(self._engine.changed_weights())

    @property
    @python_only
    def engine(self) -> Engine:
        return self._engine

    @property
    @python_only
    def tokenizer(self) -> Any:
        return self._tokenizer

    # --- text and tokens ------------------------------------------------------------------------------------------

    @python_only
    def encode(self, texts: str | Sequence[str], *, side: str = "right") -> TokenBatch:
        """Token ids of one text or several, each ready to be gone on with, padded on `side`.

        With the special tokens that the tokenizer puts before a text, once (`neuroscope.models.text`). Raises
        `ArgumentError` for a text without tokens.
        """
        texts = [texts] if isinstance(texts, str) or not isinstance(texts, Iterable) else list(texts)
        known = Texts(self._tokenizer)
        if len(texts) > 1:
            known.read(text for text in texts if isinstance(text, str))
        rows = [known.prompt(text) for text in texts]
        for text, row in zip(texts, rows, strict=True):
            if not row:
                raise ArgumentError(f"The text {text!r} has no tokens.", remedy="Give at least one token.")
        pad = self._tokenizer.pad_token_id
        return TokenBatch.of(rows, pad=0 if pad is None else int(pad), side=side)

    def tokens(self, text: str) -> list[str]:
        """The text's tokens, each as text."""
        return [self.token_text(token) for token in self.encode(text).ids[0]]

    @python_only
    def token_text(self, token: int) -> str:
        """One token as text, with the space it may begin with; bytes that are part of a character as `\\xe2`."""
        return TokenTexts.of(self._tokenizer).text(int(token))

    @property
    @python_only
    def has_chat_template(self) -> bool:
        return bool(getattr(self._tokenizer, "chat_template", None))

    @python_only
    def token(self, text: str) -> int:
        """The id of a text that is one token within other text; `ArgumentError` when it is none or several."""
        return Texts(self._tokenizer).token(text, self._name)

    @python_only
    def answer_token(self, prompt: str, answer: str) -> int:
        """The one token that an answer is behind its prompt, tokenised together.

        Raises `ArgumentError` where the answer is several tokens, joins with the end of the prompt, or lacks its space.
        """
        return answer_token(self._tokenizer, prompt, answer)

    @python_only
    def chat_prompt(self, request: str | Sequence[Mapping[str, str]]) -> ChatText:
        """A request, or messages with `role` and `content`, in the model's own chat template, up to where its reply begins.

        Raises `ArgumentError` without a template, and for messages that the template refuses.
        """
        if not self.has_chat_template:
            raise ArgumentError(f"{self._name} has no chat template.", remedy="Give the whole prompt as text.")
        messages = [{"role": "user", "content": request}] if isinstance(request, str) else [dict(one) for one in request]
        try:
            text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # a template is a program of the model's makers and may refuse in its own way
            raise ArgumentError(f"The chat template of {self._name} refuses these messages: {error}") from error
        return ChatText(text)

    @python_only
    def decode(self, ids: Sequence[int], *, after: Sequence[int] = ()) -> str:
        """Tokens as text without special tokens; behind the tokens `after`, whose text is left out."""
        return continuation(self._tokenizer, after, ids)

    # --- runs -----------------------------------------------------------------------------------------------------

    @python_only
    def run(
        self,
        prompts: str | Sequence[str] | TokenBatch,
        sites: Sequence[Site | str] = (),
        *,
        logits: LogitRequest | None = ALL_LOGITS,
        task_type: str | None = None,
    ) -> Run:
        """One forward pass with the model's hooks. Raises `NonFiniteActivationError` naming the first bad layer."""
        batch = prompts if isinstance(prompts, TokenBatch) else self.encode(prompts)
        prompt = prompts if isinstance(prompts, str) else None
        parsed = [Site.parse(site) for site in sites]
        with self._hook_manager.edits(prompt=prompt, task_type=task_type or self.task_type) as edits:
            run = self._engine.forward(batch, capture=parsed, edits=edits, logits=logits)
        if run.logits is not None and not self._engine.ops.is_finite(run.logits):
            raise self._non_finite(batch)
        return run

    def logits(self, prompt: str, task_type: str | None = None) -> ActivationTensor:
        """(rows, positions, vocabulary), hooks included."""
        return ActivationTensor(self.run(prompt, task_type=task_type).logits, self._engine.ops)

    def run_with_caching(
        self, prompts: str | Sequence[str], sites: Sequence[str] | str | None = None, task_type: str | None = None
    ) -> ActivationCache:
        """Activations at `sites`, one or several (by default: residual, attention, mlp output of every layer), hooks included."""
        named = [sites] if isinstance(sites, str) else sites
        wanted = [Site.parse(site) for site in named] if named is not None else self._usual_sites()
        batch = self.encode(prompts)
        run = self.run(batch, wanted, logits=None, task_type=task_type)
        texts = [[self.token_text(token) for token in ids[real]] for ids, real in zip(batch.ids, batch.real, strict=True)]
        return ActivationCache(run.activations, self._engine.ops, texts, batch.real)

    def _usual_sites(self) -> list[Site]:
        kinds = (Component.RESIDUAL, Component.ATTENTION, Component.MLP_OUTPUT)
        return [Site(layer, kind) for layer in range(self.architecture.layers) for kind in kinds]

    def predictions(self, prompt: str, count: int = 5) -> list[tuple[str, float]]:
        """The likeliest next tokens, each with its probability."""
        batch = self.encode(prompt)
        run = self.run(batch, logits=LogitRequest.last(batch))
        ops = self._engine.ops
        logs = ops.to_numpy(ops.log_softmax(run.logits))[0]
        best = np.argsort(-logs)[: max(1, int(count))]
        return [(self.token_text(token), float(np.exp(logs[token]))) for token in best]

    @python_only
    def written(
        self,
        prompt: str | TokenBatch,
        settings: GenerationSettings,
        sites: Sequence[Site | str] = (),
        *,
        task_type: str | None = None,
    ) -> Generator[Written]:
        """Generate step by step with the model's hooks, capturing `sites`: each token with its text and why it is the last.

        Asked for one more after the last, it raises `InertHookError` where a hook never fired. Raises `ArgumentError` for
        several prompts at once: see `continuations`.
        """
        batch = prompt if isinstance(prompt, TokenBatch) else self.encode(prompt, side="left")
        if batch.rows != 1:
            raise ArgumentError(f"{batch.rows} prompts are not one text.", remedy="Use `stream`, or `continuations`.")
        text = TextStream(self._tokenizer, batch.ids[0][batch.real[0]], settings.stop)
        last = settings.max_tokens - 1
        with closing(self._steps(batch, settings, sites, prompt, task_type, lambda: text.stopped)) as steps:
            for step in steps:
                token, offset = int(step.tokens[0]), text.offset
                ended = token in settings.end_tokens
                shown = "" if ended else text.add(token)
                finish = "stop" if ended or text.stopped else "length" if step.index == last else None
                if finish is not None and not text.stopped:
                    shown += text.rest()
                yield Written(step, token, shown, offset, finish)

    @python_only
    def stream(
        self,
        prompt: str | TokenBatch,
        settings: GenerationSettings,
        sites: Sequence[Site | str] = (),
        *,
        task_type: str | None = None,
    ) -> Generator[Step]:
        """Generate step by step with the model's hooks, capturing `sites` at every step. Stop texts end a single prompt only."""
        batch = prompt if isinstance(prompt, TokenBatch) else self.encode(prompt, side="left")
        if batch.rows > 1 and settings.stop:
            raise ArgumentError("Stop texts end the generation of one prompt, not of several.", remedy="Give one prompt.")
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
    ) -> Generator[Step]:
        """The engine's steps until it ends or `ended` says so; either way, inert hooks are told."""
        parsed = [Site.parse(site) for site in sites]
        text = prompt if isinstance(prompt, str) else None
        with self._hook_manager.edits(prompt=text, task_type=task_type or self.task_type) as edits:
            for step in self._engine.generate(batch, settings, capture=parsed, edits=edits):
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

        It ends at an end token or stop text of the model's own too, and after `max_tokens`: unless told, 64, or as many as the model's
        context has room for. Raises `InertHookError` for a hook that never fired, `ArgumentError` where a prompt and the
        tokens asked for exceed the context.
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
        """Greedy continuations of many prompts in one batch, hooks included; each to an end of its own."""
        batch = self.encode(prompts, side="left")
        with self._hook_manager.edits(task_type=task_type or self.task_type) as edits:
            rows = continued(self._engine, self._tokenizer, batch, self.generation_settings(max_tokens=max_tokens), edits)
        return [row.text for row in rows]

    @python_only
    def generation_settings(self, *, stop: Sequence[str] | str = (), **chosen: Any) -> GenerationSettings:
        """How to generate: what is `chosen`, and an end where the model's files say so, besides at the texts `stop`."""
        stops = [stop] if isinstance(stop, str) or not isinstance(stop, Iterable) else list(stop)
        if not all(isinstance(text, str) for text in stops):
            raise ArgumentError(f"stop is a text or several, not {stop!r}.")
        return GenerationSettings(stop=(*stops, *self._engine.stop_texts), end_tokens=self.end_tokens, **chosen)

    @property
    @python_only
    def end_tokens(self) -> tuple[int, ...]:
        """Token ids that end a generation: those that the model's files name, and the tokenizer's own."""
        own = self._tokenizer.eos_token_id
        found = dict.fromkeys((*(() if own is None else (int(own),)), *self._engine.end_tokens))
        return tuple(token for token in found if 0 <= token < self.architecture.vocabulary)

    # --- questions ------------------------------------------------------------------------------------------------

    def verify(self) -> VerificationReport:
        """Prove that what runs here is what the bare model runs; `ParityError` names every check that fails."""
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
        """Name, what ran under it, weights' hash, engine, precision, device and sizes."""
        return {
            "name": self._name,
            "ran": self._ran,
            "weightsHash": self.weights_hash,
            "engine": self._engine.name,
            "precision": self.precision,
            "device": self.device,
            "architecture": self.architecture.as_dictionary(),
        }
