"""Editing: changes of a model's weights that are values, applied whole and reverted bit for bit.

`WeightEdit` and the transactions of `transactions`; concept erasure (`erasure`), facts (`facts`); all of them solve with `kernel`. Uses
`circuits` and the rooms below. Begin with `edit`.
"""
