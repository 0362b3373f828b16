"""ScanNet as it is downloaded: the .sens container, the exports of it, meshes and instances."""

from stereopsis.scenes.readers.scannet.annotations import NO_OBJECT, ScanInstances
from stereopsis.scenes.readers.scannet.reader import (
    EXPECTED_FILES,
    is_scannet,
    read_scan_instances,
    read_scannet,
    scan_id,
)
from stereopsis.scenes.readers.scannet.sens import SensFile, SensFrame, SensHeader, open_sens
from stereopsis.scenes.readers.scannet.sens_writer import SensRecord, sens_record, write_sens

__all__ = [
    "EXPECTED_FILES",
    "NO_OBJECT",
    "ScanInstances",
    "SensFile",
    "SensFrame",
    "SensHeader",
    "SensRecord",
    "is_scannet",
    "open_sens",
    "read_scan_instances",
    "read_scannet",
    "scan_id",
    "sens_record",
    "write_sens",
]
