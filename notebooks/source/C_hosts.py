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
# Did your first cell stop with an error? Go to the table below; it needs no lesson. The code needs [lesson 10's first page](10_recipe.ipynb). The page runs in a few seconds.
#
# A notebook is opened in many places: on a laptop, on Colab, on Kaggle, in a container that lives for an hour. Each has another Python, another torch, another card, and none has our library. What has to happen before the first cell can be run?

# %%
#| default_exp hosts

# %%
import os
from unittest import mock

import torch

from chargpt_lib.data import choose_device

# %% [markdown]
# ## The setup cell
#
# It stands on top of this page, too. It asks four things:
#
# 1. Is the library installed? Then there is nothing to do. After one success that is so until the session ends.
# 2. Does a folder above this one have it? Then this is a copy of the course, and the folder goes onto `sys.path`, the list of places where Python looks. Nothing is installed.
# 3. Is this Kaggle or Colab, and is there something to install? `wheels` lists what there is. A **wheel** is an installation in one file: ours lies in `/content` on Colab, in a data set on Kaggle. In a published copy the list begins with an address, `wheels = ["https://…"] + sorted(…)`: `make publish-links REPO=owner/name` writes it there. The last one is taken: the newest file, or the address where there is no file. (The file must keep its name.)
# 4. Is it there *now*? If not, there is an error.
#
# | you see | where | do this |
# |---|---|---|
# | `no chargpt_lib` | your computer | Put the notebook back into the course's folder, or open that folder. |
# | the same, and you did install it | your computer | The kernel is another Python; `import sys; sys.executable` says which. Choose the other kernel: in the course's folder it is `.venv`. |
# | `No module named 'torch'` | your computer | The library is there, but not what it needs: `make install`, or what the README says for conda. |
# | `no chargpt_lib` | Colab | Take the wheel that your teacher gave you: it lies in the folder that was handed out (`make wheel` in the repository makes one, in `dist/`). Click on the folder on the left and upload it there: into `/content`, not into your Drive. Run the cell again. A new session needs it again. |
# | `no chargpt_lib` | Kaggle | Add the data set that has the wheel (Add Input), run the cell again. In a published copy it is enough to switch the internet on, which Kaggle allows to accounts with a verified telephone number. |
# | an old version is printed | Colab, Kaggle | Upload the new wheel, or update the data set. Then `%pip uninstall -q -y chargpt`, restart the session, run the cell again. |
#
# The one thing the cell must not do is change what the host has. Plain `pip install` may replace torch or numpy, and what was built against the old ones fails until the session is restarted, or for good. So pip is told `--no-deps`: our file, and nothing else.
#
# | | Python | torch | numpy | where files outlive the session |
# |---|---|---|---|---|
# | Colab, August 2026 | 3.13 | 2.11 | 2.1 | your Drive, if you mount it |
# | Kaggle, August 2026 | 3.12 | 2.10 | 2.0 | `/kaggle/working`, with Persistence switched on (Save Version runs all again, and keeps what *that* run wrote) |
#
# All that the lessons import is there. The pages C · Presets, C · Runs and D also need `tyro`, which reads the words of a command line: `%pip install tyro`, with a network. (That is a name from the index, and brings two small packages; torch is not among them.)
#
# ### A class on Kaggle, without a network
#
# 1. On your computer: `make release`. It makes `dist/chargpt-course.zip`, and in it lies `chargpt-0.1.0-py3-none-any.whl`. The library is in it, without the exercises' answers; the notebooks are not. (The wheel of `make wheel` has the answers, too. It is for yourself.)
# 2. Do you want Tiny Shakespeare or Oz, too? `load_corpus("shakespeare")`, run at home, prints nothing and leaves the file in `data/cache/downloads`. (Playhouse is written by the library.)
# 3. On Kaggle make a data set of these files, and share it with your class.
# 4. Import a lesson's notebook, attach the data set, and choose an accelerator with T4; Kaggle lends it to accounts with a verified telephone number. Without it the lessons run, and train longer. Switch the internet off.
# 5. For the other texts put a cell above the first: `%env CHARGPT_DATA=/kaggle/input/…`, the data set's folder (`!find /kaggle/input -name "*.txt"` prints it).
# 6. Run the first cell. The line that it prints begins with `Kaggle:`.
# 7. Share the notebook. A copy of it has the data set attached, and works for whoever may read that.
#
# ## Which host?
#
# An **environment variable** is a named text that a program is given when it starts; Python has them in `os.environ`. Colab sets `COLAB_RELEASE_TAG`, Kaggle `KAGGLE_KERNEL_RUN_TYPE`. Kaggle's machines are built on Colab's and have both, so Kaggle is asked for first.

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

