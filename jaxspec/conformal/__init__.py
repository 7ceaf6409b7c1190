"""Conformal calibration: which drafts are handed to the target, at a rate that holds."""

from jaxspec.conformal.adaptive import AdaptiveConformal, AdaptiveState, adaptive_conformal
from jaxspec.conformal.calibrator import Calibrator
from jaxspec.conformal.coverage import CoverageReport, RealisedRate, coverage_report
from jaxspec.conformal.fixed import Fixed, fixed
from jaxspec.conformal.online import OnlineConformal, online_conformal
from jaxspec.conformal.p_values import p_values
from jaxspec.conformal.ranked import RankState
from jaxspec.conformal.rate_intervals import Interval
from jaxspec.conformal.static import StaticConformal, static_conformal
from jaxspec.conformal.tally import Tally

__all__ = [
    "AdaptiveConformal",
    "AdaptiveState",
    "Calibrator",
    "CoverageReport",
    "Fixed",
    "Interval",
    "OnlineConformal",
    "RankState",
    "RealisedRate",
    "StaticConformal",
    "Tally",
    "adaptive_conformal",
    "coverage_report",
    "fixed",
    "online_conformal",
    "p_values",
    "static_conformal",
]
