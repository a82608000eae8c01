"""Finds ReLU-like activations in an ANN, as modules and as functions that its code calls.

`spikify` replaces both. Functions are searched for in the source; see `shortback.spiking.functions` for those that it
can replace.
"""

from __future__ import annotations

import ast
import functools
import inspect
import logging
import os
import re
import sys
import types
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from torch import nn

from shortback.errors import UserError
from shortback.spiking.static_input import trace

log = logging.getLogger("shortback")

_ACTIVATIONS = frozenset(
    """relu relu6 leakyrelu prelu rrelu elu celu selu gelu gelutanh quickgelu
    silu swish mish hardswish hswish hardmish softplus""".split()  # noqa: SIM905
)
CALLS_MODULES = "_calls_modules"  # attribute of methods that call modules where their source has activations
_GATES = frozenset({"sigmoid", "hardsigmoid", "hsigmoid"})  # often built on ReLU6, but not activations to replace


def _common_name(function: Any) -> str:
    """Return the normalised name of a class or function: `HardSwishMe`, `hard_swish_` -> `hardswish`."""
    return _spelled(getattr(function, "__name__", ""))


def _spelled(name: str) -> str:
    name = name.replace("_", "").lower()
    for suffix in ("me", "jit", "activation"):
        name = name.removesuffix(suffix)
    return name


def is_activation(module: nn.Module) -> bool:
    return any(_common_name(cls) in _ACTIVATIONS for cls in type(module).__mro__)


def is_gate(module: nn.Module) -> bool:
    return _common_name(type(module)) in _GATES


def activation_function(value: Any) -> str | None:
    """Return the name of an activation that is a function, such as `F.relu`; None for anything else."""
    function = _unwrap(value)
    is_function = callable(function) and not isinstance(function, type | nn.Module)
    return str(function.__name__) if is_function and _common_name(function) in _ACTIVATIONS else None


@dataclass(frozen=True, eq=False)
class FunctionalActivation:
    """A place in the source where an activation is used as a function.

    Attributes:
        owner: the module of which `function` is a method; None if it is not a method of a module.
        function: the function in whose source the activation is.
        name: the name of the activation, such as `relu`.
        call: the call of the activation, in the syntax tree of its file; None if it is not called here.
        place: `file:line: source`.
    """

    owner: nn.Module | None
    function: types.FunctionType
    name: str
    call: ast.Call | None
    place: str


def refuse_traced_functions(
    network: nn.Module, *, neurons: Collection[nn.Module], in_place: Collection[nn.Module] = ()
) -> None:
    """Raise ValueError if a symbolic trace meets an activation function that reading the source did not find.

    Also if the output of a neuron that replaced an activation `in_place` is not used: only its input was changed.

    Networks that cannot be traced pass, and so do the computations of the neurons themselves.
    """
    gates = tuple({type(module) for module in network.modules() if is_gate(module)})
    try:
        names = {name for name, module in network.named_modules(remove_duplicate=False) if module in neurons}
        _, graph = trace(network, leaves=gates, names=names, keeps_lines=True)
    except Exception:  # a symbolic trace runs the network's own code, which may raise anything
        return
    for node in graph.nodes:
        if node.op == "call_module" and not node.users and network.get_submodule(node.target) in in_place:
            raise UserError(
                f"spikify() cannot replace {node.target}, whose result {type(network).__name__} does not use, as it "
                "changes its input in place: use the result, x = self.act(x)"
            )
        called = activation_function(node.target) if node.op == "call_function" else None
        if called or (node.op == "call_method" and node.target in ("relu", "relu_")):
            frames = re.findall(r'File "(.*)", line (\d+), in (.*)', node.stack_trace or "")
            own = [frame for frame in frames if f"{os.sep}torch{os.sep}" not in frame[0]]
            if own and not any(_spelled(function) in _GATES for *_, function in own):
                raise UserError(
                    f"spikify() cannot replace {called or node.target}, which {type(network).__name__} calls as a "
                    f"function, {own[-1][0]}:{own[-1][1]}. Make it a module in __init__, self.act = nn.ReLU(), and "
                    "call that: x = self.act(x)"
                )


def activation_lookalikes(network: nn.Module, *, neurons: Collection[nn.Module]) -> list[str]:
    """List the leaf modules that are named like activations, but are neither known activations nor in neurons."""
    put_in = {module for neuron in neurons for module in neuron.modules()}
    return [
        f"{name} ({type(module).__name__})"
        for name, module in network.named_modules()
        if module not in put_in
        and not any(module.children())
        and not is_activation(module)
        and any(part in type(module).__name__.lower() for part in ("relu", "gelu", "swish", "silu", "mish"))
    ]


