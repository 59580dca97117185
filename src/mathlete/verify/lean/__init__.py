"""Formal proofs in Lean 4: statements that stay ours, proofs that stay proofs, and whoever runs Lean for us."""
