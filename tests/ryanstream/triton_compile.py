"""Compiles every Triton kernel to an H100's machine code, with no GPU, and prints their names. Run as a script."""

from __future__ import annotations

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from mathlete.ryanstream.model.triton import nf4_matmul, paged_attention, rms_norm, rotary, sample, swiglu

H100 = GPUTarget("cuda", 90, 32)
F, I = "*fp32", "*i32"  # noqa: E741


def compile_kernel(kernel: triton.JITFunction, types: str, **constants: int | None) -> None:
    """`types` of the arguments that are not constants, in order."""
    given = iter(types.split())
    signature = {name: "constexpr" if name in constants else next(given) for name in kernel.arg_names}
    places = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    compiled = triton.compile(ASTSource(kernel, signature, places), target=H100)
    assert compiled.asm["cubin"]
    print(kernel.__name__)


def main() -> None:
    heads = {"HEADS": 12, "KV_HEADS": 2, "DIM": 128, "BLOCK_SIZE": 16}
    for cached in ("*bf16",):
        compile_kernel(rms_norm._rms_norm_kernel, f"{F} {F} {cached} i32 i32 fp32", WIDTH=1536, BLOCK=2048)
        compile_kernel(swiglu._swiglu_kernel, f"{F} {cached} i32", BLOCK=1024)
        compile_kernel(nf4_matmul._dequantize_kernel, f"*u8 {F} {F} {cached} i32", PAIRS=1024, BLOCK=64)
        compile_kernel(rotary._rotate_store_kernel, f"{F} {I} *i64 {F} {F} {cached} {cached}", HALF_BLOCK=64, **heads)
        for paths, without in (("*i64 ", {}), ("", {"paths_ptr": None})):
            compile_kernel(
                paged_attention._attention_kernel, f"{F} {cached} {cached} {I} {I} {I} {paths}{F} i32 i32 fp32",
                DIM_BLOCK=128, GROUP_BLOCK=16, TILE=64, WIDEN=0, **heads, **without,
            )  # fmt: skip
    tiles, each = f"*i64 {F} {F} {F} {F} {I}", {"ID_BITS": 18, "TILE": 1024}
    compile_kernel(sample._sort_tiles_kernel, f"{F} i32 i32 {F} {tiles}", **each)
    compile_kernel(
        sample._draw_kernel, f"{F} i32 i32 {F} {F} {I} {F} *fp64 {I} i32 {tiles} {I} {F} {F} {F} {I} {F}",
        LIKELIEST=20, TILES=256, WAYS_BITS=4, **each,
    )  # fmt: skip
    compile_kernel(sample._mask_kernel, f"{F} i32 i32 {I} i32", BLOCK=1024)


if __name__ == "__main__":
    main()
