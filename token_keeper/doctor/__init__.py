"""Examines where tokens come from step by step, and what becomes of the token that came."""

from __future__ import annotations

from token_keeper.doctor._connect import Connect
from token_keeper.doctor._examine import Order, examine, shown_url
from token_keeper.doctor._fetch import Request
from token_keeper.doctor._forecast import Forecast, forecast
from token_keeper.doctor._report import ProductStatus, ProductVerdict, Report, Status, Step
from token_keeper.doctor._subject import Subject
from token_keeper.doctor._timeline import Mark, timeline

__all__ = [
    "examine",
    "Order",
    "Request",
    "Subject",
    "Connect",
    "Report",
    "Step",
    "Status",
    "ProductVerdict",
    "ProductStatus",
    "Forecast",
    "forecast",
    "Mark",
    "timeline",
    "shown_url",
]
