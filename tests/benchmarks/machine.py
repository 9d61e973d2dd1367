"""What every benchmark writes beside its numbers."""

import multiprocessing
import platform
import re
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import torch


def measured_on(device, *modules):
    """The device, the processor, and the versions of Python, torch and other modules."""
    device = torch.device(device)
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "processor": platform.machine(),
        "versions": {
            "python": platform.python_version(),
            **{module.__name__: module.__version__ for module in (torch, *modules)},
        },
    }


# PyTorch computes as if the processor had neither AVX2 nor AVX-512, and in one thread: as good as another processor
AS_ON_ANOTHER = {"ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "1"}


def two_at_a_time(functions):
    """Calls the functions in two processes -> (number of the function, its result), as they end.

    After a failure no further function is called; the error is raised when those that were running have ended.
    """
    failure = None
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        started = {pool.submit(function): n for n, function in enumerate(functions)}
        for ended in as_completed(started):
            if ended.cancelled():
                continue
            if ended.exception() is None:
                yield started[ended], ended.result()
            else:
                failure = ended.exception()
                for waiting in started:
                    waiting.cancel()
    if failure is not None:
        raise failure


def processor_name():
    """The processor's model, as in "AMD EPYC 7B13"; its architecture where the system does not say."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.exists() else ""
    found = re.search(r"^model name\s*: (.+)$", text, re.M)
    if found:
        return found[1].strip()
    return platform.processor() or platform.machine()
