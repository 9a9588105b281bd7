"""Code generation: Smalltalk nodes to Python nodes.

Every Smalltalk expression becomes a Python expression, preceded by statements if needed (control flow with several statements,
nested functions). Then the operands before them are put into temporaries, to keep Smalltalk's order of evaluation.

Names in generated code: `l_x` a local, `v_x` a workspace variable, `t_1` a temporary, `k_1` a constant of the unit,
`s_at_3a_put_3a_` the sender of a selector, `g_…` a helper of the runtime (`Workspace` has them).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Protocol

from neuroscope_dsl import nodes
from neuroscope_dsl.compiler import emit
from neuroscope_dsl.compiler.control import INLINED, ControlFlow
from neuroscope_dsl.compiler.emit import Place, Places
from neuroscope_dsl.compiler.scopes import Function, MethodContext, Scope, mentioned_in
from neuroscope_dsl.errors import SmalltalkSyntaxError
from neuroscope_dsl.numerals import number_value
from neuroscope_dsl.runtime.block import BlockInfo
from neuroscope_dsl.runtime.values import Array, Character, Symbol
from neuroscope_dsl.source import Source

#: Binary selectors with a fast path for numbers, and the helper that has it.
ARITHMETIC = {
    "+": "g_add",
    "-": "g_subtract",
    "*": "g_multiply",
    "/": "g_divide",
    "//": "g_floor_divide",
    "\\\\": "g_modulo",
    "<": "g_less",
    ">": "g_greater",
    "<=": "g_less_equal",
    ">=": "g_greater_equal",
    "=": "g_equal",
    "~=": "g_not_equal",
}

_UNNAMEABLE = re.compile(r"[^A-Za-z0-9]")

_CONSTANTS = {"nil": None, "true": True, "false": False}


#: Longer chains of messages (`a b c d …`) are split into statements, to keep Python's tree shallow.
CHAIN = 25


def sender_name(selector: str) -> str:
    """The name, in generated code, of the function that sends `selector`: the same in every workspace.

    >>> sender_name("at:put:")
    's_at_3a_put_3a_'
    """
    return "s_" + _UNNAMEABLE.sub(lambda match: f"_{ord(match.group()):x}_", selector)


class Environment(Protocol):
    """The workspace, as the generator uses it."""

    def sender_name(self, selector: str) -> str:
        """The name, in generated code, of the function that sends `selector`."""

    def is_class(self, name: str) -> bool:
        """Whether `name` names a class, which cannot be assigned to."""


class Generator(ControlFlow):
    """Generates one unit: a do-it statement, or a method."""

    def __init__(self, source: Source, environment: Environment, method: MethodContext | None) -> None:
        self.source = source
        self.places = Places(source)
        self.environment = environment
        self.method = method
        self.constants: list[Any] = []
        self.out: list[ast.stmt] = []
        self.effects = 0
        self.blocks = 0
        self.returns_from_block = False
        self.scope = Scope(None, Function(None))

    # --- statements -----------------------------------------------------------------------------------------------

    def add(self, statement: ast.stmt) -> None:
        """Emit a statement with an effect; operands before it must not be moved after it."""
        self.out.append(statement)
        self.effects += 1

    def statement(self, node: nodes.Statement) -> None:
        """Generate for effect."""
        match node:
            case nodes.Temporaries(names):
                self.declare(names, self.places.of(node.span))
            case nodes.Return():
                self.generate_return(node)
            case nodes.Assignment(variable, value):
                place = self.places.of(node.span)
                self.store(variable.name, self.expression(value), place)
            case nodes.Send() if self.inlined_statement(node):
                pass
            case _:
                result = self.expression(node)
                unbound = isinstance(result, ast.Name) and result.id[:2] == "v_"  # it may be unbound, which is an error
                if unbound or not isinstance(result, (ast.Constant, ast.Name)):
                    self.add(ast.Expr(result, **self.places.of(node.span)))

    def body(self, statements: Sequence[nodes.Statement], place: Place) -> ast.expr:
        """Generate a sequence for its value: that of its last statement, nil when it is empty."""
        last: nodes.Statement | None = statements[-1] if statements else None
        for node in statements[:-1]:
            self.statement(node)
        if last is None:
            return emit.constant(None, place)
        if isinstance(last, (nodes.Return, nodes.Temporaries)):
            self.statement(last)
            return emit.constant(None, place)
        return self.expression(last)

    def declare(self, names: Sequence[str], place: Place) -> None:
        for name in names:
            if self.scope.outer is None and self.method is None:
                self.store(name, emit.constant(None, place), place)  # a do-it's temporaries are workspace variables
            else:
                self.add(emit.assign(self.scope.declare(name), emit.constant(None, place), place))

    def generate_return(self, node: nodes.Return) -> None:
        place = self.places.of(node.span)
        value = self.expression(node.value)
        if self.scope.function.outer is None and self.method is not None:
            self.add(ast.Return(value, **place))
            return
        self.returns_from_block = True
        home = "home" if self.method is not None else "g_home"
        self.add(ast.Raise(emit.call("g_return", [emit.load(home, place), value], place), None, **place))

    # --- variables ------------------------------------------------------------------------------------------------

    def store(self, name: str, value: ast.expr, place: Place) -> None:
        found = self.scope.find(name)
        if found is not None:
            scope, local = found
            if scope.function is not self.scope.function:
                self.scope.function.nonlocals.add(local)
            self.add(emit.assign(local, value, place))
            return
        if self.method is not None and name in self.method.instance_variables:
            self.add(ast.Assign([self._instance_variable(name, ast.Store(), place)], value, **place))
            return
        key = self._global_name(name)
        if self.environment.is_class(name):
            raise SmalltalkSyntaxError(
                f"{name} is a class; nothing can be assigned to it.",
                position=self.source.at(place["lineno"], place["col_offset"] + 1),
                remedy="Choose another name for the variable.",
            )
        self.scope.function.globals.add(key)
        self.add(emit.assign(key, value, place))

    def variable(self, node: nodes.Variable) -> ast.expr:
        place = self.places.of(node.span)
        name = node.name
        if name in _CONSTANTS:
            return emit.constant(_CONSTANTS[name], place)
        if name in ("self", "super"):
            return emit.constant(None, place) if self.method is None else emit.load("self", place)
        if name == "thisContext":
            return emit.call("g_context", [], place)
        found = self.scope.find(name)
        if found is not None:
            return emit.load(found[1], place)
        if self.method is not None and name in self.method.instance_variables:
            return self._instance_variable(name, ast.Load(), place)
        return emit.load(self._global_name(name), place)

    def _instance_variable(self, name: str, context: ast.expr_context, place: Place) -> ast.Attribute:
        return ast.Attribute(emit.load("self", place), f"_iv_{name}", context, **place)

    def _global_name(self, name: str) -> str:
        owner = self.method.owner.class_variable_owner(name) if self.method is not None else None
        return f"v_{name}" if owner is None else f"c_{owner.name}_{name}"

    # --- expressions ----------------------------------------------------------------------------------------------

    def expression(self, node: nodes.Node) -> ast.expr:
        """Generate for the value."""
        match node:
            case nodes.Variable():
                return self.variable(node)
            case nodes.Number(text):
                return self.constant(number_value(text), self.places.of(node.span))
            case nodes.String(value):
                return emit.constant(value, self.places.of(node.span))
            case nodes.Send():
                inlined = self.inlined_expression(node)
                return self.send(node) if inlined is None else inlined
            case nodes.Assignment(variable, value):
                place = self.places.of(node.span)
                stored = self.keep(self.expression(value), place)
                self.store(variable.name, stored, place)
                return stored
            case nodes.Block():
                return self.block(node)
            case nodes.Cascade():
                return self.cascade(node)
            case nodes.BraceArray(items):
                place = self.places.of(node.span)
                values = self.operands(items)
                return emit.call("g_array", [ast.List(values, ast.Load(), **place)], place)
            case _:
                return self.constant(literal_value(node), self.places.of(node.span))

    def constant(self, value: Any, place: Place) -> ast.expr:
        """A literal: inline if Python's compiler supports it, otherwise a constant of the unit."""
        if value is None or type(value) in (int, bool, str, bytes) or (type(value) is float and value == value):
            return emit.constant(value, place)
        return self.unit_constant(value, place)

    def unit_constant(self, value: Any, place: Place) -> ast.expr:
        self.constants.append(value)
        return emit.load(f"k_{len(self.constants)}", place)

    def operands(self, items: Sequence[nodes.Node]) -> list[ast.expr]:
        """Generate several expressions to be evaluated in order."""
        values: list[ast.expr] = []
        for item in items:
            mark, effects = len(self.out), self.effects
            value = self.expression(item)
            if self.effects > effects:
                kept: list[ast.stmt] = []
                for index, earlier in enumerate(values):
                    if not self._is_stable(earlier):
                        name = self.scope.function.fresh_temporary()
                        place = {key: getattr(earlier, key) for key in ("lineno", "col_offset", "end_lineno", "end_col_offset")}
                        kept.append(emit.assign(name, earlier, place))
                        values[index] = emit.load(name, place)
                self.out[mark:mark] = kept
            values.append(value)
        return values

    @staticmethod
    def _is_stable(value: ast.expr) -> bool:
        return isinstance(value, ast.Constant) or (isinstance(value, ast.Name) and value.id[:2] in ("t_", "k_", "se"))

    def keep(self, value: ast.expr, place: Place) -> ast.expr:
        """The value as an expression that can be used more than once."""
        if self._is_stable(value):
            return value
        name = self.scope.function.fresh_temporary()
        self.add(emit.assign(name, value, place))
        return emit.load(name, place)

    def send(self, node: nodes.Send) -> ast.expr:
        chain = self._chain(node)
        if len(chain) > CHAIN:
            return self._long_chain(chain)
        values = self.operands((node.receiver, *node.arguments))
        if isinstance(node.receiver, nodes.Variable) and node.receiver.name == "super":
            return self.super_send(node.selector, values[1:], self.places.of_selector(node))
        return self.message(node.selector, values, self.places.of_selector(node))

    @staticmethod
    def _chain(node: nodes.Send) -> list[nodes.Send]:
        """The node, its receiver, the receiver's receiver …, as long as they are messages that are not inlined."""
        chain = [node]
        while isinstance(node.receiver, nodes.Send) and node.receiver.selector not in INLINED:
            node = node.receiver
            chain.append(node)
        return chain

    def _long_chain(self, chain: list[nodes.Send]) -> ast.expr:
        value = self.send(chain.pop())
        for count, node in enumerate(reversed(chain)):
            place = self.places.of_selector(node)
            if count % CHAIN == 0 or node.arguments:
                value = self.keep(value, place)
            value = self.message(node.selector, [value, *self.operands(node.arguments)], place)
        return value

    def message(self, selector: str, values: list[ast.expr], place: Place) -> ast.expr:
        """Send `selector` to the first of `values` with the others as arguments."""
        helper = ARITHMETIC.get(selector)
        if helper is not None:
            return emit.call(helper, values, place)
        if selector == "==":
            return emit.call("g_identical", values, place)
        return emit.call(self.environment.sender_name(selector), values, place)

    def super_send(self, selector: str, arguments: list[ast.expr], place: Place) -> ast.expr:
        if self.method is None:
            raise SmalltalkSyntaxError(
                "super has no meaning outside a method.", position=self.source.at(place["lineno"], place["col_offset"] + 1)
            )
        context = self.unit_constant(self.method, place)
        return emit.call("g_super", [context, emit.constant(selector, place), emit.load("self", place), *arguments], place)

    def cascade(self, node: nodes.Cascade) -> ast.expr:
        is_super = isinstance(node.receiver, nodes.Variable) and node.receiver.name == "super"
        receiver = self.keep(self.expression(node.receiver), self.places.of(node.span))
        result: ast.expr = receiver
        for index, message in enumerate(node.messages):
            place = self.places.of(message.span) if index else self._first_message_place(node)
            arguments = self.operands(message.arguments)
            if is_super:
                result = self.super_send(message.selector, arguments, place)
            else:
                result = self.message(message.selector, [receiver, *arguments], place)
            if index < len(node.messages) - 1:
                self.add(ast.Expr(result, **place))
        return result

    def _first_message_place(self, node: nodes.Cascade) -> Place:
        first = node.messages[0]
        return self.places.of_selector(nodes.Send(node.receiver, first.selector, first.arguments, span=node.span))

    # --- blocks ---------------------------------------------------------------------------------------------------

    def block(self, node: nodes.Block) -> ast.expr:
        """A closure: a nested Python function, and the `Block` around it."""
        place = self.places.of(node.span)
        name = self.nested_function(node)
        names = tuple(sorted(n for n in mentioned_in(node.body) if self.scope.find(n) is None and n not in node.parameters))
        info = self.unit_constant(BlockInfo(node.parameters, node.span, names), place)
        return emit.call("g_block", [emit.load(name, place), info, emit.constant(len(node.parameters), place)], place)

    def nested_function(self, node: nodes.Block) -> str:
        """Emit the Python function of a block. Return its name."""
        place = self.places.of(node.span)
        self.blocks += 1
        name = f"block_{self.blocks}"
        outer_scope, outer_out, outer_effects = self.scope, self.out, self.effects
        function = Function(outer_scope.function)
        self.scope, self.out = Scope(outer_scope, function), []
        parameters = [self.scope.declare(parameter) for parameter in node.parameters]
        self.out.append(self.check(place))
        value = self.body(node.body.statements, place)
        self.out.append(ast.Return(value, **place))
        body = self.outer_names(function, place) + self.out
        self.scope, self.out, self.effects = outer_scope, outer_out, outer_effects
        self.out.append(emit.function(name, parameters, body, place))
        return name

    @staticmethod
    def outer_names(function: Function, place: Place) -> list[ast.stmt]:
        statements: list[ast.stmt] = []
        if function.nonlocals:
            statements.append(ast.Nonlocal(sorted(function.nonlocals), **place))
        if function.globals:
            statements.append(ast.Global(sorted(function.globals), **place))
        return statements

    @staticmethod
    def check(place: Place) -> ast.stmt:
        """`if g_stop: g_stopped()`: a point where a script can be interrupted."""
        return emit.if_(emit.load("g_stop", place), [ast.Expr(emit.call("g_stopped", [], place), **place)], [], place)


def literal_value(node: nodes.Node) -> Any:
    """The value of a literal node."""
    match node:
        case nodes.Number(text):
            value = number_value(text)
            return value.numerator if isinstance(value, Fraction) and value.denominator == 1 else value
        case nodes.String(value):
            return value
        case nodes.SymbolLiteral(name):
            return Symbol(name)
        case nodes.CharacterLiteral(value):
            return Character(value)
        case nodes.Constant(name):
            return _CONSTANTS[name]
        case nodes.LiteralArray(items):
            return Array(literal_value(item) for item in items)
        case nodes.ByteArrayLiteral(values):
            return bytearray(values)
    raise TypeError(f"{node!r} is not a literal")
