"""Tasks that ask a network to remember, at any length, each with the loss of a network that remembers nothing.

On these tasks the loss stays on that plateau for many epochs and then falls, or never does: what a network can
learn depends on how long its dynamics keep a trace of the input.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from sklyap.validation import check_int, check_real, check_seed

__all__ = ["make_adding", "make_copy", "make_delayed_copy", "make_delayed_xor", "make_recall"]


def make_recall(
    n_sequences: int = 1000, *, n_steps: int = 30, n_symbols: int = 4, noise: float = 0.1, random_state: Any = None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Make sequences whose class is the symbol that was shown at the first step, amid noise.

    Parameters
    ----------
    n_sequences : int, default=1000
        How many sequences.
    n_steps : int, default=30
        Steps of a sequence; the symbol has to be kept for ``n_steps - 1`` of them.
    n_symbols : int, default=4
        Number K of symbols, which is that of inputs per step.
    noise : float, default=0.1
        Standard deviation of the Gaussian noise on every input at every step.
    random_state : int, RandomState instance or None, default=None
        Seeds what is random; the same seed gives the same numbers.

    Returns
    -------
    X : ndarray of shape (n_sequences, n_steps, n_symbols), float32
        Noise, plus one at the symbol's input at the first step.
    y : ndarray of shape (n_sequences,), int64
        The symbol, from 0 to K - 1, each with probability 1/K.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not as documented.

    Notes
    -----
    Without memory the cross entropy is at best ln K nats (1.386 for K = 4) and the accuracy 1/K.

    Examples
    --------
    >>> from sklyap.datasets import make_recall
    >>> X, y = make_recall(100, n_steps=20, noise=0, random_state=0)
    >>> X.shape, X.dtype, y.dtype
    ((100, 20, 4), dtype('float32'), dtype('int64'))
    >>> bool((X[:, 0].argmax(1) == y).all())
    True
    """
    caller = "make_recall"
    check_int(n_sequences, "n_sequences", low=1, caller=caller)
    check_int(n_steps, "n_steps", low=1, caller=caller)
    check_int(n_symbols, "n_symbols", low=2, caller=caller)
    check_real(noise, "noise", low=0.0, caller=caller)
    rng = check_random_state(check_seed(random_state))
    y = rng.randint(n_symbols, size=n_sequences)
    X = noise * rng.standard_normal((n_sequences, n_steps, n_symbols))
    X[np.arange(n_sequences), 0, y] += 1
    return X.astype(np.float32), y.astype(np.int64)


