"""OpenAI's fields that are not served: accepted with the values that ask for nothing, refused by name with any other.

Clients often send a field with its default value (`n: 1`, `tools: []`, `response_format: {"type": "text"}`), which is no reason to refuse
the request; a field that asks for something must not be ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StrictBool, StrictStr, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import PydanticCustomError, ValidationError


def unserved(accepted: str) -> WrapValidator:
    """Refuse a field with one error, which names it and the values that are accepted."""

    def check(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise PydanticCustomError(
                "unserved", "this field is not served here; leave it out, or give {accepted}", {"accepted": accepted}
            ) from None

    return WrapValidator(check)


_NOTHING = Field(description="Not served: accepted where it asks for nothing.")

Nothing = Annotated[None, _NOTHING, unserved("null")]
One = Annotated[Literal[1] | None, _NOTHING, unserved("1")]
Zero = Annotated[Literal[0] | None, _NOTHING, unserved("0")]
Off = Annotated[Literal[False] | None, _NOTHING, unserved("false")]
NoText = Annotated[Literal[""] | None, _NOTHING, unserved("an empty text")]
NoList = Annotated[Annotated[list[Any], Field(max_length=0)] | None, _NOTHING, unserved("an empty list")]
NoMap = Annotated[Annotated[dict[str, Any], Field(max_length=0)] | None, _NOTHING, unserved("{}")]
Word = Annotated[StrictStr | None, Field(max_length=4096, description="A hint for OpenAI's servers, without effect here.")]


class TextFormat(BaseModel, extra="forbid"):
    """The only format of answers."""

    type: Literal["text"]


class ChatFields(BaseModel):
    """Fields of chat completions that are not served, or that have no effect with the values that are accepted."""

    tools: NoList = None
    tool_choice: Annotated[Literal["none", "auto"] | None, _NOTHING, unserved("none or auto")] = None
    functions: NoList = None
    function_call: Annotated[Literal["none", "auto"] | None, _NOTHING, unserved("none or auto")] = None
    parallel_tool_calls: Annotated[StrictBool | None, Field(description="There are no tools; without effect.")] = None
    response_format: Annotated[TextFormat | None, _NOTHING, unserved('{"type": "text"}')] = None
    modalities: Annotated[list[Literal["text"]] | None, _NOTHING, unserved('["text"]')] = None
    audio: Nothing = None
    prediction: Nothing = None
    web_search_options: Nothing = None
    reasoning_effort: Annotated[Literal["none"] | None, _NOTHING, unserved("none")] = None
    verbosity: Annotated[Literal["medium"] | None, _NOTHING, unserved("medium")] = None
    store: Off = None
    metadata: NoMap = None
    service_tier: Annotated[Literal["auto", "default"] | None, _NOTHING, unserved("auto or default")] = None
    prompt_cache_key: Word = None
    safety_identifier: Word = None
