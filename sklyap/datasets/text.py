"""Text as a next-character prediction task."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from sklearn.datasets import fetch_file, get_data_home
from sklearn.utils import Bunch

from sklyap.validation import check_dense, check_int, check_shares

__all__ = ["decode", "encode", "fetch_war_and_peace", "load_text"]

_SPLITS = ("train", "valid", "test")
_GUTENBERG = "https://www.gutenberg.org/cache/epub/2600/pg2600.txt"
# The first and the last words of the novel, in every edition of this translation.
_OPENING = r"""["“]Well, Prince, so Genoa and Lucca"""
_CLOSING = r"""dependence\s+of\s+which\s+we\s+are\s+not\s+conscious\."""


def load_text(
    path: str | os.PathLike[str],
    *,
    n_steps: int = 100,
    splits: Sequence[float] = (0.8, 0.1, 0.1),
    vocabulary: Iterable[str] | None = None,
    n_characters: int | None = None,
    encoding: str = "utf-8",
) -> Bunch:
    r"""Load a text file as sequences of character tokens and their next characters.

    The text is cut into three contiguous parts, and each part into sequences that follow one another.
    ``y[i, t]`` is the character after ``X[i, t]``. No character of one part, target or input,
    occurs in another.

    Parameters
    ----------
    path : path-like
        A text file.
    n_steps : int, default=100
        Length of the sequences.
    splits : sequence of 3 floats, default=(0.8, 0.1, 0.1)
        Shares of the training, validation and test part; they sum to 1, and a share may be 0.
    vocabulary : str or iterable of characters, optional
        The characters in the order of their tokens; by default those of the text, sorted.
    n_characters : int, optional
        Read only the first `n_characters` of the text.
    encoding : str, default="utf-8"
        Encoding of the file. A byte-order mark is skipped and line ends are read as ``"\n"``.

    Returns
    -------
    data : Bunch
        ``X_train``, ``y_train``, ``X_valid``, ``y_valid``, ``X_test``, ``y_test``, each int64
        (n_sequences, n_steps); ``vocabulary``, a str whose index is the token; ``n_tokens``;
        ``encode(text)`` -> tokens and ``decode(tokens)`` -> text; ``n_characters``; ``sha256``
        of the file; ``DESCR``.

    Raises
    ------
    OSError
        If there is no such file.
    ValueError
        If the file is not text in this encoding, a part is too short for one sequence, the shares do
        not sum to 1, or a character is not in `vocabulary`.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from sklyap.datasets import load_text
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "text.txt"
    ...     _ = path.write_text("abracadabra " * 20)
    ...     text = load_text(path, n_steps=11)
    >>> text.vocabulary, text.X_train.shape
    (' abcdr', (17, 11))
    >>> text.decode(text.X_train[0]), text.decode(text.y_train[0])
    ('abracadabra', 'bracadabra ')
    """
    content = Path(path).read_bytes()
    text = _to_text(content, path, encoding)
    return _task(text, content, path, n_steps, splits, vocabulary, n_characters, "load_text")


def fetch_war_and_peace(
    *,
    path: str | os.PathLike[str] | None = None,
    n_steps: int = 100,
    splits: Sequence[float] = (0.8, 0.1, 0.1),
    vocabulary: Iterable[str] | None = None,
    n_characters: int | None = None,
    sha256: str | None = None,
    data_home: str | os.PathLike[str] | None = None,
    download_if_missing: bool = True,
) -> Bunch:
    """Load Tolstoy's *War and Peace* in English as a next-character prediction task.

    Parameters
    ----------
    path : path-like, optional
        A local file of the novel. By default ``war_and_peace.txt`` in `data_home`, downloaded from
        Project Gutenberg (eBook 2600) at the first call; its checksum is then recorded beside it and
        verified at every later call.
    n_steps, splits, vocabulary, n_characters
        As in :func:`load_text`. What precedes the first chapter and follows the last sentence
        (licence, table of contents) is left out.
    sha256 : str, optional
        The checksum that the file must have. Project Gutenberg revises its files, and editions differ
        in their typography: the plain one that is common in the literature, 3,202,320 bytes and 82
        characters, has ``eaecfcb30408e2bc35ffe69b297127e3a6ca75548c033df4d2e703b5ff711f8d``.
    data_home : path-like, optional
        Cache of downloads; by default scikit-learn's, :func:`sklearn.datasets.get_data_home`.
    download_if_missing : bool, default=True
        If False, raise OSError rather than download.

    Returns
    -------
    data : Bunch
        As in :func:`load_text`.

    Raises
    ------
    OSError
        If the file is missing and cannot be downloaded (the message says which file to put where).
    ValueError
        If the file is truncated, another text, or does not have the expected checksum.

    Examples
    --------
    >>> from sklyap.datasets import fetch_war_and_peace
    >>> text = fetch_war_and_peace(path="war_and_peace.txt")  # doctest: +SKIP
    """
    if path is None:
        path = _download(Path(get_data_home(data_home)), download_if_missing)
        sha256 = sha256 or _recorded_checksum(path)
    content = Path(path).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if sha256 is not None and digest != sha256:
        raise ValueError(f"{path} must have the SHA-256 {sha256}. Got {digest} instead; remove it to fetch it anew.")
    text = _novel(_to_text(content, path, "utf-8"), path)
    return _task(text, content, path, n_steps, splits, vocabulary, n_characters, "fetch_war_and_peace")


def encode(text: str, vocabulary: str) -> np.ndarray:
    """Return the tokens (n_characters,) int64 of `text`: the index of every character in `vocabulary`.

    Raises
    ------
    ValueError
        If a character is not in `vocabulary`.

    Examples
    --------
    >>> from sklyap.datasets import encode
    >>> encode("cab", "abc")
    array([2, 0, 1])
    """
    # Code points index a table: one pass in C instead of a dictionary lookup per character.
    points = _code_points(text)
    known = _code_points(vocabulary)
    table = np.full(max(int(points.max(initial=0)), int(known.max(initial=0))) + 1, -1, dtype=np.int64)
    table[known] = np.arange(len(known))
    tokens = table[points]
    if (tokens < 0).any():
        where = int((tokens < 0).argmax())
        raise ValueError(f"The character {text[where]!r} at position {where} is not in the vocabulary.")
    return tokens


def decode(tokens: np.ndarray, vocabulary: str) -> str:
    """Return the text of `tokens` (n_characters,).

    Examples
    --------
    >>> from sklyap.datasets import decode
    >>> decode([2, 0, 1], "abc")
    'cab'
    """
    if not isinstance(vocabulary, str):
        raise TypeError(f"The 'vocabulary' parameter must be a string. Got {vocabulary!r} instead.")
    array = np.asarray(check_dense(tokens, "tokens"))
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"The 'tokens' parameter must hold integers. Got dtype {array.dtype} instead.")
    if array.size and not 0 <= array.min() <= array.max() < len(vocabulary):
        wrong = array[(array < 0) | (array >= len(vocabulary))].flat[0]
        raise ValueError(
            f"The 'tokens' parameter must hold tokens of the vocabulary, 0 to {len(vocabulary) - 1}. Got {wrong}."
        )
    return "".join(vocabulary[token] for token in np.asarray(tokens).ravel().tolist())


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def _to_text(content: bytes, path: str | os.PathLike[str], encoding: str) -> str:
    try:
        text = content.decode("utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not {encoding} text: {error}") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _task(
    text: str,
    content: bytes,
    path: str | os.PathLike[str],
    n_steps: int,
    splits: Sequence[float],
    vocabulary: Iterable[str] | None,
    n_characters: int | None,
    caller: str,
) -> Bunch:
    check_int(n_steps, "n_steps", low=1, caller=caller)
    shares = check_shares(splits, "splits", caller=caller)
    if n_characters is not None:
        check_int(n_characters, "n_characters", low=1, high=len(text), caller=caller)
        text = text[:n_characters]
    vocabulary = "".join(sorted(set(text)) if vocabulary is None else vocabulary)
    if len(set(vocabulary)) != len(vocabulary):
        raise ValueError(f"The 'vocabulary' parameter of {caller} must not repeat a character. Got {vocabulary!r}.")
    tokens = encode(text, vocabulary)
    bounds = np.rint(np.cumsum([0.0, *shares]) * len(tokens)).astype(int)
    data = Bunch(vocabulary=vocabulary, n_tokens=len(vocabulary), n_characters=len(tokens))
    for name, share, start, stop in zip(_SPLITS, shares, bounds[:-1], bounds[1:], strict=True):
        n_sequences = max(0, (stop - start - 1) // n_steps)
        if share > 0 and n_sequences == 0:
            raise ValueError(
                f"The {name} part of {path} has {stop - start} characters, too few for one sequence of "
                f"n_steps={n_steps} and its next character; shorten n_steps or change splits."
            )
        used = tokens[start : start + n_sequences * n_steps + 1]
        data[f"X_{name}"] = used[:-1].reshape(n_sequences, n_steps).copy()
        data[f"y_{name}"] = used[1:].reshape(n_sequences, n_steps).copy()
    data.encode = partial(encode, vocabulary=vocabulary)
    data.decode = partial(decode, vocabulary=vocabulary)
    data.sha256 = hashlib.sha256(content).hexdigest()
    data.DESCR = f"Next-character prediction on {Path(path).name}: {len(tokens)} characters, {len(vocabulary)} kinds."
    return data


def _novel(text: str, path: str | os.PathLike[str]) -> str:
    """Cut the novel out of the file, from ``CHAPTER I`` to the last sentence."""
    opening, closings = re.search(_OPENING, text), list(re.finditer(_CLOSING, text))
    if opening is None:
        raise ValueError(f"{path} is not an English text of War and Peace: its first sentence is not there.")
    if not closings or closings[-1].end() < opening.start():
        raise ValueError(f"{path} is truncated: the last sentence of War and Peace is not there.")
    heading = text.rfind("CHAPTER I", 0, opening.start())
    return text[heading if heading >= 0 else opening.start() : closings[-1].end()]


def _download(home: Path, download_if_missing: bool) -> Path:
    path = home / "war_and_peace.txt"
    if path.is_file():
        return path
    advice = f"put a text file of the novel at {path}, or pass `path`."
    if not download_if_missing:
        raise FileNotFoundError(f"There is no {path} and download_if_missing=False; {advice}")
    try:
        return Path(fetch_file(_GUTENBERG, folder=home, local_filename=path.name))
    except OSError as error:
        raise OSError(f"War and Peace could not be downloaded from {_GUTENBERG} ({error}); {advice}") from error


def _recorded_checksum(path: Path) -> str:
    """Return the checksum recorded beside a cached file; record it once the file has proved whole."""
    record = path.with_suffix(".sha256")
    if not record.is_file():
        content = path.read_bytes()
        _novel(_to_text(content, path, "utf-8"), path)
        record.write_text(hashlib.sha256(content).hexdigest() + "\n", encoding="ascii")
    return record.read_text(encoding="ascii").strip()
