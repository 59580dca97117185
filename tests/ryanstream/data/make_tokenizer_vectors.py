"""Makes tokenizer_vectors.json with llama.cpp's `llama-tokenize`: an implementation that shares no code with ours.

    python make_tokenizer_vectors.py LLAMA_TOKENIZE MODEL.gguf VERSION

`--no-parse-special` encodes control tokens in the text as the characters they consist of.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

OPTIONS = ("--ids", "--no-parse-special", "--no-bos", "--no-escape")

TEXTS = [
    "Hello, world!",
    " leading and trailing ",
    "Find the sum of all positive integers $n$ such that $n^2 + 12n - 2007$ is a perfect square.",
    r"\frac{1}{2} + \sqrt{3x^{2}-5} \leq \sum_{k=1}^{\infty} \frac{(-1)^k}{k!}",
    r"\[\boxed{\dfrac{a+b}{c}}\]",
    r"$$\begin{pmatrix} 1 & 0 \\ 0 & -1 \end{pmatrix}$$",
    r"Let $\triangle ABC$ have $\angle A = 90^\circ$, $AB=\overline{3}$.",
    r"\left\{ x \in \mathbb{R} \mid x \not\equiv 1 \pmod{7} \right\}",
    "def f(n):\n    if n < 2:\n        return n\n    return f(n - 1) + f(n - 2)\n\n\nprint(f(30))\n",
    "for i in range(10):\n\tprint(i)\n\t\tx += 1\n",
    "```python\nfrom sympy import symbols, solve\nx = symbols('x')\nprint(solve(x**2 - 2, x))\n```\n",
    "```output\n[-sqrt(2), sqrt(2)]\n```\n",
    "x=1;y=2;z=x+y*3//4%5**6",
    "if a != b and c >= d or not (e <= f): pass  # comment",
    "1234567890",
    "0.000123 1,000,000 3.14159e-10 1/3 -42 +7",
    "2^{10} = 1024, 10^9+7, 0x1F, 1e5",
    "2007 2008 20 07 2 0 0 7",
    "٣٤٥ １２３ ½ ² ③ Ⅻ",
    "I'm you're he's we've they'll I'd don't can't 'twas o'clock",
    "I'M YOU'RE HE'S WE'VE THEY'LL I'D DON'T CAN'T 'Re 'lL",
    "it’s a ‘quoted’ “word” — dash – and … dots",
    "a  b   c    d     e",
    "    four\n        eight\n\n\n   three blank",
    "trailing spaces   ",
    "   ",
    " ",
    "\n",
    "\n\n\n",
    "\t\t\t",
    " \n \n  \n",
    "line one\r\nline two\r\n\r\nline four\r",
    "tabs\tand\tspaces \t mixed\t \n",
    "a\u00a0b\u2003c\u3000d\u200be",
    "          " * 9 + "x",
    "word" + "\n" * 40 + "word",
    "=" * 100,
    "-" * 17 + " " + "*" * 33 + "\n" + "_" * 9,
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "CamelCaseIdentifier snake_case_identifier SCREAMING_CASE kebab-case x1y2z3",
    "http://example.com/path?query=1&other=%20#fragment user@example.org",
    "C:\\Users\\name\\file.txt /usr/local/bin",
    '{"key": [1, 2.5, null, true], "nested": {"a": "b\\n"}}',
    "<html><body class=\"x\">&amp;</body></html>",
    "求所有正整数 n，使得 n² + 1 能被 5 整除。",
    "日本語のテキスト、カタカナとひらがな。",
    "한국어 문장입니다. 조합형도",
    "Привет, мир! Сколько будет 2+2?",
    "Ελληνικά: α, β, γ ∈ ℝ, ∀ε>0 ∃δ>0",
    "العربية من اليمين إلى اليسار",
    "עברית עם ניקוד: שָׁלוֹם",
    "हिन्दी में एक वाक्य",
    "ไทยไม่มีช่องว่าง",
    "😀 😃👍🏽 👩‍👩‍👧‍👦 🇩🇪 ❤️",
    "∑∏∫√∞≈≠≤≥±×÷∂∇⊂⊆∪∩→⇒⇔",
    "naïve café façade Zürich Ångström",
    "<|im_end|>",
    "text with <|im_start|>user inside<|im_end|>\n",
    "<|endoftext|><|fim_prefix|><|",
    "<tool_call>{\"name\": \"f\"}</tool_call>",
    # not in normal form C: Qwen2's tokenizer composes them first, llama.cpp does not
    "cafe\u0301 e\u0301 A\u030a \u212b \u2126",
    "\u1112\u1161\u11ab",
    "q\u0307\u0323 and \u0344",
    "\x00\x01\x7f\x1b[0m control characters",
    "\ufeffbyte order mark \ufffd replacement",
    "private \ue000 and unassigned \U000e0fff",
]  # fmt: skip


def tokenize(program: str, model: str, text: str) -> list[int]:
    """The ids that llama.cpp gives."""
    with tempfile.NamedTemporaryFile(suffix=".txt") as file:
        file.write(text.encode())
        file.flush()
        command = [program, "-m", model, "-f", file.name, *OPTIONS, "--log-disable"]
        done = subprocess.run(command, capture_output=True, check=True, text=True)
    ids: list[int] = json.loads(done.stdout.strip().splitlines()[-1])
    return ids


def main(program: str, model: str, version: str) -> None:
    """Write tokenizer_vectors.json beside this file."""
    content = {
        "program": "llama.cpp llama-tokenize " + " ".join(OPTIONS),
        "version": version,
        "model_sha256": hashlib.sha256(Path(model).read_bytes()).hexdigest(),
        "date": datetime.date.today().isoformat(),
        "vectors": [{"text": text, "ids": tokenize(program, model, text)} for text in TEXTS],
    }
    Path(__file__).with_name("tokenizer_vectors.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
