"""What a value is, down to the code that it runs, as a hash that every process finds.

A pickle has only the names of functions and classes, so an edited one would look the same. Here code counts: that of
functions with what they refer to, of classes with what they inherit, and the whole state of objects. What comes from an
installed package counts by its name and by what is installed. Anything else is refused, as a hash that leaves something
out would give one network the spectrum of another.
"""

from __future__ import annotations

import copyreg
import dis
import enum
import functools
import hashlib
import logging
import site
import sys
import types
import weakref
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution, packages_distributions
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["Digest", "UnknownValueError", "module_attributes"]

_PLAIN = (
    type(None), object, bool, int, float, complex, str, bytes, type(...), type(NotImplemented), range, slice,
    torch.dtype, torch.device, torch.Size, torch.layout, torch.memory_format,
)  # fmt: skip
_NOT_COMPUTED_WITH = frozenset(
    """__dict__ __weakref__ __doc__ __module__ __qualname__ __annotations__ __annotate__ __annotate_func__
    __firstlineno__ __static_attributes__ __parameters__ __orig_bases__ __abstractmethods__ _abc_impl
    __dataclass_fields__ __dataclass_params__ __match_args__ __annotations_cache__
    __slotnames__""".split()
)
"""Attributes of classes that no method depends on, or that follow from others."""
_KEPT_OF_MODULES = frozenset({"training", "_parameters", "_buffers", "_modules"})
_NOT_OF_MODULES = frozenset(vars(nn.Module())) - _KEPT_OF_MODULES | {"_flat_weights", "_flat_weight_refs"}
"""Bookkeeping of torch modules; the flat weights of recurrent layers are their parameters once more."""
_READS_FROM_OUTSIDE = frozenset({"open", "input", "eval", "exec", "compile", "globals", "__import__"})
_OUTSIDE = {
    "os": frozenset({"environ", "environb", "getenv", "getenvb", "popen", "getcwd"}),
    "importlib": frozenset({"import_module", "reload"}),
    "time": frozenset({"time", "time_ns", "monotonic", "perf_counter", "process_time"}),
}
"""What depends on more than the code that uses it and what it refers to."""
_HOOKS = ("_forward_pre_hooks", "_forward_hooks")


def module_attributes(module: nn.Module) -> dict[str, Any]:
    """Return what a torch module holds beside weights and submodules, with the hooks that may change its output."""
    held = {name: item for name, item in sorted(vars(module).items()) if name not in _NOT_OF_MODULES | _KEPT_OF_MODULES}
    # Their keys count all hooks of a process.
    return held | {name: list(getattr(module, name).values()) for name in _HOOKS}


class UnknownValueError(TypeError):
    """A value of which nobody can say when two are the same."""


