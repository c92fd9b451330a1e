"""What stands and moves in a toy street besides vehicles: people, cycles, poles, signs, lights.

Every function draws onto a `Canvas` at a `Placement` and takes its free choices from `rng`.
"""

import cv2
import numpy as np

from datasets.toy_city_canvas import Canvas, Colour, Placement, pick
from datasets.toy_city_vehicles import (
    CIRCLE,
    COCO_OF_LABEL,
    DETAIL_END,
    MOTORCYCLE,
    PAINTS,
    PERSON,
    RIDER,
    TYRE,
)

POLE, LIGHT, SIGN = 17, 19, 20
COCO_TRAFFIC_LIGHT, COCO_STOP_SIGN = 10, 13

CLOTHES: list[Colour] = [
    (40, 44, 56), (62, 80, 128), (150, 40, 46), (208, 206, 200), (92, 110, 74), (190, 140, 60),
    (104, 84, 120), (30, 110, 130), (120, 122, 126), (200, 110, 130), (84, 60, 46),
]  # fmt: skip
TROUSERS: list[Colour] = [(36, 40, 54), (58, 72, 104), (96, 88, 74), (28, 28, 30), (130, 124, 112)]
SKINS: list[Colour] = [(232, 190, 160), (206, 156, 122), (150, 104, 76), (98, 66, 50)]
HAIRS: list[Colour] = [(36, 28, 24), (84, 58, 38), (160, 124, 72), (120, 116, 112)]
STEEL: Colour = (98, 102, 104)


def draw_person(
    canvas: Canvas, at: Placement, height: float, rng: np.random.Generator, label: int = PERSON
) -> None:
    """Draw a person `height` metres tall who walks or stands, seen from any side."""
    segment = canvas.thing(label, COCO_OF_LABEL[label])
    s = height / 1.75
    coat, legs = pick(rng, CLOTHES), pick(rng, TROUSERS)
    skin, hair = pick(rng, SKINS), pick(rng, HAIRS)
    step, lean = rng.uniform(-0.24, 0.24), rng.uniform(-0.03, 0.03)
    girth = rng.uniform(0.17, 0.23)

    def limb(points: list, width: float, colour: Colour, shade: float = 0.85) -> None:
        canvas.stroke(at.facing(np.array(points) * s), width * s, colour, segment, shade)

    for side, shade in ((-1, 0.72), (1, 0.86)):
        foot = (side * step + 0.05 * side, 0.05)
        limb([(side * 0.08, 0.86), (side * (0.07 + step * 0.6), 0.46), foot], 0.15, legs, shade)
        limb([foot, (foot[0] + 0.1 * np.sign(step), 0.04)], 0.09, (36, 30, 28))
    swing = -step * 0.9
    limb([(-girth, 1.36), (-girth - 0.05, 1.1), (-girth - swing * 0.5, 0.86)], 0.11, coat, 0.68)
    torso = [(-girth * 0.85, 0.8), (-girth, 1.38), (-0.07, 1.47), (0.07 + lean, 1.47),
             (girth, 1.38), (girth * 0.85, 0.8)]  # fmt: skip
    canvas.polygon(at.facing(np.array(torso) * s), coat, segment, 0.9)
    if at.z > DETAIL_END:
        _draw_head(canvas, at, (lean, 1.6), s, skin, hair, segment, True)
        canvas.finish(segment)
        return
    dark = [(-girth * 0.85, 0.8), (-girth, 1.38), (-girth * 0.35, 1.42), (-girth * 0.4, 0.8)]
    canvas.polygon(at.facing(np.array(dark) * s), coat, segment, 0.74)
    limb([(girth, 1.36), (girth + 0.06, 1.1), (girth + swing * 0.5, 0.86)], 0.11, coat, 0.98)
    hands = at.facing(np.array([(girth + swing * 0.5, 0.83), (-girth - swing * 0.5, 0.83)]) * s)
    canvas.balls(hands, np.full(2, 0.055 * s), [skin, skin], segment)
    if rng.random() < 0.3:
        bag = np.array([(0.0, 0.0), (0.24, 0.0), (0.22, 0.3), (0.02, 0.3)]) + (girth - 0.02, 0.6)
        canvas.polygon(at.facing(bag * s), pick(rng, CLOTHES), segment, 0.8)
    _draw_head(canvas, at, (lean, 1.6), s, skin, hair, segment, rng.random() < 0.45)
    canvas.finish(segment)


