"""For every test: one thread, the same dice, no windows, and a cache of its own."""

import os

os.environ["MPLBACKEND"] = "Agg"

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def bare(tmp_path, monkeypatch):
    monkeypatch.setenv("CHARGPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CHARGPT_DEVICE", raising=False)
    torch.manual_seed(1337)