class Digest:
    """Hashes of values; one object for values that refer to one another.

    Examples
    --------
    >>> from sklyap.spectrum.digest import Digest
    >>> Digest().of({"scale": [1, 2.0]}) == Digest().of({"scale": [1, 2.0]}) != Digest().of({"scale": [1, 2]})
    True
    """

    def __init__(self) -> None:
        self._done: dict[int, str] = {}
        self._open: list[int] = []
        self._kept: list[Any] = []  # an id is an object's own as long as it lives

    def of(self, value: Any) -> str:
        """Return the hash of a value.

        Raises
        ------
        UnknownValueError
            Naming the type of what has none.
        """
        if type(value) in _PLAIN or isinstance(value, np.generic | np.dtype):
            return _hashed("plain", type(value).__name__, repr(value))
        key = id(value)
        if key in self._done:
            return self._done[key]
        if key in self._open:
            # How far up the chain of owners a value comes again is the same in every process.
            return _hashed("again", str(len(self._open) - self._open.index(key)))
        self._open.append(key)
        self._kept.append(value)
        try:
            self._done[key] = _hashed(*self._described(value))
        except RecursionError as error:
            raise UnknownValueError(f"a {type(value).__name__} nested too deeply") from error
        finally:
            self._open.pop()
        return self._done[key]

    def _all(self, values: Iterable[Any]) -> Iterator[str]:
        return map(self.of, values)

    def _described(self, value: Any) -> Iterator[str]:
        """Yield parts that tell a value from every other."""
        if isinstance(value, Tensor):
            yield from ("tensor", *_tensor_parts(value), *self._extra(value, Tensor))
        elif isinstance(value, np.ndarray):
            yield from ("array", str(value.dtype), str(value.shape))
            yield from self._all(value.flat) if value.dtype == object else [np.ascontiguousarray(value).tobytes().hex()]
        elif isinstance(value, list | tuple):
            yield from (type(value).__qualname__, str(len(value)), *self._all(value), *self._extra(value, type(value)))
        elif isinstance(value, dict):
            yield from (type(value).__qualname__, *self._items(value), *self._extra(value, type(value)))
        elif isinstance(value, set | frozenset):
            yield from (type(value).__qualname__, *sorted(self._all(value)))
        elif isinstance(value, types.ModuleType):
            yield from self._module(value, frozenset())
        elif isinstance(value, type):
            yield from self._class(value)
        elif isinstance(value, logging.Logger):
            yield from ("logger", value.name)
        else:
            yield from self._callable(value)

    def _items(self, mapping: dict[Any, Any]) -> Iterator[str]:
        for key, item in mapping.items():
            yield self.of(key)
            yield self.of(item)

    def _extra(self, value: Any, kind: type) -> Iterator[str]:
        """Yield the class of a container that is not a plain one, and what it holds beside its contents."""
        if type(value) not in (list, tuple, dict, Tensor, nn.Parameter):
            yield self.of(type(value))
        if not isinstance(value, Tensor) and getattr(value, "__dict__", None):
            yield from self._items(vars(value))

    def _callable(self, value: Any) -> Iterator[str]:
        wrapped = getattr(value, "_torchdynamo_orig_callable", None) or getattr(value, "_orig_mod", None)
        if wrapped is not None:  # what torch.compile returns
            yield from ("compiled", self.of(wrapped))
        elif isinstance(value, types.FunctionType):
            yield from self._function(value)
        elif isinstance(value, types.MethodType):
            yield from ("method", self.of(value.__func__), self.of(value.__self__))
        elif isinstance(value, types.BuiltinFunctionType | types.BuiltinMethodType):
            owner = getattr(value, "__self__", None)
            named = owner is None or isinstance(owner, types.ModuleType | type)
            yield from ("builtin", str(value.__module__), value.__qualname__)
            yield str(getattr(owner, "__name__", None)) if named else self.of(owner)
        elif isinstance(value, functools.partial):
            yield from ("partial", self.of(value.func), self.of(value.args), self.of(value.keywords))
            yield self.of(vars(value))
        elif isinstance(value, staticmethod | classmethod):
            yield from (type(value).__name__, self.of(value.__func__))
        elif isinstance(value, property):
            yield from ("property", *self._all((value.fget, value.fset)))
        elif isinstance(value, functools.cached_property):
            yield from ("property", self.of(value.func))
        elif isinstance(value, functools._lru_cache_wrapper):
            yield from ("cached", self.of(value.__wrapped__))
        elif isinstance(value, types.MemberDescriptorType | types.GetSetDescriptorType | types.WrapperDescriptorType):
            yield from ("slot", value.__objclass__.__name__, value.__name__)
        elif isinstance(value, types.MethodDescriptorType | types.ClassMethodDescriptorType):
            yield from ("descriptor", value.__objclass__.__name__, value.__name__)
        elif isinstance(value, enum.Enum):
            yield from ("member", self.of(type(value)), value.name)
        elif isinstance(value, weakref.ref):
            yield from ("reference", self.of(value()))
        else:
            yield from self._object(value)

    def _function(self, function: types.FunctionType) -> Iterator[str]:
        home = _installed(function.__module__)
        yield from ("function", function.__qualname__)
        if home is not None:
            yield home
            return
        yield from _code(function.__code__)
        yield from self._all((function.__defaults__, function.__kwdefaults__, vars(function)))
        for cell in function.__closure__ or ():
            try:
                content = cell.cell_contents
            except ValueError:  # a name that is not bound yet
                yield "empty"
            else:
                yield self.of(content)
        names, loaded = _names(function.__code__), _globals(function.__code__)
        outside = sorted((loaded - function.__globals__.keys()) & _READS_FROM_OUTSIDE)
        if outside:
            raise UnknownValueError(f"a function that calls {outside[0]}")
        for name in sorted(_imported(function.__code__)):
            if name not in sys.modules:
                raise UnknownValueError(f"a function that imports {name or 'by a relative name'}, not loaded yet")
            yield from self._module(sys.modules[name], names)
        for name in sorted(loaded & function.__globals__.keys()):
            item = function.__globals__[name]
            yield name
            yield from self._module(item, names) if isinstance(item, types.ModuleType) else [self.of(item)]

    def _module(self, module: types.ModuleType, names: frozenset[str]) -> Iterator[str]:
        """Yield parts of a module: of its own members those that code with these `names` can reach."""
        home = _installed(module.__name__)
        outside = sorted(names & _OUTSIDE.get(module.__name__, frozenset()))
        if outside:
            raise UnknownValueError(f"code that uses {module.__name__}.{outside[0]}")
        yield from ("module", module.__name__, home or "")
        members = vars(module)
        for name in sorted(names & members.keys()):
            member = members[name]
            if isinstance(member, types.ModuleType):
                yield from (name, *self._module(member, names - {name}))
            elif home is None or _is_foreign(member):
                yield from (name, self.of(member))

    def _class(self, kind: type) -> Iterator[str]:
        home = _installed(kind.__module__)
        yield from ("class", f"{kind.__module__}.{kind.__qualname__}", home or "")
        members = {name: member for name, member in vars(kind).items() if name not in _NOT_COMPUTED_WITH}
        if home is not None:
            # What was put there from elsewhere, and settings that can be changed.
            for name, member in sorted(members.items()):
                if _is_foreign(member) or (isinstance(member, bool | int | float | str) and not name.startswith("__")):
                    yield from (name, self.of(member))
            yield from self._all(base for base in kind.__bases__ if base is not object)
            return
        yield from self._all(kind.__bases__)
        if type(kind) is not type:
            yield self.of(type(kind))
        for name, member in sorted(members.items()):
            yield name
            yield self.of(member)

    def _object(self, value: Any) -> Iterator[str]:
        """Yield parts of an instance: its class and everything that it holds."""
        kind = type(value)
        yield from ("instance", self.of(kind))
        state = _state(value)
        if state is None:
            yield from self._reduced(value)
            return
        if isinstance(value, nn.Module):
            yield self.of(module_attributes(value))
            state = {name: state[name] for name in _KEPT_OF_MODULES if name in state}
        for name, item in sorted(state.items()):
            yield name
            yield self.of(item)

    def _reduced(self, value: Any) -> Iterator[str]:
        """Yield parts of an object without Python attributes, from how it says that it can be made again."""
        try:
            reduce = copyreg.dispatch_table.get(type(value))
            reduced = value.__reduce_ex__(4) if reduce is None else reduce(value)
        except Exception as error:
            raise UnknownValueError(f"a {type(value).__name__}") from error
        if isinstance(reduced, str):  # a name, which has to lead to the object
            if all(
                getattr(sys.modules.get(home), reduced, None) is not value
                for home in ("numpy", getattr(value, "__module__", ""))
            ):
                raise UnknownValueError(f"a {type(value).__name__}")
            yield reduced
            return
        make, arguments, *rest = reduced
        if arguments == (type(value),) and not any(item is not None for item in rest) and type(value) is not object:
            raise UnknownValueError(f"a {type(value).__name__}")
        for item in (make, arguments, *rest):
            yield self.of(list(item) if isinstance(item, Iterator) else item)


