"""Records of requests: what every sample was worth and why one of them was the answer."""
