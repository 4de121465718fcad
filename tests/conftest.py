"""Settings for all tests."""

import torch

# Small matrices gain nothing from threads, and two cores have workers to run.
torch.set_num_threads(1)
