"""Where tokens go after they were published: into files, then to hooks."""

from token_keeper.sidecar.deliveries._deliveries import Deliveries

__all__ = ["Deliveries"]
