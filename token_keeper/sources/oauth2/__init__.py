"""Tokens from an OAuth 2.0 authorization server."""

from token_keeper.sources.oauth2._oauth2 import OAuth2Source
from token_keeper.sources.oauth2._outcomes import DeviceCode, Granted

__all__ = ["OAuth2Source", "DeviceCode", "Granted"]
