"""Properties of the computer, from what the operating system reports."""

import os
import platform
from pathlib import Path

import pytest
import tensorflow as tf
from gpu import stand_in

from charrnn_tf.machine import hardware
from charrnn_tf.machine.hardware import available_cores, has_bfloat16, only_avx2, processor, settings_for, this_machine
from charrnn_tf.settings.recipe import Machine

CPUINFO = """processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: Abacus 9 amx_bf16 @ 2: fast
flags\t\t: fpu avx2 {flags} avx512vl

processor\t: 1
model name\t: Slide Rule
flags\t\t: fpu amx_bf16
"""
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd bf16 i8mm\n"


@pytest.fixture
def cpuinfo(monkeypatch):
    """A function that sets the content of /proc/cpuinfo."""
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    return lambda text: monkeypatch.setattr(hardware, "_cpuinfo", lambda: text)


@pytest.mark.parametrize(
    ("flags", "has"),
    [("avx512_bf16", True), ("amx_bf16", True), ("avx512_bf16 amx_bf16", True), ("avx512f", False), ("xamx_bf16", False)],
)
def test_bfloat16_follows_the_flags_of_the_first_processor(cpuinfo, flags, has):
    cpuinfo(CPUINFO.format(flags=flags))
    assert has_bfloat16() is has


def test_without_onednn_there_are_no_bfloat16_products(cpuinfo, monkeypatch):
    cpuinfo(CPUINFO.format(flags="amx_bf16"))
    for switch, has in [("1", True), ("0", False)]:
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", switch)
        assert has_bfloat16() is has


@pytest.mark.parametrize(("flags", "only"), [("", True), ("avx512f", False), ("avx512f avx512_bf16", False)])
def test_only_avx2_means_no_avx512(cpuinfo, flags, only):
    cpuinfo(CPUINFO.format(flags=f"avx2 {flags}"))
    assert only_avx2() is only


@pytest.mark.parametrize("text", ["", ARM, "flags\n", "\n"])
def test_without_reported_flags_no_instructions_are_assumed(cpuinfo, text):
    cpuinfo(text)
    assert has_bfloat16() is False
    assert only_avx2() is False


def test_the_processors_name_is_that_of_the_first(cpuinfo):
    cpuinfo(CPUINFO)
    assert processor() == "Abacus 9 amx_bf16 @ 2: fast"


@pytest.mark.parametrize("text", ["", ARM])
def test_a_processor_without_a_name_gets_pythons(cpuinfo, monkeypatch, text):
    cpuinfo(text)
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    for known, name in [("Sunway", "Sunway"), ("", "riscv64")]:
        monkeypatch.setattr(platform, "processor", lambda known=known: known)
        assert processor() == name


def test_a_system_without_cpuinfo_reports_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(hardware, "Path", lambda path: tmp_path / Path(path).name)
    assert hardware._cpuinfo() == ""
    (tmp_path / "cpuinfo").write_bytes(b"model name\t: \xff\n")
    assert hardware._cpuinfo() == "model name\t: \ufffd\n"


ALL_MEMORY, ALL_CORES = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("membership", "files", "memory", "cores", "share"),
    [
        ("0::/\n", {"memory.max": "123456\n", "cpu.max": "100000 100000\n"}, 123456, 1, 1),
        ("0::/\n", {"memory.max": "max\n", "cpu.max": "max 100000\n"}, ALL_MEMORY, ALL_CORES, 1),
        ("0::/\n", {"memory.max": f"{ALL_MEMORY + 1}\n", "cpu.max": "9900000 100000\n"}, ALL_MEMORY, ALL_CORES, 1),
        ("0::/\n", {"cpu.max": "20000 100000\n"}, ALL_MEMORY, 1, 0.2),  # a fifth of a core
        ("0::/a/b\n", {"a/memory.max": "1000\n", "a/b/memory.max": "2000\n", "a/cpu.max": "50000 50000"}, 1000, 1, 1),
        ("0::/gone\n", {"memory.max": "1000\n"}, 1000, ALL_CORES, 1),  # as a container sees its host's path
        ("4:memory:/x\n1:cpu,cpuacct:/x\n", {
            "memory/x/memory.limit_in_bytes": "3000\n", "cpu,cpuacct/x/cpu.cfs_quota_us": "100000\n",
            "cpu,cpuacct/x/cpu.cfs_period_us": "100000\n"}, 3000, 1, 1),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, ALL_MEMORY, ALL_CORES, 1),
        ("", {}, ALL_MEMORY, ALL_CORES, 1),
        ("0::/../up\n", {"memory.max": "1000\n"}, 1000, ALL_CORES, 1),
    ],
)  # fmt: skip
def test_the_limits_of_control_groups_count(monkeypatch, tmp_path, membership, files, memory, cores, share):
    groups, process = tmp_path / "cgroup", tmp_path / "of_process"
    groups.mkdir()
    process.write_text(membership)
    for name, text in files.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(text)
    monkeypatch.setattr(hardware, "GROUPS", groups)
    monkeypatch.setattr(hardware, "GROUPS_OF_PROCESS", process)
    assert (hardware.available_memory(), available_cores(), hardware.core_share()) == (memory, cores, share)


