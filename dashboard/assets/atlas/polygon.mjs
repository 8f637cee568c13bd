// Outlines drawn by hand: simplification, and a point-in-polygon test that gives the same result as the server's.

/**
 * Even-odd rule. dashboard/maps/data.py does the same operations in the same order.
 * @param {Corners} corners @param {number} x @param {number} y
 */
export function inside(corners, x, y) {
  let within = false;
  for (let i = 0, j = corners.length - 2; i < corners.length; j = i, i += 2) {
    const xi = corners[i],
      yi = corners[i + 1],
      xj = corners[j],
      yj = corners[j + 1];
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) within = !within;
  }
  return within;
}

/**
 * Douglas-Peucker: drop corners that lie within `tolerance` of the line without them; at most `most` remain.
 * @param {number[]} corners @param {number} tolerance @param {number} [most]
 */
export function simplify(corners, tolerance, most = 90) {
  let kept = thin(corners, tolerance);
  while (kept.length / 2 > most) {
    tolerance *= 1.5;
    kept = thin(corners, tolerance);
  }
  return kept;
}

/** @param {number[]} corners @param {number} tolerance */
function thin(corners, tolerance) {
  const n = corners.length / 2;
  if (n < 4) return corners.slice();
  const keep = new Uint8Array(n);
  keep[0] = keep[n - 1] = 1;
  const open = [[0, n - 1]];
  for (const [a, b] of open) {
    let far = -1,
      most = tolerance;
    for (let i = a + 1; i < b; i++) {
      const d = distance(corners, i, a, b);
      if (d > most) [far, most] = [i, d];
    }
    if (far > 0) {
      keep[far] = 1;
      open.push([a, far], [far, b]);
    }
  }
  const kept = [];
  for (let i = 0; i < n; i++) if (keep[i]) kept.push(corners[2 * i], corners[2 * i + 1]);
  return kept;
}

/** @param {Corners} p @param {number} i @param {number} a @param {number} b */
function distance(p, i, a, b) {
  const dx = p[2 * b] - p[2 * a],
    dy = p[2 * b + 1] - p[2 * a + 1];
  const x = p[2 * i] - p[2 * a],
    y = p[2 * i + 1] - p[2 * a + 1];
  const length = dx * dx + dy * dy;
  const t = length ? Math.min(1, Math.max(0, (x * dx + y * dy) / length)) : 0;
  return Math.hypot(x - t * dx, y - t * dy);
}

/**
 * Corners as written in an address: seven digits, so that browser and server test the same polygon.
 * @param {number[]} corners
 */
export function rounded(corners) {
  return corners.map((v) => Number(v.toPrecision(7)));
}
