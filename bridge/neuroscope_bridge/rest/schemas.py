"""Schemas of requests, from which the OpenAPI document is made.

OpenAI's fields have their meaning there. One that is not served is accepted with the values that ask for nothing (`openai_fields`), and
refused by its name with any other.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Query as QueryField
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    model_validator,
)
from pydantic_core import PydanticCustomError

from neuroscope_bridge.rest import openai_fields as idle

_LARGEST = 2**63 - 1

Number = Annotated[float, Field(allow_inf_nan=False, strict=True)]
Index = Annotated[StrictInt, Field(ge=0, le=_LARGEST)]


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("the text holds half of a surrogate pair") from None
    return text


Text = Annotated[StrictStr, AfterValidator(_encodable)]


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Texts = Annotated[list[Text], BeforeValidator(_one_or_many, json_schema_input_type=Text | list[Text])]


class Request(BaseModel):
    """Rejects unknown fields, and names the known ones."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        if isinstance(value, dict):
            fields = [field.alias or name for name, field in cls.model_fields.items()]
            for name in value:
                if name not in fields and name not in cls.model_fields:
                    told = {"field": str(name).encode("utf-8", "replace").decode(), "fields": ", ".join(sorted(fields))}
                    raise PydanticCustomError("unknown_field", "no such field; there are {fields}", told)
        return value


# --- hooks --------------------------------------------------------------------------------------------------------------


class Contrast(Request):
    """Pairs of texts whose mean difference is a direction, read over their tokens except the first, as in `SteeringVectors
    define:`.

    With enough pairs (8 that share no text), a third is held out, as there.
    """

    more: Annotated[list[Text], Field(min_length=1, max_length=64, description="Texts with more of the quality.")]
    less: Annotated[list[Text], Field(min_length=1, max_length=64, description="Matching texts with less of it, one for each.")]


class HookSpec(Request):
    """A read or a change at a site of the model.

    `layer_name` takes `transformer.h.5`, `model.layers.5` or `5`; also `embedding` and `logits`. Heads, neurons, layers
    and positions count from zero.
    """

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"layer_name": "transformer.h.5", "component": "residual", "hook_id": "layer_5_residual"},
                {"layer_name": "5", "component": "attentionPattern", "head": 3},
                {"layer_name": "3", "component": "mlp", "neuron": 17, "action": "ablate"},
                {
                    "layer_name": "4",
                    "action": "steer",
                    "contrast": {"more": ["I love it"], "less": ["I hate it"]},
                    "strength": 4,
                },
            ]
        },
    )

    layer_name: Annotated[Text | Index | None, Field(description="The layer; optional for `embedding` and `logits`.")] = None
    component: Annotated[Text, Field(description="residual, attention, mlp, headOutput, attentionPattern, …")] = "residual"
    hook_id: Annotated[
        Text | None, Field(min_length=1, max_length=200, description="Its name in answers; by default the site.")
    ] = None
    action: Annotated[
        Literal["capture", "steer", "ablate", "scale"],
        Field(description="capture reads; steer adds strength · vector; ablate sets to zero; scale multiplies by factor."),
    ] = "capture"
    head: Annotated[Index | None, Field(description="One head of a per-head component.")] = None
    neuron: Annotated[Index | None, Field(description="One unit of a component that has a width.")] = None
    # reading
    positions: Annotated[
        Literal["all", "prompt", "generated", "last"] | list[Index | None],
        Field(description="all, prompt, generated, last (of the prompt), or [from, to) as [start, stop]; stop may be null."),
    ] = "all"
    features: Annotated[
        list[Index] | None, Field(min_length=1, max_length=1_000_000, description="Only these units of the last axis.")
    ] = None
    dtype: Literal["float32", "float16"] = "float32"
    statistics_only: Annotated[StrictBool, Field(description="Only shape, mean, standard deviation, extremes and norms.")] = (
        False
    )
    # changing
    strength: Annotated[Number, Field(ge=-1e6, le=1e6, description="steer: how much of the vector to add.")] = 1.0
    vector: Annotated[
        list[Number] | None, Field(min_length=1, max_length=1_000_000, description="steer: as wide as the component.")
    ] = None
    contrast: Annotated[Contrast | None, Field(description="steer: the vector as a difference between texts.")] = None
    factor: Annotated[Number | None, Field(ge=-1e6, le=1e6, description="scale: the factor.")] = None

    @model_validator(mode="after")
    def _whole(self) -> HookSpec:
        if isinstance(self.positions, list):
            start, stop = [*self.positions, None, None][:2]
            if len(self.positions) != 2 or start is None or (stop is not None and stop <= start):
                raise ValueError("positions as a list is [start, stop] with start below stop, or [start, null]")
        given = {name for name in ("vector", "contrast") if getattr(self, name) is not None}
        if self.action == "steer":
            if len(given) != 1:
                raise ValueError("steer needs either a vector or contrast texts")
        elif given or "strength" in self.model_fields_set:
            raise ValueError("vector, contrast and strength belong to the action steer")
        if (self.action == "scale") != (self.factor is not None):
            raise ValueError("the action scale needs a factor, and no other action takes one")
        if self.contrast is not None and len(self.contrast.more) != len(self.contrast.less):
            raise ValueError("contrast needs as many texts in `more` as in `less`")
        if self.action != "capture":
            reading = {"positions", "features", "dtype", "statistics_only"} & self.model_fields_set
            if reading:
                raise ValueError(f"{min(reading)} belongs to the action capture")
        return self


