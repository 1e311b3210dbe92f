"""Compiles the judge's kernel and those of fineweb-muon-kernels for compute capability 9.0; prints JSON.

Needs no GPU: Triton's compiler and ptxas are in its wheel. Types and strides are those of a training step.
"""

from __future__ import annotations

import json
from typing import Any

from triton import compile as build
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from harness.core.gpu_nats import _nats_kernel
from tests.submissions.modules import KERNELS, load_module

kernels = load_module(KERNELS, "kernels")


def compiled(kernel: Any, types: dict[str, str], constants: dict[str, Any], matrix: bool = False) -> dict[str, Any]:
    """Compiles one kernel; integers not named are multiples of 16, as sizes and strides of a training step are."""
    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in names}
    aligned = [index for index, name in enumerate(names) if signature[name].startswith("*") or signature[name] == "i32"]
    attributes: Any = {(index,): [["tt.divisibility", 16]] for index in aligned}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)
    options = {"num_warps": 8, "num_stages": 3}
    result = build(source, target=GPUTarget("cuda", 90, 32), options=options)
    assert result.asm["cubin"]
    return {
        "kernel": kernel.__name__,
        "shared_bytes": result.metadata.shared,
        "tensor_cores": "wgmma" in result.asm["ptx"],
        "matrix": matrix,
    }


def main() -> None:
    built = []
    floats = dict.fromkeys(("losses", "normalizers", "upstream"), "*fp32")
    scalars = {"cap": "fp32", "scale": "fp32", "addend_scale": "fp32", "targets": "*i64"}
    row = {"BLOCK": 4096, "column_stride": 1, "target_stride": 1}
    for kernel in (kernels._loss_kernel, kernels._loss_gradient_kernel):
        built.append(compiled(kernel, {"logits": "*bf16", "gradient": "*bf16", **floats, **scalars}, row))
    for kind in ("*bf16", "*fp16", "*fp32"):
        built.append(compiled(_nats_kernel, {"logits": kind, "targets": "*i64", "nats": "*fp32"}, row))
        matrix = kind != "*fp32"
        tensors = dict.fromkeys(("x", "addend", "out", "left", "right", "hidden"), kind)
        block, depth = kernels.symmetric_tile(matrix)
        square = {"HAS_ADDEND": True, "BLOCK": block, "INNER": depth, "x_inner": 1, "addend_column": 1}
        built.append(compiled(kernels._symmetric_kernel, tensors | scalars, square, matrix))
        rows, columns, inner = kernels.hidden_tile(matrix)
        tile = {"ROWS": rows, "COLUMNS": columns, "INNER": inner, "GROUP": 8, "left_inner": 1}
        for gradient, stride in ((False, "right_inner"), (True, "right_column")):
            constants = {"GRADIENT": gradient, stride: 1, **tile}
            built.append(compiled(kernels._hidden_kernel, tensors, constants, matrix))
    print(json.dumps(built))


if __name__ == "__main__":
    main()
