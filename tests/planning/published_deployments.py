"""What was published of deployments on GPUs: what engines logged of their memory, and tokens a second. With addresses.

Logged sizes are GiB (older vLLM writes "GB" and means GiB).
"""

from __future__ import annotations

from dataclasses import dataclass

from mathlete.planning.parallel_weights import Layout
from mathlete.planning.vllm_memory import VLLMLimits

GPT_OSS_LOGS = "https://blog.huikang.dev/2025/12/28/vllm-logs.html"
QWEN_SPEED = "https://qwen.readthedocs.io/en/v2.5/benchmark/speed_benchmark.html"


@dataclass(frozen=True, slots=True)
class PublishedMemory:
    """What vLLM logged at its start.

    Attributes:
        url: where.
        model: a name of the plan's table.
        packed: format of its weights.
        accelerator: a name of the plan's table.
        layout: over GPUs.
        limits: as far as they were told; what was not is vLLM's default of that version.
        weights_gib: "model weights take" or "Model loading took", a GPU.
        kv_gib: "Available KV cache memory" or "the rest of the memory reserved for KV Cache"; None when not told.
        kv_tokens: "GPU KV cache size"; None when not told.
        note: what differs.
    """

    url: str
    model: str
    packed: str
    accelerator: str
    layout: Layout
    limits: VLLMLimits
    weights_gib: float
    kv_gib: float | None
    kv_tokens: int | None
    note: str = ""


MEMORY = (
    PublishedMemory(
        GPT_OSS_LOGS, "openai/gpt-oss-120b", "mxfp4", "h100-sxm-80gb", Layout(),
        VLLMLimits(0.96, max_num_seqs=6, max_num_batched_tokens=8192, graphs_in_budget=False),
        weights_gib=65.9651, kv_gib=8.99, kv_tokens=130_960, note="vLLM 0.11.2, Marlin",
    ),
    PublishedMemory(
        "https://github.com/vllm-project/vllm/issues/13061", "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B", "bf16",
        "rtx-4090-24gb", Layout(tensor_parallel=2),
        VLLMLimits(0.98, max_num_seqs=256, max_num_batched_tokens=2048, graphs_in_budget=False),
        weights_gib=13.9476, kv_gib=None, kv_tokens=81_536, note="vLLM 0.7",
    ),
    PublishedMemory(
        "https://myoceane.fr/index.php/ai-vllm-a100-gemma-4/", "openai/gpt-oss-20b", "mxfp4", "a100-sxm-80gb", Layout(),
        VLLMLimits(0.65, max_num_seqs=256, max_num_batched_tokens=2048),
        weights_gib=13.72, kv_gib=36.56, kv_tokens=None, note="vLLM 0.19",
    ),
    PublishedMemory(
        "https://github.com/vllm-project/vllm/issues/10517", "meta-llama/Llama-3.1-8B-Instruct", "bf16",
        "rtx-3090-24gb", Layout(),
        VLLMLimits(0.9, max_num_seqs=256, max_num_batched_tokens=20_000, graphs_in_budget=False),
        weights_gib=14.9888, kv_gib=3.81, kv_tokens=1952 * 16, note="vLLM 0.6, max_model_len 20,000",
    ),
    PublishedMemory(
        "https://github.com/vllm-project/vllm/issues/13882", "Qwen/Qwen2.5-7B-Instruct", "nf4-dq", "rtx-4060-8gb",
        Layout(), VLLMLimits(0.7, max_num_seqs=256, max_num_batched_tokens=4096, graphs_in_budget=False),
        weights_gib=5.2032, kv_gib=-1.05, kv_tokens=None, note="vLLM 0.7.3, bitsandbytes NF4: it did not start",
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PublishedSpeed:
    """Tokens a second of decoding.

    Attributes:
        url: where.
        model: a name of the plan's table.
        packed: format of its weights.
        accelerator: a name of the plan's table.
        layout: over GPUs.
        batch: sequences at once.
        context: tokens of each, about the middle of what was generated.
        tokens_per_s: of all together.
    """

    url: str
    model: str
    packed: str
    accelerator: str
    layout: Layout
    batch: int
    context: int
    tokens_per_s: float


def _qwen(size: str, packed: str, gpus: int, tokens_per_s: float) -> PublishedSpeed:
    """Of Qwen's own table: vLLM 0.6.3, A100 80 GB, one sequence, 2,048 tokens from a prompt of one."""
    name = f"Qwen/Qwen2.5-{size}-Instruct" + ("-AWQ" if (size, packed) == ("72B", "awq") else "")
    return PublishedSpeed(QWEN_SPEED, name, packed, "a100-sxm-80gb", Layout(gpus), 1, 1024, tokens_per_s)


SPEEDS = (
    _qwen("7B", "bf16", 1, 84.28),
    _qwen("14B", "bf16", 1, 46.30),
    _qwen("32B", "bf16", 1, 22.13),
    _qwen("72B", "bf16", 4, 31.37),
    _qwen("7B", "awq", 1, 148.10),
    _qwen("14B", "awq", 1, 92.66),
    _qwen("32B", "awq", 1, 51.92),
    _qwen("72B", "awq", 2, 44.30),
    # 6 attempts at once; how long they were follows from the part of the KV cache in use (4.3 % and 59.3 %).
    PublishedSpeed(GPT_OSS_LOGS, "openai/gpt-oss-120b", "mxfp4", "h100-sxm-80gb", Layout(), 6, 1_750, 544.8),
    PublishedSpeed(GPT_OSS_LOGS, "openai/gpt-oss-120b", "mxfp4", "h100-sxm-80gb", Layout(), 6, 25_700, 348.6),
)