Hooks = Annotated[
    list[Text | HookSpec],
    Field(max_length=1000, description="Hooks as objects, or ids of registered ones (/v1/activations/hooks)."),
]


class RegisterHooks(Request):
    """Hooks to register, so that requests can name them."""

    hooks: Annotated[list[HookSpec], Field(min_length=1, max_length=1000)]


# --- generation -----------------------------------------------------------------------------------------------------------


class StreamOptions(Request):
    include_usage: StrictBool | None = False
    include_obfuscation: Annotated[StrictBool | None, Field(description="No field is added to hide a token's length.")] = False
    continuous_usage_stats: idle.Off = None


class Generate(Request):
    """Fields of every kind of generation."""

    model: Annotated[Text | None, Field(description="A loaded model; by default the one loaded last.")] = None
    max_tokens: Annotated[StrictInt | None, Field(ge=1, le=2**31, description="Most tokens to generate.")] = None
    temperature: Annotated[Number | None, Field(ge=0, le=100, description="Below 0.001 generation is greedy.")] = 1.0
    top_p: Annotated[Number | None, Field(gt=0, le=1)] = 1.0
    seed: Annotated[
        StrictInt | None,
        Field(ge=0, le=_LARGEST, description="By default the server's --seed, else a random one; the answer reports it."),
    ] = None
    stop: Annotated[Texts | None, Field(max_length=16, description="Texts that end the generation; not part of it.")] = None
    stream: StrictBool | None = False
    stream_options: StreamOptions | None = None
    n: idle.One = None
    presence_penalty: idle.Zero = None
    frequency_penalty: idle.Zero = None
    logit_bias: idle.NoMap = None
    user: Annotated[Text | None, Field(description="The user; not stored.")] = None
    hooks: Annotated[
        Hooks | None,
        Field(description="NeuroScope: what to read or change while generating; reading needs /with_activations."),
    ] = None

    @model_validator(mode="after")
    def _stops(self) -> Generate:
        if any(not text for text in self.stop or ()):
            raise ValueError("stop: an empty text would stop at once")
        return self


class Part(Request):
    type: Literal["text"]
    text: Text


class Message(Request):
    role: Annotated[Text, Field(min_length=1, max_length=64)]
    content: Text | list[Part]
    name: Text | None = None
    # What an answer's message has in addition, for clients that send it back.
    refusal: idle.Nothing = None
    tool_calls: idle.NoList = None
    function_call: idle.Nothing = None
    annotations: idle.NoList = None
    audio: idle.Nothing = None

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


Messages = Annotated[list[Message], Field(min_length=1, max_length=10_000)]

_CHAT: dict[str, Any] = {
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "max_tokens": 12,
    "temperature": 0,
}


