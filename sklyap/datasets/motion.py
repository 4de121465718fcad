"""Motion capture as a next-frame regression task: AMC files of the CMU database, with or without ASF, and BVH."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

from sklyap.validation import check_int, check_shares

__all__ = ["load_motion"]

_TRANSLATIONS = {"tx", "ty", "tz", "l"}
"""Degrees of freedom of an ASF bone that are lengths; the others are angles."""
_LARGEST_BYTES = 2**28
"""Maximum size of a file that is read: an hour at 120 frames per second has about 2^27 bytes."""
_CONSTANT = 1e-6
"""Standard deviation below which a channel does not move; files have six digits."""


@dataclass(frozen=True)
class _Recording:
    """The frames of one file: values (n_frames, n_channels), in degrees and the file's units of length."""

    frames: np.ndarray
    channels: list[str]
    rotations: np.ndarray  # bool (n_channels,)
    frame_time: float


def load_motion(
    path: str | os.PathLike[str],
    *,
    skeleton: str | os.PathLike[str] | None = None,
    n_steps: int = 50,
    every: int = 4,
    splits: Sequence[float] = (0.8, 0.1, 0.1),
    standardize: bool = True,
) -> Bunch:
    """Load motion capture recordings as sequences of frames and the frames that follow.

    ``y[i, t]`` is the frame after ``X[i, t]``. Each recording is cut into contiguous parts for training, validation
    and testing, and each part into sequences that follow one another. Angles are unwrapped, so that a turn beyond 180
    degrees is no jump. Channels that do not move in the training part are left out.

    Parameters
    ----------
    path : path-like
        An ``.amc`` or ``.bvh`` file, or a folder of such files of one skeleton. The recordings of the CMU motion
        capture database, mocap.cs.cmu.edu, are AMC files. Nothing is downloaded.
    skeleton : path-like, optional
        The ``.asf`` file of AMC files, which names their channels; by default the one file with this ending beside
        them, if there is one. Without it channels are numbered.
    n_steps : int, default=50
        Length of the sequences, in frames.
    every : int, default=4
        Keep one frame in `every`: CMU's files have 120 frames per second.
    splits : sequence of 3 floats, default=(0.8, 0.1, 0.1)
        Shares of the training, validation and test part of each recording; a share may be 0.
    standardize : bool, default=True
        Whether every channel has mean 0 and variance 1 over the training part.

    Returns
    -------
    data : Bunch
        ``X_train``, ``y_train``, ``X_valid``, ``y_valid``, ``X_test``, ``y_test``, each float32
        (n_sequences, n_steps, n_channels); ``channels``, list of str; ``mean`` and ``scale``, float64 (n_channels,);
        ``frame_time``, seconds between kept frames; ``files``, list of str; ``DESCR``.

    Raises
    ------
    OSError
        If there is no such file; the message says which file to put where.
    ValueError
        If a file is empty, truncated, not motion capture, of another skeleton than the first, or too short.

    References
    ----------
    Carnegie Mellon University Graphics Lab. Motion Capture Database, mocap.cs.cmu.edu.

    Examples
    --------
    >>> from sklyap.datasets import load_motion
    >>> motion = load_motion("35_01.amc")  # doctest: +SKIP
    """
    caller = "load_motion"
    check_int(n_steps, "n_steps", low=1, caller=caller)
    check_int(every, "every", low=1, caller=caller)
    shares = check_shares(splits, "splits", caller=caller)
    files = _files(Path(path))
    names = _channel_names(Path(skeleton) if skeleton is not None else _skeleton_beside(files))
    recordings = [_read(file, names) for file in files]
    for file, recording in zip(files, recordings, strict=True):
        if recording.channels != recordings[0].channels:
            raise ValueError(f"{file} has {len(recording.channels)} channels that are not those of {files[0]}.")
        if recording.frame_time != recordings[0].frame_time:
            raise ValueError(
                f"{file} has a frame every {recording.frame_time:.6g} s, {files[0]} one every "
                f"{recordings[0].frame_time:.6g} s; read them by themselves, each with its own `every`."
            )
    parts: dict[str, list[np.ndarray]] = {"train": [], "valid": [], "test": []}
    for file, recording in zip(files, recordings, strict=True):
        frames = recording.frames[::every]
        bounds = np.rint(np.cumsum([0.0, *shares]) * len(frames)).astype(int)
        for part, start, stop in zip(parts.values(), bounds[:-1], bounds[1:], strict=True):
            part.append(frames[start:stop])
        if shares[0] > 0 and bounds[1] <= n_steps:
            raise ValueError(
                f"The training part of {file} has {bounds[1]} frames, too few for one sequence of n_steps={n_steps} "
                "and the frame after it; shorten n_steps, lower every or change splits."
            )
    known = np.concatenate(parts["train"]) if shares[0] > 0 else recordings[0].frames
    moving = known.std(0) > _CONSTANT
    if not moving.any():
        raise ValueError(f"{path} has no channel that moves.")
    mean, scale = known[:, moving].mean(0), known[:, moving].std(0)
    if not standardize:
        mean, scale = np.zeros_like(mean), np.ones_like(scale)
    data = Bunch(
        channels=[name for name, kept in zip(recordings[0].channels, moving, strict=True) if kept],
        mean=mean,
        scale=scale,
        frame_time=recordings[0].frame_time * every,
        files=[str(file) for file in files],
    )
    for (name, stretches), share in zip(parts.items(), shares, strict=True):
        data[f"X_{name}"], data[f"y_{name}"] = _cut([(s[:, moving] - mean) / scale for s in stretches], n_steps)
        if share > 0 and not len(data[f"X_{name}"]):
            raise ValueError(
                f"The {name} part of {path} has {max(map(len, stretches))} frames, too few for one sequence of "
                f"n_steps={n_steps} and the frame after it; shorten n_steps, lower every or change splits."
            )
    data.DESCR = (
        f"Next-frame regression on {len(files)} recording(s), {len(data.channels)} channels that move, "
        f"{data.frame_time:.4g} s a step."
    )
    return data


