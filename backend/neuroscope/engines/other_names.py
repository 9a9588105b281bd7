"""Sites under the names of other libraries: TransformerLens' hook points, and modules of transformers.

>>> rewritten("blocks.5.attn.hook_z[3]@-1"), rewritten("model.layers.5.mlp"), rewritten("transformer.h.*")
('5.z[3]@-1', '5.mlpOutput', '*.residual')
"""

from __future__ import annotations

import re

_TAIL = r"(?=\s*(?:\[|@|$))"
_HOOK = re.compile(rf"^\s*blocks\.(?P<layer>-?\d+|\*)\.(?:(?P<part>attn|mlp|ln1|ln2)\.)?hook_(?P<name>\w+?){_TAIL}")
_MODULE = re.compile(
    rf"^\s*(?:transformer\.h|model\.layers|gpt_neox\.layers|blocks)\.(?P<layer>-?\d+|\*)(?:\.(?P<part>\w+)(?:\.hook_out)?)?{_TAIL}"
)
_NORMS = {"ln1": "layerNorm", "ln2": "mlpInput"}
#: What a module of a layer puts out.
_PARTS = {
    None: "residual",
    "attn": "attention",
    "self_attn": "attention",
    "attention": "attention",
    "mlp": "mlpOutput",
    "ln_1": "layerNorm",
    "ln1": "layerNorm",
    "input_layernorm": "layerNorm",
    "ln_2": "mlpInput",
    "ln2": "mlpInput",
}

#: Names without a counterpart, and what to use instead.
_INSTEAD = {
    r"(?:hook_embed|embed\.hook_out|(?:transformer|model|gpt_neox)\.(?:wte|embed_tokens|embed_in))": (
        "`embedding` is the stream that enters layer 0, with positions where the model adds them."
    ),
    r"(?:hook_pos_embed|pos_embed\.hook_out|transformer\.wpe)": "`embedding` includes the positions; weights('pos_embed.W_pos') are they.",
    r"(?:ln_final\..*|transformer\.ln_f|model\.norm)": "cache.accumulated_residual(normalised=True)[-1] is what the final norm puts out.",
    r"(?:lm_head|unembed(?:\.hook_out)?)": "Write `logits`.",
    r"blocks\.\S+\.mlp\.hook_pre\w*": "`L.mlp` is after the nonlinearity; its input is `L.mlpInput` times weights('L.mlp.W_in').",
    r"blocks\.\S+\.attn\.hook_rot_[qk]\S*": "`L.query` and `L.key` are before rotation.",
    r"blocks\.\S+\.hook_(?:\w+_input|attn_in|mlp_in)": "Receivers read `L.residualPre` and `L.mlpRead`; patch paths for one reader alone.",
    r"blocks\.\S+\.hook_scale": "A norm's scale is not a site: divide `L.residualPre` by `L.layerNorm`.",
}


def rewritten(text: str) -> str:
    """A site, or a pattern of sites, in NeuroScope's grammar where it is another library's name; else the text itself."""
    match = _HOOK.match(text)
    if match is not None:
        name = f"mlp_{match['name']}" if match["part"] == "mlp" else match["name"]
        norm = _NORMS.get(match["part"] or "")
        return f"{match['layer']}.{norm if norm and name == 'normalized' else name}{text[match.end() :]}"
    match = _MODULE.match(text)
    if match is not None and match["part"] in _PARTS:
        return f"{match['layer']}.{_PARTS[match['part']]}{text[match.end() :]}"
    return text


def instead(text: str) -> str | None:
    """What to use instead of a known name that has no counterpart."""
    return next((remedy for name, remedy in _INSTEAD.items() if re.fullmatch(name, text.strip())), None)