def test_this_machine_is_described(cpuinfo, monkeypatch):
    cpuinfo(CPUINFO.format(flags="avx512f amx_bf16"))
    monkeypatch.setattr(hardware, "available_cores", lambda: 6)
    assert this_machine() == Machine(cores=6, bfloat16=True, only_avx2=False, gpus=0)
    cpuinfo(CPUINFO.format(flags=""))
    assert this_machine(gpus=2) == Machine(cores=6, bfloat16=False, only_avx2=True, gpus=2)
    assert 1 <= available_cores() <= os.cpu_count()


def test_settings_for_another_machine(cpuinfo, monkeypatch):
    cpuinfo(CPUINFO.format(flags=""))  # AVX2 only
    monkeypatch.setattr(hardware, "available_cores", lambda: 2)
    assert settings_for(1_800_000, seconds=400)["hidden_size"] == 256
    assert settings_for(1_800_000, seconds=400, cores=2, bfloat16=False)["hidden_size"] == 256
    assert settings_for(1_800_000, seconds=400, cores=8)["hidden_size"] == 384
    on_gpu = settings_for(1_800_000, seconds=400, gpus=1)
    assert (on_gpu["hidden_size"], on_gpu["precision"]) == (512, "float32")
    for cores in (4, 64):  # a batch of 32 is split in four
        assert settings_for(1_800_000, seconds=400, cores=cores)["hidden_size"] == 384
    assert settings_for(1_800_000, seconds=400, bfloat16=True)["hidden_size"] == 512
    cpuinfo(CPUINFO.format(flags="avx512f"))
    assert settings_for(1_800_000, seconds=400, cores=2, bfloat16=False)["hidden_size"] == 512
    assert settings_for(1_800_000, seconds=400, cores=2, bfloat16=False, speed=0.444)["hidden_size"] == 256


def test_precision_follows_this_machine(cpuinfo):
    for flags, precision in [("avx512f", "float32"), ("avx512f amx_bf16", "bfloat16")]:
        cpuinfo(CPUINFO.format(flags=flags))
        assert settings_for(10**6)["precision"] == precision


@pytest.mark.parametrize(("flags", "lacking"), [("sse2 avx", False), ("sse2 ssse3", True), ("", False)])
def test_only_an_x86_cpu_without_avx_lacks_it(monkeypatch, flags, lacking):
    monkeypatch.setattr(hardware, "_instructions", lambda: frozenset(flags.split()))
    assert hardware.lacks_avx() is lacking


def test_a_gpu_is_one_that_the_driver_lists(monkeypatch, tmp_path):
    monkeypatch.setattr(hardware, "NVIDIA", tmp_path / "gpus")
    assert not hardware.has_nvidia_gpu()
    (tmp_path / "gpus").mkdir()
    assert not hardware.has_nvidia_gpu()
    (tmp_path / "gpus" / "0000:01:00.0").mkdir()
    assert hardware.has_nvidia_gpu()


@pytest.mark.parametrize(
    ("there", "usable", "visible", "unused"),
    [
        (True, False, None, True), (True, False, "0", True), (True, False, "-1", False), (True, False, "", False),
        (True, True, None, False), (False, False, None, False),
    ],
)  # fmt: skip
def test_an_nvidia_gpu_without_its_libraries_is_unused_unless_hidden(monkeypatch, there, usable, visible, unused):
    monkeypatch.setattr(hardware, "has_nvidia_gpu", lambda: there)
    monkeypatch.delenv(hardware.VISIBLE, raising=False)
    if visible is not None:
        monkeypatch.setenv(hardware.VISIBLE, visible)
    if usable:
        stand_in(monkeypatch)
    assert hardware.unused_gpu() is unused


@pytest.mark.parametrize(
    ("capability", "enabled", "tf32"),
    [((8, 0), True, True), ((9, 0), False, False), ((7, 5), True, False), (None, True, False)],
)
def test_tf32_needs_ampere_and_can_be_switched_off(monkeypatch, capability, enabled, tf32):
    stand_in(monkeypatch)
    experimental = tf.config.experimental
    monkeypatch.setattr(
        experimental, "get_device_details", lambda gpu: {"compute_capability": capability} if capability else {}
    )
    monkeypatch.setattr(experimental, "tensor_float_32_execution_enabled", lambda: enabled)
    assert hardware.tf32() is tf32
    assert hardware.gpu_names() == ["unknown GPU"]


def test_cudnns_version_is_that_of_its_package(monkeypatch):
    monkeypatch.setattr(hardware.metadata, "version", {"nvidia-cudnn-cu12": "9.3.0.75"}.__getitem__)
    assert hardware.cudnn_version() == "9.3.0.75"

    def missing(name):
        raise hardware.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(hardware.metadata, "version", missing)
    for build, version in [({"cudnn_version": "9"}, "9"), ({}, "unknown")]:
        monkeypatch.setattr(tf.sysconfig, "get_build_info", lambda build=build: build)
        assert hardware.cudnn_version() == version