def _cut(stretches: list[np.ndarray], n_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return sequences of `n_steps` frames and the frames that follow, none across two stretches."""
    X, y = [], []
    for frames in stretches:
        used = max(0, (len(frames) - 1) // n_steps) * n_steps
        shape = (-1, n_steps, frames.shape[1])
        X.append(frames[:used].reshape(shape))
        y.append(frames[1 : used + 1].reshape(shape) if used else frames[:0].reshape(shape))
    return np.concatenate(X).astype(np.float32), np.concatenate(y).astype(np.float32)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in (".amc", ".bvh"))
        if not files:
            raise FileNotFoundError(f"There is no .amc or .bvh file in {path}; put recordings there.")
        return files
    if not path.exists():
        raise FileNotFoundError(
            f"There is no {path}; put an .amc or .bvh file there (the recordings of mocap.cs.cmu.edu are .amc files)."
        )
    if path.suffix.lower() not in (".amc", ".bvh"):
        raise ValueError(f"{path} must be an .amc or .bvh file. Got the ending {path.suffix!r} instead.")
    return [path]


def _skeleton_beside(files: list[Path]) -> Path | None:
    beside = sorted(file for file in files[0].parent.iterdir() if file.suffix.lower() == ".asf")
    return beside[0] if len(beside) == 1 and files[0].suffix.lower() == ".amc" else None


def _read(path: Path, names: dict[str, list[str]]) -> _Recording:
    recording = _read_amc(path, names) if path.suffix.lower() == ".amc" else _read_bvh(path)
    if not np.isfinite(recording.frames).all():
        frame, channel = np.argwhere(~np.isfinite(recording.frames))[0]
        raise ValueError(f"{path} has a value that is not finite, in frame {frame}, {recording.channels[channel]}.")
    unwrapped = np.unwrap(recording.frames, axis=0, period=360.0)
    return replace(recording, frames=np.where(recording.rotations, unwrapped, recording.frames))


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, words) of the lines that are neither empty nor comments."""
    size = path.stat().st_size
    if size == 0:
        raise ValueError(f"{path} is empty.")
    if size > _LARGEST_BYTES:
        raise ValueError(f"{path} has {size} bytes, more than the {_LARGEST_BYTES} of any recording.")
    try:
        text = path.read_text(encoding="ascii")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not motion capture: it is no plain text.") from error
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#", 1)[0].split()
        if words:
            yield number, words


def _numbers(words: list[str], path: Path, number: int) -> list[float]:
    try:
        return [float(word) for word in words]
    except ValueError as error:
        raise ValueError(f"{path} must have numbers in line {number}. Got {' '.join(words)!r} instead.") from error


def _channel_names(path: Path | None) -> dict[str, list[str]]:
    """Return the degrees of freedom of every bone of an ASF file."""
    if path is None:
        return {}
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}; put the skeleton's .asf file there, or leave skeleton at None.")
    names: dict[str, list[str]] = {}
    section = bone = ""
    for _, words in _lines(path):
        key = words[0].lower()
        if key.startswith(":"):
            section = key
        elif section == ":root" and key == "order":
            names["root"] = [word.lower() for word in words[1:]]
        elif section == ":bonedata" and key == "name":
            bone = words[1]
        elif section == ":bonedata" and key == "dof":
            names[bone] = [word.lower() for word in words[1:]]
    if not names:
        raise ValueError(f"{path} is no ASF skeleton: it has no :root and no :bonedata section.")
    return names


