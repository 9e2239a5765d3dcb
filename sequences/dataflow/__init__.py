"""Typed dataflow: what a definition reads, checked against the schemas it declares, and types made of them (§15.1)."""

from sequences.dataflow.answer import GENERATOR_VERSION, analyse, sha256_of
from sequences.dataflow.report import Finding, Report, report_on
from sequences.dataflow.shapes import DataflowLimit

__all__ = ["GENERATOR_VERSION", "DataflowLimit", "Finding", "Report", "analyse", "report_on", "sha256_of"]