def _draw_head(
    canvas: Canvas,
    at: Placement,
    where: tuple[float, float],
    s: float,
    skin: Colour,
    hair: Colour,
    segment: int,
    from_behind: bool,
) -> None:
    x, y = where
    neck = at.facing(np.array([(x, y - 0.16), (x, y - 0.05)]) * s)
    canvas.stroke(neck, 0.11 * s, skin, segment, 0.8)
    centres = at.facing(np.array([(x, y + 0.04), (x, y + (0.03 if from_behind else -0.01))]) * s)
    face = hair if from_behind else skin
    canvas.balls(centres, np.array([0.13, 0.11]) * s, [hair, face], segment)


def draw_cycle(
    canvas: Canvas, at: Placement, label: int, ridden: bool, rng: np.random.Generator
) -> None:
    """Draw a bicycle or, by `label`, a motorcycle, with its rider if it is ridden."""
    segment = canvas.thing(label, COCO_OF_LABEL[label])
    motor = label == MOTORCYCLE
    paint = pick(rng, PAINTS)
    radius, base = (0.31, 0.68) if motor else (0.34, 0.53)
    hubs = [np.array([-base, radius]), np.array([base, radius])]
    for hub in hubs:
        rim = at.upright(CIRCLE * radius + hub)
        canvas.polygon(rim, (44, 44, 46) if motor else None, segment)
        canvas.stroke(rim, 0.13 if motor else 0.05, TYRE, segment, closed=True)
        if not motor:
            for i in range(3):
                ends = np.stack([CIRCLE[3 * i], CIRCLE[3 * i + 9]]) * radius * 0.9 + hub
                canvas.stroke(at.upright(ends), 0.008, (130, 132, 136), segment)
    if motor:
        _draw_motorcycle_frame(canvas, at, hubs, paint, segment)
    else:
        _draw_bicycle_frame(canvas, at, hubs, paint, segment)
    if ridden:
        _draw_rider(canvas, at, motor, rng)
    canvas.finish(segment)


def _draw_bicycle_frame(
    canvas: Canvas, at: Placement, hubs: list[np.ndarray], paint: Colour, segment: int
) -> None:
    rear, front = (tuple(h) for h in hubs)
    crank, seat, head = (-0.05, 0.3), (-0.22, 0.86), (0.36, 0.88)
    tubes = [[rear, crank, head, (-0.18, 0.76), crank], [rear, (-0.18, 0.76)], [head, front]]
    for tube in tubes:
        canvas.stroke(at.upright(tube), 0.05, paint, segment, 0.95)
    for bar in ([(-0.18, 0.76), seat], [head, (0.33, 1.02)]):
        canvas.stroke(at.upright(bar), 0.035, STEEL, segment)
    for grip in ([(-0.34, 0.9), (-0.1, 0.88)], [(0.33, 1.02), (0.22, 1.05)]):
        canvas.stroke(at.upright(grip), 0.06, TYRE, segment)


def _draw_motorcycle_frame(
    canvas: Canvas, at: Placement, hubs: list[np.ndarray], paint: Colour, segment: int
) -> None:
    engine = [(-0.4, 0.25), (0.3, 0.25), (0.4, 0.62), (-0.4, 0.66)]
    tank = [(-0.12, 0.64), (0.42, 0.6), (0.46, 0.86), (0.2, 0.96), (-0.1, 0.8)]
    tail = [(-0.95, 0.86), (-0.5, 0.6), (-0.1, 0.66), (-0.08, 0.82), (-0.5, 0.8)]
    canvas.polygon(at.upright(engine), (62, 64, 68), segment)
    canvas.stroke(at.upright([(-0.9, 0.3), (0.1, 0.3)]), 0.1, (150, 152, 156), segment)
    canvas.polygon(at.upright(tail), (30, 30, 32), segment)
    canvas.polygon(at.upright(tank), paint, segment)
    canvas.stroke(at.upright([(0.42, 0.95), tuple(hubs[1])]), 0.08, STEEL, segment)
    canvas.stroke(at.upright([(0.44, 0.98), (0.26, 1.06)]), 0.06, TYRE, segment)
    canvas.balls(at.upright([(0.52, 0.86)]), np.array([0.11]), [(236, 234, 214)], segment)


