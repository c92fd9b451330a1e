"""The vehicles of a toy street: bodies with wheels, windows and lamps.

Local coordinates are metres: x to the right, y up, z the way the vehicle drives.
"""

from dataclasses import dataclass

import numpy as np

from datasets.toy_city_canvas import Canvas, Colour, Placement, mixed, pick

# Cityscapes ids, and the COCO category ids of the same things.
PERSON, RIDER, CAR, TRUCK, BUS, TRAIN, MOTORCYCLE, BICYCLE = 24, 25, 26, 27, 28, 31, 32, 33
COCO_OF_LABEL = {24: 1, 25: 1, 26: 3, 27: 8, 28: 6, 31: 7, 32: 4, 33: 2}

PAINTS: list[Colour] = [
    (214, 216, 220), (168, 172, 178), (92, 96, 104), (34, 36, 42), (168, 30, 34), (34, 72, 150),
    (28, 84, 62), (196, 184, 150), (222, 176, 36), (96, 40, 48), (112, 150, 186), (206, 96, 36),
]  # fmt: skip
# Beyond so many metres details are smaller than a pixel.
DETAIL_END = 40.0
GLASS: Colour = (52, 66, 80)
TYRE: Colour = (26, 26, 28)
CIRCLE = np.stack([np.cos(np.linspace(0, 2 * np.pi, 18, endpoint=False)),
                   np.sin(np.linspace(0, 2 * np.pi, 18, endpoint=False))], axis=1)  # fmt: skip


@dataclass(frozen=True)
class Body:
    """The shape of a vehicle, metres.

    `profile` runs from the bottom of the rear over the roof to the bottom of the front as
    (z, y, half width); `glass` numbers the strips of it that are windows; `windows` are panes in
    the sides as (z, y) outlines; `wheels` are z positions; `lamps` are the (bottom, top) of the
    rear and the front lamps and their width.
    """

    label: int
    profile: tuple[tuple[float, float, float], ...]
    glass: tuple[int, ...]
    windows: tuple[tuple[tuple[float, float], ...], ...]
    wheels: tuple[float, ...]
    radius: float
    lamps: tuple[float, float, float] = (0.62, 0.8, 0.34)

    @property
    def length(self) -> float:
        """Metres from bumper to bumper."""
        return max(p[0] for p in self.profile) - min(p[0] for p in self.profile)

    @property
    def half_width(self) -> float:
        """Metres from the middle to the side."""
        return max(p[2] for p in self.profile)

    @property
    def height(self) -> float:
        """Metres from the road to the roof."""
        return max(p[1] for p in self.profile)


def _box(
    z0: float, z1: float, y0: float, y1: float, half: float, sill: float, top: float
) -> tuple[tuple[float, float, float], ...]:
    # Strips: lower rear, rear window, upper rear, roof, upper front, windscreen, lower front.
    return ((z0, y0, half), (z0, sill, half), (z0 + 0.04, top, half), (z0 + 0.08, y1, half * 0.95),
            (z1 - 0.12, y1, half * 0.95), (z1 - 0.06, top, half), (z1, sill, half),
            (z1, y0, half))  # fmt: skip


def _panes(z0: float, z1: float, y0: float, y1: float, count: int) -> tuple:
    edges = np.linspace(z0, z1, count + 1).tolist()
    return tuple(
        ((a + 0.06, y0), (a + 0.06, y1), (b - 0.06, y1), (b - 0.06, y0))
        for a, b in zip(edges[:-1], edges[1:], strict=True)
    )


