"""Hooks: code that reads or changes activations while a model runs.

`ActivationHook`, `InterventionHook`, `HookManager`, and the storage of persistent hooks. Uses `engines` and `tensors`. Start
with `hook`.
"""
