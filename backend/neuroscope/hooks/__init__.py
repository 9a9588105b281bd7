"""Hooks: code that reads or changes activations while a model runs.

`ActivationHook`, `InterventionHook`, the `HookManager` of a model, and the folder in which persistent hooks are kept. Uses `engines` and
`tensors`. Begin with `hook`.
"""
