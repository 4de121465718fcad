"""Hashes of values: what computes something else has another, what computes the same has the same anywhere."""

import enum
import functools
import importlib
import logging
import operator
import subprocess
import sys
import textwrap
import threading
import types
import weakref
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

from sklyap.cells import FunctionCell, LSTMCell, ModuleCell
from sklyap.spectrum.digest import Digest, UnknownValueError
from sklyap.spectrum.fingerprint import fingerprint, structure
from sklyap.testing.assertions import pickled

GAIN = 1.0
LOGGER = logging.getLogger("some")


class Step:
    """A callable object with a gain, a tensor and a class attribute."""

    leak = 0.5
    __slots__ = ("gain", "weights")

    def __init__(self, gain=1.0):
        self.gain = gain
        self.weights = torch.arange(4.0)

    def __call__(self, s, x):
        return self.leak * s * self.gain + self.weights.sum()

    def method(self, s, x):
        return self(s, x)

    @staticmethod
    def plain(s, x):
        return s

    @property
    def size(self):
        return 2 * self.gain


@dataclass(frozen=True)
class Settings:
    rate: float
    kind: str = "a"


class Kind(enum.Enum):
    ONE = 1
    TWO = 2


class Number(int):
    pass


def use_global(s, x):
    return GAIN * s


def logged(s, x):
    LOGGER.debug("step")
    return s


@functools.lru_cache
def doubled(n):
    return 2 * n


def of(value):
    return Digest().of(value)


def closure(value):
    return lambda s, x: value


SAME_KIND_OTHER_VALUE = [
    (1, 2),
    (1, 1.0),
    (1, True),
    (0.0, -0.0),
    ("a", b"a"),
    ((1, 2), [1, 2]),
    ((1, (2, 3)), ((1, 2), 3)),
    ({"a": 1}, {"a": 2}),
    ({1, 2}, frozenset({1, 2})),
    (np.arange(3), np.arange(3.0)),
    (np.zeros((2, 3)), np.zeros((3, 2))),
    (np.float64(1), np.float32(1)),
    (torch.ones(2), torch.ones(2, dtype=torch.float64)),
    (torch.ones(2, 1), torch.ones(1, 2)),
    (torch.tensor([1j]), torch.tensor([-1j])),
    (torch.ones(2, dtype=torch.bfloat16), torch.zeros(2, dtype=torch.bfloat16)),
    (torch.tanh, torch.relu),
    (np.tanh, np.sin),
    (nn.functional.relu, nn.functional.gelu),
    (Step(1.0), Step(2.0)),
    (Step(1.0).method, Step(2.0).method),
    (Step(1.0).method, Step(1.0).__call__),
    (functools.partial(Step.plain, 1), functools.partial(Step.plain, 2)),
    (functools.partial(Step.plain, x=1), functools.partial(Step.plain, x=2)),
    (functools.partial(Step(1.0)), functools.partial(Step(2.0))),
    (Settings(1.0), Settings(2.0)),
    (Settings(1.0), replace(Settings(1.0), kind="b")),
    (Kind.ONE, Kind.TWO),
    (Number(1), Number(2)),
    (Number(1), 1),
    (operator.itemgetter(0), operator.itemgetter(1)),
    (lambda s: 2 * s, lambda s: 3 * s),
    (lambda s, r=1: s, lambda s, r=2: s),
    (lambda s, *, r=1: s, lambda s, *, r=2: s),
    (lambda s: s.sin(), lambda s: s.cos()),
    (lambda s: s if s in {1, 2} else 0, lambda s: s if s in {1, 3} else 0),
    (closure(1), closure(2)),
    (closure(closure(1)), closure(closure(2))),
    (closure(Step(1.0)), closure(Step(2.0))),
    (nn.Linear(1, 1), nn.Linear(1, 2)),
    (nn.Dropout(0.1), nn.Dropout(0.2)),
    (nn.Sequential(nn.Tanh()), nn.Sequential(nn.ReLU())),
    (torch.compile(closure(1)), torch.compile(closure(2))),
    (weakref.ref(Kind), weakref.ref(Settings)),
]


@pytest.mark.parametrize("index", range(len(SAME_KIND_OTHER_VALUE)))
def test_other_values_have_other_hashes(index):
    one, other = SAME_KIND_OTHER_VALUE[index]
    assert of(one) == of(one) != of(other)
    assert of([one, other]) != of([other, one])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Step(1.0),
        lambda: Step(1.0).method,
        lambda: functools.partial(Step(1.0), x=torch.ones(3)),
        lambda: {"a": [torch.ones(2), {1, "b"}], "b": (np.arange(3), None)},
        lambda: closure(torch.ones(3)),
        lambda: nn.LSTM(2, 3).requires_grad_(False).apply(lambda m: [nn.init.ones_(p) for p in m.parameters()]),
        lambda: Settings(1.0),
        lambda: doubled,
        lambda: logged,
    ],
)
def test_equal_values_have_equal_hashes(make):
    assert of(make()) == of(make())