def _hashed(*parts: str) -> str:
    found = hashlib.blake2b(digest_size=20)
    for part in parts:
        data = part.encode()
        found.update(len(data).to_bytes(8, "big") + data)  # no two lists of parts read the same
    return found.hexdigest()


def _tensor_parts(tensor: Tensor) -> tuple[str, str, str]:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        raise UnknownValueError(f"a {'quantized' if tensor.is_quantized else tensor.layout} tensor")
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    data = hashlib.blake2b(plain.reshape(-1).view(torch.uint8).numpy().tobytes(), digest_size=20)
    return str(tensor.dtype), str(tuple(tensor.shape)), data.hexdigest()


def _state(value: Any) -> dict[str, Any] | None:
    """Return all attributes of an object made of Python classes, None for one that holds something else."""
    slots = [
        name
        for kind in type(value).__mro__
        for name, member in vars(kind).items()
        if isinstance(member, types.MemberDescriptorType) and _is_python(kind)
    ]
    if not all(_is_python(kind) for kind in type(value).__mro__ if kind is not object):
        return None
    # What is left is the header, the slots, and pointers to the attributes and to weak references.
    if type(value).__basicsize__ > object.__basicsize__ + 8 * (len(slots) + 2):
        return None
    held = {name: getattr(value, name) for name in slots if hasattr(value, name)}
    return held | dict(getattr(value, "__dict__", {}))


