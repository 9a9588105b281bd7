"""Models: `TransformerModel`, from a name to a running model.

Resolving names (`resolve`, `aliases`), loading (`loading`), text (`text`, `token_texts`), generation (`generation`),
verification (`verify`) and saving (`saving`). `bundled` holds the files of the two models that ship. Uses `engines`, `tensors`
and `hooks`. Start with `model`.
"""
