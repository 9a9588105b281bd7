"""Steering: vectors that move what a model writes, and experiments that measure how far.

`SteeringVectors` from contrasts, `SteeringExperiment` with dose and response. Uses `features` and `hooks`. Begin with `vectors`.
"""
