"""Where a model computes, and in which dtype."""

from __future__ import annotations

from calib_utils.crossing import Lazy
from calib_utils.errors import ModelError

torch = Lazy("torch")
_DTYPES = ("bfloat16", "float16", "float32")


def dtype_name(dtype: torch.dtype) -> str:
    """`"bfloat16"` for `torch.bfloat16`."""
    return str(dtype).removeprefix("torch.")


def best_cpu_dtype() -> torch.dtype:
    """bfloat16 where the processor multiplies it natively (AVX512-BF16, AMX), else float32."""
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    native = any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)
    return torch.bfloat16 if native else torch.float32


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """`"auto"` or a name to a torch dtype; raises ValueError for any other word."""
    if dtype == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        return best_cpu_dtype() if device.type == "cpu" else torch.float32
    if dtype not in _DTYPES:
        raise ValueError(f"dtype {dtype!r} is unknown; use 'auto' or one of {sorted(_DTYPES)}")
    return getattr(torch, dtype)


def resolve_device(device: str) -> torch.device:
    """`"auto"` picks CUDA when there is one; anything else is checked and returned."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ModelError(f"device {device!r} is unknown; use 'auto', 'cpu', 'cuda' or 'cuda:1'") from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"device {device!r} was asked for, but no CUDA device is visible; use device='cpu'")
    return found
