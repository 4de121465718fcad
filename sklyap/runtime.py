"""What a process shares: threads, random state, forward-mode differentiation, and how denormal numbers are treated.

torch's global random generator, the levels of its forward-mode differentiation and its number of threads belong to
the process. Two threads that change them at once get other numbers, or leave them changed, without a word. Here they
take turns, and what was there before comes back, also after an exception or Ctrl-C.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = [
    "float32_by_default",
    "flushed_denormals",
    "is_unwarned",
    "isolated_rng",
    "kept_rng",
    "lent_turn",
    "one_thread",
    "outside_inference_mode",
    "pushforward",
    "seed_generators",
    "trainable",
    "transformed",
    "undrawn",
    "unwarned",
    "watch_parent",
]


Function = TypeVar("Function", bound=Callable[..., Any])


class _Turn:
    """A lock that one thread holds any number of times, and may lend to all others while it waits for them."""

    def __init__(self) -> None:
        self._condition = threading.Condition(threading.Lock())
        self._owner: int | None = None
        self._depth = 0

    def __enter__(self) -> None:
        me = threading.get_ident()
        with self._condition:
            while self._owner not in (None, me):
                self._condition.wait()
            self._owner = me
            self._depth += 1

    def __exit__(self, *exception: Any) -> None:
        with self._condition:
            self._depth -= 1
            if not self._depth:
                self._owner = None
                self._condition.notify()

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Let other threads have the turn, if it is this one's, and take it back."""
        me = threading.get_ident()
        with self._condition:
            depth = self._depth if self._owner == me else 0
            if depth:
                self._owner, self._depth = None, 0
                self._condition.notify()
        try:
            yield
        finally:
            if depth:
                with self._condition:
                    while self._owner is not None:
                        self._condition.wait()
                    self._owner, self._depth = me, depth


_turn = _Turn()
# Held for one derivative and nothing else, by threads that may work for one that has the turn.
_forward_mode = threading.RLock()


def _renew_locks() -> None:
    """Forget who held what: of the threads of a process that forks, the child has one."""
    global _turn, _forward_mode, _pins
    _turn, _forward_mode, _pins = _Turn(), threading.RLock(), _Pins()


@contextmanager
def lent_turn() -> Iterator[None]:
    """While this thread waits for threads of its own, let them draw random numbers.

    Around every call of joblib: a callback in the middle of a training may analyse networks in threads.
    """
    with _turn.lent():
        yield


class _Pins:
    """Who has torch pinned to one thread, and how many there were before.

    ``torch.set_num_threads`` is a setting of the calling thread and the one that threads get which begin later.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held = 0
        self._before = 0
        self._own = threading.local()

    def take(self) -> None:
        with self._lock:
            here = torch.get_num_threads()
            if not self._held:
                self._before = here
            if not getattr(self._own, "depth", 0):
                # A thread that begins while others are pinned starts with their one.
                new = not hasattr(self._own, "known")
                self._own.known = self._before if new and here == 1 and self._held else here
                self._own.depth = 0
            self._own.depth += 1
            self._held += 1
            torch.set_num_threads(1)

    def give(self) -> None:
        with self._lock:
            self._held -= 1
            self._own.depth -= 1
            if not self._own.depth:
                torch.set_num_threads(self._own.known)


_pins = _Pins()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)


@contextmanager
def one_thread() -> Iterator[None]:
    """Pin torch to one thread: the same bits whatever `n_jobs`, and no oversubscription."""
    pins = _pins
    pins.take()
    try:
        yield
    finally:
        pins.give()


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Flush denormal numbers to zero, which contracting networks fill their basis with and CPUs are slow on."""
    tiny = torch.tensor([torch.finfo(torch.float64).tiny], dtype=torch.float64)
    before = bool((tiny / 4 == 0).item())
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


@contextmanager
def kept_rng(device: torch.device | str = "cpu") -> Iterator[None]:
    """Let no other thread of sklyap draw, and leave torch's global generators as they are."""
    devices = range(torch.cuda.device_count()) if torch.device(device).type == "cuda" else []
    with _turn, torch.random.fork_rng(devices=devices):
        yield


