"""Bfloat16 where the device computes it, float32 where it would be emulated; one function decides."""

import json
import os
import subprocess
import sys

import pytest
import torch

from stereopsis.errors import StereopsisError
from stereopsis.precision import bfloat16_speed, choose_precision

LIMITS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")


@pytest.fixture
def cpu(monkeypatch):
    """Pretend that torch runs on this kind of CPU."""

    def pretend(capability="AVX512", bf16=False, amx=False, avx2=True):
        for name in LIMITS:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
        monkeypatch.setattr(torch.cpu, "_is_avx2_supported", lambda: avx2)

    return pretend


@pytest.fixture
def measured(monkeypatch):
    """Pretend that a measurement gives this ratio; counts how often somebody measures."""
    calls = []

    def pretend(ratio):
        monkeypatch.setattr("stereopsis.precision.bfloat16_speed", lambda device: calls.append(device) or ratio)
        return calls

    return pretend


@pytest.mark.parametrize(
    ("capability", "bf16", "amx", "name"),
    [
        ("AVX512", True, False, "bf16"),
        ("AVX512", False, True, "bf16"),
        ("AVX512", False, False, "fp32"),  # Skylake: wide, but without bfloat16
        ("AVX2", False, False, "fp32"),
        ("AVX2", True, False, "fp32"),  # the CPU could, but its kernels are not taken
        ("DEFAULT", False, False, "fp32"),
    ],
)
def test_flags_decide_on_x86_without_measuring(cpu, measured, capability, bf16, amx, name):
    cpu(capability, bf16=bf16, amx=amx)
    calls = measured(1.0)
    choice = choose_precision()
    assert (choice.name, choice.asked, calls) == (name, "auto", [])
    assert choice.dtype == {"bf16": torch.bfloat16, "fp32": torch.float32}[name]


@pytest.mark.parametrize(("ratio", "name"), [(1.7, "bf16"), (0.8, "fp32")])
def test_where_flags_say_nothing_a_measurement_decides(cpu, measured, ratio, name):
    cpu("DEFAULT", avx2=False)  # as ARM CPUs call themselves
    calls = measured(ratio)
    choice = choose_precision()
    assert (choice.name, choice.ratio, len(calls)) == (name, ratio, 1)


@pytest.mark.parametrize("variable", LIMITS)
def test_limited_kernels_are_measured_whatever_the_cpu_could(cpu, measured, monkeypatch, variable):
    cpu("AVX512", bf16=True)
    monkeypatch.setenv(variable, "AVX2")
    calls = measured(0.02)
    assert choose_precision().name == "fp32"
    assert len(calls) == 1


@pytest.mark.parametrize(("capability", "name"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_gpus_by_compute_capability(monkeypatch, capability, name):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    choice = choose_precision(device="cuda")
    assert choice.name == name
    assert f"{capability[0]}.{capability[1]}" in choice.reason


def test_what_is_asked_for_is_done_with_one_warning_where_it_is_emulated(cpu, measured):
    cpu("AVX2")
    measured(1 / 80)
    choice = choose_precision("bf16")
    assert choice.name == "bf16"
    assert choice.emulated
    assert choice.sentence.startswith("Warning: precision bf16 was asked for, but this device emulates it")
    assert "80 times as long" in choice.sentence
    cpu("AVX512", bf16=True)
    assert choose_precision("bf16").sentence == "Precision: bf16 (as asked)"
    assert choose_precision("fp32").record() == {"asked": "fp32", "name": "fp32", "reason": "as asked"}


@pytest.mark.parametrize("begun", ["bf16", "fp32"])
def test_work_that_was_begun_goes_on_as_it_was(cpu, begun):
    cpu("AVX512", bf16=begun == "fp32")  # this machine alone would decide otherwise
    assert choose_precision("auto", decided=begun).name == begun
    assert choose_precision("fp32", decided="bf16").name == "fp32"  # what is asked for comes first


def test_unknown_precisions_are_refused():
    with pytest.raises(StereopsisError, match="must be one of auto, bf16, fp32, found 'fp16'"):
        choose_precision("fp16")


def test_a_measurement_takes_milliseconds_and_finds_emulation():
    script = (
        "import time, json, torch; from stereopsis.precision import choose_precision\n"
        "start = time.process_time(); choice = choose_precision(); used = time.process_time() - start\n"
        "print(json.dumps(choice.record() | {'seconds': used}))"
    )
    limited = os.environ | {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=limited, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["name"] == "fp32"
    assert found["ratio"] < 1
    assert found["seconds"] < 2  # some 0.05 where nothing else runs


def test_the_ratio_is_positive_on_this_machine():
    assert bfloat16_speed("cpu") > 0
