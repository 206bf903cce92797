"""This computer: cores, memory, CPU instructions and GPUs."""

import dataclasses
import math
import os
import platform
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from ..settings.recipe import Machine, recipe

ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
NVIDIA = Path("/proc/driver/nvidia/gpus")
VISIBLE, CUDNN = "CUDA_VISIBLE_DEVICES", "nvidia-cudnn-cu12"
TF32_SINCE = (8, 0)  # compute capability of the Ampere generation
GROUPS, GROUPS_OF_PROCESS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def this_machine(gpus: int = 0) -> Machine:
    """Describe this computer. gpus: GPUs that TensorFlow computes on, which only TensorFlow knows."""
    return Machine(cores=available_cores(), bfloat16=has_bfloat16(), only_avx2=only_avx2(), gpus=gpus)


def settings_for(
    characters: int,
    *,
    seconds: float | None = None,
    epochs: int | None = None,
    max_steps: int | None = None,
    cores: int | None = None,
    bfloat16: bool | None = None,
    speed: float = 1.0,
    gpus: int = 0,
    hidden_size: int | None = None,
) -> dict[str, Any]:
    """The settings, by name, that the default preset chooses for a training text of this length and a budget.

    cores, bfloat16: of another machine. speed: relative speed, as "in_force" in config.json has it; 1: the reference
    machine of the rule. gpus: number to train on. hidden_size: a fixed width. See `settings.recipe`.
    """
    here = this_machine(gpus)
    fast = here.bfloat16 if bfloat16 is None else bfloat16
    machine = dataclasses.replace(here, cores=cores or here.cores, bfloat16=fast, speed=speed)
    chosen = recipe(characters, machine, seconds=seconds, epochs=epochs, max_steps=max_steps, hidden_size=hidden_size)
    return {name: choice.value for name, choice in chosen.items()}


def available_cores() -> int:
    """Number of cores that this process may use, by CPU affinity and control groups' CPU quotas, rounded up."""
    return max(1, math.ceil(_cores_of_time()))


def core_share() -> float:
    """Share of each available core that a quota of CPU time allows, up to 1."""
    return _cores_of_time() / available_cores()


def _cores_of_time() -> float:
    """Seconds of CPU time per second that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [group / "cpu.max" for group in _control_groups("")]
    limits = [_numbers(quota) for quota in quotas]
    for group in _control_groups("cpu"):  # version 1
        limits.append(_numbers(group / "cpu.cfs_quota_us") + _numbers(group / "cpu.cfs_period_us"))
    return min([cores, *(limit[0] / limit[1] for limit in limits if len(limit) == 2 and min(limit) > 0)])


def available_memory() -> int | None:
    """Total memory in bytes, or the lowest limit of this process's control groups if lower; None if unknown."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
    files = [group / "memory.max" for group in _control_groups("")]
    files += [group / "memory.limit_in_bytes" for group in _control_groups("memory")]  # version 1
    return min([memory, *(limit for file in files for limit in _numbers(file) if limit > 0)])


def _control_groups(controller: str) -> Iterator[Path]:
    """Yield the folders of this process's control group and its parents. controller: of version 1; "": version 2.

    In a container, only the outermost folder may be visible; it is then the container's own group.
    """
    for line in _text(GROUPS_OF_PROCESS).splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            group = GROUPS / controllers / path.lstrip("/")
            while group != GROUPS.parent and GROUPS in (group, *group.parents):
                yield group
                group = group.parent


def _numbers(file: Path) -> list[int]:
    """The whole numbers in a control file; none where it does not exist or has no limit."""
    words = _text(file).split()
    return [int(word) for word in words] if words and all(re.fullmatch(r"-?\d+", word) for word in words) else []


def processor() -> str:
    """Name of the CPU, if the system reports it."""
    names = [line.partition(":")[2].strip() for line in _cpuinfo().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def has_bfloat16() -> bool:
    """Whether oneDNN uses hardware bfloat16 products (x86 with AVX-512 BF16 or AMX, if the system reports it)."""
    return bool({"avx512_bf16", "amx_bf16"} & _instructions()) and os.environ.get(ONEDNN) != "0"


def only_avx2() -> bool:
    """Whether the CPU has AVX2 but no AVX-512 (x86, if the system reports it)."""
    return "avx2" in _instructions() and "avx512f" not in _instructions()


def onednn_by_default() -> bool:
    """Whether TensorFlow uses oneDNN on this CPU without being asked (x86 with instructions for neural networks)."""
    return bool({"avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16"} & _instructions())


def lacks_avx() -> bool:
    """Whether this is an x86 CPU without AVX, on which TensorFlow aborts."""
    flags = _instructions()
    return "sse2" in flags and "avx" not in flags


def has_nvidia_gpu() -> bool:
    """Whether the system's driver lists an NVIDIA GPU, usable or not."""
    return NVIDIA.is_dir() and any(NVIDIA.iterdir())


def unused_gpu() -> bool:
    """Whether there is an NVIDIA GPU that TensorFlow can't use, although the user has not hidden it."""
    import tensorflow as tf  # the module must load without

    hidden = os.environ.get(VISIBLE, "0").strip() in ("", "-1")
    return has_nvidia_gpu() and not hidden and not tf.config.list_physical_devices("GPU")


def physical_gpus() -> int:
    """GPUs that TensorFlow may use; unlike `gpus`, asking does not start its devices."""
    import tensorflow as tf  # the module must load without

    return len(tf.config.get_visible_devices("GPU"))


def gpus() -> int:
    """GPUs that TensorFlow computes on."""
    import tensorflow as tf  # the module must load without

    return len(tf.config.list_logical_devices("GPU"))


def parts_at_once() -> int:
    """Parts of a batch to compute in parallel: one for each core; on a GPU one, since it is parallel itself."""
    return 1 if gpus() else available_cores()


def gpu_names() -> list[str]:
    """Models of the GPUs that TensorFlow may use; a run without `strategy` computes on the first."""
    return [str(details.get("device_name", "unknown GPU")) for details in _gpu_details()]


def tf32() -> bool:
    """Whether GPUs round the factors of float32 products to TF32: Ampere and later do, unless it is switched off."""
    import tensorflow as tf  # the module must load without

    new = [details.get("compute_capability", (0, 0)) >= TF32_SINCE for details in _gpu_details()]
    return any(new) and tf.config.experimental.tensor_float_32_execution_enabled()


def cudnn_version() -> str:
    """Version of the package with cuDNN; without that package, the one that TensorFlow was built for."""
    import tensorflow as tf  # the module must load without

    try:
        return metadata.version(CUDNN)
    except metadata.PackageNotFoundError:
        return str(tf.sysconfig.get_build_info().get("cudnn_version", "unknown"))


def _gpu_details() -> list[dict[str, Any]]:
    import tensorflow as tf  # the module must load without

    return [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.get_visible_devices("GPU")]


def _instructions() -> frozenset[str]:
    return frozenset(next((line.split() for line in _cpuinfo().splitlines() if line.startswith("flags")), []))


def _cpuinfo() -> str:
    return _text(Path("/proc/cpuinfo"))


def _text(file: Path) -> str:
    """A file of the system; empty where there is none."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
