"""The policy core: what a policy means, as pure functions and values.

Here: models of the policy sources, selectors, identities, the compiler from policies to
documents, the compiler from HTTP rules to automata, and `decide()`, the readable reference.
Not here: files, sockets, clocks, threads, asyncio, logging.  Same input, same bytes.
May import: the standard library's values, pydantic.
"""
