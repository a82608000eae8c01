"""Puts modules in the place of the activations that a network calls as functions, so that `spikify` finds them.

A method such as `forward(self, x): return F.relu(self.conv(x))` is compiled again from its source, with the call
replaced by that of a module, `self.relu(self.conv(x))`. All else in it stays: branches, loops and the numbers of lines.
"""

from __future__ import annotations
import __future__

import ast
import functools
import inspect
import types
from collections.abc import Collection, Iterator
from typing import Any, TypeAlias, cast

from torch import nn

from shortback.errors import UserError
from shortback.spiking.activations import (
    CALLS_MODULES,
    FunctionalActivation,
    functional_activations,
    is_activation,
    is_gate,
)

_Position: TypeAlias = tuple[int, int, int, int]  # of a call in the source: first line and column, last line and column
_Plan: TypeAlias = tuple[tuple[str, _Position, str], ...]  # a method, a call in it, the module to call instead
_WITH_WEIGHTS = ("prelu",)  # functions whose parameters a neuron would leave without a gradient
_CHANGED = "the source of {} has changed since spikify() read it"


def functions_to_modules(network: nn.Module, *, keep: Collection[nn.Module] = ()) -> None:
    """Replace activations that methods of the network's modules call as functions by modules, `nn.ReLU`, in place.

    Each call becomes that of a module of its own, registered with the module that makes the call, which gets a class
    derived from its own. Modules in `keep` stay as they are.

    Raises:
        ValueError: an activation is called where no module can be put: in a function or a lambda, in a method that is
            decorated, replaced on the instance or called by `super()`; or it is passed on as an argument, or has
            weights. The message names every place.
    """
    calls: dict[nn.Module, dict[tuple[str, _Position], FunctionalActivation]] = {}
    refused: dict[str, dict[str, None]] = {}
    for name, module in network.named_modules():
        if is_activation(module) or is_gate(module) or module in keep:
            continue
        for found in functional_activations(module):
            if found.owner is not None and found.call is not None and _is_replaceable(found, found.owner, found.call):
                calls.setdefault(found.owner, {})[found.function.__name__, _position(found.call)] = found
            else:
                refused.setdefault(found.place, {})[f"{name or 'the network'} ({type(module).__name__})"] = None
    if refused:
        message = [f"spikify() cannot replace the activations that {type(network).__name__} calls as functions:"]
        for place, (first, *others) in refused.items():
            message.append(f"  {first}{f' and {len(others)} more' if others else ''}, {place}")
        message.append("Make each a module in __init__, self.act = nn.ReLU(), and call that: x = self.act(x)")
        raise UserError("\n".join(message))
    for module, of_module in calls.items():
        plan: list[tuple[str, _Position, str]] = []
        for (method, position), found in sorted(of_module.items(), key=_as_evaluated):
            attribute = _free_name(module, found.name)
            module.register_module(attribute, nn.ReLU(inplace=_is_in_place(found)).train(module.training))
            plan.append((method, position, attribute))
        module.__class__ = _derived_class(type(module), tuple(plan))


def _is_replaceable(found: FunctionalActivation, owner: nn.Module, call: ast.Call) -> bool:
    name, code = found.function.__name__, found.function.__code__
    is_its_method = name not in vars(owner) and inspect.getattr_static(type(owner), name, None) is found.function
    if not is_its_method or not code.co_argcount or found.name.strip("_") in _WITH_WEIGHTS:
        return False
    argument = _argument(call)
    is_module = isinstance(argument, ast.Name) and argument.id == code.co_varnames[0]  # self.relu() is no tensor's
    return argument is not None and not is_module


def _argument(call: ast.Call) -> ast.expr | None:
    """Return what an activation is called on: the tensor of `x.relu()`, or the first argument of other calls."""
    arguments = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "input")]
    if arguments:
        return None if isinstance(arguments[0], ast.Starred) else arguments[0]
    return call.func.value if isinstance(call.func, ast.Attribute) and not call.keywords else None


def _is_in_place(found: FunctionalActivation) -> bool:
    """Return whether a call may change its input; if so, its result has to be used, see `refuse_traced_functions`."""
    assert found.call is not None
    options = [keyword.value for keyword in found.call.keywords if keyword.arg == "inplace"] or found.call.args[1:]
    said = any(not (isinstance(option, ast.Constant) and not option.value) for option in options)
    called = found.call.func
    return said or found.name.endswith("_") or (isinstance(called, ast.Attribute) and called.attr.endswith("_"))


