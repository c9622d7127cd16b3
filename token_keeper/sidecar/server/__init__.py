"""The sidecar's way in: sockets of our own, what they let in, and uvicorn behind them."""