def _draw_rider(canvas: Canvas, at: Placement, motor: bool, rng: np.random.Generator) -> None:
    segment = canvas.thing(RIDER, COCO_OF_LABEL[RIDER])
    coat, legs, skin = pick(rng, CLOTHES), pick(rng, TROUSERS), pick(rng, SKINS)
    seat = np.array([-0.2, 0.92] if not motor else [-0.25, 0.82])
    hand = np.array([0.26, 1.05])
    shoulder = seat + (0.26, 0.54) if not motor else seat + (0.22, 0.54)
    phase = rng.uniform(0, 2 * np.pi)
    for turn, shade in ((phase + np.pi, 0.66), (phase, 0.9)):
        pedal = np.array([-0.05, 0.3]) + 0.17 * np.array([np.cos(turn), np.sin(turn)])
        if motor:
            pedal = np.array([-0.1, 0.32])
        knee = 0.5 * (seat + pedal) + (0.22, 0.12)
        canvas.stroke(at.upright([seat, knee, pedal]), 0.14, legs, segment, shade)
        canvas.stroke(at.upright([pedal, pedal + (0.14, -0.02)]), 0.08, (40, 34, 32), segment)
    back = [seat + (-0.14, -0.06), shoulder + (-0.16, 0.0), shoulder + (0.02, 0.08),
            shoulder + (0.1, -0.08), seat + (0.16, -0.02)]  # fmt: skip
    # The turned plane thins the trunk, yet a body is about as thick as it is wide.
    canvas.stroke(at.upright([seat, shoulder]), 0.3, coat, segment, 0.84)
    canvas.polygon(at.upright(back), coat, segment, 0.84)
    elbow = 0.5 * (shoulder + hand) + (-0.02, -0.1)
    canvas.stroke(at.upright([shoulder, elbow, hand]), 0.1, coat, segment, 1.0)
    head = shoulder + (0.08, 0.2)
    helmet = pick(rng, PAINTS) if motor or rng.random() < 0.6 else pick(rng, HAIRS)
    sizes = np.array([0.15, 0.11, 0.13])
    spots = at.upright([head + (0, 0.03), head + (0.03, -0.02), head + (-0.01, 0.05)])
    canvas.balls(spots, sizes, [helmet, skin, helmet], segment)
    canvas.finish(segment)


def draw_pole(canvas: Canvas, at: Placement, height: float, width: float) -> None:
    """Draw a plain post that is lighter on one side."""
    segment = canvas.stuff(POLE)
    canvas.stroke(at.facing([(0.0, 0.0), (0.0, height)]), width, STEEL, segment, 0.8)
    edge = at.facing([(width * 0.22, 0.0), (width * 0.22, height)])
    canvas.stroke(edge, width * 0.3, STEEL, segment, 1.25)


def draw_street_lamp(canvas: Canvas, at: Placement, side: int, rng: np.random.Generator) -> None:
    """Draw a lamp on a tall pole whose arm reaches over the road; `side` -1 stands left of it."""
    height, reach = rng.uniform(6.0, 8.0), -side * rng.uniform(1.2, 2.0)
    draw_pole(canvas, at, height, 0.16)
    segment = canvas.stuff(POLE)
    arm = at.facing([(0.0, height), (reach * 0.4, height + 0.35), (reach, height + 0.4)])
    canvas.stroke(arm, 0.1, STEEL, segment)
    lit = rng.random() < canvas.light.lit
    colour = (255, 236, 180) if lit else (200, 202, 204)
    lamp = at.facing([(reach - 0.3, height + 0.38), (reach + 0.3, height + 0.38)])
    canvas.stroke(lamp, 0.16, colour, segment, glow=lit)


