"""How much a model's visual tokens know of 3D: correspondence across views, linear readouts, and what follows."""

from stereopsis.probing.correspondence import Correspondence, Retrieval, correspondence, retrieval
from stereopsis.probing.downstream import Quartiles, correlate, quartile_table
from stereopsis.probing.probe_scenes import PROBE_FILE, ProbeSettings, probe_scenes, read_probe, write_probe
from stereopsis.probing.readouts import Readout, RidgeProbe
from stereopsis.probing.subjects import ModelSubject, ProbeSubject, TeacherSubject

__all__ = [
    "PROBE_FILE",
    "Correspondence",
    "ModelSubject",
    "ProbeSettings",
    "ProbeSubject",
    "Quartiles",
    "Readout",
    "Retrieval",
    "RidgeProbe",
    "TeacherSubject",
    "correlate",
    "correspondence",
    "probe_scenes",
    "quartile_table",
    "read_probe",
    "retrieval",
    "write_probe",
]
