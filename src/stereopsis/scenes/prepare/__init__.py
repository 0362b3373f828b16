"""From any known source to prepared scenes on disk: found, checked, stood upright, seen from above, written whole."""

from stereopsis.scenes.prepare.inspect import draw_scene, plain_facts, scene_facts, scene_table
from stereopsis.scenes.prepare.parallel import SUMMARY_FILE, Report, prepare, usable_cpus
from stereopsis.scenes.prepare.settings import PrepareSettings
from stereopsis.scenes.prepare.sources import Capture, Room, Source, find_captures, prepared_room
from stereopsis.scenes.prepare.work import Outcome, prepare_source, prepare_upright

__all__ = [
    "SUMMARY_FILE",
    "Capture",
    "Outcome",
    "PrepareSettings",
    "Report",
    "Room",
    "Source",
    "draw_scene",
    "find_captures",
    "plain_facts",
    "prepare",
    "prepare_source",
    "prepare_upright",
    "prepared_room",
    "scene_facts",
    "scene_table",
    "usable_cpus",
]