SEDAN = Body(
    CAR,
    ((-2.2, 0.25, 0.86), (-2.28, 0.55, 0.9), (-2.2, 0.95, 0.86), (-1.75, 1.02, 0.84),
     (-1.05, 1.43, 0.64), (0.25, 1.46, 0.64), (1.1, 0.98, 0.84), (2.05, 0.8, 0.84),
     (2.26, 0.55, 0.88), (2.2, 0.25, 0.86)),
    (3, 5),
    (((-1.45, 1.02), (-0.98, 1.36), (-0.4, 1.39), (-0.4, 1.0)),
     ((-0.32, 1.0), (-0.32, 1.39), (0.2, 1.4), (0.95, 0.98))),
    (-1.35, 1.38), 0.32,
)  # fmt: skip
HATCHBACK = Body(
    CAR,
    ((-1.85, 0.25, 0.82), (-1.92, 0.5, 0.86), (-1.88, 0.95, 0.84), (-1.55, 1.44, 0.66),
     (0.15, 1.5, 0.66), (1.0, 1.0, 0.82), (1.75, 0.82, 0.82), (1.95, 0.55, 0.84),
     (1.9, 0.25, 0.82)),
    (2, 4),
    (((-1.6, 1.04), (-1.35, 1.4), (-0.5, 1.43), (-0.5, 1.02)),
     ((-0.42, 1.02), (-0.42, 1.43), (0.12, 1.44), (0.86, 1.0))),
    (-1.2, 1.22), 0.31,
)  # fmt: skip
SUV = Body(
    CAR,
    ((-2.2, 0.35, 0.92), (-2.26, 0.7, 0.95), (-2.2, 1.12, 0.92), (-1.95, 1.7, 0.76),
     (0.3, 1.76, 0.76), (1.05, 1.2, 0.9), (2.05, 1.05, 0.9), (2.26, 0.7, 0.94),
     (2.2, 0.35, 0.92)),
    (2, 4),
    (((-1.95, 1.2), (-1.75, 1.62), (-0.55, 1.67), (-0.55, 1.2)),
     ((-0.45, 1.2), (-0.45, 1.67), (0.25, 1.68), (0.88, 1.2))),
    (-1.35, 1.38), 0.38, (0.8, 1.05, 0.3),
)  # fmt: skip
VAN = Body(
    CAR,
    ((-2.4, 0.3, 0.95), (-2.45, 0.6, 0.97), (-2.4, 1.15, 0.95), (-2.3, 1.88, 0.86),
     (1.0, 1.95, 0.86), (1.8, 1.2, 0.94), (2.4, 1.0, 0.93), (2.5, 0.6, 0.95), (2.45, 0.3, 0.93)),
    (2, 4),
    (((0.1, 1.2), (0.1, 1.78), (0.95, 1.8), (1.55, 1.2)), *_panes(-2.2, 0.0, 1.22, 1.76, 2)),
    (-1.5, 1.5), 0.35, (0.75, 1.1, 0.2),
)  # fmt: skip
CITY_BUS = Body(
    BUS, _box(-5.8, 5.8, 0.32, 3.05, 1.27, 1.15, 2.45), (1, 5),
    _panes(-5.5, 5.4, 1.2, 2.4, 8), (-3.6, 3.3), 0.48, (0.6, 0.95, 0.24),
)  # fmt: skip
TRAM = Body(
    TRAIN, _box(-11.0, 11.0, 0.2, 3.35, 1.25, 1.2, 2.5), (1, 5),
    _panes(-10.6, 10.6, 1.25, 2.45, 14), (-7.5, -5.5, 5.5, 7.5), 0.32, (0.7, 0.95, 0.28),
)  # fmt: skip
TRUCK_CAB = Body(
    TRUCK, _box(1.5, 3.6, 0.4, 2.75, 1.18, 1.5, 2.45), (5,),
    (((2.1, 1.5), (2.1, 2.4), (3.4, 2.4), (3.5, 1.5)),), (2.6,), 0.48, (0.7, 0.95, 0.3),
)  # fmt: skip
TRUCK_LOAD = Body(
    TRUCK, _box(-3.8, 1.35, 0.95, 3.3, 1.24, 1.5, 2.8), (), (), (-2.6, -1.5), 0.48,
    (0.98, 1.14, 0.3),
)  # fmt: skip


