"""Diagnosis: which modality carries the predictions of a model, which one sleeps, and what to try."""

from msam.diagnosis._diagnose import diagnose
from msam.diagnosis.advice import RULES
from msam.diagnosis.cost import Cost
from msam.diagnosis.result import Advice, Diagnosis, Estimate, Modality, Pair
from msam.diagnosis.run import of_run

__all__ = ["RULES", "Advice", "Cost", "Diagnosis", "Estimate", "Modality", "Pair", "diagnose", "of_run"]