def make_copy(
    n_sequences: int = 1000, *, delay: int = 20, length: int = 10, n_symbols: int = 8, random_state: Any = None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Make sequences of symbols that have to be repeated after a delay.

    A sequence is `length` symbols, ``delay - 1`` blanks, a marker, and `length` more blanks. The target is blank up
    to the marker, and then the symbols in their order.

    Parameters
    ----------
    n_sequences : int, default=1000
        How many sequences.
    delay : int, default=20
        Steps between the last symbol and the first that has to be repeated, the marker among them.
    length : int, default=10
        Symbols to repeat.
    n_symbols : int, default=8
        Number K of symbols.
    random_state : int, RandomState instance or None, default=None
        Seeds what is random; the same seed gives the same numbers.

    Returns
    -------
    X : ndarray of shape (n_sequences, 2 * length + delay, n_symbols + 2), float32
        One-hot rows: the blank, the K symbols, the marker.
    y : ndarray of shape (n_sequences, 2 * length + delay), int64
        A class at every step, for ``readout="all"``: 0 is the blank, 1 to K the symbols.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not as documented.

    Notes
    -----
    Without memory of the symbols the mean cross entropy is at best ``length ln K / (2 length + delay)`` nats per step.

    References
    ----------
    S. Hochreiter and J. Schmidhuber (1997), Neural Computation 9, 1735; M. Arjovsky, A. Shah and Y. Bengio (2016),
    ICML, section 5.1.

    Examples
    --------
    >>> from sklyap.datasets import make_copy
    >>> X, y = make_copy(1, delay=3, length=2, random_state=0)
    >>> X.argmax(-1).tolist(), y.tolist()
    ([[5, 8, 0, 0, 9, 0, 0]], [[0, 0, 0, 0, 0, 5, 8]])
    """
    caller = "make_copy"
    check_int(n_sequences, "n_sequences", low=1, caller=caller)
    check_int(delay, "delay", low=1, caller=caller)
    check_int(length, "length", low=1, caller=caller)
    check_int(n_symbols, "n_symbols", low=2, caller=caller)
    symbols = 1 + check_random_state(check_seed(random_state)).randint(n_symbols, size=(n_sequences, length))
    shown = np.zeros((n_sequences, 2 * length + delay), dtype=np.int64)
    y = np.zeros_like(shown)
    shown[:, :length] = symbols
    shown[:, length + delay - 1] = n_symbols + 1
    y[:, -length:] = symbols
    return np.eye(n_symbols + 2, dtype=np.float32)[shown], y


def make_adding(
    n_sequences: int = 1000, *, n_steps: int = 50, random_state: Any = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Make sequences of numbers of which two are marked; the target is the sum of these two.

    Parameters
    ----------
    n_sequences : int, default=1000
        How many sequences.
    n_steps : int, default=50
        Steps of a sequence, at least 2. One marker is in the first half of the steps, one in the second.
    random_state : int, RandomState instance or None, default=None
        Seeds what is random; the same seed gives the same numbers.

    Returns
    -------
    X : ndarray of shape (n_sequences, n_steps, 2), float32
        A number from U(0, 1), and the marker: one at two steps, zero elsewhere.
    y : ndarray of shape (n_sequences,), float32
        The sum of the two marked numbers.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not as documented.

    Notes
    -----
    Without memory the mean squared error is at best the variance of the sum, 1/6.

    References
    ----------
    S. Hochreiter and J. Schmidhuber (1997), Neural Computation 9, 1735; in this form Q. V. Le, N. Jaitly and
    G. E. Hinton (2015), arXiv 1504.00941.

    Examples
    --------
    >>> from sklyap.datasets import make_adding
    >>> X, y = make_adding(5, n_steps=40, random_state=0)
    >>> X[..., 1].sum(1).tolist()
    [2.0, 2.0, 2.0, 2.0, 2.0]
    >>> bool(abs((X[..., 0] * X[..., 1]).sum(1) - y).max() < 1e-6)
    True
    """
    caller = "make_adding"
    check_int(n_sequences, "n_sequences", low=1, caller=caller)
    check_int(n_steps, "n_steps", low=2, caller=caller)
    rng = check_random_state(check_seed(random_state))
    values = rng.uniform(size=(n_sequences, n_steps))
    rows, half = np.arange(n_sequences), n_steps // 2
    first = rng.randint(half, size=n_sequences)
    second = rng.randint(half, n_steps, size=n_sequences)
    marks = np.zeros_like(values)
    marks[rows, first] = marks[rows, second] = 1
    X = np.stack([values, marks], axis=-1).astype(np.float32)
    return X, X[rows, first, 0] + X[rows, second, 0]


def make_delayed_copy(
    n_sequences: int = 1000, *, n_steps: int = 55, delay: int = 10, random_state: Any = None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Make streams of bits; the target at every step is the bit of `delay` steps ago.

    Parameters
    ----------
    n_sequences : int, default=1000
        How many sequences.
    n_steps : int, default=55
        Their length.
    delay : int, default=10
        Less than `n_steps`.
    random_state : int, RandomState instance or None, default=None
        Seeds what is random; the same seed gives the same numbers.

    Returns
    -------
    X : ndarray of shape (n_sequences, n_steps, 1), float32
        Independent bits, 0 or 1 with equal probability.
    y : ndarray of shape (n_sequences, n_steps), int64
        The bit of `delay` steps ago, for ``readout="all"``; 0 in the first `delay` steps.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not as documented.

    Notes
    -----
    Without memory the mean cross entropy is at best ``(1 - delay / n_steps) ln 2`` nats per step, of a network that
    knows the time; in the steps from `delay` on it is ln 2.

    References
    ----------
    R. Engelken (2023), Gradient flossing, NeurIPS.

    Examples
    --------
    >>> from sklyap.datasets import make_delayed_copy
    >>> X, y = make_delayed_copy(3, n_steps=8, delay=2, random_state=0)
    >>> bool((y[:, 2:] == X[:, :-2, 0]).all())
    True
    """
    bits = _bits(n_sequences, n_steps, delay, 0, random_state, "make_delayed_copy")
    return bits[..., np.newaxis].astype(np.float32), _delayed(bits, delay)


def make_delayed_xor(
    n_sequences: int = 1000, *, n_steps: int = 55, delay: int = 10, random_state: Any = None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Make streams of bits; the target at every step is whether two bits of the past differ.

    These are the bit of `delay` steps ago and that of ``delay // 2`` steps ago; bits before the first step are 0.

    Parameters
    ----------
    n_sequences : int, default=1000
        How many sequences.
    n_steps : int, default=55
        Their length.
    delay : int, default=10
        From 1 to ``n_steps - 1``.
    random_state : int, RandomState instance or None, default=None
        Seeds what is random; the same seed gives the same numbers.

    Returns
    -------
    X : ndarray of shape (n_sequences, n_steps, 1), float32
        Independent bits, 0 or 1 with equal probability.
    y : ndarray of shape (n_sequences, n_steps), int64
        One where the two bits differ, zero where they are equal, for ``readout="all"``.

    Raises
    ------
    TypeError, ValueError
        If a parameter is not as documented.

    Notes
    -----
    Without memory of the older bit the mean cross entropy over the steps from `delay` on is ln 2, also for a network
    that knows the younger one. Over all steps, a network that knows the time and nothing else has at best
    ``(1 - (delay // 2) / n_steps) ln 2`` nats per step.

    References
    ----------
    R. Engelken (2023), Gradient flossing, NeurIPS.

    Examples
    --------
    >>> from sklyap.datasets import make_delayed_xor
    >>> X, y = make_delayed_xor(3, n_steps=9, delay=4, random_state=0)
    >>> bits = X[..., 0].astype(int)
    >>> bool((y[:, 4:] == (bits[:, :-4] ^ bits[:, 2:-2])).all())
    True
    """
    bits = _bits(n_sequences, n_steps, delay, 1, random_state, "make_delayed_xor")
    return bits[..., np.newaxis].astype(np.float32), _delayed(bits, delay) ^ _delayed(bits, delay // 2)


def _bits(n_sequences: int, n_steps: int, delay: int, least: int, random_state: Any, caller: str) -> NDArray[np.int64]:
    check_int(n_sequences, "n_sequences", low=1, caller=caller)
    check_int(n_steps, "n_steps", low=least + 1, caller=caller)
    check_int(delay, "delay", low=least, high=n_steps - 1, caller=caller)
    return check_random_state(check_seed(random_state)).randint(2, size=(n_sequences, n_steps)).astype(np.int64)


def _delayed(bits: NDArray[np.int64], delay: int) -> NDArray[np.int64]:
    """Return `bits` shifted by `delay` steps, zeros first."""
    return np.pad(bits, ((0, 0), (delay, 0)))[:, : bits.shape[1]]