def functional_activations(module: nn.Module) -> list[FunctionalActivation]:
    """List where `forward`, or a function that it refers to, uses an activation as a function."""
    found: list[FunctionalActivation] = []
    pending: list[Any] = [_attribute(module, "forward")]
    seen: set[tuple[int, types.FunctionType]] = set()
    while pending:
        target = pending.pop()
        owner, function = getattr(target, "__self__", None), _unwrap(getattr(target, "__func__", target))
        if not isinstance(function, types.FunctionType) or hasattr(function, CALLS_MODULES):
            continue
        if (id(owner), function) in seen:
            continue
        seen.add((id(owner), function))
        for value in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            if default := activation_function(value):
                place = f"{_file(function)}:{function.__code__.co_firstlineno}"
                place = f"{place}: {default} as a default of {function.__qualname__}"
                found.append(FunctionalActivation(None, function, default, None, place))
        try:
            lines, _ = inspect.findsource(function)
        except OSError:
            log.warning(
                "no source of %s: activations called as functions there are not replaced", function.__qualname__
            )
            continue
        expressions = _expressions("".join(lines), function.__code__.co_firstlineno)
        calls = {node.func: node for node in expressions if isinstance(node, ast.Call)}
        for node in expressions:
            target = _resolve(node, owner, function)
            if _is_functional(node, target):
                call = node if isinstance(node, ast.Call) else calls.get(node)
                place = f"{_file(function)}:{node.lineno}: {lines[node.lineno - 1].strip()}"
                name = getattr(target, "__name__", "relu")  # that of a tensor's method is not known
                found.append(FunctionalActivation(owner, function, name, call, place))
            elif isinstance(target, types.MethodType) or _is_helper(target):
                pending.append(target)
    return found


def _file(function: types.FunctionType) -> str:
    return function.__code__.co_filename


def _is_functional(node: ast.expr, target: Any) -> bool:
    """Return whether an expression uses an activation as a function: `F.relu`, `nn.ReLU()(x)`, `x.relu()`."""
    match node:
        case ast.Call(func=ast.Attribute(attr="relu" | "relu_"), args=[], keywords=[]):
            return True
        case ast.Call(func=ast.Call()):
            return isinstance(target, type) and _common_name(target) in _ACTIVATIONS
        case ast.Name() | ast.Attribute():
            is_class_or_method = isinstance(target, type | types.MethodType | nn.Module)
            return callable(target) and not is_class_or_method and _common_name(target) in _ACTIVATIONS
    return False


def _is_helper(target: Any) -> bool:
    """Return whether a target is a function worth reading: not of torch, not of Python's library, and not a gate."""
    if not isinstance(target, types.FunctionType) or _common_name(target) in _GATES:
        return False
    return (target.__module__ or "").partition(".")[0] not in {"torch", *sys.stdlib_module_names}


def _resolve(node: ast.AST, owner: nn.Module | None, function: types.FunctionType) -> Any:
    """Return the object that an expression in a method of `owner` refers to; None if only running it would tell."""
    code = function.__code__
    closure = dict(zip(code.co_freevars, function.__closure__ or (), strict=True))
    match node:
        case ast.Name(id=name) if name in closure:
            return closure[name].cell_contents
        case ast.Name(id=name) if name in code.co_varnames or name in code.co_cellvars:
            return owner if name in code.co_varnames[:1] else None
        case ast.Name(id=name):
            return _unwrap(function.__globals__.get(name))
        case ast.Attribute(value=value, attr=name):
            return _attribute(_resolve(value, owner, function), name)
        case ast.Call(func=ast.Name(id="super")) if "__class__" in closure:
            return super(closure["__class__"].cell_contents, owner)
        case ast.Call(func=ast.Call(func=made)):
            return _resolve(made, owner, function)
    return None


def _attribute(base: Any, name: str) -> Any:
    """Return `base.name` without running properties; methods come bound, functions stored in an instance do not."""
    if isinstance(base, types.ModuleType | type | super):
        return _unwrap(getattr(base, name, None))
    if not isinstance(base, nn.Module):
        return None
    if name in base._modules:
        return base._modules[name]
    value = inspect.getattr_static(base, name, None)
    is_method = isinstance(value, types.FunctionType) and name not in vars(base)
    return types.MethodType(value, base) if is_method else _unwrap(value)


def _unwrap(value: Any) -> Any:
    """Return the function within a `partial`, a `staticmethod` or a decorator that sets `__wrapped__`."""
    while isinstance(value, functools.partial):
        value = value.func
    if isinstance(value, staticmethod | classmethod):
        value = value.__func__
    return inspect.unwrap(value) if isinstance(value, types.FunctionType) else value


@functools.lru_cache(maxsize=256)
def _expressions(source: str, first_line: int) -> list[ast.expr]:
    """Return the expressions in the body of the function that starts at a line of the source."""
    found: list[ast.expr] = []
    for node in ast.walk(_parse(source)):
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            decorators = node.decorator_list if isinstance(node, ast.FunctionDef) else []
            if first_line == min([node.lineno, *(d.lineno for d in decorators)]):
                body = node.body if isinstance(node.body, list) else [node.body]
                found += [part for root in body for part in ast.walk(root) if isinstance(part, ast.expr)]
    return found


_parse = functools.lru_cache(maxsize=32)(ast.parse)
