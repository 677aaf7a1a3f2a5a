"""Pure parts of the verifiers of proofs: finding a proof, text rules, reading what provers say."""