class Chat(Generate, idle.ChatFields):
    """As OpenAI's chat completions."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_CHAT]})

    messages: Messages
    max_completion_tokens: Annotated[StrictInt | None, Field(ge=1, le=2**31, description="The same as max_tokens.")] = None
    logprobs: StrictBool | None = False
    top_logprobs: Annotated[StrictInt | None, Field(ge=0, le=20)] = None

    @model_validator(mode="after")
    def _consistent(self) -> Chat:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        return self


Ids = list[Index]

#: Most prompts of one request, as OpenAI has it.
_PROMPTS = 2048

Prompts = Annotated[
    Text | Ids | Annotated[list[Text], Field(max_length=_PROMPTS)] | Annotated[list[Ids], Field(max_length=_PROMPTS)],
    Field(description="A text, token ids, or a list of either; a list is answered with a choice for each."),
]


def each(prompts: str | list[int] | list[str] | list[list[int]]) -> list[str | list[int]]:
    """The prompts of a request as a list."""
    if isinstance(prompts, list) and prompts and not isinstance(prompts[0], int):
        return list(prompts)
    return [prompts]  # type: ignore[list-item]


class Completion(Generate):
    """As OpenAI's completions, for one prompt or several. With `echo` the answer begins with the prompt, and `logprobs` are of its tokens too;
    `max_tokens: 0` then reads the prompt alone.
    """

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"prompt": "The capital of France is", "max_tokens": 5, "temperature": 0},
                {"prompt": ["The cat sat", "The dog ran"], "max_tokens": 0, "echo": True, "logprobs": 1},
            ]
        },
    )

    prompt: Prompts
    max_tokens: Annotated[StrictInt | None, Field(ge=0, le=2**31, description="Most tokens to generate; 0 only with echo.")] = (
        None
    )
    echo: Annotated[StrictBool | None, Field(description="Begin the answer with the prompt.")] = False
    logprobs: Annotated[StrictInt | None, Field(ge=0, le=20)] = None
    best_of: idle.One = None
    suffix: idle.NoText = None

    @model_validator(mode="after")
    def _something(self) -> Completion:
        if self.max_tokens == 0 and not self.echo:
            raise ValueError("max_tokens: 0 generates nothing; it needs echo: true")
        return self


class Embed(Request):
    """As OpenAI's embeddings: the activations of a site, pooled over a text's tokens."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"input": ["The cat sat", "A cat was sitting"]}, {"input": "w5 w6", "site": "1.residual"}]
        },
    )

    model: Annotated[Text | None, Field(description="A model; by default the server's.")] = None
    input: Prompts
    encoding_format: Annotated[
        Literal["float", "base64"] | None, Field(description="base64: the bytes of little-endian float32.")
    ] = "float"
    dimensions: idle.Nothing = None
    user: Annotated[Text | None, Field(description="The user; not stored.")] = None
    site: Annotated[
        Text | None,
        Field(
            description="NeuroScope: the site to read, such as 5.residual or 3.mlp; by default the last layer's residual stream."
        ),
    ] = None
    pooling: Annotated[
        Literal["mean", "last", "first", "max"],
        Field(description="NeuroScope: mean and max leave out the first token, an attention sink, where there is another."),
    ] = "mean"
    normalize: Annotated[StrictBool, Field(description="NeuroScope: to length 1, as OpenAI's embeddings are.")] = True


WatchingProbe = Annotated[Text | None, Field(description="The name of a registered probe, which then scores every token.")]


class WithActivations(Generate, idle.ChatFields):
    """A generation with activations. Give `messages`, or `prompt` as plain text or token ids.

    `hooks` and `activation_hooks` are synonyms.
    """

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    **_CHAT,
                    "activation_hooks": [
                        {"layer_name": "transformer.h.5", "component": "residual", "hook_id": "layer_5_residual"}
                    ],
                }
            ]
        },
    )

    messages: Messages | None = None
    prompt: Text | list[Index] | None = None
    activation_hooks: Hooks | None = None
    encoding: Annotated[
        Literal["json", "npy"],
        Field(description="Arrays in a JSON answer: nested lists, or base64 of an .npy file. See also the header Accept."),
    ] = "json"
    probe: WatchingProbe = None
    logprobs: StrictBool | None = False
    top_logprobs: Annotated[StrictInt | None, Field(ge=0, le=20)] = None

    @model_validator(mode="after")
    def _consistent(self) -> WithActivations:
        if (self.messages is None) == (self.prompt is None):
            raise ValueError("give either messages or prompt")
        if self.hooks is not None and self.activation_hooks is not None:
            raise ValueError("hooks and activation_hooks are synonyms; give one")
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        return self