def _free_name(module: nn.Module, function: str) -> str:
    name = function.strip("_").lower()
    taken = (f"{name}_{number}" if number else name for number in range(10**6))
    return next(candidate for candidate in taken if not hasattr(module, candidate))


def _as_evaluated(item: tuple[tuple[str, _Position], Any]) -> Any:
    """Sort calls by where they end: those in the arguments of another come first."""
    (method, position), _ = item
    return method, position[2:], position


def _position(call: ast.Call) -> _Position:
    return call.lineno, call.col_offset, call.end_lineno or 0, call.end_col_offset or 0


@functools.cache
def _derived_class(base: type[nn.Module], plan: _Plan) -> type[nn.Module]:
    """Make a class like `base`, whose methods call modules; modules of one class and plan get the same class."""
    methods: dict[str, Any] = {
        method: _compile_again(
            inspect.getattr_static(base, method), {position: name for of, position, name in plan if of == method}
        )
        for method in dict.fromkeys(method for method, *_ in plan)
    }

    def reduce(module: nn.Module) -> tuple[Any, ...]:
        return _rebuild, (base, plan), module.__getstate__()

    names = {"__module__": base.__module__, "__qualname__": base.__qualname__, "__doc__": base.__doc__}
    return type(base.__name__, (base,), {**names, **methods, "__reduce__": reduce})


def _rebuild(base: type[nn.Module], plan: _Plan) -> nn.Module:
    """Make an instance of a derived class without its state, to copy or unpickle a module."""
    derived = _derived_class(base, plan)
    return derived.__new__(derived)


def _compile_again(function: types.FunctionType, modules: dict[_Position, str]) -> types.FunctionType:
    """Compile a method from its source, with calls at some positions replaced by those of modules, by name."""
    lines, _ = inspect.findsource(function)
    again = _definition(ast.parse("".join(lines)), function)
    again.decorator_list, again.args.defaults = [], []
    again.args.kw_defaults = [None] * len(again.args.kwonlyargs)
    replacing = _Replacing(function.__code__.co_varnames[0], modules)
    replacing.generic_visit(again)
    if replacing.num_replaced != len(modules):
        raise UserError(_CHANGED.format(function.__qualname__))
    # Within a function that binds its free variables, in a class, by whose name private attributes are spelled.
    owner = function.__qualname__.rpartition(".")[0].rpartition(".")[2] or "Owner"
    free = ", ".join(name for name in function.__code__.co_freevars if name != "__class__")
    module = ast.parse(f"class {owner}:\n    def binding({free}): pass")
    cast(Any, module).body[0].body[0].body = [again]
    flags = function.__code__.co_flags & __future__.annotations.compiler_flag
    compiled = compile(
        ast.fix_missing_locations(module), function.__code__.co_filename, "exec", flags=flags, dont_inherit=True
    )
    code = next(code for code in _codes(compiled) if code.co_name == again.name)
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    closure = tuple(cells[name] for name in code.co_freevars)
    made = types.FunctionType(code, function.__globals__, function.__name__, function.__defaults__, closure)
    made.__kwdefaults__ = function.__kwdefaults__
    made.__annotations__ = function.__annotations__
    made.__qualname__, made.__doc__ = function.__qualname__, function.__doc__
    made.__dict__.update(function.__dict__, **{CALLS_MODULES: True})
    return made


class _Replacing(ast.NodeTransformer):
    def __init__(self, me: str, modules: dict[_Position, str]) -> None:
        self._me, self._modules = me, modules
        self.num_replaced = 0

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        name = self._modules.get(_position(node))
        argument = _argument(node)
        if name is None or argument is None:
            return node
        self.num_replaced += 1
        called = ast.Attribute(value=ast.Name(id=self._me, ctx=ast.Load()), attr=name, ctx=ast.Load())
        return ast.copy_location(ast.Call(func=called, args=[argument], keywords=[]), node)


def _definition(tree: ast.AST, function: types.FunctionType) -> ast.FunctionDef:
    """Find the definition of a function in its file, by its name and first line, which may be a decorator's."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == function.__name__:
            lines = [node.lineno, *(decorator.lineno for decorator in node.decorator_list)]
            if min(lines) == function.__code__.co_firstlineno:
                return node
    raise UserError(_CHANGED.format(function.__qualname__))


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield constant
            yield from _codes(constant)
