"""Which precision products are computed in: bfloat16 where the device has it, float32 elsewhere.

A CPU without bfloat16 instructions computes it all the same, by emulation, up to a hundred times slower than float32.
"""

import dataclasses
import os
import time
from typing import TYPE_CHECKING, Any, Literal, cast

from stereopsis.errors import StereopsisError, did_you_mean

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "bf16", "fp32"]
PRECISIONS: tuple[Precision, ...] = ("auto", "bf16", "fp32")
_LIMITS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""Environment variables that keep CPU kernels from instructions that the CPU has."""
_SIDE, _REPEATS = 256, 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComputePrecision:
    """A decision.

    Attributes:
        asked: what was asked for.
        name: what it comes to.
        reason: why, in words.
        ratio: how many times as fast bfloat16 products are as float32's; None where nobody had to measure.
    """

    asked: Precision
    name: Literal["bf16", "fp32"]
    reason: str
    ratio: float | None = None

    @property
    def dtype(self) -> "torch.dtype":
        """Of what is computed."""
        import torch

        return torch.bfloat16 if self.name == "bf16" else torch.float32

    @property
    def emulated(self) -> bool:
        """Whether bfloat16 was insisted on where it is slower than float32."""
        return self.name == "bf16" and self.ratio is not None and self.ratio < 1

    @property
    def sentence(self) -> str:
        """For people: the decision, and a warning where there is one."""
        if not self.emulated:
            return f"Precision: {self.name} ({self.reason})"
        slower = 1 / cast(float, self.ratio)
        return (
            f"Warning: precision bf16 was asked for, but this device emulates it: products take {slower:.0f} times as "
            "long as in float32 (measured); leave 'precision' out, or set it to 'auto' or 'fp32'"
        )

    def record(self) -> dict[str, Any]:
        """For files that tell how a result came about."""
        return {key: value for key, value in dataclasses.asdict(self).items() if value is not None}


def choose_precision(
    asked: str = "auto", device: "torch.device | str" = "cpu", *, decided: str | None = None
) -> ComputePrecision:
    """Decide what products are computed in on a device.

    Capability flags decide: bfloat16 on CUDA devices from compute capability 8.0 and on CPUs with AVX512-BF16 or AMX.
    Where they say nothing (another kind of processor, or kernels that an environment variable limits), both precisions
    are measured for some milliseconds.

    Args:
        asked: "auto", "bf16" or "fp32".
        device: where products will be computed.
        decided: what "auto" came to when the work was begun that goes on now; it stays so.

    Raises:
        StereopsisError: no such precision.
    """
    checked = parse_precision(asked)
    if checked == "fp32":
        return ComputePrecision(asked=checked, name="fp32", reason="as asked")
    if checked == "auto" and decided in ("bf16", "fp32"):
        return ComputePrecision(asked=checked, name=cast(Any, decided), reason="as it was begun")
    native, reason, ratio = _bfloat16(device)
    if checked == "bf16":
        if not native and ratio is None:
            ratio = bfloat16_speed(device)
        return ComputePrecision(asked=checked, name="bf16", reason="as asked", ratio=ratio)
    return ComputePrecision(asked=checked, name="bf16" if native else "fp32", reason=reason, ratio=ratio)


def parse_precision(asked: str) -> Precision:
    """Refuse what is no precision.

    Raises:
        StereopsisError: names those that are.
    """
    if asked not in PRECISIONS:
        raise StereopsisError(
            f"precision must be one of {', '.join(PRECISIONS)}, found '{asked}'{did_you_mean(asked, PRECISIONS)}"
        )
    return asked


def bfloat16_speed(device: "torch.device | str") -> float:
    """How many times as fast bfloat16 products are as float32's on a device, measured on a small one.

    Every repeat times both, and the fastest of each counts, so that a busy machine does not decide.
    """
    import torch

    pairs = [torch.ones(_SIDE, _SIDE, device=device, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)]
    best = [float("inf"), float("inf")]
    for repeat in range(_REPEATS + 1):
        for number, matrix in enumerate(pairs):
            _finish(device)
            start = time.perf_counter()
            matrix @ matrix
            _finish(device)
            if repeat:  # the first one warms up
                best[number] = min(best[number], time.perf_counter() - start)
    return best[0] / best[1]


def _finish(device: "torch.device | str") -> None:
    """Wait for what a device was told to do."""
    import torch

    kind = torch.device(device).type
    if kind != "cpu":
        torch.get_device_module(kind).synchronize()


def _bfloat16(device: "torch.device | str") -> tuple[bool, str, float | None]:
    """Whether a device computes bfloat16, why one thinks so, and the measured ratio where it was needed."""
    import torch

    device = torch.device(device)
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return major >= 8, f"the GPU's compute capability is {major}.{minor}, bfloat16 wants 8.0", None
    if device.type == "cpu" and not any(name in os.environ for name in _LIMITS):
        found = _x86_flags()
        if found is not None:
            return (*found, None)
    ratio = bfloat16_speed(device)
    return ratio > 1, f"measured: bfloat16 products are {ratio:.2g} times as fast as float32's here", ratio


def _x86_flags() -> tuple[bool, str] | None:
    """What an x86 CPU says of itself, and torch of the kernels that it takes there; None: another kind."""
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    if not capability.startswith("AVX") and capability not in ("DEFAULT", "NO AVX"):
        return None
    if capability == "DEFAULT" and not torch.cpu._is_avx2_supported():
        return None  # as other kinds of processors call themselves
    if capability.startswith("AVX512"):
        if torch.cpu._is_amx_tile_supported():
            return True, "this CPU has AMX"
        if torch.cpu._is_avx512_bf16_supported():
            return True, "this CPU has AVX512-BF16"
    return False, "this CPU has neither AVX512-BF16 nor AMX"
