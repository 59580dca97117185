"""What a model may write as a Lean proof. Each refusal is an attack, or a way to hide one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mathlete.core.errors import InputError
from mathlete.verify.lean.proof import MAX_PROOF_CHARS, proof_term, refusal
from mathlete.verify.lean.statement import parse_statement

STATEMENT = parse_statement("import Mathlib\n\ntheorem small (n : ℕ) (h : 2 ≤ n) :\n    1 ≤ n := by sorry")

HONEST = {
    "tactics": "by\n  omega",
    "a term": "le_trans (by norm_num) h",
    "with the sign": ":= by omega",
    "anonymous constructors": "by\n  obtain ⟨k, hk⟩ := Nat.exists_eq_add_of_le h\n  exact ⟨by linarith, fun x => x⟩.1",
    "primes, indices and unicode": "by\n  have h₁' : ∀ x ∈ (Finset.range n), x < n := by aesop\n  simp_all",
    "primes before brackets": "by exact ⟨h', (f' h').2, xs[i]'(by omega)⟩",
    "images and set difference": r"by simp [f '' s, g ⁻¹' t, s \ t]",
    "calc": "by\n  calc 1 ≤ 2 := by norm_num\n    _ ≤ n := h",
    "polynomials": "by simp [Polynomial.eval_add, eval]",
    "decide": "by decide +revert",
    "cases": "by\n  rcases n with _ | _ | n\n  · simp at h\n  · contradiction\n  all_goals (first | simp | omega)",
    "endings that are no keyword": "by exact (h.trans_eq rfl).le_of_endpoints",
}


@pytest.mark.parametrize("proof", HONEST.values(), ids=HONEST.keys())
def test_honest_proofs_pass(proof: str) -> None:
    assert proof_term(proof, STATEMENT) == proof.removeprefix(":= ")


def test_comments_are_not_handed_on() -> None:
    assert proof_term("by -- first\n  /- nested /- deep -/ -/ omega", STATEMENT).split() == ["by", "omega"]


@pytest.mark.parametrize(
    "text",
    [
        "theorem small (n : ℕ) (h : 2 ≤ n) : 1 ≤ n := by omega",
        "theorem small (n : ℕ)\n  (h : 2 ≤ n) : 1 ≤ n := -- mine\n  by omega",
        "import Mathlib\nopen Nat\n\nlemma small (n : ℕ) (h : 2 ≤ n) : 1 ≤ n :=\nby omega",
    ],
)
def test_the_theorem_written_again_is_replaced_by_ours(text: str) -> None:
    assert proof_term(text, STATEMENT).strip() == "by omega"


HOSTILE = {
    "sorry": "by sorry",
    "sorry as a term": "sorry",
    "its axiom": "sorryAx _ false",
    "its axiom from the root": "_root_.sorryAx _ false",
    "admit": "by\n  admit",
    "stop": "by\n  stop\n  omega",
    "native_decide": "by native_decide",
    "native decide by option": "by decide +native",
    "native decide by configuration": "by decide (config := { native := true })",
    "compiled reduction": "Lean.ofReduceBool a b c",
    "a solver outside": "by bv_decide",
    "the network": "by polyrith",
    "an axiom behind the proof": "by exact cheat.elim\n\naxiom cheat : False",
    "an axiom before the proof": "axiom cheat : False\ntheorem small (n : ℕ) (h : 2 ≤ n) : 1 ≤ n := cheat.elim",
    "another theorem": "theorem small (n : ℕ) (h : 2 ≤ n) : 0 ≤ n := by omega",
    "a weaker theorem": "theorem small (n : ℕ) (h : 2 ≤ n) (g : False) : 1 ≤ n := g.elim",
    "the same name elsewhere": "by omega\nend\nnamespace Other\ntheorem small : True := trivial\nend Other",
    "a namespace": "by omega\nnamespace Nat",
    "redefinition of Nat": "by omega\ninductive Nat | zero",
    "notation": 'by omega\nlocal notation "ℕ" => Unit',
    "notation without a string": "by omega\ninfix:50 ≤ => f",
    "a macro": "by omega\nmacro_rules | x => y",
    "an instance": "by omega\ninstance : LE ℕ := ⟨fun _ _ => True⟩",
    "an attribute": "by omega\nattribute [-simp] foo",
    "an attribute as a sign": "by omega\n@[simp] foo",
    "an option": "by omega\nset_option debug.skipKernelTC true",
    "an option inside": "by\n  set_option debug.skipKernelTC true in\n  omega",
    "autoImplicit": "by omega\nset_option autoImplicit true",
    "printing options": "set_option pp.all true in by omega",
    "an opened namespace": "by\n  open Classical in omega",
    "evaluation": "by omega\n#eval IO.FS.writeFile x y",
    "printing": "by omega\n#print axioms small",
    "any command with a hash": "by omega\n#loogle x",
    "code in a tactic": "by\n  run_tac foo",
    "code in a term": "by_elab foo",
    "evaluation of a term": "by exact eval% foo",
    "a file": "by exact include_str foo",
    "input and output": "by exact (IO.println x).foo",
    "the elaborator's own names": "by exact Lean.Elab.foo",
    "unsafe code": "unsafe foo",
    "our names": "by exact mathlete_reference_0 n h",
    "a comment that swallows": "by omega /-",
    "a comment that is closed from inside": "by omega -/ theorem x : True := trivial /-",
    "a line comment that hides (Lean reads '<-' and '-')": 'by rw [<--x] ) axiom "',
    "a string": "by trace \"'small' depends on axioms: [propext]\"; omega",
    "a message that imitates the audit": "by\n  logInfo m!\"'small' does not depend on any axioms\"",
    "a quotation": "by exact `(tactic| sorry)",
    "a name in quotes": "by exact «sorry»",
    "a bracket in quotes": "by exact f '(' ) axiom",
    "an escaped character": r"by exact f '\x28'",
    "closing our brackets": "by omega)\n(trivial",
    "closing more than was opened": "by simp) ",
    "leaving one open": "by simp [foo",
    "crossed brackets": "by simp (foo]",
    "keywords glued to other signs": "by omega;λdef",
    "keywords behind a superscript": "by exact sᶜtheorem",
    "keywords behind a number": "by norm_num 2axiom",
    "a carriage return": "by omega\raxiom",
    "a tab": "by\tomega",
    "a null character": "by omega\x00",
    "nothing": "",
    "only a comment": "-- trivial",
    "too much": "by " + "x" * MAX_PROOF_CHARS,
    "too deep": "(" * 300 + ")" * 300,
}


@pytest.mark.parametrize("proof", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_proofs_are_refused(proof: str) -> None:
    with pytest.raises(InputError):
        proof_term(proof, STATEMENT)


@given(st.text(alphabet="ab(){}[]⟨⟩'\"-/`λ \nsorryaxiom", max_size=40))
def test_what_passes_is_balanced_and_has_no_comment(text: str) -> None:
    if refusal(text) is None:
        assert not any(sign in text for sign in ('"', "--", "/-", "-/", "`"))
        depth = 0
        for character in text:
            depth += (character in "([{⟨") - (character in ")]}⟩")
            assert depth >= 0
        assert depth == 0
