# %%
# Setup: finds the course's library, wherever Jupyter was started. Safe to run twice.
import importlib.util, sys
from pathlib import Path

if importlib.util.find_spec("chargpt_lib") is None:
    homes = [folder for folder in Path.cwd().parents if (folder / "chargpt_lib" / "__init__.py").exists()]
    if not homes:
        raise ImportError("chargpt_lib is missing: install it as README.md says, or open this notebook in its folder")
    sys.path.insert(0, str(homes[0]))
