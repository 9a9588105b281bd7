"""Tensors: activations as values to calculate with, on the engine's own device.

`ActivationTensor`, and `ActivationCache`, which holds them by site. Uses `engines`. Start with `tensor`.
"""
