"""Motion capture: values, names, splits, and files that are missing, truncated, empty or foreign."""

import numpy as np
import pytest

from sklyap.datasets import load_motion

ASF = """# a skeleton
:version 1.10
:root
   order TX TY TZ RX RY RZ
:bonedata
  begin
     id 1
     name lfemur
     dof rx ry rz
  end
  begin
     name ltibia
     dof rx
  end
"""
HIERARCHY = """HIERARCHY
ROOT Hips
{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT Knee
  {
    OFFSET 0 1 0
    CHANNELS 3 Zrotation Xrotation Yrotation
    End Site
    {
      OFFSET 0 1 0
    }
  }
}
MOTION
"""


def motion(n_frames, n_channels, seed=0):
    """Smooth motion; the last channel stands still."""
    t = np.arange(n_frames)[:, None] / 120
    rng = np.random.default_rng(seed)
    values = 10 * np.sin(2 * np.pi * t * rng.uniform(0.5, 2, n_channels) + rng.uniform(0, 6, n_channels))
    values[:, -1] = 3.0
    return values


def amc(values, header="#!OML:ASF\n:FULLY-SPECIFIED\n:DEGREES\n"):
    bones = {"root": slice(0, 6), "lfemur": slice(6, 9), "ltibia": slice(9, 10)}
    text = header
    for i, frame in enumerate(values, 1):
        text += f"{i}\n" + "".join(f"{bone} {' '.join(map(str, frame[of].tolist()))}\n" for bone, of in bones.items())
    return text


def bvh(values, n_frames=None):
    rows = "\n".join(" ".join(map(repr, row.tolist())) for row in values)
    return f"{HIERARCHY}Frames: {len(values) if n_frames is None else n_frames}\nFrame Time: 0.0083333\n{rows}\n"


@pytest.fixture
def recording(tmp_path):
    values = motion(900, 10)
    (tmp_path / "35.asf").write_text(ASF)
    (tmp_path / "35_01.amc").write_text(amc(values))
    return tmp_path / "35_01.amc", values


