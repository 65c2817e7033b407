"""The control plane at scale: from a change at a real API server to what a real loader has in force."""
