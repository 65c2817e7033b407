"""The compiled BPF programs, put here by `make bpf`; the wheel carries them."""
