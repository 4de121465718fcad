"""Peak memory against the number of steps, each in a process of its own."""

import subprocess
import sys

SCRIPT = """
import torch, warnings
from pathlib import Path
from sklyap import lyapunov_spectrum
warnings.simplefilter("ignore")
torch.manual_seed(0)
lyapunov_spectrum(torch.nn.LSTM(8, {size}), torch.randn(4, {steps}, 8), n_exponents={k})
# getrusage would count what the parent had before it started this process.
print(int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024)
"""


def peak(steps, size=128, k=64):
    """Return the peak resident memory in MiB."""
    script = SCRIPT.format(steps=steps, size=size, k=k)
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return float(out.stdout)


def table(small=False):
    """Return a row for few and for many steps."""
    few, many = (20, 60) if small else (100, 2000)
    return [{"case": f"peak memory, LSTM-128, {steps} steps", "MiB": peak(steps)} for steps in (few, many)]
