"""`unparse(tree)` is Smalltalk text that parses to an equal tree."""

from __future__ import annotations

from neuroscope_dsl import nodes
from neuroscope_dsl.syntax import is_bare_symbol


def unparse(node: nodes.Node) -> str:
    """The node as Smalltalk text. Definitions have their header at column one and an indented body."""
    match node:
        case nodes.Script(items):
            return _script(items)
        case nodes.MethodDefinition():
            return _definition(node)
        case nodes.Sequence(statements):
            return _statements(statements)
        case nodes.Return(value):
            return f"^{unparse(value)}"
        case nodes.Temporaries(names):
            return f"| {' '.join(names)} |" if names else "| |"
        case nodes.Assignment(variable, value):
            return f"{variable.name} := {unparse(value)}"
        case nodes.Cascade(receiver, messages):
            return f"{_operand(receiver, messages[0].selector)} {'; '.join(_message(message) for message in messages)}"
        case nodes.Message():
            return _message(node)
        case nodes.Send():
            return _send(node)
        case nodes.BraceArray(items):
            return f"{{{'. '.join(unparse(item) for item in items)}}}"
        case nodes.Block():
            return _block(node)
        case nodes.Variable(name) | nodes.Constant(name):
            return name
        case _:
            return _literal(node)


def _literal(node: nodes.Node) -> str:
    match node:
        case nodes.Number(text):
            return text
        case nodes.String(value):
            return _quoted(value)
        case nodes.SymbolLiteral(name):
            return f"#{name}" if is_bare_symbol(name) else f"#{_quoted(name)}"
        case nodes.CharacterLiteral(value):
            return f"${value}"
        case nodes.LiteralArray(items):
            return f"#({' '.join(unparse(item) for item in items)})"
        case nodes.ByteArrayLiteral(values):
            return f"#[{' '.join(str(byte) for byte in values)}]"
    raise TypeError(f"{node!r} has no text")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _statements(statements: tuple[nodes.Statement, ...]) -> str:
    return " ".join(unparse(item) if isinstance(item, nodes.Temporaries) else f"{unparse(item)}." for item in statements)


def _block(node: nodes.Block) -> str:
    parameters = "".join(f":{name} " for name in node.parameters)
    body = _statements(node.body.statements)
    return f"[{parameters}{'| ' if parameters else ''}{body}]"


def _script(items: tuple[nodes.Statement | nodes.MethodDefinition, ...]) -> str:
    lines = []
    for item in items:
        if isinstance(item, (nodes.Temporaries, nodes.MethodDefinition)):
            lines.append(unparse(item))
        else:
            lines.append(f"{unparse(item)}.")
    return "\n".join(lines) + ("\n" if lines else "")


def _definition(node: nodes.MethodDefinition) -> str:
    if not node.parameters:
        pattern = node.selector
    elif ":" in node.selector:
        pairs = zip(node.selector.split(":"), node.parameters, strict=False)
        pattern = " ".join(f"{keyword}: {name}" for keyword, name in pairs)
    else:
        pattern = f"{node.selector} {node.parameters[0]}"
    header = f"{node.class_name}{' class' if node.class_side else ''} >> {pattern}"
    # A token at column one would end the body; inside strings, column one has no meaning.
    return "\n".join([header, *(f"    {_statements((item,))}" for item in node.body.statements)])


# --- messages, with parentheses if precedence needs them ---------------------------------------------------------------

_UNARY, _BINARY, _KEYWORD = range(3)


def _rank(selector: str) -> int:
    if selector[0].isalpha() or selector[0] == "_":
        return _KEYWORD if ":" in selector else _UNARY
    return _BINARY


def _send(node: nodes.Send) -> str:
    """Iterative along the receivers: a chain of messages may be longer than Python's stack."""
    chain: list[nodes.Send] = []
    here: nodes.Node = node
    while isinstance(here, nodes.Send):
        chain.append(here)
        here = here.receiver
    text = _operand(here, chain[-1].selector)
    for index, send in reversed(list(enumerate(chain))):
        text = f"{text} {_message(nodes.Message(send.selector, send.arguments))}"
        above = chain[index - 1] if index else None
        if above is not None and _needs_parentheses(send, _rank(above.selector), receiver=True):
            text = f"({text})"
    return text


def _message(message: nodes.Message) -> str:
    selector, arguments = message.selector, message.arguments
    rank = _rank(selector)
    if rank == _UNARY:
        return selector
    if rank == _BINARY:
        return f"{selector} {_argument(arguments[0], _BINARY)}"
    return " ".join(
        f"{word}: {_argument(value, _KEYWORD)}" for word, value in zip(selector.split(":"), arguments, strict=False)
    )


def _operand(node: nodes.Node, selector: str) -> str:
    text = unparse(node)
    return f"({text})" if _needs_parentheses(node, _rank(selector), receiver=True) else text


def _argument(node: nodes.Node, rank: int) -> str:
    text = unparse(node)
    return f"({text})" if _needs_parentheses(node, rank, receiver=False) else text


def _needs_parentheses(node: nodes.Node, rank: int, *, receiver: bool) -> bool:
    """Whether an operand of a message of that rank needs parentheses. Binary messages associate to the left."""
    if isinstance(node, (nodes.Assignment, nodes.Cascade)):
        return True
    if not isinstance(node, nodes.Send):
        return False
    own = _rank(node.selector)
    if receiver and own == rank == _KEYWORD:
        return True
    return own > rank or (not receiver and own == rank)
