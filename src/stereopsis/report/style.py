"""Colours of the arms, the same in curves, tables, drawn boxes and 3D figures."""

TARGET_COLOUR = (30, 185, 95)
TARGET_HEX = "#1eb95f"
# Told apart by people with the common colour deficiencies, and on white, on black and on photographs.
ARM_COLOURS = ("#2f7de1", "#e8772e", "#a45bd6", "#d6a400", "#d9468f", "#17a3b8", "#9a6b3f", "#7c8594")


def arm_hex(arm: int) -> str:
    """The colour of an arm, by its index in the comparison."""
    return ARM_COLOURS[arm % len(ARM_COLOURS)]


def arm_rgb(arm: int) -> tuple[int, int, int]:
    """The same as red, green and blue, 0 to 255."""
    value = arm_hex(arm)
    return int(value[1:3], 16), int(value[3:5], 16), int(value[5:7], 16)
