"""What every benchmark writes beside its numbers."""

import platform

import torch


def measured_on(device, *modules):
    """The device, the processor, and the versions of Python, torch and other modules."""
    device = torch.device(device)
    return {"device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "threads": torch.get_num_threads(), "processor": platform.machine(),
            "versions": {"python": platform.python_version(),
                         **{module.__name__: module.__version__ for module in (torch, *modules)}}}
