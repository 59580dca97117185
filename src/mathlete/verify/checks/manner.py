"""How a check goes about it, read off its syntax: does it test an answer, or work one out and compare?

Pure. A check that works out an answer is another attempt at the problem, and worth about as much: it is right when the
model is right. One that puts an answer to the conditions fails in other ways than a solution does. The manner is a
reading of the syntax, not a proof: it is told beside the verdict, so that who weighs evidence can weigh manners apart.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Literal

from mathlete.verify.checks.check_program import CheckKind

Manner = Literal["tested", "resolved", "stated"]
"""The conditions are put to an answer, or to cases; an answer is worked out and compared; or stated without working."""

_Use = Literal["tested", "resolved", "stated", "guarded"]

# Calls that leave an integer what it is; an answer inside one is still the bare answer.
_WRAPPERS = frozenset({"int", "float", "abs", "Abs", "round", "Integer", "Rational", "S", "sympify", "simplify", "str"})
_LARGEST_TOLERANCE = 1e-3
_WORKS_THROUGH_CASES = (ast.For, ast.While, ast.comprehension, ast.Call)


def manner_of(function: ast.FunctionDef, kind: CheckKind) -> Manner:
    """The manner of a check's function, as `check_program.parse_check` found it.

    For a solver an equation between the answer and a variable is a condition like any other: always "tested".
    """
    if kind == "smt":
        return "tested"
    if kind == "enumeration":
        works = any(isinstance(node, _WORKS_THROUGH_CASES) for node in ast.walk(function))
        return "tested" if works else "stated"
    uses = set(_uses(function))
    if "tested" in uses:
        return "tested"
    return "resolved" if "resolved" in uses else "stated" if "stated" in uses else "tested"


def _uses(function: ast.FunctionDef) -> Iterator[_Use]:
    """What each mention of the answer is for."""
    parents = {child: node for node in ast.walk(function) for child in ast.iter_child_nodes(node)}
    assigned = dict(_assignments(function))
    names = {[*function.args.posonlyargs, *function.args.args][0].arg}
    names |= {name for name, values in assigned.items() if all(_is_bare(value, names) for value in values)}
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and node.id in names and isinstance(node.ctx, ast.Load):
            use = _use(node, parents, assigned)
            if use is not None:
                yield use


def _assignments(function: ast.FunctionDef) -> Iterator[tuple[str, list[ast.expr]]]:
    """Each local name that is only ever assigned alone, with all values."""
    values: dict[str, list[ast.expr]] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            values.setdefault(node.targets[0].id, []).append(node.value)
    changed = {
        node.target.id
        for node in ast.walk(function)
        if isinstance(node, (ast.AugAssign, ast.For, ast.comprehension)) and isinstance(node.target, ast.Name)
    }
    yield from ((name, found) for name, found in values.items() if name not in changed)


def _is_bare(value: ast.expr, names: set[str]) -> bool:
    """Whether it is the answer itself, maybe in a wrapper."""
    while isinstance(value, ast.Call) and _called(value) in _WRAPPERS and len(value.args) == 1:
        value = value.args[0]
    return isinstance(value, ast.Name) and value.id in names


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _use(node: ast.expr, parents: Mapping[ast.AST, ast.AST], assigned: Mapping[str, list[ast.expr]]) -> _Use | None:
    """None for one that only gives the answer another name."""
    difference: ast.expr | None = None  # what the answer was taken from, or what was taken from it
    while True:
        parent = parents.get(node)
        if isinstance(parent, ast.Call) and node in parent.args:
            if _called(parent) == "isinstance":
                return "guarded"
            if _called(parent) == "Eq" and len(parent.args) == 2:
                return _by(parent.args[1 - parent.args.index(node)], assigned)
            if _called(parent) not in _WRAPPERS:
                return "tested"
        elif isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.Sub) and difference is None:
            difference = parent.right if parent.left is node else parent.left
        elif isinstance(parent, ast.Compare) and len(parent.ops) == 1:
            return _comparison(parent, node, difference, assigned)
        elif isinstance(parent, ast.Assign) and difference is None:
            return None
        else:
            return "tested"
        assert isinstance(parent, ast.expr)
        node = parent


def _comparison(
    compare: ast.Compare, node: ast.expr, difference: ast.expr | None, assigned: Mapping[str, list[ast.expr]]
) -> _Use:
    other = compare.comparators[0] if compare.left is node else compare.left
    if difference is not None:
        bound = other.value if isinstance(other, ast.Constant) else None
        is_small = isinstance(bound, int | float) and abs(bound) <= _LARGEST_TOLERANCE
        return _by(difference, assigned) if is_small else "tested"
    if isinstance(compare.ops[0], ast.Eq | ast.NotEq | ast.In | ast.NotIn | ast.Is):
        return _by(other, assigned)
    return "guarded" if isinstance(other, ast.Constant) else "tested"


def _by(other: ast.expr, assigned: Mapping[str, list[ast.expr]]) -> _Use:
    """What an answer is compared with: something worked out, or a number that was there from the start."""
    if isinstance(other, ast.Name) and other.id in assigned:
        values = assigned[other.id]
    else:
        values = [other]
    parts = [
        part
        for value in values
        for part in (value.elts if isinstance(value, ast.List | ast.Set | ast.Tuple) else [value])
    ]
    return "stated" if all(isinstance(part, ast.Constant) for part in parts) else "resolved"
