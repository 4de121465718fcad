"""What a GPU makes of it: ``python -m benchmarks.gpu`` writes docs/performance_gpu_table.md."""

import argparse
import time
import warnings

import numpy as np
import pandas as pd
import torch

from benchmarks.__main__ import DOCS, markdown
from benchmarks.measure import alternate, machine, synchronize
from benchmarks.spectra import network
from sklyap import LyapunovSpectrumTransformer, lyapunov_spectrum
from sklyap.orthonormalize import orthonormalize


def timed(function):
    """Return seconds and what `function` returns; it has run before."""
    synchronize()
    start = time.perf_counter()
    result = function()
    synchronize()
    return time.perf_counter() - start, result


def orthonormalizers(device, small):
    """Return rows for CholeskyQR2 against torch's QR, on batches of matrices."""
    rows = []
    for shape in [(8, 6, 6)] if small else [(1024, 64, 64), (64, 512, 512)]:
        for dtype in (torch.float64, torch.float32):
            Z = torch.randn(shape, dtype=dtype, device=device)
            ours, theirs = alternate(lambda Z=Z: orthonormalize(Z, "cholesky"), lambda Z=Z: torch.linalg.qr(Z))
            name = f"orthonormaliser, {shape}, {str(dtype)[6:]}, against torch.linalg.qr"
            rows.append({"case": name, "seconds": ours, "other seconds": theirs})
    return rows


def large_network(device, small):
    """Return a row for one large LSTM with its whole state, against the CPU of the same machine on two threads."""
    H, n, steps, few = (6, 2, 8, 4) if small else (512, 64, 60, 6)
    net, x = network("lstm", H), torch.randn(n, steps, 32)
    lyapunov_spectrum(net, x[:, :4], device=device)
    ours, on_gpu = timed(lambda: lyapunov_spectrum(net, x, device=device))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    theirs, _ = timed(lambda: lyapunov_spectrum(net, x[:, :few], device="cpu"))
    torch.set_num_threads(threads)
    on_cpu = lyapunov_spectrum(net, x[:2], device="cpu")
    error = np.abs(on_gpu.per_sequence[:2] / on_cpu.per_sequence - 1).max()
    name = f"LSTM-{H}, {n} sequences, full state, float64, per step, against the CPU on 2 threads"
    return [
        {"case": name, "seconds": ours / steps, "other seconds": theirs / few, "largest relative difference": error}
    ]


def population(device, small):
    """Return a row for many networks of one shape in batches, against one after the other."""
    count, H, n, steps = (4, 6, 2, 8) if small else (200, 64, 16, 28)
    networks = [network("lstm", H, 28) for _ in range(count)]
    for seed, net in enumerate(networks):
        torch.manual_seed(seed)
        net.reset_parameters()
    x = torch.rand(n, steps, 28)
    together = LyapunovSpectrumTransformer(x, device=device).fit(networks)
    alone = LyapunovSpectrumTransformer(x, device=device, batch_size=n).fit(networks)
    together.transform(networks)
    alone.transform(networks[:2])
    ours, rows = timed(lambda: together.transform(networks))
    theirs, expected = timed(lambda: alone.transform(networks))
    error = np.abs(rows / expected - 1).max()
    name = f"{count} LSTM-{H}, {n} sequences of {steps} steps, in batches, against one after the other"
    return [{"case": name, "seconds": ours, "other seconds": theirs, "largest relative difference": error}]


def table(device="cuda", small=False):
    """Return all rows."""
    warnings.simplefilter("ignore")
    rows = [row for part in (orthonormalizers, large_network, population) for row in part(device, small)]
    return [row | {"times faster": row["other seconds"] / row["seconds"]} for row in rows]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="tiny sizes, to see that everything runs")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("benchmarks.gpu needs a CUDA device; torch sees none here.")
    frame = pd.DataFrame(table(small=options.small))
    print(frame.to_string(float_format="{:.3g}".format, na_rep=""))
    (DOCS / "performance_gpu_table.md").write_text(f"Measured {machine('cuda')}.\n\n{markdown(frame)}")


if __name__ == "__main__":
    main()