def draw_body(
    canvas: Canvas,
    body: Body,
    at: Placement,
    paint: Colour,
    segment: int,
    rng: np.random.Generator,
) -> None:
    """Paint the faces of a vehicle that the camera sees, far ones first."""
    z, y, half = np.array(body.profile).T
    right, left = at(np.stack([half, y, z], 1)), at(np.stack([-half, y, z], 1))
    strips = np.stack([left[:-1], right[:-1], right[1:], left[1:]], axis=1)
    seen = _turn(canvas.camera.project(strips)) < 0
    normals = np.cross(strips[:, 1] - strips[:, 0], strips[:, 3] - strips[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9
    normals *= -1.0  # our axes are left-handed
    shades = canvas.light.shades(normals)
    roof_shade = float(canvas.light.shades(np.array([[0.0, 1.0, 0.0]]))[0])
    if at.z < DETAIL_END:
        _draw_underside(canvas, body, at, segment)
    jobs = []
    for i in np.flatnonzero(seen):
        colour = GLASS if i in body.glass else paint
        shade = min(float(shades[i]), roof_shade)
        jobs.append((strips[i], colour, shade, i in body.glass))
    order = sorted(jobs, key=lambda job: -job[0][:, 2].mean())
    sides = [(s, r) for s, r in ((1, right), (-1, left)) if s * _turn(canvas.camera.project(r)) > 0]
    for points, colour, shade, is_glass in order:
        canvas.polygon(points, colour, segment, shade)
        if is_glass and at.z < DETAIL_END:
            _draw_reflection(canvas, points, segment)
    for sign, outline in sides:
        _draw_side(canvas, body, at, sign, outline, paint, segment)
    _draw_end(canvas, body, at, segment, rng)


def _turn(pixels: np.ndarray) -> np.ndarray:
    # Twice the signed area of (..., N, 2) polygons; negative where the front is seen.
    following = np.roll(pixels, -1, axis=-2)
    return (pixels[..., 0] * following[..., 1] - following[..., 0] * pixels[..., 1]).sum(-1)


def _draw_underside(canvas: Canvas, body: Body, at: Placement, segment: int) -> None:
    half = body.half_width
    for wheel in sorted(body.wheels, key=lambda w: -at([0.0, 0.0, w])[2]):
        for side in (-1, 1):
            x0, x1 = side * (half - 0.24), side * (half - 0.02)
            tyre = [(x0, 0, wheel), (x1, 0, wheel), (x1, 0.5, wheel), (x0, 0.5, wheel)]
            canvas.polygon(at(tyre), TYRE, segment)


def _draw_reflection(canvas: Canvas, pane: np.ndarray, segment: int) -> None:
    # The sky mirrors in the upper part of a pane.
    low, high = sorted((pane[:2], pane[2:][::-1]), key=lambda edge: edge[0, 1])
    rise = high - low
    band = np.stack([low[0] + 0.55 * rise[0], low[1] + 0.75 * rise[1], low[1] + 0.97 * rise[1],
                     low[0] + 0.97 * rise[0]])  # fmt: skip
    canvas.polygon(band, mixed(GLASS, canvas.light.sky_low, 0.35), segment)


def _draw_side(
    canvas: Canvas,
    body: Body,
    at: Placement,
    sign: int,
    outline: np.ndarray,
    paint: Colour,
    segment: int,
) -> None:
    normal = at([float(sign), 0.0, 0.0]) - at([0.0, 0.0, 0.0])
    shade = float(canvas.light.shades(normal[None])[0])
    canvas.polygon(outline, paint, segment, shade)
    z, y, half = np.array(body.profile).T
    low, high, middle = y.min(), y.max(), 0.5 * (y.min() + y.max())
    rank = np.argsort(y)

    def on_side(points: list | tuple | np.ndarray) -> np.ndarray:
        flat = np.asarray(points, float)
        width = np.interp(flat[:, 1], y[rank], half[rank])
        return at(np.stack([sign * width, flat[:, 1], flat[:, 0]], axis=1))

    skirt = [(z.min() + 0.15, low), (z.min() + 0.15, low + 0.12), (z.max() - 0.15, low + 0.12),
             (z.max() - 0.15, low)]  # fmt: skip
    canvas.polygon(on_side(skirt), mixed(paint, TYRE, 0.6), segment, shade)
    if body.windows:
        panes = np.stack([on_side(w) for w in body.windows])
        canvas.polygons(panes, GLASS, segment, shade * 1.1)
    if body.label == CAR:
        canvas.stroke(on_side([(-0.42, low + 0.1), (-0.42, middle + 0.1)]), 0.02,
                      mixed(paint, TYRE, 0.5), segment, shade)  # fmt: skip
    elif body.windows and high > 3.0:
        stripe = [(z.min(), 0.75), (z.max(), 0.75), (z.max(), 0.95), (z.min(), 0.95)]
        canvas.polygon(on_side(stripe), mixed(paint, (255, 255, 255), 0.75), segment, shade)
    rings = [(1.16, (14, 14, 16)), (1.0, TYRE), (0.62, (150, 152, 156)), (0.2, (70, 72, 76))]
    if at.z > DETAIL_END:
        rings = rings[1:2]
    for wheel in body.wheels:
        for factor, colour in rings:
            rim = CIRCLE * body.radius * factor + np.array([wheel, body.radius])
            flat = np.stack([np.full(len(rim), sign * body.half_width), rim[:, 1], rim[:, 0]], 1)
            canvas.polygon(at(np.maximum(flat, [-9, 0, -99])), colour, segment)


def _draw_end(
    canvas: Canvas, body: Body, at: Placement, segment: int, rng: np.random.Generator
) -> None:
    rear_seen = np.cos(at.yaw) * (at.z - 0.0) + np.sin(at.yaw) * (at.x - canvas.camera.x) > 0
    z = np.array(body.profile)[:, 0]
    end = float(z.min() - 0.03 if rear_seen else z.max() + 0.03)
    # Seen edge-on an end is a sliver: leave out what is on it.
    if abs(np.cos(at.yaw)) < 0.35 or (body is TRUCK_LOAD and not rear_seen):
        return
    if body is TRUCK_CAB and rear_seen:
        return
    low, high, width = body.lamps
    half = body.half_width * 0.93
    lit = rng.random() < canvas.light.lit
    dull = (150, 24, 24) if rear_seen else (214, 218, 220)
    bright = (255, 60, 44) if rear_seen else (255, 250, 220)

    def panel(x0: float, x1: float, y0: float, y1: float) -> np.ndarray:
        return at([(x0, y0, end), (x1, y0, end), (x1, y1, end), (x0, y1, end)])

    lamps = np.stack([panel(s * half, s * (half - width), low, high) for s in (-1, 1)])
    canvas.polygons(lamps, bright if lit else dull, segment, glow=lit)
    if at.z > DETAIL_END:
        return
    bottom = body.profile[0][1]
    if not rear_seen:
        grille = panel(-0.45 * half, 0.45 * half, low - 0.04, high)
        canvas.polygon(grille, (34, 36, 40), segment)
    canvas.polygon(panel(-0.26, 0.26, bottom + 0.16, bottom + 0.28), (226, 226, 214), segment)
    canvas.polygon(panel(-half, half, bottom, bottom + 0.1), (38, 38, 42), segment)
    if body.height > 3.0 and body.glass:
        sign = panel(-0.8 * half, 0.8 * half, body.height - 0.48, body.height - 0.16)
        canvas.polygon(sign, (24, 24, 26), segment)
        text = panel(-0.6 * half, 0.5 * half, body.height - 0.38, body.height - 0.26)
        canvas.polygon(text, (250, 176, 50), segment, glow=True)


def draw_car(canvas: Canvas, body: Body, at: Placement, rng: np.random.Generator) -> None:
    """Draw a car, a bus or a tram."""
    segment = canvas.thing(body.label, COCO_OF_LABEL[body.label])
    if body.label == CAR:
        paint = pick(rng, PAINTS)
    else:
        paint = pick(rng, [(178, 34, 36), (214, 190, 60), (40, 90, 150), (216, 218, 214)])
    draw_body(canvas, body, at, paint, segment, rng)
    canvas.finish(segment)


def draw_truck(canvas: Canvas, at: Placement, rng: np.random.Generator) -> None:
    """Draw a lorry: a painted cab and a box on wheels, the farther of the two first."""
    segment = canvas.thing(TRUCK, COCO_OF_LABEL[TRUCK])
    load = pick(rng, [(206, 206, 202), (172, 168, 156), (70, 100, 140)])
    parts = [(TRUCK_CAB, pick(rng, PAINTS)), (TRUCK_LOAD, load)]
    if np.cos(at.yaw) < 0:
        parts.reverse()
    for body, paint in parts:
        draw_body(canvas, body, at, paint, segment, rng)
    canvas.finish(segment)
