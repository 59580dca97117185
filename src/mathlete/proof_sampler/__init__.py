"""ProofSampler: what may not be written next, when to go back, and a beam over steps. Knows no engine."""
