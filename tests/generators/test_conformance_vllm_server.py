"""The suite of all generators, over vLLM's own server with a small random model, on a CPU.

Started as a module: the command `vllm serve` asks for the version of a package "vllm", which the CPU build is not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest
from conformance import *  # noqa: F403
from conformance import Subject
from real_servers import free_port, running, vllm_python
from tiny_qwen import make_tiny_model

from mathlete.core.generation import Message
from mathlete.generators.openai_server import ServerGenerator, connect
from mathlete.generators.server_settings import ServerSettings

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

MAX_MODEL_LEN = 512
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    python, port = vllm_python(), free_port()
    folder, logs = tmp_path_factory.mktemp("tiny"), tmp_path_factory.mktemp("vllm")
    make_tiny_model(folder, tie_word_embeddings=False, hidden_size=128)
    told = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "chat_template": CHATML}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    command = [
        python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--served-model-name", "tiny",
        "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager",
        "--max-model-len", str(MAX_MODEL_LEN), "--max-num-seqs", "32", "--kv-cache-memory-bytes", str(256 << 20),
        "--scheduling-policy", "priority",
    ]  # fmt: skip
    env = {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": str(min(os.sched_getaffinity(0))),
    }
    with running(command, port, logs / "log", env) as url:

        def make() -> ServerGenerator:
            # its CPU build ends on a seed
            return connect("tiny", ServerSettings(url, use_seeds=False, priority_scheduling=True))

        made = Subject(
            make,
            hot=0.5,  # a random model wavers; vLLM takes 2 at most
            too_long=(Message("user", "x" * 4 * MAX_MODEL_LEN),),
            wait_s=240.0,
            control_token="<|im_end|>",
            num_long=400,
        )
        assert isinstance(made.shared, ServerGenerator)
        assert made.shared.description.endswith("(vllm, 512 tokens)") and made.shared.warnings == ()
        made.capabilities = made.shared.capabilities
        assert made.capabilities.continuation and made.capabilities.rewinding and made.capabilities.logprobs
        assert made.capabilities.top_k and made.capabilities.token_ids and not made.capabilities.seeds
        yield made
        made.shared.close()