def draw_traffic_light(
    canvas: Canvas, at: Placement, side: int, state: int, rng: np.random.Generator
) -> None:
    """Draw a light for cars; `state` 0 red, 1 amber, 2 green; some hang from an arm as well."""
    heights = [(0.0, 2.9)]
    if rng.random() < 0.5:
        heights.append((-side * rng.uniform(2.4, 3.6), 5.0))
        reach = heights[1][0]
        draw_pole(canvas, at, 5.9, 0.17)
        canvas.stroke(at.facing([(0, 5.6), (reach, 5.75)]), 0.12, STEEL, canvas.stuff(POLE))
    else:
        draw_pole(canvas, at, 3.0, 0.14)
    for x, y in heights:
        segment = canvas.thing(LIGHT, COCO_TRAFFIC_LIGHT)
        case = [(x - 0.2, y - 0.5), (x + 0.2, y - 0.5), (x + 0.2, y + 0.55), (x - 0.2, y + 0.55)]
        canvas.polygon(at.facing(case), (30, 34, 34), segment)
        centres = at.facing([(x, y + 0.34 - 0.32 * i) for i in range(3)])
        dull = [(70, 20, 18), (74, 58, 16), (16, 58, 34)]
        canvas.balls(centres, np.full(3, 0.13), dull, segment)
        bright = [(255, 60, 40), (255, 190, 50), (70, 255, 150)][state]
        canvas.balls(centres[state : state + 1], np.array([0.14]), [bright], segment, glow=True)
        canvas.finish(segment)


def draw_stop_sign(canvas: Canvas, at: Placement) -> None:
    """Draw a stop sign on its post."""
    draw_pole(canvas, at, 2.2, 0.08)
    segment = canvas.thing(SIGN, COCO_STOP_SIGN)
    angles = np.arange(8) * np.pi / 4 + np.pi / 8
    octagon = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    for radius, colour in ((0.46, (240, 240, 240)), (0.42, (196, 22, 30))):
        canvas.polygon(at.facing(octagon * radius + (0.0, 2.5)), colour, segment)
    canvas.finish(segment)
    left, base = canvas.camera.project(at.facing([(-0.33, 2.4)]))[0]
    size = canvas.camera.focal * 0.0093 / at.z
    place = (round(left), round(base))
    cv2.putText(canvas.image, "STOP", place, cv2.FONT_HERSHEY_SIMPLEX, size, (240, 240, 240),
                max(1, round(size * 2.2)), cv2.LINE_AA)  # fmt: skip


def draw_sign(canvas: Canvas, at: Placement, rng: np.random.Generator) -> None:
    """Draw one of the other signs: a warning triangle, a round or a square one, or two."""
    draw_pole(canvas, at, 2.9, 0.08)
    segment = canvas.stuff(SIGN)
    triangle = np.array([(-1.0, -0.6), (1.0, -0.6), (0.0, 1.1)])
    square = np.array([(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)])
    white, red, blue = (236, 236, 236), (196, 24, 30), (24, 76, 168)
    designs = [
        ((triangle, 1.0, red), (triangle, 0.66, white)),
        ((CIRCLE, 1.0, red), (CIRCLE, 0.72, white)),
        ((CIRCLE, 1.0, blue), (triangle, 0.45, white)),
        ((square, 1.0, blue), (square, 0.5, white)),
        ((CIRCLE, 1.0, red), (square * (0.9, 0.25), 1.0, white)),
        ((square[:, ::-1] * (1.3, 0.7), 1.0, (236, 196, 40)), (square * 0.3, 1.0, (30, 30, 30))),
    ]
    for i in range(int(rng.integers(1, 3))):
        design = designs[int(rng.integers(len(designs)))]
        for shape, factor, colour in design:
            outline = shape * factor * 0.36 + (0.0, 2.6 - 0.75 * i)
            canvas.polygon(at.facing(outline), colour, segment)
