"""The nuclei of a procedural patch: what they are, how they are drawn, and PanNuke's masks of them."""

import numpy as np

NEOPLASTIC, INFLAMMATORY, CONNECTIVE, DEAD, EPITHELIAL, BACKGROUND = range(6)  # channels of a PanNuke mask

#: One nucleus: centre as row, column; angle of the long axis against the columns in radians; kind as above.
NUCLEUS = np.dtype([("centre", float, 2), ("radius", float), ("elongation", float), ("angle", float), ("kind", int)])


def make_nuclei(centre, radius, elongation, angle, kind, rng: np.random.Generator) -> np.ndarray:
    """(N,) of ``NUCLEUS`` at ``centre`` (N, 2), sizes and shapes varied about ``radius`` and ``elongation``.

    One in fifty is dead, that is small, round and dark.
    """
    nuclei = np.zeros(len(centre), NUCLEUS)
    dead = rng.random(len(centre)) < 0.02
    varied = np.exp(0.1 * rng.standard_normal((2, len(centre))))
    nuclei["centre"], nuclei["angle"] = centre, angle
    nuclei["radius"] = radius * varied[0] * np.where(dead, 0.7, 1)
    nuclei["elongation"] = np.where(dead, 1, np.maximum(1, elongation * varied[1]))
    nuclei["kind"] = np.where(dead, DEAD, kind)
    return nuclei


def paint_nuclei(nuclei: np.ndarray, vesicular: float, side: int, rng) -> tuple[np.ndarray, np.ndarray]:
    """Draw all nuclei at once: haematoxylin (side, side) float32, and labels (side, side) int.

    A label is 0, or 1 + the index of the nucleus that covers the pixel. Every nucleus is an ellipse with a
    soft edge in a window W x W of its own; where nuclei overlap, the darker value and the later label count.
    """
    if len(nuclei) == 0:
        return np.zeros((side, side), np.float32), np.zeros((side, side), int)
    column = nuclei[:, None, None]  # (N, 1, 1), against windows (N, W, W)
    half = int(np.ceil((nuclei["radius"] * np.sqrt(nuclei["elongation"])).max())) + 1
    span = np.arange(-half, half + 1)
    corner = np.rint(nuclei["centre"]).astype(int)
    down = span[:, None] + (corner - nuclei["centre"])[:, 0, None, None]
    right = span[None, :] + (corner - nuclei["centre"])[:, 1, None, None]
    stretch = np.sqrt(column["elongation"])
    along = (right * np.cos(column["angle"]) + down * np.sin(column["angle"])) / stretch
    across = (down * np.cos(column["angle"]) - right * np.sin(column["angle"])) * stretch
    rho = np.hypot(along, across) / column["radius"]  # 1 on the outline
    cover = np.clip((1 - rho) * column["radius"] + 0.5, 0, 1)
    darkness = np.where(column["kind"] == DEAD, 1.35, 1) * rng.uniform(0.8, 1.15, column.shape)
    value = cover * darkness * (1 - 0.55 * vesicular * np.clip(1 - rho * rho, 0, 1))

    margin = half + int(np.ceil(max(-corner.min(), corner.max() - side, 0))) + 1
    rows = np.broadcast_to(corner[:, 0, None, None] + span[:, None] + margin, rho.shape)
    columns = np.broadcast_to(corner[:, 1, None, None] + span[None, :] + margin, rho.shape)
    haematoxylin = np.zeros((side + 2 * margin, side + 2 * margin))
    labels = np.zeros(haematoxylin.shape, int)
    np.maximum.at(haematoxylin, (rows, columns), value)
    nucleus, row, col = np.nonzero(cover >= 0.5)
    labels[rows[nucleus, row, col], columns[nucleus, row, col]] = nucleus + 1
    window = slice(margin, margin + side)
    return haematoxylin[window, window].astype(np.float32), labels[window, window]


def instance_masks(labels: np.ndarray, nuclei: np.ndarray) -> np.ndarray:
    """PanNuke's masks (6, side, side) float64 of the nuclei that ``paint_nuclei`` labelled.

    Channels 0–4 hold instance ids of a nucleus type, 0 elsewhere; channel 5 is 1 where there is no nucleus.
    """
    kind = np.concatenate([[BACKGROUND], nuclei["kind"]])[labels]
    masks = np.where(np.arange(6)[:, None, None] == kind, labels, 0).astype(np.float64)
    masks[BACKGROUND] = labels == 0
    return masks
