"""Displays share a figure with others, whose layout they must not break."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from sklyap.displays import LossPredictorsDisplay


@pytest.mark.parametrize("lowest", [0.1, -3.0])
def test_two_tables_side_by_side_keep_their_axes(lowest):
    scores = np.array([0.5, lowest])
    figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
    for ax in axes:
        LossPredictorsDisplay(["spectrum", "loss so far"], scores, scores - 0.1, scores + 0.1).plot(ax)
    figure.canvas.draw()  # matplotlib warns where a layout has no room left, and warnings are errors here
    assert all(ax.get_position().width > 0.25 for ax in axes)
    plt.close(figure)