@contextmanager
def isolated_rng(device: torch.device, seed: int) -> Iterator[None]:
    """Draw from generators seeded with `seed`; torch's global ones come out as they went in."""
    with kept_rng(device):
        seed_generators(device, seed)
        yield


def seed_generators(device: torch.device, seed: int) -> None:
    """Seed torch's global generator, and the device's."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(seed)


def pushforward(function: Callable[..., Any], primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
    """Return the derivative of `function` at `primals` along `tangents`, by forward mode, one thread at a time."""
    with _forward_mode:
        return torch.func.jvp(function, primals, tangents)[1]


@contextmanager
def trainable() -> Iterator[None]:
    """Record gradients, also where the caller has switched them off, and draw and build in float32."""
    with torch.inference_mode(False), torch.enable_grad(), float32_by_default():
        yield


def outside_inference_mode(function: Function) -> Function:
    """Make a function work under ``torch.inference_mode`` too, whose tensors no derivative can be taken of."""

    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with torch.inference_mode(False):
            return function(*args, **kwargs)

    return cast(Function, wrapped)


class _Undrawn(TorchFunctionMode):
    """Leaves tensors as they are that are to be filled with random numbers."""

    _draws = (
        Tensor.uniform_, Tensor.normal_, Tensor.random_, Tensor.bernoulli_, Tensor.exponential_, Tensor.cauchy_,
        Tensor.log_normal_, Tensor.geometric_,
        # These of nn.init are intercepted as a whole, and call the above where no mode sees it.
        nn.init.uniform_, nn.init.normal_, nn.init.kaiming_uniform_,
    )  # fmt: skip

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in self._draws:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def undrawn() -> Any:
    """Return a context in which modules are built without drawing their weights, of this thread alone."""
    return _Undrawn()


class _Float32(TorchFunctionMode):
    """Makes float32 of what would get the default dtype."""

    _factories = (
        torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.eye, torch.linspace, torch.logspace,
        torch.normal, torch.empty_strided, torch.full, torch.tensor, torch.arange,
    )  # fmt: skip
    _by_value = (torch.full, torch.tensor, torch.arange)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in self._factories or kwargs.get("dtype") is not None or kwargs.get("out") is not None:
            return func(*args, **kwargs)
        if func in self._by_value or func is torch.normal:
            result = func(*args, **kwargs)
            takes_dtype = any(hasattr(value, "dtype") for value in args)
            return result.float() if result.is_floating_point() and not takes_dtype else result
        return func(*args, **{**kwargs, "dtype": torch.float32})


@contextmanager
def float32_by_default() -> Iterator[None]:
    """Build in float32 whatever ``torch.set_default_dtype`` says; of this thread alone."""
    if torch.get_default_dtype() == torch.float32:
        yield
        return
    with _Float32():
        yield


_quiet = threading.local()


@contextmanager
def unwarned() -> Iterator[None]:
    """Issue no warnings about single results in this thread: who computes many sums them up.

    ``warnings.catch_warnings`` is no way to do so, as it changes and restores the filters of the whole process.
    """
    before = is_unwarned()
    _quiet.on = True
    try:
        yield
    finally:
        _quiet.on = before


def is_unwarned() -> bool:
    """Tell whether warnings about single results are wanted by nobody in this thread."""
    return getattr(_quiet, "on", False)


_watched = False


def watch_parent(every: float = 1.0) -> None:
    """In a worker process of joblib, end this process within seconds of the death of the one that started it.

    A worker waits minutes for tasks from a caller that was killed, with all its memory.
    """
    global _watched
    import multiprocessing

    parent = multiprocessing.parent_process()
    if _watched or parent is None or parent.pid is None:
        return
    _watched = True
    threading.Thread(target=_watch, args=(parent.pid, every), name="sklyap-watch-parent", daemon=True).start()


def _watch(parent: int, every: float) -> None:
    # A process whose parent dies gets another. It may have got it before this thread began; and a server of
    # forks stands between some processes and the one that they belong to.
    first = os.getppid()
    while os.getppid() == first and (first == parent or _exists(parent)):
        time.sleep(every)
    os._exit(1)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True


def transformed() -> bool:
    """Tell whether a transform of `torch.func` (vmap, grad) is at work: values cannot be looked at then."""
    return bool(torch._C._are_functorch_transforms_active())
