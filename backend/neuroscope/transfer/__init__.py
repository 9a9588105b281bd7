"""Transfer: what was found on one model, carried to another along a linear map between their residual streams.

`CircuitTransfer` (documented script 9) fits the map and adapts circuits; `model installCircuit:at:` measures whether they help there.
Uses `circuits`, `steering` and `hooks`. Begin with `circuits`.
"""
