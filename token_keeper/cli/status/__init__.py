"""`token-keeper status`: how the sidecar's tokens are, for people, programs and probes."""