def test_what_changes_changes_the_hash(monkeypatch):
    step, function = Step(), use_global
    before = of(step), of(function), of(functools.partial(step)), of(step.method), of(FunctionCell)
    for change in (
        lambda: monkeypatch.setattr(Step, "__call__", lambda self, s, x: s),
        lambda: monkeypatch.setattr(Step, "leak", 0.25),
        lambda: monkeypatch.setattr(Step, "size", property(lambda self: 3)),
        lambda: monkeypatch.setattr(Step, "added", 1, raising=False),
        lambda: monkeypatch.setattr(step, "gain", 3.0),
        lambda: step.weights.add_(1),
    ):
        change()
        after = of(step), of(functools.partial(step)), of(step.method)
        assert {*after}.isdisjoint(before)
        before = (*before, *after)
    monkeypatch.setitem(globals(), "GAIN", 2.0)
    assert of(function) not in before
    function.setting = 1
    with_attribute = of(function)
    del function.setting
    assert with_attribute != of(function)


def test_patches_of_installed_classes_and_functions(monkeypatch):
    def use_torch(s):
        return torch.nn.functional.relu(s)

    before = of(LSTMCell), of(nn.GRUCell(1, 1).forward.__func__), of(use_torch), of(nn.Linear)
    monkeypatch.setattr(LSTMCell, "update", lambda self, s, x, h: s)
    assert of(LSTMCell) != before[0]
    monkeypatch.undo()
    monkeypatch.setattr(LSTMCell, "n_gates", 5)
    assert of(LSTMCell) != before[0]
    monkeypatch.setattr(nn.functional, "relu", lambda s: 0 * s)
    assert of(use_torch) != before[2]
    monkeypatch.setattr(nn.Module, "__call__", lambda self, *args: 0)
    assert of(nn.Linear) != before[3]


def test_modules_of_ones_own_count_with_what_is_used_of_them():
    module = types.ModuleType("own_helpers")
    exec("def rate(s):\n    return 2 * s\n\ndef other(s):\n    return s", vars(module))
    step = types.FunctionType((lambda s, x: helpers.rate(s)).__code__, {"helpers": module})  # noqa: F821
    before = of(step)
    exec("def other(s):\n    return -s", vars(module))
    assert of(step) == before
    exec("def rate(s):\n    return 3 * s", vars(module))
    assert of(step) != before


def test_hooks_count():
    linear = nn.Linear(2, 2)
    before = of(linear)
    handle = linear.register_forward_hook(lambda module, args, output: output / 2)
    hooked = of(linear)
    handle.remove()
    assert hooked != before == of(linear)
    linear.register_forward_pre_hook(lambda module, args: (args[0] / 2,))
    assert of(linear) != before
    cells = [
        ModuleCell(torch.nn.Sequential(nn.Linear(2, 2)), lambda m, s, x: m(s), torch.zeros(1, 2)) for _ in range(2)
    ]
    cells[1].module.load_state_dict(cells[0].module.state_dict())
    assert fingerprint(cells[0]) == fingerprint(cells[1])
    cells[1].module[0].register_forward_hook(lambda module, args, output: output / 2)
    assert structure(cells[0]) != structure(cells[1]) and fingerprint(cells[0]) != fingerprint(cells[1])


def test_cycles_end():
    one, other = [], []
    one.append(one)
    other.append([other])
    assert of(one) == of(one) != of(other)

    def recursive(n):
        return recursive(n - 1) if n else 0

    assert of(recursive) == of(recursive)


@pytest.mark.parametrize(
    "value",
    [
        (i for i in range(3)),
        threading.Lock(),
        np.frompyfunc(lambda a: a, 1, 1),
        torch.ones(2).to_sparse(),
        lambda s, lock=threading.Lock(): s,  # noqa: B008
        torch.jit.script(nn.Linear(1, 1)),
    ],
    ids=lambda v: type(v).__name__,
)
def test_unknown_values_have_none(value):
    with pytest.raises(UnknownValueError, match="a "):
        of(value)
    with pytest.raises(UnknownValueError, match="a "):
        of({"a": [value]})


def test_other_processes_find_the_same(tmp_path, monkeypatch):
    (tmp_path / "own_helpers.py").write_text("import torch\n\ndef squash(s):\n    return torch.tanh(s)\n")
    (tmp_path / "own_steps.py").write_text(
        textwrap.dedent(
            """
            import functools, torch, own_helpers
            from sklyap.cells import FunctionCell
            from sklyap.spectrum.fingerprint import fingerprint

            class Step:
                names = {"a", "b", "c"}
                def __init__(self):
                    self.weights = torch.ones(3)
                    self.options = {"x": {1.5, 2.5}}
                def __call__(self, s, x):
                    return own_helpers.squash(s) * self.weights.to(s)

            print(fingerprint(FunctionCell(functools.partial(Step()), 3)))
            """
        )
    )
    env = {"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join([str(tmp_path), *sys.path])}
    command = [sys.executable, "-c", "import own_steps"]
    there = subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout.strip()
    monkeypatch.syspath_prepend(tmp_path)
    steps, helpers = (importlib.import_module(name) for name in ("own_steps", "own_helpers"))
    cell = FunctionCell(functools.partial(steps.Step()), 3)
    assert fingerprint(cell) == there
    helpers.squash = lambda s: torch.sin(s)
    assert fingerprint(cell) != there


def test_pickles_keep_the_hash():
    class Local(Step):
        def __call__(self, s, x):
            return use_global(s, x) * self.gain

    for value in (
        Step(2.0).method,
        functools.partial(Step(1.0)),
        {"a": torch.ones(2)},
        Local(3.0),
        closure(Local(2.0)),
    ):
        assert of(pickled(value)) == of(value)
