"""What users of other libraries ask models, caches and the package for, and its name here."""

from __future__ import annotations

from collections.abc import Mapping

_WEIGHT = "model.weights('5.attn.W_Q[3]'), as in TransformerLens: L.attn.W_Q, L.mlp.W_in, embed.W_E, unembed.W_U"
_HOOKS = (
    "model.hook_manager.add_hook(ActivationHook(5, 'residual', function)), and clear_all_hooks(); or run_with_hooks for one run"
)
_MODULES = "sites: model.run_with_caching(text, '5.residual'), model.weights('5.mlp.W_in')"
_LOADING = "from_hugging_face(name, device=…, dtype=…): a model is loaded where and as it runs"

#: Attribute of a model in TransformerLens or transformers → what it is here.
OF_MODELS: Mapping[str, str] = {
    **dict.fromkeys(("cfg", "config"), "model.architecture"),
    **dict.fromkeys(("W_Q", "W_K", "W_V", "W_O", "W_in", "W_out", "W_gate", "W_E", "W_U", "W_pos", "QK", "OV"), _WEIGHT),
    **dict.fromkeys(
        ("b_Q", "b_K", "b_V", "b_O", "b_in", "b_out", "b_U", "state_dict", "parameters", "named_parameters"), _WEIGHT
    ),
    **dict.fromkeys(("blocks", "transformer", "model", "layers", "h", "embed", "unembed", "ln_final", "lm_head"), _MODULES),
    **dict.fromkeys(("hook_dict", "mod_dict", "hook_points", "modules", "named_modules", "children"), _MODULES),
    **dict.fromkeys(
        ("add_perma_hook", "add_hook", "hooks", "reset_hooks", "remove_all_hook_fns", "register_forward_hook"), _HOOKS
    ),
    **dict.fromkeys(("to", "cuda", "cpu", "half", "float", "bfloat16", "eval", "train"), _LOADING),
    **dict.fromkeys(("forward", "__call__"), "model.logits(prompt), or model.loss(prompt)"),
    "tokens_to_residual_directions": "model.analyze('logit_attribution')",
    "save_pretrained": "model.save(path)",
    "get_token_position": "model.tokens(text), the texts of the tokens in order",
    "generate_stream": "model.stream(prompt, model.generation_settings(max_tokens=…))",
    "set_use_attn_result": "headOutput, times model.weights('5.attn.W_O[3]')",
}

#: The same for TransformerLens' ActivationCache.
OF_CACHES: Mapping[str, str] = {
    "accumulated_resid": "cache.accumulated_residual()",
    "decompose_resid": "cache.decomposed_residual(), with cache.residual_labels",
    "get_full_resid_decomposition": "cache.decomposed_residual(), with cache.residual_labels",
    "stack_activation": "cache.stack('residual')",
    "stack_head_results": "cache.stack('headOutput')",
    "apply_ln_to_stack": "cache.accumulated_residual(normalised=True)",
    "logit_attrs": "model.analyze('logit_attribution')",
    "cache_dict": "dict(cache.items())",
    "remove_batch_dim": "cache['5.residual'][0]",
    "values": "cache.items()",
}

#: The same for classes and modules.
OF_THE_PACKAGE: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "HookedTransformer",
            "TransformerBridge",
            "AutoModel",
            "AutoModelForCausalLM",
            "LanguageModel",
            "HookedSAETransformer",
        ),
        "TransformerModel.from_pretrained(name)",
    ),
    "AutoTokenizer": "model.tokenizer, model.tokens(text) and model.to_tokens(text)",
    "HookPoint": "ActivationHook",
    "patching": "ActivationPatcher(model).patch(pairs, 'residual@*')",
    "pipeline": "TransformerModel.from_pretrained(name).generate(prompt)",
    "HookedTransformerConfig": "model.architecture",
    "utils": "methods of the model and of tensors: model.to_tokens, model.loss_per_token, tensor.numpy()",
}
