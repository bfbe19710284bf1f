"""Every test runs on one thread, so that the suite may run on all cores at once."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

torch.set_num_threads(1)