def _is_python(kind: type) -> bool:
    """Tell whether a class comes from a class statement: a heap type that is not immutable."""
    return bool(kind.__flags__ & 1 << 9) and not kind.__flags__ & 1 << 8


def _is_foreign(member: Any) -> bool:
    """Tell whether a member of something installed is code from elsewhere."""
    member = getattr(member, "__func__", None) or getattr(member, "fget", None) or member
    return isinstance(member, types.FunctionType) and _installed(member.__module__) is None


def _code(code: types.CodeType) -> Iterator[str]:
    yield from (code.co_code.hex(), code.co_exceptiontable.hex(), str(code.co_flags), str(code.co_argcount))
    for names in (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars):
        yield from (str(len(names)), *names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _code(constant)
        elif isinstance(constant, frozenset):
            yield from sorted(map(repr, constant))
        else:
            yield repr(constant)


def _globals(code: types.CodeType) -> frozenset[str]:
    """Return the names of globals that code loads."""
    loaded = {str(i.argval) for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return frozenset(loaded).union(*(_globals(c) for c in code.co_consts if isinstance(c, types.CodeType)))


def _imported(code: types.CodeType) -> frozenset[str]:
    """Return the names of modules that code imports as it runs."""
    found = {str(i.argval) for i in dis.get_instructions(code) if i.opname == "IMPORT_NAME"}
    return frozenset(found).union(*(_imported(c) for c in code.co_consts if isinstance(c, types.CodeType)))


def _names(code: types.CodeType) -> frozenset[str]:
    """Return the names that code may look up, those it only has as strings included."""
    names = {*code.co_names, *(c for c in code.co_consts if isinstance(c, str))}
    return frozenset(names).union(*(_names(c) for c in code.co_consts if isinstance(c, types.CodeType)))


@functools.cache
def _installed(module: str | None) -> str | None:
    """Return which installed package a module belongs to, with its contents; None for code of one's own."""
    top = (module or "").partition(".")[0]
    if top in sys.stdlib_module_names and top not in ("__main__", "this"):
        return f"python {sys.version_info[0]}.{sys.version_info[1]}"
    if top == "sklyap":
        return top  # its version is part of every key
    where = getattr(sys.modules.get(top), "__file__", None)
    if where is None:
        return None
    for name in _distributions(top):
        record = _record(distribution(name), top, Path(where))
        if record is not None:
            return f"{name} {hashlib.blake2b(record.encode(), digest_size=20).hexdigest()}"
    return None


def _record(found: Distribution, top: str, where: Path) -> str | None:
    """Return what tells the contents of an installed package `top` at `where`; None for code of one's own.

    An editable installation has its list of files elsewhere than its code, and the code is not in it. The environment
    may be another one that this one has on its path. Packages of a Linux distribution have no list of files.
    """
    home = Path(str(found.locate_file("")))
    if home.name not in ("site-packages", "dist-packages") or not where.is_relative_to(home):
        return None
    record = found.read_text("RECORD")
    if record is not None:
        return record if f"{top}/" in record else None
    return found.read_text("PKG-INFO") if str(home) in site.getsitepackages() else None


def _distributions(top: str) -> list[str]:
    try:
        return [distribution(top).name]
    except PackageNotFoundError:  # a package of another name than what is installed
        return sorted(set(_all_distributions().get(top, ())))


_all_distributions = functools.cache(packages_distributions)
