"""Control flow without closures: `ifTrue:`, `and:`, `whileTrue:`, `to:do:` and similar messages with literal blocks.

A loop whose body makes closures over names that it declares is not flattened: each iteration needs its own variables, so the
body becomes a function.
"""

from __future__ import annotations

import ast
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from neuroscope_dsl import nodes
from neuroscope_dsl.compiler import emit
from neuroscope_dsl.compiler.emit import Place, Places
from neuroscope_dsl.compiler.scopes import Scope, children, mentioned_in

if TYPE_CHECKING:
    from neuroscope_dsl.source import Source

_CONDITIONALS = {"ifTrue:": (True,), "ifFalse:": (False,), "ifTrue:ifFalse:": (True, False), "ifFalse:ifTrue:": (False, True)}
_NIL_TESTS = {"ifNil:": (True,), "ifNotNil:": (False,), "ifNil:ifNotNil:": (True, False), "ifNotNil:ifNil:": (False, True)}
_WHILES = {"whileTrue:": True, "whileFalse:": False, "whileTrue": True, "whileFalse": False}

#: Selectors that may be inlined.
INLINED = frozenset(
    {*_CONDITIONALS, *_NIL_TESTS, *_WHILES, "and:", "or:", "to:do:", "to:by:do:", "timesRepeat:", "repeat", "isNil", "notNil"}
)


def _is_block(node: nodes.Node, parameters: int = 0) -> bool:
    return isinstance(node, nodes.Block) and len(node.parameters) == parameters


