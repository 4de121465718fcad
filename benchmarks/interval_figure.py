"""Draw how the interval between factorisations follows a run: ``python -m benchmarks.interval_figure``."""

import argparse
from pathlib import Path

import torch

from sklyap import as_recurrent_cell
from sklyap.orthonormalize import random_bases
from sklyap.tangent import qr_iteration, spread_budget

DOCS = Path(__file__).parent.parent / "docs"


def blocks_of(n_steps=900, size=24):
    """Return the blocks of a GRU whose inputs are weak at first, strong in the middle and weak again."""
    torch.manual_seed(0)
    layer = torch.nn.GRU(3, size).double()
    with torch.no_grad():
        layer.weight_hh_l0 *= 2
    cell = as_recurrent_cell(layer)
    x = 0.3 * torch.randn(1, n_steps, 3, dtype=torch.float64)
    x[:, n_steps // 3 : 2 * n_steps // 3] *= 30
    Q = random_bases(size, size, seed=0, indices=[0])
    with torch.no_grad():
        return list(qr_iteration(cell, x, Q=Q))


def draw(blocks, path):
    """Save the figure."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (top, bottom) = plt.subplots(2, 1, figsize=(8, 4.2), layout="constrained", sharex=True)
    budget, ends = spread_budget(torch.float64), [block.stop for block in blocks]
    top.vlines(ends, 0, [block.log_spread for block in blocks], lw=1.2, color="C0", label="an accepted block")
    top.axhline(budget, color="C3", lw=1, label="budget: half of the digits")
    top.axhline(0.8 * budget, color="C3", lw=1, ls="--", label="planned for: 80 % of it")
    top.set_ylabel("log spread (nats)")
    top.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, fontsize=8, frameon=False)
    bottom.step([0, *ends], [blocks[0].stop, *(block.stop - block.start for block in blocks)], where="pre", color="C0")
    bottom.set_ylabel("steps in a block")
    bottom.set_xlabel("step")
    third = ends[-1] / 3
    for axes in (top, bottom):
        axes.axvspan(third, 2 * third, color="0.93", zorder=0)
    bottom.text(1.5 * third, bottom.get_ylim()[1] * 0.9, "strong inputs", ha="center", va="top", fontsize=8)
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=DOCS / "images" / "interval.png")
    draw(blocks_of(), parser.parse_args().output)


if __name__ == "__main__":
    main()
