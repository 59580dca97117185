"""What a model may write as a proof: one term, and nothing that reaches beyond it.

The attacks this blocks: ending the theorem and going on with commands (axioms, notation, instances, a second theorem
of the same name), comments that swallow what we append, options that turn the kernel off, tactics that run code,
read files or use the network, and compiled code in place of the kernel. A first wall: what gets past it still has to
pass Lean, and the audit of `script.py`, which asks for the statement as it was before the proof, and for its axioms.

How it can hold without a Lean parser: comments are taken out here, and text that could still be one, a string, a
quoted name or a quoted bracket is refused, so that what is left is words and brackets, about which we and Lean agree.
The proof is then put in parentheses of its own; while its brackets are balanced and never close more than they opened,
it cannot leave them.
"""

from __future__ import annotations

import re

from mathlete.core.errors import InputError
from mathlete.verify.lean.statement import Statement, without_comments

MAX_PROOF_CHARS = 20_000
MAX_BRACKETS = 200
"""Brackets in brackets."""

_COMMANDS = """
abbrev alias assert_exists assert_not_exists attribute axiom builtin_initialize class compile_def compile_inductive
constant coinductive declare_config_elab declare_simp_like_tactic declare_syntax_cat def deriving elab elab_rules end
example export extend_docs family_instances gen_injective_theorems import include inductive infix infixl infixr
init_quot initialize instance irreducible_def lemma library_note local macro macro_rules meta mutual namespace
noncomputable nonrec notation notation3 omit opaque open partial postfix prefix prelude private proof_wanted protected
public recall register_builtin_option register_label_attr register_option register_simp_attr run_cmd run_elab run_meta
scoped seal section set_option simproc simproc_decl simprocs structure suppress_compilation syntax theorem
to_additive unif_hint universe universes unseal variable variables
"""
_ESCAPES = """
admit bv_check bv_decide by_elab eval% include_str mathlete native native_decide nativeDecide polyrith run_tac sorry
sorryAx stop unsafe unsafeCast unsafeIO unsafeBaseIO dbgTrace dbg_trace implemented_by extern csimp ofReduceBool
ofReduceNat reduceBool trustCompiler lcProof lcUnreachable lcAny
"""
FORBIDDEN = frozenset(_COMMANDS.split()) | frozenset(_ESCAPES.split())
"""Words that no proof may use, alone or as the first or last part of a dotted name."""
_FORBIDDEN_SPACES = frozenset({"Lean", "IO", "System", "Elab", "Meta", "Mathlib"})
"""Namespaces of Lean's own machinery: no name in a proof may begin with one."""

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_'!?]*(?:\.[A-Za-z_][A-Za-z0-9_'!?]*)*%?")
"""ASCII only: other letters may be signs to Lean ("λdef" is two tokens), so words are looked for between them."""
_SIGNS = {
    "--": "a comment",
    "/-": "a comment",
    "-/": "a comment",
    '"': "a string",
    "`": "a quotation",
    "«": "a quoted name",
    "»": "a quoted name",
    "@[": "an attribute",
}
_QUOTED_SIGN = re.compile(r"'[()\[\]{}⟨⟩]'|'\\")
_PAIRS = {"(": ")", "[": "]", "{": "}", "⟨": "⟩"}
_BRACKETS = re.compile(r"[()\[\]{}⟨⟩]")


def proof_term(text: str, statement: Statement) -> str:
    """The proof in what a model wrote, without comments, ready to be put in parentheses.

    The model may give the term alone ("by ..."), with ":=" before it, or the whole theorem again; then the theorem must
    be word for word ours, and is replaced by ours.

    Raises:
        InputError: the text is refused; the message says why.
    """
    if len(text) > MAX_PROOF_CHARS:
        raise InputError(f"the proof has {len(text)} characters; at most {MAX_PROOF_CHARS} are read")
    bare = without_comments(text.replace("\r\n", "\n"))
    body = _without_restatement(bare, statement).strip("\n ")
    body = body.removeprefix(":=").strip("\n ")
    if not body.strip():
        raise InputError("there is no proof")
    reason = refusal(body)
    if reason is not None:
        raise InputError(f"the proof is refused: {reason}")
    return body


def refusal(body: str) -> str | None:
    """Why a proof without comments is not even tried, or None."""
    for sign, meaning in _SIGNS.items():
        if sign in body:
            return f"{meaning} ({sign})"
    if any(ord(character) < 32 and character not in "\n" for character in body) or "\x7f" in body:
        return "a control character"
    if _QUOTED_SIGN.search(body) is not None:
        return "a quoted sign"
    if (command := re.search(r"#[^\W\d]\w*", body)) is not None:
        return f"a command ({command.group()})"
    for match in _WORD.finditer(body):
        if (word := _forbidden(match.group())) is not None:
            return f"the word {word!r}"
    return _unbalanced(body)


def _forbidden(word: str) -> str | None:
    parts = word.rstrip("%").split(".")
    if parts[0] == "_root_":
        parts = parts[1:] or [""]
    if parts[0] in _FORBIDDEN_SPACES or parts[0].startswith("mathlete_"):
        return word
    return word if parts[0] in FORBIDDEN or parts[-1] in FORBIDDEN or word in FORBIDDEN else None


def _unbalanced(body: str) -> str | None:
    opened: list[str] = []
    for match in _BRACKETS.finditer(body):
        bracket = match.group()
        if bracket in _PAIRS:
            opened.append(_PAIRS[bracket])
        elif not opened or opened.pop() != bracket:
            return f"a bracket ({bracket!r}) that closes nothing"
        if len(opened) > MAX_BRACKETS:
            return "too many brackets in brackets"
    return "a bracket that is never closed" if opened else None


def _without_restatement(bare: str, statement: Statement) -> str:
    """What stands behind the theorem, when the model wrote it again; otherwise the text as it is.

    Raises:
        InputError: it wrote another theorem.
    """
    if re.match(r"\s*(?:theorem|lemma)\b", bare) is None and not re.search(r"^(?:theorem|lemma)\b", bare, re.MULTILINE):
        return bare
    words = f"theorem {statement.name} {statement.signature} :=".split()
    pattern = r"\s*".join(re.escape(word) for word in words).replace("theorem", "(?:theorem|lemma)", 1)
    head = r"\A(?:\s*(?:import|open|set_option)\s[^\n]*\n)*\s*"
    match = re.match(head + pattern, bare)
    if match is None:
        raise InputError("the proof is refused: it states another theorem than the one that is to be proved")
    return bare[match.end() :]
