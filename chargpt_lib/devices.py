"""On which device to compute, and where this notebook runs."""

import os
import platform
import warnings
from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode

import chargpt_lib

# tqdm looks for a widget that no saved page could show, and warns where there is none.
warnings.filterwarnings("ignore", message="IProgress not found")

# The oldest NVIDIA cards that PyTorch's builds of today compute on (Turing: T4, RTX 20).
MIN_CAPABILITY = (7, 5)

# Characters of PyTorch's reason why a device does not work, beyond which the reason is left out.
LONGEST_REASON = 200


def pick_device_and_reason(option=None):
    """The best device that really computes, and the reason: (torch.device, str).

    option (what the command's `--device` says) or else `CHARGPT_DEVICE` decides instead: "cpu", "cuda" or "mps".

    Raises: ValueError where nothing can be computed on the device that is named.
    """
    name = option
    source = "--device"
    if not name:
        name = os.environ.get("CHARGPT_DEVICE")
        source = "CHARGPT_DEVICE"
    if name:
        try:
            torch.zeros(1, device=name).item()
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            reason = str(error).splitlines()[0]
            if len(reason) > LONGEST_REASON:
                # A list of all of PyTorch's backends, which says nothing else.
                reason = "PyTorch has no such device here"
            raise ValueError(
                f"{source} is {name!r}, and nothing can be computed on it here ({reason}): give cpu, "
                f"cuda or mps, or leave it out for the best device there is"
            ) from None
        return torch.device(name), f"{source} says so"
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        major, minor = torch.cuda.get_device_capability()
        if (major, minor) >= MIN_CAPABILITY:
            return torch.device("cuda"), name
        reason = f"{name} has compute capability {major}.{minor}; PyTorch is built for 7.5 or more"
        return torch.device("cpu"), reason
    if torch.backends.mps.is_available():
        return torch.device("mps"), "Apple's GPU"
    return torch.device("cpu"), "no GPU was found"


def world_size():
    """How many processes a launcher, such as torchrun, has started; 1 where none has."""
    return int(os.environ.get("WORLD_SIZE", 1))


def pick_device():
    """The best device that really computes."""
    device, _ = pick_device_and_reason()
    return device


def pick_scale(device):
    """How many times as many windows a lesson trains on in a step: 1 on a CPU; a graphics card has room for 8."""
    return 1 if torch.device(device).type == "cpu" else 8


def pick_precision(device):
    """The fastest precision that a device computes well: "bf16" from compute capability 8.0 on, "fp16" from 7.5, "fp32"."""
    if torch.device(device).type != "cuda":
        return "fp32"
    capability = torch.cuda.get_device_capability(device)
    if capability >= (8, 0):
        return "bf16"
    if capability >= (7, 5):
        return "fp16"
    return "fp32"


def notebook_host():
    """Where this runs: "Kaggle", "Colab", or "this computer"."""
    # Kaggle is asked first: its images carry Colab's variables too.
    if "KAGGLE_KERNEL_RUN_TYPE" in os.environ:
        return "Kaggle"
    if "COLAB_RELEASE_TAG" in os.environ:
        return "Colab"
    return "this computer"


def print_environment():
    """Prints the host, the versions, the device and the precision: the last line of each notebook's setup cell."""
    device, why = pick_device_and_reason()
    fast = pick_precision(device)
    precision = "fp32" if fast == "fp32" else f"fp32 ({fast} in chargpt train)"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, chargpt {chargpt_lib.__version__}"
    print(f"{notebook_host()}: {versions}; device {device} ({why}), precision {precision}")


class _SkipNormal(TorchFunctionMode):
    """Within it, `nn.init.normal_` draws nothing. On the device meta nothing can be drawn, and trying takes a second."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.nn.init.normal_:
            return kwargs["tensor"]
        return func(*args, **({} if kwargs is None else kwargs))


@contextmanager
def meta_device():
    """Within it, a module is built on the device meta: its parameters have names and shapes, and no numbers."""
    with torch.device("meta"), _SkipNormal():
        yield