class ControlFlow(ABC):
    """The part of `Generator` that flattens control flow."""

    source: Source
    places: Places
    scope: Scope
    out: list[ast.stmt]
    effects: int

    @abstractmethod
    def add(self, statement: ast.stmt) -> None: ...

    @abstractmethod
    def expression(self, node: nodes.Node) -> ast.expr: ...

    @abstractmethod
    def statement(self, node: nodes.Statement) -> None: ...

    @abstractmethod
    def body(self, statements: Sequence[nodes.Statement], place: Place) -> ast.expr: ...

    @abstractmethod
    def operands(self, items: Sequence[nodes.Node]) -> list[ast.expr]: ...

    @abstractmethod
    def keep(self, value: ast.expr, place: Place) -> ast.expr: ...

    @abstractmethod
    def nested_function(self, node: nodes.Block) -> str: ...

    @staticmethod
    @abstractmethod
    def check(place: Place) -> ast.stmt: ...

    # --- entry points ---------------------------------------------------------------------------------------------

    def inlined_expression(self, node: nodes.Send) -> ast.expr | None:
        """The value of an inlined message; None if the message must be sent."""
        selector = node.selector
        if selector not in INLINED:
            return None
        place = self.places.of_selector(node)
        if selector in ("isNil", "notNil"):
            value = self.expression(node.receiver)
            return emit.is_(value, None, place) if selector == "isNil" else emit.is_not(value, None, place)
        if selector in ("and:", "or:") and _is_block(node.arguments[0]):
            return self._junction(node, selector == "and:", place)
        if selector in _CONDITIONALS and all(_is_block(block) for block in node.arguments):
            test = self._truth(node.receiver, place)
            return self._branches(test, _CONDITIONALS[selector], node.arguments, emit.constant(None, place), place)
        if selector in _NIL_TESTS and self._are_nil_branches(node):
            return self._nil_test(node, place)
        if self._loop(node, place):
            return self._loop_value
        return None

    def inlined_statement(self, node: nodes.Send) -> bool:
        """Generate an inlined message for effect. Return False if the message must be sent."""
        selector = node.selector
        if selector in _CONDITIONALS and all(_is_block(block) for block in node.arguments):
            place = self.places.of_selector(node)
            test = self._truth(node.receiver, place)
            parts = {
                wanted: self._effects_of(block) for wanted, block in zip(_CONDITIONALS[selector], node.arguments, strict=True)
            }
            self.add(self._if(test, parts.get(True, []), parts.get(False, []), place))
            return True
        return selector in INLINED and self._loop(node, self.places.of_selector(node))

    # --- branches -------------------------------------------------------------------------------------------------

    def _truth(self, node: nodes.Node, place: Place) -> ast.expr:
        """A Python test of a Smalltalk condition; raises an error at run time if it is not a boolean."""
        value = self.expression(node)
        if isinstance(value, ast.Compare):  # isNil and its like: a Python boolean
            return value
        value = self.keep_short(value, place)
        use = emit.load(value.target.id, place) if isinstance(value, ast.NamedExpr) else value
        doubt = ast.BoolOp(ast.And(), [emit.is_not(use, False, place), emit.call("g_truth", [use], place)], **place)
        return ast.BoolOp(ast.Or(), [emit.is_(value, True, place), doubt], **place)

    def keep_short(self, value: ast.expr, place: Place) -> ast.expr:
        """The value bound to a temporary within the expression itself."""
        if isinstance(value, (ast.Constant, ast.Name)):
            return value
        name = self.scope.function.fresh_temporary()
        return ast.NamedExpr(emit.store(name, place), value, **place)

    @staticmethod
    def _if(test: ast.expr, then: list[ast.stmt], otherwise: list[ast.stmt], place: Place) -> ast.If:
        if not then and otherwise:
            return emit.if_(ast.UnaryOp(ast.Not(), test, **place), otherwise, [], place)
        return emit.if_(test, then, otherwise, place)

    def _inlined(self, block: nodes.Node) -> tuple[list[ast.stmt], ast.expr, bool]:
        """A block's statements, its value, and whether the statements do anything."""
        assert isinstance(block, nodes.Block)
        outer_out, outer_effects = self.out, self.effects
        self.scope, self.out = Scope(self.scope, self.scope.function), []
        value = self.body(block.body.statements, self.places.of(block.span))
        result = self.out, value, bool(self.out)
        assert self.scope.outer is not None
        self.scope, self.out, self.effects = self.scope.outer, outer_out, outer_effects
        return result

    def _effects_of(self, block: nodes.Node, bind: tuple[str, ast.expr] | None = None) -> list[ast.stmt]:
        """A block's statements, its value dropped. `bind` gives its parameter a value first."""
        assert isinstance(block, nodes.Block)
        outer_out, outer_effects = self.out, self.effects
        self.scope, self.out = Scope(self.scope, self.scope.function), []
        if bind is not None:
            place = self.places.of(block.span)
            self.out.append(emit.assign(self.scope.declare(bind[0]), bind[1], place))
        for node in block.body.statements:
            self.statement(node)
        statements = self.out
        assert self.scope.outer is not None
        self.scope, self.out, self.effects = self.scope.outer, outer_out, outer_effects
        return statements

    def _branches(
        self, test: ast.expr, sides: tuple[bool, ...], blocks: Sequence[nodes.Node], default: ast.expr, place: Place
    ) -> ast.expr:
        """`test` chooses between the values of blocks; a side without a block has the default value."""
        parts: dict[bool, tuple[list[ast.stmt], ast.expr, bool]] = {True: ([], default, False), False: ([], default, False)}
        for side, block in zip(sides, blocks, strict=True):
            parts[side] = self._inlined(block)
        (then, then_value, then_acts), (other, other_value, other_acts) = parts[True], parts[False]
        if not then_acts and not other_acts:
            return ast.IfExp(test, then_value, other_value, **place)
        name = self.scope.function.fresh_temporary()
        then.append(emit.assign(name, then_value, place))
        other.append(emit.assign(name, other_value, place))
        self.add(emit.if_(test, then, other, place))
        return emit.load(name, place)

    def _junction(self, node: nodes.Send, is_and: bool, place: Place) -> ast.expr:
        test = self._truth(node.receiver, place)
        fixed = emit.constant(not is_and, place)
        return self._branches(test, (is_and,), node.arguments, fixed, place)

    # --- nil tests ------------------------------------------------------------------------------------------------

    @staticmethod
    def _are_nil_branches(node: nodes.Send) -> bool:
        return all(
            _is_block(block) or (not on_nil and _is_block(block, 1))
            for on_nil, block in zip(_NIL_TESTS[node.selector], node.arguments, strict=True)
        )

    def _nil_test(self, node: nodes.Send, place: Place) -> ast.expr:
        receiver = self.keep(self.expression(node.receiver), place)
        parts: dict[bool, tuple[list[ast.stmt], ast.expr]] = {True: ([], emit.constant(None, place)), False: ([], receiver)}
        for on_nil, block in zip(_NIL_TESTS[node.selector], node.arguments, strict=True):
            assert isinstance(block, nodes.Block)
            if block.parameters:
                outer = self.scope
                self.scope = Scope(outer, outer.function)
                local = self.scope.declare(block.parameters[0])
                statements, value, _ = self._inlined(block)
                self.scope = outer
                statements.insert(0, emit.assign(local, receiver, place))
            else:
                statements, value, _ = self._inlined(block)
            parts[on_nil] = statements, value
        (then, then_value), (other, other_value) = parts[True], parts[False]
        name = self.scope.function.fresh_temporary()
        then.append(emit.assign(name, then_value, place))
        other.append(emit.assign(name, other_value, place))
        self.add(emit.if_(emit.is_(receiver, None, place), then, other, place))
        return emit.load(name, place)

    # --- loops ----------------------------------------------------------------------------------------------------

    _loop_value: ast.expr

    def _loop(self, node: nodes.Send, place: Place) -> bool:
        """Emit a loop and store its value in `_loop_value`. Return False if the message is not a loop with literal blocks."""
        value: ast.expr = emit.constant(None, place)
        match node:
            case nodes.Send(nodes.Block() as test, "whileTrue:" | "whileFalse:", (nodes.Block() as block,)) if (
                not test.parameters and not block.parameters
            ):
                self._while(test, block, _WHILES[node.selector], place)
            case nodes.Send(nodes.Block() as test, "whileTrue" | "whileFalse", ()) if not test.parameters:
                self._while(test, None, _WHILES[node.selector], place)
            case nodes.Send(nodes.Block() as block, "repeat", ()) if not block.parameters:
                body = [self.check(place), *self._turn(block, None)]
                self.add(ast.While(emit.constant(True, place), body, [], **place))
            case nodes.Send(_, "to:do:", (stop, nodes.Block() as block)) if len(block.parameters) == 1:
                value = self._count((node.receiver, stop), block, place)
            case nodes.Send(_, "to:by:do:", (stop, step, nodes.Block() as block)) if len(block.parameters) == 1:
                value = self._count((node.receiver, stop, step), block, place)
            case nodes.Send(_, "timesRepeat:", (nodes.Block() as block,)) if not block.parameters:
                value = count = self.keep(self.expression(node.receiver), place)
                turns = emit.call("g_times", [count], place)
                target = emit.store(self.scope.function.fresh_temporary(), place)
                self.add(ast.For(target, turns, [self.check(place), *self._turn(block, None)], [], **place))
            case _:
                return False
        self._loop_value = value
        return True

    def _while(self, test: nodes.Block, block: nodes.Block | None, wanted: bool, place: Place) -> None:
        outer_out, outer_effects = self.out, self.effects
        self.scope, self.out = Scope(self.scope, self.scope.function), [self.check(place)]
        if self._needs_own_variables(test):
            condition: ast.expr = emit.call(self.nested_function(test), [], place)
            condition = self._truth_of(condition, place)
        else:
            statements = test.body.statements
            for node in statements[:-1]:
                self.statement(node)
            last = statements[-1] if statements else nodes.Variable("nil", span=test.span)
            condition = self._truth(last, place)
        if wanted:
            condition = ast.UnaryOp(ast.Not(), condition, **place)
        self.out.append(emit.if_(condition, [ast.Break(**place)], [], place))
        body = self.out
        assert self.scope.outer is not None
        self.scope, self.out, self.effects = self.scope.outer, outer_out, outer_effects
        if block is not None:
            body += self._turn(block, None)
        self.add(ast.While(emit.constant(True, place), body, [], **place))

    @staticmethod
    def _truth_of(value: ast.expr, place: Place) -> ast.expr:
        return emit.call("g_boolean", [value], place)

    def _count(self, parts: Sequence[nodes.Node], block: nodes.Block, place: Place) -> ast.expr:
        values = self.operands(parts)
        first = self.keep(values[0], place)
        steps = emit.call("g_steps", [first, *values[1:]], place)
        name = self.scope.function.fresh_temporary()
        body = [self.check(place), *self._turn(block, emit.load(name, place))]
        self.add(ast.For(emit.store(name, place), steps, body, [], **place))
        return first

    def _turn(self, block: nodes.Block, value: ast.expr | None) -> list[ast.stmt]:
        """The statements of one iteration of a loop, with `value` for the block's parameter."""
        place = self.places.of(block.span)
        if self._needs_own_variables(block):
            outer_out, outer_effects = self.out, self.effects
            self.out = []
            name = self.nested_function(block)
            arguments = [] if value is None else [value]
            self.out.append(ast.Expr(emit.call(name, arguments, place), **place))
            statements = self.out
            self.out, self.effects = outer_out, outer_effects
            return statements
        return self._effects_of(block, None if value is None else (block.parameters[0], value))

    @staticmethod
    def _needs_own_variables(block: nodes.Block) -> bool:
        """Whether a closure in a loop's body uses a name that the body declares outside that closure."""
        closures, names = closures_and_names(block)
        return any(names & (mentioned_in(closure) - set(closure.parameters)) for closure in closures)


