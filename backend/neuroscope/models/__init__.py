"""Models: `TransformerModel`, and everything between a name and a model that runs.

A name is resolved (`resolve`, `aliases`), loaded (`loading`), read as text (`text`, `token_texts`), written with (`generation`), proved
(`verify`) and kept (`saving`). `bundled` holds the files of the two models that ship. Uses `engines`, `tensors` and `hooks`. Begin with
`model`.
"""
