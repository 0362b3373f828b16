"""Make a room, say true things about it, and look at it.

python examples/01_room_in_four_lines.py
"""

from stereopsis.scenes.alignment import with_birdseye
from stereopsis.scenes.draw import contact_sheet, draw_birdseye
from stereopsis.scenes.rooms import make_room
from stereopsis.scenes.rooms.language import annotate

SEED = 7

room = with_birdseye(make_room(SEED), size=128)
room = room.replace(annotations=annotate(room, SEED))
contact_sheet(room).save("room.png")
draw_birdseye(room, scale=4).save("room_from_above.png")

print(f"{room.id}: {len(room.frames)} views, {', '.join(thing.label for thing in room.objects)}")
for task in ("sqa3d", "scanqa", "scan2cap", "scanrefer", "multi3drefer"):
    said = next(each for each in room.annotations if each.task == task)
    print(f"{task:>13}: {said.situation} {said.text} -> {said.answers or said.object_ids}")
print("drawn: room.png, room_from_above.png")