def _read_amc(path: Path, names: dict[str, list[str]]) -> _Recording:
    frames: list[list[tuple[str, list[float]]]] = []
    radians = False
    for number, words in _lines(path):
        if words[0].startswith(":"):
            radians = radians or words[0].upper() == ":RADIANS"
        elif len(words) == 1 and words[0].isdigit():
            if int(words[0]) != len(frames) + 1:
                raise ValueError(f"{path} must have frame {len(frames) + 1} in line {number}. Got {words[0]} instead.")
            frames.append([])
        elif not frames:
            raise ValueError(f"{path} is no AMC file: line {number} comes before the first frame.")
        else:
            frames[-1].append((words[0], _numbers(words[1:], path, number)))
    if not frames:
        raise ValueError(f"{path} is no AMC file: it has no frames.")
    layout = [(bone, len(values)) for bone, values in frames[0]]
    for i, frame in enumerate(frames, 1):
        if [(bone, len(values)) for bone, values in frame] != layout:
            what = "is truncated" if i == len(frames) else "is damaged"
            raise ValueError(f"{path} {what}: frame {i} does not have the bones and values of frame 1.")
    channels, rotations = [], []
    for bone, n in layout:
        dof = names.get(bone, ["tx", "ty", "tz", "rx", "ry", "rz"] if bone == "root" else [])
        if names and len(dof) != n:
            raise ValueError(f"{path} has {n} values for {bone!r}. Its skeleton has {len(dof)}; pass another skeleton.")
        dof = dof if len(dof) == n else [str(i) for i in range(n)]
        channels += [f"{bone}_{name}" for name in dof]
        rotations += [name not in _TRANSLATIONS for name in dof]
    values = np.array([[v for _, row in frame for v in row] for frame in frames])
    if radians:
        values[:, rotations] = np.rad2deg(values[:, rotations])
    return _Recording(values, channels, np.array(rotations), 1 / 120)


def _read_bvh(path: Path) -> _Recording:
    channels: list[str] = []
    lines = _lines(path)
    joint, n_frames, frame_time = "", None, None
    for number, words in lines:
        key = words[0].upper()
        if key in ("ROOT", "JOINT") and len(words) > 1:
            joint = words[1]
        elif key == "CHANNELS":
            if len(words) < 2 or not words[1].isdigit() or int(words[1]) != len(words) - 2:
                raise ValueError(
                    f"{path} must say as many channels as it names in line {number}. Got {words!r} instead."
                )
            channels += [f"{joint}_{word}" for word in words[2:]]
        elif key == "FRAMES:":
            n_frames = int(_numbers(words[1:2], path, number)[0]) if len(words) == 2 else None
        elif key == "FRAME" and len(words) == 3:
            frame_time = _numbers(words[2:], path, number)[0]
            if frame_time <= 0:
                raise ValueError(
                    f"{path} must have a positive frame time in line {number}. Got {frame_time:g} instead."
                )
            break
    if not channels or n_frames is None or frame_time is None:
        raise ValueError(f"{path} is no BVH file: it needs CHANNELS, a line 'Frames: n' and a line 'Frame Time: s'.")
    frames: list[list[float]] = []
    for number, words in lines:
        row = _numbers(words, path, number)
        if len(row) != len(channels):
            what = "is truncated" if len(frames) < n_frames else "is damaged"
            raise ValueError(f"{path} {what}: line {number} has {len(row)} values for {len(channels)} channels.")
        frames.append(row)
    if len(frames) != n_frames:
        what = "truncated" if len(frames) < n_frames else "damaged"
        raise ValueError(f"{path} is {what}: it has {len(frames)} frames and says that there are {n_frames}.")
    rotations = np.array(["rotation" in name.lower() for name in channels])
    return _Recording(np.array(frames), channels, rotations, frame_time)
