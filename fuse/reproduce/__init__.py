"""The paper's experiments by name: what each runs, what the paper says of it, and its figure."""
