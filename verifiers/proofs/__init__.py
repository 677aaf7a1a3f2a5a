"""Parts of the verifiers of proofs: finding a proof, text rules, reading what a prover says."""
