"""The dashboard: one page that shows what the sidecar knows of its tokens. No secret is in it."""