# %% [markdown]
# `mock.patch.dict` pretends as long as the `with` lasts. **Predict** the three lines; only the names count, not the values.

# %%
for marks in ({}, {"COLAB_RELEASE_TAG": "x"}, {"COLAB_RELEASE_TAG": "x", "KAGGLE_KERNEL_RUN_TYPE": "x"}):
    with mock.patch.dict(os.environ, marks, clear=True):
        print(host())

# %% [markdown]
# ## On what?
#
# Lesson 00's `choose_device` knows the device, and why it was chosen. The **precision** is the format of numbers. The lessons compute in `fp32` (float32) everywhere: their models are small. The command `chargpt train` takes what lesson 10's `pick_precision` picks: `fp32` on a CPU; `fp16` (float16) on Kaggle's and Colab's T4; `bf16` (bfloat16) on newer cards. The last two have 16 bits each, and share them out differently; the line names them where there is such a card.

# %%
#| export
def report():
    """Prints where this runs, and on what."""
    device, why = choose_device()
    fast = pick_precision(device)
    precision = "fp32" if fast == "fp32" else f"fp32 ({fast} in chargpt train)"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, chargpt {chargpt_lib.__version__}"
    print(f"{host()}: {versions}; device {device} ({why}), precision {precision}")

# %% tags=["nbval-ignore-output"]
report()

# %%
assert torch.ones(3, device=choose_device()[0]).sum() == 3  # it does compute there

# %% [markdown]
# Does it say `no graphics card was found` on Colab or Kaggle? Both lend a T4 for nothing, but a session begins without one. On Colab: Runtime, Change runtime type. On Kaggle: Settings, Accelerator.
#
# Let us pretend to have one: three questions to PyTorch get other answers. NVIDIA counts its generations of cards by **compute capability**; the T4's is 7.5.

# %%
def pretend(name, major, minor):
    """As if there were such a card."""
    answers = {"is_available": lambda: True, "get_device_name": lambda: name,
               "get_device_capability": lambda device=None: (major, minor)}
    return mock.patch.multiple(torch.cuda, **answers)

with pretend("Tesla T4", 7, 5), mock.patch.dict(os.environ, CHARGPT_DEVICE=""):
    device, why = choose_device()
    print(device, why, pick_precision(device), sep=", ")

# %% [markdown]
# Want another device than the best one? Put a cell above the first: `%env CHARGPT_DEVICE=cpu`. **Predict:** what does it say on the T4 then?

# %%
with pretend("Tesla T4", 7, 5), mock.patch.dict(os.environ, CHARGPT_DEVICE="cpu"):
    device, why = choose_device()
    print(device, why, pick_precision(device), sep=", ")

# %% [markdown]
# And a card that is too old? Kaggle still lends the P100, from 2016, and is [phasing it out](https://github.com/Kaggle/kaggle-cli/issues/1151). `torch.cuda.is_available()` says True, and the first computation stops with `no kernel image is available`: the PyTorch that is installed there has no code for a card of that age. Builds for CUDA 13 begin at 7.5, and so does `choose_device`.

# %%
with pretend("Tesla P100-PCIE-16GB", 6, 0), mock.patch.dict(os.environ, CHARGPT_DEVICE=""):
    print(*choose_device(), sep=", because ")

# %% [markdown]
# ## Mistakes people make
#
# - **`pip install` of everything that the repository asks for.** It takes minutes, changes torch, and the session wants to be restarted. Install without dependencies.
# - **A notebook that can only download its helper files.** Without a network it stops, and next year the address may be gone. Ours takes a file first.
# - **A name from the package index.** Next year it may belong to somebody else. Our cell installs a file of yours, and a published copy the address it was published at; never a mere name.
# - **A trained model on a disk that goes with the session.** Each lesson that trains for longer than a minute on two cores has a line for it: `KEEP = "/content/drive/MyDrive/chargpt"` on Colab, once the Drive is mounted (`from google.colab import drive; drive.mount("/content/drive")`), `KEEP = "/kaggle/working"` on Kaggle, with Persistence switched on before. What was kept is found again where the numbers are the same: in a session without the graphics card `scale` is another one, so write the old one there.
#
# ## What you have
#
# `host` and `report`, in `chargpt_lib/hosts.py`, and an idea of what happens before the first cell.
