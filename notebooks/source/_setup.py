# %% tags=["nbval-ignore-output"]
# @title Setup: run this cell first. It finds the course's library, or installs it.
import os
import sys
from importlib.util import find_spec
from pathlib import Path

PUBLISHED = PUBLISHED_ADDRESS  # where the course can be downloaded, if it is published

# On your own computer the library lies in a folder above this notebook.
for folder in Path.cwd().parents:
    if (folder / "chargpt_lib" / "__init__.py").exists():
        sys.path.append(str(folder))
        break

# On Colab and Kaggle it is installed: from a wheel that you attached or uploaded, else from where it is published.
if "KAGGLE_KERNEL_RUN_TYPE" in os.environ or "COLAB_RELEASE_TAG" in os.environ:
    wheels = [*Path().glob("chargpt-*-any.whl"), *Path("/kaggle/input").rglob("chargpt-*-any.whl")]
    source = max(wheels, key=os.path.getmtime) if wheels else PUBLISHED
    if source and not find_spec("chargpt_lib"):
        %pip install -q --no-deps "{source}"

if not find_spec("chargpt_lib"):
    raise ImportError(
        "The course's library, chargpt_lib, is not here. On your own computer: keep this notebook in the course's "
        "folder. On Colab or Kaggle: attach the library as one file (`make wheel` writes it), or publish the course "
        "(`make publish-links REPO=owner/name`) and switch the network on. RUNNING_ELSEWHERE.md has the steps."
    )

from chargpt_lib.devices import print_environment

print_environment()