def test_frames_are_those_of_the_file(recording):
    path, values = recording
    data = load_motion(path, n_steps=20, every=3, standardize=False)
    frames = values[::3, :9]
    assert data.channels == [f"root_{a}" for a in ("tx", "ty", "tz", "rx", "ry", "rz")] + [
        f"lfemur_{a}" for a in ("rx", "ry", "rz")
    ]
    assert data.frame_time == 3 / 120
    assert data.X_train.shape == (11, 20, 9) and data.X_train.dtype == np.float32
    np.testing.assert_allclose(data.X_train.reshape(-1, 9), frames[:220], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(data.y_train.reshape(-1, 9), frames[1:221], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(data.X_valid[0], frames[240:260], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(data.y_test[0], frames[271:291], rtol=1e-6, atol=1e-6)


def test_channels_are_standardised_over_the_training_part(recording):
    path, values = recording
    plain, scaled = (load_motion(path, n_steps=20, every=3, standardize=flag) for flag in (False, True))
    np.testing.assert_allclose(scaled.X_test * scaled.scale + scaled.mean, plain.X_test, rtol=1e-4, atol=1e-4)
    known = values[::3, :9][:240]
    np.testing.assert_allclose(scaled.mean, known.mean(0), atol=1e-9)
    np.testing.assert_allclose(scaled.scale, known.std(0), rtol=1e-9)


def test_angles_are_unwrapped(tmp_path):
    values = motion(400, 10)
    turning = np.linspace(0, 900, 400)
    values[:, 4] = (turning + 180) % 360 - 180
    (tmp_path / "a.amc").write_text(amc(values))
    data = load_motion(tmp_path / "a.amc", n_steps=10, every=1, splits=(1, 0, 0), standardize=False)
    np.testing.assert_allclose(data.X_train.reshape(-1, 9)[:, 4], turning[:390], atol=1e-3)


def test_radians_are_read_as_degrees(tmp_path):
    values = motion(300, 10)
    (tmp_path / "degrees.amc").write_text(amc(values))
    inner = values.copy()
    inner[:, 3:] = np.deg2rad(inner[:, 3:])
    (tmp_path / "radians.amc").write_text(amc(inner, ":FULLY-SPECIFIED\n:RADIANS\n"))
    a, b = (load_motion(tmp_path / f"{unit}.amc", every=2, splits=(1, 0, 0)) for unit in ("degrees", "radians"))
    # Without a skeleton, channels of a bone that is not the root are numbered; all of them are angles.
    assert a.channels == b.channels and a.channels[6] == "lfemur_0"
    np.testing.assert_allclose(a.X_train, b.X_train, atol=1e-4)


def test_bvh(tmp_path):
    values = motion(600, 9)
    (tmp_path / "walk.bvh").write_text(bvh(values))
    data = load_motion(tmp_path / "walk.bvh", n_steps=25, every=2, standardize=False)
    assert data.channels[0] == "Hips_Xposition" and data.channels[-1] == "Knee_Xrotation"
    np.testing.assert_allclose(data.X_train.reshape(-1, 8)[:200], values[:400:2, :8], rtol=1e-5, atol=1e-5)
    assert data.frame_time == pytest.approx(2 * 0.0083333)


def test_a_folder_is_read_recording_by_recording(tmp_path):
    for i in range(2):
        (tmp_path / f"{i}.bvh").write_text(bvh(motion(300, 9, seed=i)))
    data = load_motion(tmp_path, n_steps=30, every=1, splits=(0.8, 0.2, 0), standardize=False)
    assert len(data.files) == 2
    assert data.X_train.shape == (2 * (239 // 30), 30, 8)
    np.testing.assert_allclose(data.X_train[7], motion(300, 9, seed=1)[:30, :8], atol=1e-5)


def test_an_estimator_learns_it(recording):
    from sklyap import RNNRegressor

    data = load_motion(recording[0], n_steps=20, every=3)
    net = RNNRegressor("gru", 16, readout="all", max_epochs=30, lr=1e-2, batch_size=4, random_state=0)
    net.fit(data.X_train, data.y_train)
    assert np.mean((net.predict(data.X_valid) - data.y_valid) ** 2) < 0.5 * np.mean(data.y_valid**2)


@pytest.mark.parametrize(
    "content,said",
    [
        ("", "is empty"),
        ("hello world\n", "before the first frame"),
        (":DEGREES\n", "no frames"),
        (amc(motion(5, 10)).replace("ltibia", "rtibia", 1), "is damaged: frame 2"),
        (amc(motion(5, 10)).rsplit("\n", 2)[0] + "\n", "is truncated: frame 5"),
        (amc(motion(5, 10)).replace("\n3\n", "\n4\n"), "must have frame 3"),
        (amc(motion(5, 10)).replace("lfemur ", "lfemur x", 1), "must have numbers in line"),
        (amc(motion(5, 10) * np.nan), "not finite, in frame 0, root_tx"),
        (amc(motion(5, 10)), "too few for one sequence"),
        (amc(np.ones((400, 10))), "no channel that moves"),
    ],
)
def test_bad_amc_files_are_named(tmp_path, content, said):
    path = tmp_path / "x.amc"
    path.write_text(content)
    with pytest.raises(ValueError, match=said) as error:
        load_motion(path)
    assert "x.amc" in str(error.value)


@pytest.mark.parametrize(
    "content,said",
    [
        ("", "is empty"),
        ("solid cube\n", "is no BVH file"),
        (HIERARCHY + "Frames: 3\n", "is no BVH file"),
        (bvh(motion(5, 9), n_frames=9), "truncated: it has 5 frames and says that there are 9"),
        (bvh(motion(9, 9), n_frames=5), "damaged: it has 9 frames and says that there are 5"),
        (bvh(motion(5, 9)).replace("Frame Time: ", "Frame Time: -"), "must have a positive frame time"),
        (bvh(motion(5, 9)).rsplit(" ", 1)[0] + "\n", "has 8 values for 9 channels"),
        (bvh(motion(5, 9)).replace("CHANNELS 3", "CHANNELS 4"), "as many channels as it names"),
    ],
)
def test_bad_bvh_files_are_named(tmp_path, content, said):
    path = tmp_path / "x.bvh"
    path.write_text(content)
    with pytest.raises(ValueError, match=said) as error:
        load_motion(path)
    assert "x.bvh" in str(error.value)


def test_other_bad_input(tmp_path, recording):
    with pytest.raises(FileNotFoundError, match=r"put an \.amc or \.bvh file there"):
        load_motion(tmp_path / "absent.amc")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="put recordings there"):
        load_motion(tmp_path / "empty")
    (tmp_path / "x.csv").write_text("1,2")
    with pytest.raises(ValueError, match=r"ending '\.csv'"):
        load_motion(tmp_path / "x.csv")
    (tmp_path / "binary.amc").write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match="no plain text"):
        load_motion(tmp_path / "binary.amc")
    with pytest.raises(ValueError, match="'splits' parameter of load_motion"):
        load_motion(recording[0], splits=(0.5, 0.1, 0.1))
    with pytest.raises(ValueError, match="'every' parameter of load_motion"):
        load_motion(recording[0], every=0)
    (tmp_path / "other.asf").write_text(ASF.replace("dof rx ry rz", "dof rx"))
    with pytest.raises(ValueError, match="Its skeleton has 1"):
        load_motion(recording[0], skeleton=tmp_path / "other.asf")
    (tmp_path / "binary.amc").unlink()
    (tmp_path / "35_02.amc").write_text(amc(motion(400, 10)).replace("lfemur", "rfemur"))
    with pytest.raises(ValueError, match="not those of"):
        load_motion(tmp_path, skeleton=None)


def test_recordings_of_different_rates_are_not_mixed(tmp_path):
    (tmp_path / "a.bvh").write_text(bvh(motion(300, 9)))
    (tmp_path / "b.bvh").write_text(bvh(motion(300, 9)).replace("Frame Time: 0.0083333", "Frame Time: 0.0333333"))
    with pytest.raises(ValueError, match=r"b\.bvh has a frame every 0\.0333333 s"):
        load_motion(tmp_path)


def test_a_part_without_a_sequence_is_named(tmp_path):
    path = tmp_path / "short.bvh"
    path.write_text(bvh(motion(100, 9)))
    with pytest.raises(ValueError, match=r"The valid part of .* has 10 frames, too few for one sequence of n_steps=20"):
        load_motion(path, n_steps=20, every=1)
    assert load_motion(path, n_steps=20, every=1, splits=(0.7, 0.3, 0)).X_valid.shape == (1, 20, 8)
