"""What is wrong with a trained multimodal network, measured: see `diagnose`."""

from equivox.diagnosis.answers import gather
from equivox.diagnosis.calibration import calibration
from equivox.diagnosis.conflict import conflict
from equivox.diagnosis.contribution import contribution, sample_contributions
from equivox.diagnosis.data_checks import data_checks
from equivox.diagnosis.diagnose import Diagnosis, diagnose
from equivox.diagnosis.headroom import headroom
from equivox.diagnosis.hurt import hurt
from equivox.diagnosis.known_metrics import metrics_of
from equivox.diagnosis.late_fusion import LateFusion, late_fusion
from equivox.diagnosis.metric import Metric, metric_of
from equivox.diagnosis.onset import Onset
from equivox.diagnosis.prescription import prescribe
from equivox.diagnosis.preview import previews
from equivox.diagnosis.probes import encoded, probe, probes, read_both
from equivox.diagnosis.recorder import Recorder, Recording
from equivox.diagnosis.reference import renewed, trained_alone
from equivox.diagnosis.robustness import robustness
from equivox.diagnosis.use import routing, use, use_in_late_fusion
from equivox.diagnosis.verdict import THRESHOLDS, Evidence, verdict

__all__ = [
    "THRESHOLDS",
    "Diagnosis",
    "Evidence",
    "LateFusion",
    "Metric",
    "Onset",
    "Recorder",
    "Recording",
    "calibration",
    "conflict",
    "contribution",
    "data_checks",
    "diagnose",
    "encoded",
    "gather",
    "headroom",
    "hurt",
    "late_fusion",
    "metric_of",
    "metrics_of",
    "prescribe",
    "previews",
    "probe",
    "probes",
    "read_both",
    "renewed",
    "robustness",
    "routing",
    "sample_contributions",
    "trained_alone",
    "use",
    "use_in_late_fusion",
    "verdict",
]
