"""Tokens from an OAuth 2.0 token endpoint."""
