"""What a toy street is made of before anything moves on it: sky, ground, buildings, plants.

Lengths are metres in the world coordinates of `toy_city_canvas`; `side` is -1 for the left of
the street and 1 for the right.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from datasets.toy_city_canvas import Canvas, Colour, Placement, mixed, pick

ROAD, SIDEWALK, BUILDING, WALL, FENCE, VEGETATION, TERRAIN, SKY = 7, 8, 11, 12, 13, 21, 22, 23
FAR = 400.0
LANE = 3.3
FACADE_DETAIL_END = 45.0
# The ground starts nearer than the lower border of the picture can show.
NEAR = 1.5

FACADES: list[Colour] = [
    (188, 170, 142), (170, 102, 82), (204, 196, 184), (150, 146, 142), (196, 150, 104),
    (128, 92, 80), (176, 184, 176), (210, 188, 138), (118, 124, 134), (222, 214, 202),
]  # fmt: skip
LEAVES: list[Colour] = [(62, 98, 44), (84, 112, 48), (48, 84, 46), (112, 120, 52), (132, 104, 46)]
PANE: Colour = (58, 70, 84)


@dataclass(frozen=True)
class Street:
    """The cross-section of the street and where another one meets it, metres.

    The road reaches `road` to both sides of x = 0, then come a strip of grass `verge` wide, the
    pavement up to `edge`, and what stands beside the street. `crossing` is the (near, far) of
    the road that crosses, or None.
    """

    road: float
    verge: float
    edge: float
    lanes: int
    crossing: tuple[float, float] | None

    def lane_centres(self) -> list[float]:
        """Where the lanes lie, from left to right; in the right half they lead away."""
        return [(lane + 0.5 - self.lanes / 2) * LANE for lane in range(self.lanes)]

    def parked_room(self) -> bool:
        """Whether cars can park beside the lanes."""
        return self.road - self.lanes / 2 * LANE > 2.0

    def is_crossing(self, near: float, far: float, margin: float = 0.0) -> bool:
        """Whether anything between the two depths would stand on the road that crosses."""
        if self.crossing is None:
            return False
        return near < self.crossing[1] + margin and far > self.crossing[0] - margin


def flat(x0: float, x1: float, z0: float, z1: float, y: float = 0.0) -> np.ndarray:
    """A level rectangle as (4, 3)."""
    return np.array([(x0, y, z0), (x1, y, z0), (x1, y, z1), (x0, y, z1)])


def smooth_noise(rng: np.random.Generator, size: tuple[int, int], cells: int) -> np.ndarray:
    """Cloudy (H, W) float32 noise from 0 to 1 with about `cells` lumps across the width."""
    rows = max(2, round(cells * 0.5))
    coarse = rng.random((rows, cells), dtype=np.float32)
    return np.clip(cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC), 0.0, 1.0)


def draw_sky(canvas: Canvas, clouds: float, rng: np.random.Generator) -> None:
    """Fill the canvas with a sky of which about the share `clouds` is covered."""
    height, width = canvas.segments.shape
    quarter = (height // 4, width // 4)
    level = np.linspace(0.0, 1.0, quarter[0], dtype=np.float32)[:, None, None]
    down = np.clip(level * height / max(canvas.camera.cy, 1.0), 0.0, 1.0) ** 1.2
    top, low = (np.array(c, np.float32) for c in (canvas.light.sky_top, canvas.light.sky_low))
    sky = top + (low - top) * down
    noise = 0.5 * smooth_noise(rng, quarter, 7) + 0.3 * smooth_noise(rng, quarter, 16)
    noise += 0.2 * smooth_noise(rng, quarter, 40)
    cover = np.clip((noise - 0.75 + 0.5 * clouds) * 4.0, 0.0, 0.85)[..., None]
    white = np.array(mixed(canvas.light.sky_low, (255, 255, 255), 0.55), np.float32)
    sky = sky * (1.0 - cover) + white * (0.86 + 0.14 * noise[..., None]) * cover
    canvas.image[:] = cv2.resize(np.clip(sky, 0, 255).astype(np.uint8), (width, height))
    canvas.segments[:] = canvas.stuff(SKY)


def draw_ground(canvas: Canvas, street: Street, rng: np.random.Generator) -> None:
    """Lay grass, pavements, the road, its markings and, if there is one, the crossing road."""
    grass = pick(rng, [(96, 112, 58), (118, 116, 70), (84, 104, 56)])
    stone = pick(rng, [(158, 154, 148), (168, 156, 142), (140, 140, 142)])
    asphalt = pick(rng, [(92, 92, 96), (80, 82, 86), (108, 106, 104)])
    road, pavement = canvas.stuff(ROAD), canvas.stuff(SIDEWALK)
    canvas.ground(flat(-60, 60, NEAR, FAR), grass, canvas.stuff(TERRAIN))
    for side in (-1, 1):
        inner = side * (street.road + street.verge)
        canvas.ground(flat(inner, side * street.edge, NEAR, FAR), stone, pavement)
        _draw_slabs(canvas, inner, side * street.edge, stone)
        kerb = flat(side * street.road, side * (street.road + 0.25), NEAR, FAR)
        canvas.ground(kerb, mixed(stone, (255, 255, 255), 0.25), pavement)
    canvas.ground(flat(-street.road, street.road, NEAR, FAR), asphalt, road)
    if street.crossing is not None:
        near, far = street.crossing
        canvas.ground(flat(-60, 60, near - 2.2, far + 2.2), stone, pavement)
        canvas.ground(flat(-60, 60, near, far), asphalt, road)
        canvas.ground(flat(-street.road, street.road, near - 3, far + 3), asphalt, road)
    _draw_wear(canvas, street, asphalt, rng)
    _draw_markings(canvas, street, rng)


def _draw_slabs(canvas: Canvas, x0: float, x1: float, stone: Colour) -> None:
    seam = mixed(stone, (60, 58, 56), 0.35)
    rows = np.stack([flat(x0, x1, z, z + 0.05) for z in np.arange(3.0, 34.0, 1.5)])
    canvas.ground(rows, seam, canvas.stuff(SIDEWALK))
    middle = 0.5 * (x0 + x1)
    canvas.ground(flat(middle, middle + 0.04, NEAR, 40.0), seam, canvas.stuff(SIDEWALK))


def _draw_wear(canvas: Canvas, street: Street, asphalt: Colour, rng: np.random.Generator) -> None:
    road = canvas.stuff(ROAD)
    for middle in street.lane_centres():
        for track in (-0.75, 0.75):
            x = middle + track
            canvas.ground(flat(x - 0.25, x + 0.25, NEAR, FAR), asphalt, road, 0.93)
    for _ in range(int(rng.integers(4, 10))):
        x, z = rng.uniform(-street.road, street.road - 2.0), rng.uniform(4.0, 45.0)
        patch = flat(x, x + rng.uniform(0.5, 2.0), z, z + rng.uniform(0.6, 6.0))
        canvas.ground(patch, asphalt, road, rng.uniform(0.87, 1.07))
    for _ in range(int(rng.integers(1, 4))):
        x, z = rng.uniform(-street.road + 1, street.road - 1), rng.uniform(6.0, 30.0)
        angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
        lid = np.stack([x + 0.35 * np.cos(angles), 0 * angles, z + 0.35 * np.sin(angles)], axis=1)
        canvas.ground(lid, (54, 54, 56), road)
    for _ in range(int(rng.integers(2, 6))):
        start = np.array([rng.uniform(-street.road, street.road), 0.0, rng.uniform(4.0, 25.0)])
        steps = np.cumsum(rng.normal(0, 0.5, (6, 3)) * (1, 0, 1) + (0, 0, 0.5), axis=0)
        crack = start + steps
        crack[:, 0] = np.clip(crack[:, 0], -street.road, street.road)
        crack[:, 2] = np.maximum(crack[:, 2], NEAR)
        canvas.stroke(crack, 0.008, mixed(asphalt, (40, 40, 42), 0.5), road)


def _draw_markings(canvas: Canvas, street: Street, rng: np.random.Generator) -> None:
    road, white = canvas.stuff(ROAD), pick(rng, [(216, 216, 210)])
    ends = [(NEAR, FAR)] if street.crossing is None else [
        (NEAR, street.crossing[0] - 5.0), (street.crossing[1] + 5.0, FAR)]  # fmt: skip
    double = rng.random() < 0.35
    for near, far in ends:
        if far <= near:
            continue
        for lane in range(1, street.lanes):
            x = (lane - street.lanes / 2) * LANE
            if lane * 2 == street.lanes and double:
                for offset in (-0.14, 0.14):
                    line = flat(x + offset - 0.06, x + offset + 0.06, near, far)
                    canvas.ground(line, white, road)
            else:
                starts = np.arange(near, min(far, 110.0), 6.0)
                dashes = [flat(x - 0.07, x + 0.07, z, min(z + 3.0, far)) for z in starts]
                canvas.ground(np.stack(dashes), white, road)
    if street.crossing is not None:
        stripes = np.arange(-street.road + 0.4, street.road - 0.4, 1.0)
        for z in (street.crossing[0] - 3.4, street.crossing[1] + 0.8):
            canvas.ground(np.stack([flat(x, x + 0.5, z, z + 2.6) for x in stripes]), white, road)
        stop = street.crossing[0] - 4.6
        canvas.ground(flat(0.1, street.road, stop, stop + 0.4), white, road)


def draw_rails(canvas: Canvas, x: float) -> None:
    """Lay the two rails of a tram line into the road."""
    for rail in (x - 0.72, x + 0.72):
        canvas.ground(flat(rail - 0.05, rail + 0.05, NEAR, FAR), (128, 124, 120),
                       canvas.stuff(ROAD))  # fmt: skip
        canvas.ground(flat(rail + 0.05, rail + 0.1, NEAR, FAR), (48, 46, 46),
                       canvas.stuff(ROAD))  # fmt: skip


def _sheet(origin: np.ndarray, along: np.ndarray, rectangles: np.ndarray) -> np.ndarray:
    # Rectangles (K, 4) of (a0, a1, y0, y1) on the upright plane `origin + a * along`.
    a = rectangles[:, [0, 1, 1, 0]]
    y = rectangles[:, [2, 2, 3, 3]]
    points = origin + a[..., None] * along
    points[..., 1] = y
    return points


def draw_building(
    canvas: Canvas, side: int, x: float, near: float, far: float, rng: np.random.Generator
) -> None:
    """Draw a house whose street front stands at `x`, with the end wall that shows before it."""
    height = rng.uniform(6.6, 9.0) if rng.random() < 0.3 else rng.uniform(9.0, 24.0)
    paint = pick(rng, FACADES)
    style = _FacadeStyle(rng, paint, height, canvas.light.lit)
    street_front = (np.array([x, 0.0, near]), np.array([0.0, 0.0, 1.0]), far - near)
    end_wall = (np.array([x, 0.0, near]), np.array([float(side), 0.0, 0.0]), 14.0)
    normals = np.array([[0.0, 0.0, -1.0], [-side, 0.0, 0.0]])
    shades = canvas.light.shades(normals)
    gable = height < 9.0 and rng.random() < 0.7
    if gable:
        roof = [
            (x, height, near),
            (x + side * 14.0, height, near),
            (x + side * 7, height + 4, near),
        ]
        canvas.polygon(np.array(roof), paint, canvas.stuff(BUILDING), float(shades[0]))
    for (origin, along, length), shade in zip((end_wall, street_front), shades, strict=True):
        is_front = along[2] > 0
        _draw_facade(canvas, origin, along, length, paint, float(shade), style, is_front, rng)


class _FacadeStyle:
    """How all the walls of one house look."""

    def __init__(self, rng: np.random.Generator, paint: Colour, height: float, lit: float) -> None:
        self.height = height
        self.storey = rng.uniform(2.9, 3.5)
        self.pitch = rng.uniform(2.0, 3.4)
        self.window = (rng.uniform(0.45, 0.72) * self.pitch, rng.uniform(0.45, 0.62) * self.storey)
        self.frame = (226, 224, 218) if rng.random() < 0.7 else (84, 72, 62)
        plinth = pick(rng, [(96, 90, 86), (136, 126, 116), (80, 82, 88)])
        self.base = mixed(paint, plinth, rng.uniform(0.3, 0.8))
        self.shops = rng.random() < 0.55
        self.ledges = rng.random() < 0.5
        self.lit = lit * 0.45


def _draw_facade(
    canvas: Canvas,
    origin: np.ndarray,
    along: np.ndarray,
    length: float,
    paint: Colour,
    shade: float,
    style: _FacadeStyle,
    is_front: bool,
    rng: np.random.Generator,
) -> None:
    segment = canvas.stuff(BUILDING)

    def fill(
        rectangles: np.ndarray, colour: Colour, factor: float = 1.0, glow: bool = False
    ) -> None:
        if len(rectangles):
            sheet = _sheet(origin, along, np.asarray(rectangles, float))
            canvas.polygons(sheet, colour, segment, shade * factor, glow)

    fill([(0, length, 0, style.height)], paint)
    fill([(0, length, 0, style.storey)], style.base)
    # Far away the windows alone make a house.
    detailed = origin[2] < FACADE_DETAIL_END
    wide, tall = style.window
    columns = int((length - 0.6) // style.pitch)
    floors = int((style.height - 0.5) // style.storey)
    if columns < 1:
        return
    first = 0.5 * (length - columns * style.pitch) + 0.5 * (style.pitch - wide)
    a = first + style.pitch * np.arange(columns)
    y = style.storey * np.arange(1, floors) + 0.28 * style.storey
    a, y = (grid.ravel() for grid in np.meshgrid(a, y))
    windows = np.stack([a, a + wide, y, y + tall], axis=1)
    if len(windows) and not detailed:
        fill(windows, PANE)
    elif len(windows):
        fill(windows + np.array([-0.1, 0.1, -0.12, 0.1]), style.frame)
        kind = rng.random(len(windows))
        lit = kind < style.lit
        fill(windows[~lit], PANE)
        fill(windows[lit], (250, 206, 128), glow=True)
        drawn = windows[(kind > 0.8) & ~lit]
        drawn[:, 2] += 0.45 * tall
        fill(drawn, (184, 178, 166))
        sky = windows[(kind < 0.8) & ~lit]
        sky = np.stack([sky[:, 0], 0.5 * (sky[:, 0] + sky[:, 1]), sky[:, 2] + 0.5 * tall,
                        sky[:, 3]], axis=1)  # fmt: skip
        fill(sky, mixed(PANE, canvas.light.sky_low, 0.3))
    if not detailed:
        return
    if style.ledges:
        ledges = [(0, length, k * style.storey - 0.1, k * style.storey + 0.08)
                  for k in range(1, floors + 1)]  # fmt: skip
        fill(ledges, paint, 1.15)
    fill([(0, length, style.height - 0.45, style.height)], paint, 0.78)
    _draw_ground_floor(fill, a[:columns], wide, length, style, is_front, rng)


def _draw_ground_floor(
    fill: Callable[..., None],
    a: np.ndarray,
    wide: float,
    length: float,
    style: _FacadeStyle,
    is_front: bool,
    rng: np.random.Generator,
) -> None:
    top = style.storey
    if len(a) == 0:
        return
    if style.shops and is_front:
        shops = np.array([(s - 0.2, s + wide + 0.3, 0.4, top - 0.9) for s in a])
        glows = rng.random() < style.lit * 2
        fill(shops, (252, 220, 160) if glows else (64, 76, 88), glow=glows)
        board = pick(
            rng, [(160, 40, 44), (36, 84, 120), (46, 92, 66), (214, 180, 70), (50, 50, 56)]
        )
        fill([(0.3, length - 0.3, top - 0.75, top - 0.2)], board)
    else:
        fill([(s, s + wide, 0.9, top - 0.7) for s in a], PANE)
    door = int(rng.integers(len(a)))
    fill([(a[door], a[door] + min(wide, 1.1), 0.0, top - 0.8)], (66, 48, 38))


def draw_skyline(canvas: Canvas, rng: np.random.Generator) -> None:
    """Close the view with far houses and trees."""
    x = -75.0
    while x < 75.0:
        width, depth = rng.uniform(7.0, 16.0), rng.uniform(150.0, 190.0)
        if rng.random() < 0.62:
            height = rng.uniform(7.0, 26.0)
            house = [(x, 0, depth), (x + width, 0, depth), (x + width, height, depth),
                     (x, height, depth)]  # fmt: skip
            canvas.polygon(np.array(house, float), pick(rng, FACADES), canvas.stuff(BUILDING), 0.85)
        else:
            draw_tree(canvas, Placement(x + 0.5 * width, depth), rng.uniform(8.0, 14.0), rng)
        x += width * 0.93


def draw_tree(canvas: Canvas, at: Placement, height: float, rng: np.random.Generator) -> None:
    """Draw a tree, trunk and crown, `height` metres tall."""
    segment = canvas.stuff(VEGETATION)
    trunk = rng.uniform(0.22, 0.4)
    base = height * rng.uniform(0.28, 0.38)
    bark = pick(rng, [(84, 66, 50), (98, 86, 74)])
    canvas.stroke(at.facing([(0, 0), (0, base + 0.2 * height)]), trunk, bark, segment, 0.8)
    canvas.stroke(at.facing([(trunk * 0.2, 0), (trunk * 0.2, base)]), trunk * 0.3, bark, segment)
    wide, tall = height * rng.uniform(0.24, 0.34), (height - base) * 0.5
    _draw_leaves(canvas, at, (0.0, base + tall), (wide, tall), segment, rng)


def draw_bush(
    canvas: Canvas, at: Placement, width: float, height: float, rng: np.random.Generator
) -> None:
    """Draw a bush that fills `width` by `height` metres."""
    middle, radii = (0.0, 0.42 * height), (0.5 * width, 0.45 * height)
    _draw_leaves(canvas, at, middle, radii, canvas.stuff(VEGETATION), rng)


def _draw_leaves(
    canvas: Canvas,
    at: Placement,
    middle: tuple[float, float],
    radii: tuple[float, float],
    segment: int,
    rng: np.random.Generator,
) -> None:
    clumps = int(np.clip(1000.0 * min(radii) / at.z / 2.2, 12, 110))
    # Clumps from the dark lower back to the sunny top, each within the ellipse of the crown.
    angle, reach = rng.uniform(0, 2 * np.pi, clumps), np.sqrt(rng.uniform(0, 1, clumps)) * 0.86
    offsets = np.stack([np.cos(angle), np.sin(angle)], axis=1) * reach[:, None]
    side = np.sign(canvas.light.sun[0])
    sunny = 0.8 * offsets[:, 1] + 0.45 * side * offsets[:, 0] + rng.normal(0, 0.22, clumps)
    order = np.argsort(sunny)
    centres = at.facing(np.array(middle) + offsets[order] * radii)
    sizes = rng.uniform(1.5, 2.6, clumps) * min(radii) / clumps**0.5
    sizes = np.maximum(sizes * np.linspace(1.25, 0.7, clumps), 0.05)
    leaf = pick(rng, LEAVES)
    ranks = np.linspace(0.5, 1.3, clumps) * rng.uniform(0.9, 1.1, clumps)
    colours = [tuple(c * r for c in leaf) for r in ranks.tolist()]
    canvas.balls(centres, sizes, colours, segment)


def draw_wall(canvas: Canvas, x: float, near: float, far: float, rng: np.random.Generator) -> None:
    """Draw a wall of brick or plaster along the street."""
    height = rng.uniform(1.6, 2.8)
    paint = pick(rng, [(150, 92, 76), (172, 166, 156), (136, 130, 122)])
    origin, along, segment = np.array([x, 0.0, near]), np.array([0.0, 0.0, 1.0]), canvas.stuff(WALL)
    length = far - near
    shade = float(canvas.light.shades(np.array([[-np.sign(x), 0.0, 0.0]]))[0])
    canvas.polygons(
        _sheet(origin, along, np.array([(0, length, 0, height)])), paint, segment, shade
    )
    courses = np.array([(0, length, y, y + 0.03) for y in np.arange(0.3, height, 0.3)])
    canvas.polygons(_sheet(origin, along, courses), paint, segment, shade * 0.86)
    coping = _sheet(origin, along, np.array([(0, length, height - 0.14, height + 0.04)]))
    canvas.polygons(coping, mixed(paint, (230, 226, 218), 0.5), segment, shade)


def draw_fence(canvas: Canvas, x: float, near: float, far: float, rng: np.random.Generator) -> None:
    """Draw a fence along the street; what shows between its bars counts as fence."""
    height, gap = rng.uniform(1.0, 1.7), rng.uniform(0.22, 0.4)
    paint = pick(rng, [(46, 52, 50), (112, 84, 58), (206, 204, 198)])
    origin, along = np.array([x, 0.0, near]), np.array([0.0, 0.0, 1.0])
    segment, length = canvas.stuff(FENCE), far - near
    canvas.polygons(_sheet(origin, along, np.array([(0, length, 0, height)])), None, segment)
    bars = np.array([(a, a + 0.09, 0.06, height) for a in np.arange(0, length, gap)])
    rails = np.array([(0, length, y, y + 0.08) for y in (0.2, height - 0.25)])
    for part in (bars, rails):
        canvas.polygons(_sheet(origin, along, part), paint, segment, 0.9)