class LensRequest(Generate):
    """A generation for the Lens page. `hooks` may steer, ablate and scale."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"prompt": "The capital of France is", "max_tokens": 4}]}
    )

    messages: Messages | None = None
    prompt: Text | list[Index] | None = None
    top: Annotated[StrictInt, Field(ge=1, le=20, description="Tokens of each layer's logit lens.")] = 5
    neurons: Annotated[StrictInt, Field(ge=1, le=50, description="Neurons of each layer.")] = 8
    probe: WatchingProbe = None

    @model_validator(mode="after")
    def _one(self) -> LensRequest:
        if (self.messages is None) == (self.prompt is None):
            raise ValueError("give either messages or prompt")
        return self


# --- models, tokens ---------------------------------------------------------------------------------------------------------


class Load(Request):
    """A model's name, as for `TransformerModel fromHuggingFace:`, and its floating type.

    By default float32 or `neuroscope serve --dtype`; a loaded model is unchanged.
    """

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"model": "bundled:gpt2-medium"}]})

    model: Annotated[Text, Field(min_length=1, max_length=4096)]
    dtype: Text | None = None


class Pair(Request):
    """A prompt, the same with another answer, and the two answers."""

    clean: Text
    corrupt: Text
    answer: Text
    wrong: Text


class Analyze(Request):
    """The input of an analysis, by default its own example."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"on": "The capital of France is"}]})

    model: Text | None = None
    on: Annotated[
        Text | list[Pair] | None,
        Field(description="A text; or, for an analysis that works on pairs, a task's name or the pairs themselves."),
    ] = None
    seed: Annotated[StrictInt | None, Field(ge=0, lt=2**32)] = None


class OwnPair(Request):
    """Two prompts of the same number of tokens; and the two answers, where the metric reads them."""

    clean: Text
    corrupt: Text
    answer: Text | None = None
    wrong: Text | None = None


class Patch(Request):
    """Sites to patch on pairs of your own; see `ActivationPatcher patch:sites:`."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "pairs": [
                        {
                            "clean": "The capital of France is",
                            "corrupt": "The capital of Italy is",
                            "answer": " Paris",
                            "wrong": " Rome",
                        }
                    ],
                    "sites": "residual@*",
                }
            ]
        },
    )

    model: Text | None = None
    pairs: Annotated[list[OwnPair], Field(min_length=1)]
    sites: Annotated[Text | list[Text], Field(description="Sites, patterns and sets: heads, *.residual@*, 5.mlp[*].")] = (
        "residual@*"
    )
    receivers: Annotated[
        Text | list[Text] | None,
        Field(description="For path patching: what reads the sites' corrupt writes, such as logits or 9.query[3]."),
    ] = None
    direction: Text = "denoising"
    metric: Text = "logit_difference"
    replacement: Text = "pair"
    method: Text = "exact"
    seed: Annotated[StrictInt | None, Field(ge=0, lt=2**32)] = None


class Tokenize(Request):
    """A text's tokens; with `messages`, those of the chat template."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"text": "The cat sat"}]})

    model: Text | None = None
    text: Text | None = None
    messages: Messages | None = None
    add_special_tokens: StrictBool = True

    @model_validator(mode="after")
    def _one(self) -> Tokenize:
        if (self.text is None) == (self.messages is None):
            raise ValueError("give either text or messages")
        return self


# --- edits ------------------------------------------------------------------------------------------------------------------

Query = Annotated[str | None, QueryField(max_length=4096, description="A loaded model; by default the server's.")]


class Scaling(Request):
    """Weights, by their names as in `model weights:`, and the number to multiply them by."""

    weights: Annotated[list[Text], Field(min_length=1, max_length=1000)]
    by: Annotated[Number, Field(ge=-1e6, le=1e6)]
    title: Annotated[Text | None, Field(min_length=1, max_length=200)] = None


class ApplyEdit(Request):
    """An edit of weights: `{"scaling": {"weights": ["1.attn.W_O[2]"], "by": 0.5}}`, or `file`, the bytes of an .edit file as base64."""

    model: Text | None = None
    scaling: Scaling | None = None
    file: Annotated[Text | None, Field(max_length=32 << 20)] = None

    @model_validator(mode="after")
    def _one(self) -> ApplyEdit:
        if (self.scaling is None) == (self.file is None):
            raise ValueError("give either scaling or file")
        return self
