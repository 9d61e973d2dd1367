# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # C · Hosts: where does this run, and on what?
#
# You will build: the line that the setup cell prints on top of each page.
# You need [lesson 10's first page](10_recipe.ipynb). The page runs in a few seconds.
#
# A notebook is opened in many places: on a laptop, on Colab, on Kaggle, in a container that lives for an hour. Each has another Python, another torch, another card, and none has our library. What has to happen before the first cell can be run?

# %%
#| default_exp hosts

# %%
import os
from unittest import mock

import torch

from chargpt_lib.data import pick_device

# %% [markdown]
# ## The setup cell
#
# It stands on top of this page, too. Line by line it asks:
#
# 1. Is the library there already? Then there is nothing to do. That is so on your computer after an installation, and everywhere when the cell is run a second time.
# 2. Does a folder above this one have it? Then this is a copy of the course, and the folder goes onto the list of places where Python looks. Nothing is installed.
# 3. Is this Kaggle or Colab? Then the library is installed: from a **wheel** (an installation in one file, `make wheel` makes it) that was uploaded beside the notebook, or attached as a data set on Kaggle, where notebooks have no network unless you switch it on; otherwise from the published course, if somebody has published it.
# 4. Is it there *now*? If not, the error says what to do.
#
# The one thing the cell must not do is change what the host has. A torch for another CUDA, or a numpy for another matplotlib, and the session has to be restarted, or does not start again. So pip is told `--no-deps`: our file, and nothing else. The libraries that the lessons import are all there (the command's `tyro` is not, and only the pages C · Presets, C · Runs and D need it: `%pip install tyro`).
#
# | | Python | torch | numpy | to keep files |
# |---|---|---|---|---|
# | Colab, August 2026 | 3.13 | 2.11 | 2.1 | your Drive, if you mount it |
# | Kaggle, August 2026 | 3.12 | 2.10 | 2.0 | `/kaggle/working` |
#
# ## Which host?
#
# Both tell it by an environment variable. Kaggle's machines have Colab's as well, so Kaggle is asked for first.

# %%
#| export
import os
import platform

import torch

import chargpt_lib
from chargpt_lib.data import choose_device
from chargpt_lib.recipe import pick_precision


def host():
    """"Kaggle", "Colab", or "this computer"."""
    if "KAGGLE_KERNEL_RUN_TYPE" in os.environ:
        return "Kaggle"
    return "Colab" if "COLAB_RELEASE_TAG" in os.environ else "this computer"

# %%
for marks in ({}, {"COLAB_RELEASE_TAG": "2026"}, {"COLAB_RELEASE_TAG": "2026", "KAGGLE_KERNEL_RUN_TYPE": "Batch"}):
    with mock.patch.dict(os.environ, marks, clear=True):
        print(host())

# %% [markdown]
# ## On what?
#
# Lesson 00's `choose_device` knows the device, and why it was chosen. Lesson 10's `pick_precision` knows in how many bits it computes best: float32 on a CPU, float16 on Kaggle's and Colab's T4, bfloat16 on newer cards.

# %%
#| export
def report():
    """Prints where this runs, and on what."""
    device, why = choose_device()
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, chargpt {chargpt_lib.__version__}"
    print(f"{host()}: {versions}; device {device.type} ({why}), precision {pick_precision(device)}")

# %% tags=["nbval-ignore-output"]
report()

# %%
assert host() in ("Kaggle", "Colab", "this computer") and choose_device()[0] == pick_device()

# %% [markdown]
# Whoever wants another device than the best one says so before the first cell: `%env CHARGPT_DEVICE=cpu`. That is useful where a card is slower than the processor, which happens with small models. **Predict:** what does it say then?

# %%
with mock.patch.dict(os.environ, CHARGPT_DEVICE="cpu"):
    print(*choose_device(), sep=", because ")

# %% [markdown]
# And a card that is too old? Kaggle lends one, the P100, with compute capability 6.0. It says that it is there, and the first operation on it fails. We have none here, so let us pretend.

# %%
card = {"is_available": lambda: True, "get_device_name": lambda: "Tesla P100-PCIE-16GB",
        "get_device_capability": lambda device=None: (6, 0)}
with mock.patch.multiple(torch.cuda, **card), mock.patch.dict(os.environ, CHARGPT_DEVICE=""):
    print(*choose_device(), sep=", because ")

# %% [markdown]
# ## Mistakes people make
#
# - **`pip install` of everything that the repository asks for.** It takes minutes, changes torch, and the session wants to be restarted. Install without dependencies.
# - **A notebook that downloads its own helper files.** On Kaggle the network is off, and next year the address is gone.
# - **A name from the package index.** Somebody else may own it by then. Our cell installs a file of yours, or the address that the course was published at; never a mere name.
# - **Keeping a trained model beside the notebook.** On Colab and Kaggle that disk goes with the session. The lessons that train for longer than a minute have a line for it, `KEEP`.
#
# ## What you have
#
# `host` and `report`, in `chargpt_lib/hosts.py`, and an idea of what happens before the first cell.
