"""Patterns: many sites in one text.

    *.attentionPattern     the pattern of every layer
    *.headOutput[*]        every head
    5.mlp[*]               every neuron of layer 5
    *.residual@*           the stream after every layer at every token
    blocks.*.attn.hook_z   TransformerLens' names work as in a site
    heads, neurons         every head, every neuron; and a component's name alone: in every layer, and head by head where it has heads
    heads@*, query@-1      these at every token, at the last token

`layer`, `[index]` and `@position` are a number or `*`; what is left out is not divided.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import product

from neuroscope.engines.anatomy import Anatomy
from neuroscope.engines.other_names import instead, rewritten
from neuroscope.engines.sites import GLOBAL, PER_HEAD, PER_KEY_VALUE_HEAD, Component, Site
from neuroscope.errors import ArgumentError, SiteError, did_you_mean
from neuroscope.naming import fold

#: Names of sets.
SETS = {"heads": "*.headOutput[*]", "neurons": "*.mlp[*]", "mlps": "*.mlpOutput", "layers": "*.residual"}

_PATTERN = re.compile(
    r"\s*(?:(?P<layer>-?\d+|\*)\s*\.)?\s*(?P<component>[A-Za-z_]+)\s*(?:\[\s*(?P<index>\d+|\*)\s*\])?\s*(?:@\s*(?P<position>-?\d+|\*))?\s*"
)


def expanded(
    patterns: str | Site | Iterable[str | Site], anatomy: Anatomy, positions: int | None = None, *, by_head: bool = True
) -> list[Site]:
    """The sites that patterns name in a model, checked, each once, in the order of layer, head or neuron, and token.

    positions: number of tokens, for `@*`. by_head: whether a component's name alone means each of its heads. Raises `SiteError` for a pattern that names no site of the model, `ArgumentError` for
    something other than texts and sites, and for none.
    """
    if isinstance(patterns, (str, Site)):
        patterns = [patterns]
    if isinstance(patterns, (bytes, bytearray)) or not isinstance(patterns, Iterable):
        raise ArgumentError(
            f"{patterns!r:.60} names no sites.", remedy="Give a text, or a list of texts: ['5.residual', 'heads']."
        )
    found: dict[Site, None] = {}
    for pattern in patterns:
        if isinstance(pattern, Site):
            found[pattern.checked(anatomy)] = None
        elif isinstance(pattern, str):
            found.update(dict.fromkeys(_sites(pattern, anatomy, positions, by_head)))
        else:
            raise ArgumentError(f"{pattern!r:.60} is not a site.", remedy="Give texts: '5.residual', 'heads', '*.query[*]@-1'.")
    if not found:
        raise ArgumentError("No site is named.", remedy="Give a text, or a list of texts: ['5.residual', 'heads'].")
    return list(found)


def _sites(text: str, anatomy: Anatomy, positions: int | None, by_head: bool) -> Iterator[Site]:
    name, at, position = text.partition("@")
    whole = SETS.get(fold(name).strip(), name) + at + position
    match = _PATTERN.fullmatch(rewritten(whole))
    if match is None or instead(text) is not None:
        raise SiteError(
            f"{text!r} names no sites.",
            site=text,
            remedy=instead(text)
            or "Write layer.component[head or neuron]@position, each a number or *: *.residual@*, 5.headOutput[*]; or heads, neurons.",
        )
    component = _component(match["component"])
    alone = match["layer"] is None and component not in GLOBAL
    per_head = component in PER_HEAD or component in PER_KEY_VALUE_HEAD
    index = match["index"] or ("*" if alone and per_head and by_head else None)
    layers: Iterable[int | None] = [None]
    if component not in GLOBAL:
        layers = range(anatomy.layers) if alone or match["layer"] == "*" else [int(match["layer"])]
    elif match["layer"] is not None:
        raise SiteError(f"{component} belongs to no layer.", site=text, remedy=f"Write {component}.")
    places: Iterable[int | None] = [None if match["position"] is None else -1]
    if match["position"] == "*":
        if positions is None:
            raise SiteError(f"{text!r}: @* needs prompts of the same number of tokens.", site=text, remedy="Give one position.")
        places = range(positions)
    elif match["position"] is not None:
        places = [int(match["position"])]
    for layer, one, place in product(layers, _indices(index, component, anatomy, text), places):
        head, neuron = (one, None) if per_head else (None, one)
        yield Site(layer, component, head, neuron, place).checked(anatomy)


def _indices(index: str | None, component: Component, anatomy: Anatomy, text: str) -> Iterable[int | None]:
    if index is None:
        return [None]
    if index != "*":
        return [int(index)]
    if component in PER_KEY_VALUE_HEAD:
        return range(anatomy.key_value_heads)
    if component in PER_HEAD:
        return range(anatomy.heads)
    width = anatomy.width(component)
    if width is None:
        raise SiteError(f"{component} has no units.", site=text)
    return range(width)


def _component(name: str) -> Component:
    try:
        return Component.parse(name)
    except SiteError as error:
        if error.message.startswith("There is no component"):
            names = [*SETS, *(component.value for component in Component)]
            error.remedy = did_you_mean(name, names, listing="Names")
        raise