def flattened(node: nodes.Node) -> list[nodes.Block]:
    """The literal blocks of a message that become part of the function around them."""
    if not isinstance(node, nodes.Send) or node.selector not in INLINED:
        return []
    parts = [part for part in (node.receiver, *node.arguments) if isinstance(part, nodes.Block)]
    selector = node.selector
    if selector in _NIL_TESTS:
        return parts if ControlFlow._are_nil_branches(node) else []
    if selector in ("to:do:", "to:by:do:"):
        return parts if len(parts) == 1 and parts[0] is node.arguments[-1] and len(parts[0].parameters) == 1 else []
    return parts if all(not part.parameters for part in parts) else []


def closures_and_names(block: nodes.Block) -> tuple[list[nodes.Block], set[str]]:
    """The outermost closures in a block that is to be flattened, and the names that the rest of it declares."""
    closures: list[nodes.Block] = []
    names = set(block.parameters)
    pending: list[nodes.Node] = [block.body]
    while pending:
        here = pending.pop()
        if isinstance(here, nodes.Temporaries):
            names.update(here.names)
        inner = flattened(here)
        for child in children(here):
            if not isinstance(child, nodes.Block):
                pending.append(child)
            elif any(child is part for part in inner):
                names.update(child.parameters)
                pending.append(child.body)
            else:
                closures.append(child)
    return closures, names
