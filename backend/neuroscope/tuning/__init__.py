"""Tuning: training on a task that changes a circuit's weights and no other number (documented script 18).

Which weights a circuit holds (`parts`), the three objectives (`objectives`), the steps with early stopping and checkpoints (`course`),
and `CircuitAwareTrainer` with its controls. A training's outcome is an edit, so that it can be validated, applied and reverted. Uses
`validation`, `editing`, `circuits` and the rooms below. Begin with `trainer`.
"""
