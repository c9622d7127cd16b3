"""Integrations with client libraries, one module for each: `token_keeper.adapters.PACKAGE`.

A module imports its package, so it is imported only by who uses it. What they
share is in the private modules: who may see the token, what an answer says about
it, which token was sent.
"""
