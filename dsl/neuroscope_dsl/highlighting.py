"""The dialect for Pygments: `pygmentize -l neuroscope`, MkDocs, Sphinx, notebooks and the prompt of `neuroscope repl`."""

from __future__ import annotations

from typing import ClassVar

from pygments.lexer import RegexLexer, bygroups
from pygments.token import Comment, Keyword, Name, Number, Operator, Punctuation, String, Whitespace


class NeuroScopeLexer(RegexLexer):  # type: ignore[misc]  # Pygments has no types
    """Scripts of NeuroScope. Pygments' own Smalltalk lexer does not know methods written as `Class >> selector`."""

    name = "NeuroScope"
    aliases: ClassVar[list[str]] = ["neuroscope"]
    filenames: ClassVar[list[str]] = ["*.st"]
    mimetypes: ClassVar[list[str]] = ["text/x-neuroscope"]

    tokens: ClassVar = {
        "root": [
            (r"\s+", Whitespace),
            (r'"[^"]*"', Comment),
            (r"'(?:[^']|'')*'", String),
            (r"#'(?:[^']|'')*'|#[A-Za-z_][\w:.]*|#[-+*/\\~<>=@%|&?,!]+", String.Symbol),
            (r"#[(\[{]", Punctuation),
            (r"\$.", String.Char),
            (r"-?\d+r-?[0-9A-Z]+(?:\.[0-9A-Z]+)?|-?\d+(?:\.\d+)?(?:[edqs]-?\d*)?", Number),
            (
                r"^([A-Z]\w*)([ \t]+class)?([ \t]*)(>>)",
                bygroups(Name.Class, Keyword, Whitespace, Operator),
            ),
            (r"\b(?:self|super|nil|true|false|thisContext)\b", Keyword.Constant),
            (r":=|\^", Operator),
            (r"[A-Za-z_]\w*:(?!=)", Name.Function),
            (r":[A-Za-z_]\w*", Name.Variable),
            (r"[A-Z]\w*", Name.Class),
            (r"[A-Za-z_]\w*", Name),
            (r"[-+*/\\~<>=@%|&?,!]+", Operator),
            (r"[\[\](){}.;:]", Punctuation),
        ]
    }
