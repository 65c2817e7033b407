"""The loader's side of the sync stream: documents and addresses come in, what is in force goes out.

Neither knows the kernel: what comes is handed to the agent as a snapshot.
"""
