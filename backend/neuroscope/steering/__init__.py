"""Steering: vectors that change a model's output, and experiments that measure it.

`SteeringVectors` from contrasts, `SteeringExperiment` with dose and response. Uses `features` and `hooks`. Start with
`vectors`.
"""
